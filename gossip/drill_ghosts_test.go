package gossip

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// ghosts are what the invariants remember of a run, and what no node knows.
type ghosts struct {
	elected  map[Authority]bool             // by the consensus, ever
	said     map[utterance]bool             // what nodes said of themselves
	first    map[string]Update              // the first that each node said, for replays
	versions map[*Core]map[key]api.Seq      // newest seen
	followed map[*Core]Authority            // the last quorate one
	renewed  map[*Core]map[string]time.Time // when a core took in a node's last renewal, in its time
	leads    map[*lead]*ghostLead
	together map[[2]int]time.Duration // since when two nodes lead that hear each other
	long     map[*Core]time.Duration
	handed   bool // somebody asked for a long lease
}

// ghostLead is the same of one leader's time.
type ghostLead struct {
	status  map[string]api.NodeStatus
	lost    time.Duration // when it lost somebody last
	asked   map[string]time.Duration
	checked time.Time
	back    map[string][]time.Duration
}

func newGhosts() ghosts {
	return ghosts{
		elected: map[Authority]bool{}, said: map[utterance]bool{}, first: map[string]Update{}, versions: map[*Core]map[key]api.Seq{},
		followed: map[*Core]Authority{}, renewed: map[*Core]map[string]time.Time{}, leads: map[*lead]*ghostLead{},
		together: map[[2]int]time.Duration{}, long: map[*Core]time.Duration{},
	}
}

func (g *ghosts) booted(m *machine) {
	g.versions[m.Core], g.renewed[m.Core] = map[key]api.Seq{}, map[string]time.Time{}
	for link := range g.together {
		if link[0] == m.index || link[1] == m.index {
			delete(g.together, link)
		}
	}
}

// utterance is a header without its signature.
type utterance struct {
	node string
	kind Kind
	Version
}

func bare(h Header) utterance { return utterance{h.Node, h.Kind, Version{h.Seq, h.Hash}} }

// at turns local time into a value that the zero one differs from.
func at(local time.Duration) time.Time { return time.Unix(1, 0).Add(local) }

// sent notes a message.
func (g *ghosts) sent(d *drill, m, to *machine, message Message) {
	if m.lead != nil && message.Ping != nil && !message.Ping.Pong {
		g.of(m.lead).asked[to.id] = m.local(d.now)
	}
}

func (g *ghosts) of(l *lead) *ghostLead {
	out := g.leads[l]
	if out == nil {
		out = &ghostLead{status: map[string]api.NodeStatus{}, asked: map[string]time.Duration{}, back: map[string][]time.Duration{}}
		g.leads[l] = out
	}
	return out
}

// taken notes what came of a message.
func (g *ghosts) taken(d *drill, m *machine, message Message, err error) {
	from, inner := message.From, message
	if r := message.Relay; r != nil && r.Target == m.id {
		opened, wrong := unwrap("f", r, d.byID[r.Origin].private.Public().(ed25519.PublicKey))
		if wrong != nil {
			if err == nil {
				d.breaks("%s took a relayed message that %s did not sign", m.name, d.byID[r.Origin].name)
			}
			return
		}
		from, inner = r.Origin, opened
	}
	if inner.Renewal != nil && m.lead != nil {
		if f := m.lead.followers[from]; f != nil && f.boot == inner.Renewal.Boot {
			g.renewed[m.Core][from] = at(m.local(d.now))
		}
	}
}

// check looks at every invariant.
func (d *drill) check() {
	running := map[string]string{}
	for _, m := range d.nodes {
		for identity := range m.runs {
			if other := running[identity]; other != "" {
				d.breaks("%s and %s both run %s", other, m.name, identity)
			}
			running[identity] = m.name
		}
		if m.awake(d.now) {
			d.ghosts.note(m)
		}
	}
	for _, m := range d.nodes {
		if m.awake(d.now) {
			d.checkRecords(m)
			d.checkAuthority(m)
			d.checkLease(m)
			d.checkHealth(m)
		}
	}
	d.checkLeaders()
}

// note remembers what a node says of itself.
func (g *ghosts) note(m *machine) {
	for _, kind := range kinds {
		if r := m.records.Get(m.id, kind); r.Body.Known() {
			g.said[bare(r.Header)] = true
			if _, known := g.first[m.id]; !known && kind == States {
				g.first[m.id] = Update{r.Header, Diff(Document{}, r.Body)}
			}
		}
	}
}

// checkRecords: what is known of a node is what it said, and never gets older.
func (d *drill) checkRecords(m *machine) {
	seen := d.ghosts.versions[m.Core]
	for k, r := range m.records.all {
		if !d.ghosts.said[bare(r.Header)] {
			d.breaks("%s believes of %s what it never said", m.name, d.byID[k.node].name)
		}
		if r.Seq.Less(seen[k]) {
			d.breaks("%s went back to an older record of %s", m.name, d.byID[k.node].name)
		}
		seen[k] = r.Seq
	}
}

