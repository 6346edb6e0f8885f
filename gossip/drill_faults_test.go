package gossip

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// mishap is something that goes wrong at a time, and is well again after a while.
type mishap struct {
	at, last time.Duration
	kind     string
	a, b     int
	size     uint64
}

// String returns "12.3s stall n2 for 1.5s (7)".
func (f mishap) String() string {
	return fmt.Sprintf("%v %s n%d n%d for %v (%d)", f.at, f.kind, f.a, f.b, f.last, f.size)
}

// mishapKinds are all that can go wrong, and how often of each it does.
var mishapKinds = []string{
	"kill", "off", "blackout", "stall", "stall", "freeze", "split", "split", "oneway", "partial", "bridge", "alone", "alone",
	"loss", "delay", "stuck", "clock", "depose", "depose", "upgrade", "upgrade", "liar", "flap", "stranded",
}

// mishaps draws what goes wrong in a run. Each run has some kinds only: rare
// combinations become likely.
func mishaps(seed uint64) []mishap {
	rng := rand.New(rand.NewPCG(seed, 12))
	var kinds []string
	for _, kind := range mishapKinds {
		if rng.IntN(2) == 0 {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) == 0 {
		kinds = mishapKinds
	}
	var out []mishap
	for range 2 + rng.IntN(12) {
		at := 3*time.Second + time.Duration(rng.Int64N(int64(drillCalm-5*time.Second)))
		last := time.Duration(rng.ExpFloat64() * float64(2*time.Second))
		if rng.IntN(2) == 0 {
			last = 10*time.Second + time.Duration(rng.Int64N(int64(25*time.Second)))
		}
		out = append(out, mishap{
			at: at.Truncate(drillStep), last: min(last, drillCalm-at).Truncate(drillStep), kind: kinds[rng.IntN(len(kinds))],
			a: rng.IntN(5), b: rng.IntN(5), size: rng.Uint64() >> 16,
		})
	}
	slices.SortStableFunc(out, func(a, b mishap) int { return int(a.at - b.at) })
	return out
}

// planned is something to do at a time.
type planned struct {
	at time.Duration
	do func()
}

// conduct returns what makes things go wrong, to be called at every step.
func (d *drill) conduct(faults []mishap) func() {
	for _, f := range faults {
		f.a, f.b = f.a%len(d.nodes), f.b%len(d.nodes)
		d.later(f.at, func() { d.later(f.last+drillStep, d.begin(f)) })
	}
	d.later(drillCalm, d.heal)
	return func() {
		for i := 0; i < len(d.plan); i++ { // it grows meanwhile
			if one := d.plan[i]; one.at <= d.now {
				d.plan = slices.Delete(d.plan, i, i+1)
				i--
				one.do()
			}
		}
	}
}

// later does something after a while.
func (d *drill) later(in time.Duration, do func()) {
	d.plan = append(d.plan, planned{d.now + in, do})
}

// flap lets a machine come and go.
func (d *drill) flap(m *machine) {
	for i := range time.Duration(4) {
		d.later(i*6*time.Second, func() {
			if d.now < drillCalm-4*time.Second {
				d.halt(m, true)
			}
		})
		d.later(i*6*time.Second+4*time.Second, func() { d.start(m) })
	}
}

// strand cuts the last node off until its claims are given to others; when it is
// back, what is long hardly gets through.
func (d *drill) strand() {
	apart := d.separate(mishap{kind: "alone", a: len(d.nodes) - 1})
	d.later(ReleaseAfter+2*time.Second, func() {
		apart()
		d.stuck = d.now < drillCalm
	})
	d.later(ReleaseAfter+12*time.Second, func() { d.stuck = false })
}

// heal makes everything well.
func (d *drill) heal() {
	clear(d.cut)
	d.loss, d.delay, d.stuck, d.liar = 0, 0, false, -1
	for _, m := range d.nodes {
		m.stalled = 0
		d.start(m)
	}
}

// begin does what goes wrong, and returns what ends it.
func (d *drill) begin(f mishap) (heal func()) {
	m, nothing := d.nodes[f.a], func() {}
	back := func() { d.start(m) }
	switch f.kind {
	case "kill":
		d.stop(m)
		return back
	case "off":
		d.halt(m, true)
		return back
	case "blackout":
		for _, o := range d.nodes {
			d.halt(o, true)
		}
		return func() {
			for _, o := range d.nodes {
				d.start(o)
			}
		}
	case "stall":
		m.stalled = d.now + time.Duration(f.size%2400)*time.Millisecond
	case "freeze":
		m.stalled = d.now + f.last
	case "loss":
		d.loss = float64(f.size%60) / 100
		return func() { d.loss = 0 }
	case "flap":
		d.flap(m)
	case "stranded":
		d.strand()
	case "stuck":
		d.stuck = true
		return func() { d.stuck = false }
	case "delay":
		d.delay = time.Duration(f.size%3000) * time.Millisecond
		return func() { d.delay = 0 }
	case "clock":
		m.wall += time.Duration(int64(f.size%7200)-3600) * time.Second
	case "depose":
		if d.votes(f.a) && d.majority(f.a, anyVoter) {
			d.crown(f.a)
		}
	case "upgrade":
		if m.awake(d.now) {
			m.HandOver(m.local(d.now))
			m.leaving, d.ghosts.handed = true, true
		}
		return func() { m.leaving = false; d.stop(m); d.start(m) }
	case "liar":
		d.liar = f.a
		return func() { d.liar = -1 }
	default:
		return d.separate(f)
	}
	return nothing
}

// stop ends a daemon; those that it talked to notice.
func (d *drill) stop(m *machine) {
	for _, o := range d.nodes {
		if o != m && d.reaches(o.index, m.index) {
			o.Closed(m.id)
		}
	}
	d.halt(m, false)
}

// separate cuts links.
func (d *drill) separate(f mishap) (heal func()) {
	var links [][2]int
	for i := range d.nodes {
		for j := range d.nodes {
			side := func(n int) bool { return f.size>>n&1 == 1 }
			var cut bool
			switch f.kind {
			case "split":
				cut = side(i) != side(j)
			case "oneway":
				cut = side(i) && !side(j)
			case "partial":
				cut = f.size>>(8+5*i+j)&1 == 1
			case "bridge": // a reaches all, the halves do not reach each other
				cut = side(i) != side(j) && i != f.a && j != f.a
			case "alone":
				cut = i == f.a || j == f.a
			}
			if cut && i != j {
				links = append(links, [2]int{i, j})
			}
		}
	}
	for _, link := range links {
		d.cut[link]++
	}
	return func() {
		for _, link := range links {
			d.cut[link] = max(0, d.cut[link]-1) // all were healed when it became calm
		}
	}
}

// forge lets the liar say what it must not be believed, once a second.
func (d *drill) forge() {
	if d.liar < 0 || d.now%time.Second != 0 || !d.nodes[d.liar%len(d.nodes)].awake(d.now) {
		return
	}
	liar := d.nodes[d.liar%len(d.nodes)]
	for _, victim := range d.nodes {
		about := d.nodes[d.rng.IntN(len(d.nodes))]
		if victim == liar || about == liar || about == victim {
			continue
		}
		body, err := encodeStates(Document{}, api.PodStates{Pods: []api.PodState{{Pod: api.Pod{Instance: fmt.Sprint("forged", d.now)}}}})
		if err != nil {
			d.breaks("forge: %v", err)
		}
		header := Header{Node: about.id, Kind: States, Seq: api.Seq{Boot: about.cfg.Boot + 1, N: 1}, Hash: body.Hash()}
		updates := []Update{{header.Sign("f", liar.private), Diff(Document{}, body)}}
		if old, said := d.ghosts.first[about.id]; said {
			updates = append(updates, old)
		}
		usurper := Authority{Leader: about.id, Quorate: true, Epoch: d.ledger.Epoch, Term: d.oracle.term + 1}
		relay, err := wrap("f", Message{From: about.id, To: victim.id, Grant: &Grant{Authority: usurper}}, liar.private)
		if err != nil {
			d.breaks("forge: %v", err)
		}
		d.post(liar.index, victim.index, Message{From: liar.id, To: victim.id, Updates: &Updates{updates[:1]}})
		d.post(liar.index, victim.index, Message{From: liar.id, To: victim.id, Updates: &Updates{updates[len(updates)-1:]}})
		d.post(liar.index, victim.index, Message{From: liar.id, To: victim.id, Relay: relay})
		d.post(liar.index, victim.index, Message{From: liar.id, To: victim.id, Grant: &Grant{Authority: usurper}})
	}
}