// checkAuthority: quorate leaders were elected, and nobody goes back to one that
// was deposed; without a quorum nothing is released.
func (d *drill) checkAuthority(m *machine) {
	a, _ := m.Authority()
	if a.Quorate {
		if !d.ghosts.elected[a] {
			d.breaks("%s follows %s, which nobody elected", m.name, m.named(a))
		}
		if last := d.ghosts.followed[m.Core]; a.Term < last.Term {
			d.breaks("%s followed %s, and then %s", m.name, m.named(last), m.named(a))
		}
		d.ghosts.followed[m.Core] = a
	}
	if !m.Leads() || !m.lead.authority.Quorate {
		if released := m.Released(); len(released) > 0 {
			d.breaks("%s, without a quorum, releases %v", m.name, released)
		}
	}
}

// checkLease: a lease is of this boot and not of the future, and a long one is
// known to the next leader.
func (d *drill) checkLease(m *machine) {
	local := m.local(d.now)
	for _, sent := range []time.Duration{m.Lease(), m.LongLease()} {
		if sent > local || sent != 0 && sent < m.begun {
			d.breaks("%s has a lease of %v; it is %v, and it started at %v", m.name, sent, local, m.begun)
		}
	}
	if long := m.LongLease(); long > d.ghosts.long[m.Core] {
		d.ghosts.long[m.Core] = long
		if !d.ledger.Members[m.id].Handover {
			d.breaks("%s has a long lease, and the ledger does not say so", m.name)
		}
	}
}

// checkHealth: nobody is lost that was just heard of; a leader asks once more
// before it says that it is not cut off; who comes and goes is unstable.
func (d *drill) checkHealth(m *machine) {
	if m.lead == nil {
		return
	}
	g, local := d.ghosts.of(m.lead), m.local(d.now)
	for id, f := range m.lead.followers {
		name := d.byID[id].name
		was := g.status[id]
		g.status[id] = f.status
		switch {
		case f.status == api.NodeLost && was != api.NodeLost:
			g.lost = local
			if heard := d.ghosts.renewed[m.Core][id]; at(local).Sub(heard) < LostAfter {
				d.breaks("%s lost %s %v after a renewal", m.name, name, at(local).Sub(heard))
			}
		case f.status == api.NodeAlive && was == api.NodeLost:
			g.back[id] = append(g.back[id], local)
			if n := len(g.back[id]); n >= 3 && local-g.back[id][n-3] < 150*time.Second && !f.unstable {
				d.breaks("%s was lost %d times, and %s takes it to be stable", name, n, m.name)
			}
		}
	}
	if !m.lead.checked.Equal(g.checked) {
		g.checked = m.lead.checked
		if local-g.lost < AnswerWithin {
			d.breaks("%s is sure of its connection %v after a loss", m.name, local-g.lost)
		}
		for id, f := range m.lead.followers {
			if f.status == api.NodeLost && f.lostAt >= g.lost && g.asked[id] < g.lost {
				d.breaks("%s is sure of its connection and did not ask %s", m.name, d.byID[id].name)
			}
		}
	}
}

// checkLeaders: of two nodes that hear each other for long, one leads at most.
func (d *drill) checkLeaders() {
	for i, a := range d.nodes {
		for j, b := range d.nodes[:i] {
			link := [2]int{i, j}
			if !d.reaches(i, j) || d.loss > 0 || d.delay > 0 || !a.Leads() || !b.Leads() {
				delete(d.ghosts.together, link)
				continue
			}
			since, known := d.ghosts.together[link]
			if !known {
				d.ghosts.together[link] = d.now
			} else if d.now-since > 6*time.Second {
				d.breaks("%s and %s both lead, and have heard each other for %v", b.name, a.name, d.now-since)
			}
		}
	}
}

// merged checks that all are one again.
func (d *drill) merged() {
	for _, m := range d.nodes {
		a, age := m.Authority()
		switch {
		case a.Leader != d.nodes[d.oracle.leader].id || age > 3*RenewEvery:
			d.breaks("%s follows %s, heard %v ago", m.name, m.named(a), age)
		case slices.ContainsFunc(m.Board().Health, func(h api.NodeHealth) bool { return h.Status != api.NodeAlive }):
			d.breaks("%s believes %v", m.name, m.Board().Health)
		}
	}
}

// agreed reports whether all know the same.
func (d *drill) agreed() bool {
	return !slices.ContainsFunc(d.nodes, func(m *machine) bool { return m.records.Hash(false) != d.nodes[0].records.Hash(false) })
}

// served returns which identities nobody runs.
func (d *drill) served() (missing []string) {
	for i := range identities {
		identity := fmt.Sprint("x", i)
		if !slices.ContainsFunc(d.nodes, func(m *machine) bool { _, runs := m.runs[identity]; return runs }) {
			missing = append(missing, identity)
		}
	}
	return missing
}
