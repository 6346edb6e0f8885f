package gossip

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// The tests by seed run a fleet of cores without goroutines: the consensus is
// played by an oracle that keeps the rules of one, every machine has its own
// clocks and a fencer, and five exclusive identities are run by whoever has the
// claim and the lease. The same seed and the same faults give the same run.

const (
	drillStep  = 50 * time.Millisecond
	drillCalm  = 60 * time.Second // no fault begins or lasts after it
	drillMerge = 15 * time.Second // then all are one again
	drillLong  = 85 * time.Second // and then every identity runs, long leases or not
	settleFor  = 2 * time.Second  // see package runtime/agent
	fenceAfter = 10 * time.Second // see package runtime/fence
	identities = 5
)

// drill is a run.
type drill struct {
	t       testing.TB
	rng     *rand.Rand
	now     time.Duration // since the beginning
	nodes   []*machine
	byID    map[string]*machine
	transit []shipment
	arrival map[[2]int]time.Duration // of the last message on each link
	planted Planted

	// The network.
	cut   map[[2]int]int // how many faults cut a link
	loss  float64
	delay time.Duration
	stuck bool // what is long, as a ledger, hardly gets through
	liar  int  // that forges what it can; -1 when nobody does

	plan   []planned
	oracle oracle
	ledger Ledger
	raw    []byte // of the ledger
	ghosts ghosts
	broken string
	// verbose tells what happens.
	verbose bool
	trace   interface {
		Write([]byte) (int, error)
		Sum64() uint64
	}
}

// machine is one node: its clock, its daemon, its fencer and what it runs.
type machine struct {
	*Core
	index   int
	id      string
	name    string
	private ed25519.PrivateKey
	raftID  uint64

	on      bool          // the machine has power
	running bool          // its daemon runs
	stalled time.Duration // until when the daemon does nothing
	wall    time.Duration // by how much its wall clock is wrong
	base    time.Duration // local time is base + (now - booted) * rate
	booted  time.Duration
	rate    float64
	begun   time.Duration // local time at which the daemon started
	leaving bool          // it asked for a long lease and ends once it has it

	ledger  Ledger // its copy
	runs    map[string]api.Claim
	said    map[string]api.Claim // the same as the board was told
	lease   time.Duration        // as the fencer was told
	long    bool
	leased  time.Duration // there has been a lease without a gap since; local
	round   uint64
	roundAt time.Duration
	inbox   []Message // while it is stalled
}

type shipment struct {
	at       time.Duration
	from, to int
	m        Message
}

func (m *machine) local(now time.Duration) time.Duration {
	return m.base + time.Duration(float64(now-m.booted)*m.rate)
}

func (m *machine) wallClock(now time.Duration) time.Time {
	return time.Unix(1700000000, 0).Add(now + m.wall)
}

func (m *machine) awake(now time.Duration) bool { return m.on && m.running && now >= m.stalled }

// votes reports whether a machine votes.
func (d *drill) votes(i int) bool { return d.ledger.Votes(d.nodes[i].raftID) }

func newDrill(t testing.TB, seed uint64, planted Planted) *drill {
	t.Helper()
	d := &drill{
		t: t, rng: rand.New(rand.NewPCG(seed, 11)), byID: map[string]*machine{}, arrival: map[[2]int]time.Duration{},
		planted: planted, cut: map[[2]int]int{}, liar: -1, trace: fnv.New64a(), ghosts: newGhosts(),
	}
	n := 3 + d.rng.IntN(3)
	var founder Member
	for i := range n {
		raw := sha256.Sum256(fmt.Appendf(nil, "%d %d", seed, i))
		private := ed25519.NewKeyFromSeed(raw[:])
		public := private.Public().(ed25519.PublicKey)
		m := &machine{index: i, id: MemberID(public), name: fmt.Sprintf("n%d", i), private: private, raftID: uint64(i + 1), on: true, runs: map[string]api.Claim{}}
		m.base, m.rate = time.Duration(d.rng.Int64N(int64(30*24*time.Hour))), 1+(d.rng.Float64()-0.5)/25
		d.nodes, d.byID[m.id] = append(d.nodes, m), m
		if i == 0 {
			founder = Member{Name: m.name, Key: public}
		}
	}
	day := time.Unix(1700000000, 0)
	l, err := NewLedger(Fleet{ID: "f", ClusterCIDR: "10.64.0.0/11"}, founder, make([]byte, 32), day)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range d.nodes[1:] {
		token := sha256.Sum256([]byte(m.name))
		for _, c := range []Command{
			{Now: day, AddToken: &AddToken{Hash: hex.EncodeToString(token[:]), Expires: day.Add(time.Hour)}},
			{Now: day, AddMember: &AddMember{Name: m.name, Key: m.private.Public().(ed25519.PublicKey), Token: hex.EncodeToString(token[:])}},
		} {
			if l, err = l.Apply(l.Index+1, c); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.commit(l.Follow(l.Index+1, nil, []uint64{1, 2, 3}))
	d.oracle.known = make([]oracleVoter, n)
	for _, m := range d.nodes {
		m.ledger = d.ledger
		d.boot(m)
	}
	return d
}

// commit makes a ledger the newest one.
func (d *drill) commit(l Ledger) {
	raw, err := l.Encode()
	if err != nil {
		d.t.Fatal(err)
	}
	d.ledger, d.raw = l, raw
}

// boot starts a machine's daemon, with what is on its disk.
func (d *drill) boot(m *machine) {
	m.running, m.stalled, m.inbox, m.leased, m.round, m.leaving, m.said = true, 0, nil, 0, 0, false, nil
	m.begun = m.local(d.now)
	d.oracle.known[m.index].follows = false // nobody starts as a leader
	m.Core = NewCore(CoreConfig{
		Fleet: "f", Key: m.private, Boot: m.wallClock(d.now).UnixNano(), planted: d.planted,
		Self: Peer{ID: m.id, Name: m.name, Key: m.private.Public().(ed25519.PublicKey)},
	})
	d.adopt(m, m.ledger)
	m.Tick(m.local(d.now), m.wallClock(d.now))
	d.say(m, Info, api.NodeInfo{Name: m.name, PodCIDR: m.ledger.Members[m.id].PodCIDR})
	d.ghosts.booted(m)
}

// say lets a node say something of itself.
func (d *drill) say(m *machine, kind Kind, value any) {
	if err := m.SetOwn(m.local(d.now), kind, value); err != nil {
		d.breaks("%s says what it runs: %v", m.name, err)
	}
}

// adopt makes a ledger a machine's own.
func (d *drill) adopt(m *machine, l Ledger) {
	m.ledger = l
	var peers []Peer
	for id, member := range l.Members {
		peers = append(peers, Peer{
			ID: id, Name: member.Name, Key: member.Key, Voter: l.Votes(member.RaftID), Removed: member.Removed, Handover: member.Handover,
		})
	}
	m.SetRoster(peers)
	raw := d.raw
	if l.Index != d.ledger.Index {
		raw, _ = l.Encode() // it was decoded
	}
	m.SetLedger(l.Epoch, l.Index, raw)
}

// catchUp gives a machine the newest ledger.
func (d *drill) catchUp(m *machine) {
	if m.ledger.Index < d.ledger.Index {
		d.adopt(m, d.ledger)
	}
}

// halt ends a machine's daemon; off takes the power away as well.
func (d *drill) halt(m *machine, off bool) {
	m.running = false
	if off {
		m.on, m.runs = false, map[string]api.Claim{}
	}
}

// start brings a machine back.
func (d *drill) start(m *machine) {
	if !m.on {
		m.on, m.base, m.booted, m.lease, m.long = true, time.Duration(d.rng.Int64N(int64(20*time.Second))), d.now, 0, false
	}
	if !m.running {
		d.boot(m)
	}
}

func (d *drill) breaks(format string, args ...any) {
	if d.broken == "" {
		d.broken = fmt.Sprintf("%v: ", d.now) + fmt.Sprintf(format, args...)
	}
}

// run lets everything happen until a time, or until an invariant is broken.
func (d *drill) run(until time.Duration, each func()) {
	for ; d.now < until && d.broken == ""; d.now += drillStep {
		each()
		d.deliver()
		d.elect()
		for _, m := range d.nodes {
			d.fence(m)
			if !m.awake(d.now) {
				continue
			}
			for _, message := range m.inbox {
				d.take(m, message)
			}
			m.inbox = nil
			m.Tick(m.local(d.now), m.wallClock(d.now))
			d.live(m)
			d.collect(m)
		}
		d.forge()
		d.check()
	}
}

// collect takes what a core wants sent.
func (d *drill) collect(m *machine) {
	for _, message := range m.Ready() {
		to := d.byID[message.To]
		if to == nil {
			d.breaks("%s sends a message to %q", m.name, message.To)
			return
		}
		d.ghosts.sent(d, m, to, message)
		d.post(m.index, to.index, message)
	}
	for _, event := range m.Events() {
		fmt.Fprintf(d.trace, "%d %d %s\n", d.now, m.index, event)
		if d.verbose {
			d.t.Logf("%8v %s %s", d.now, m.name, event)
		}
	}
}

// post lets the network do with a message what it does. Those between two nodes
// arrive in their order.
func (d *drill) post(from, to int, m Message) {
	if d.cut[[2]int{from, to}] > 0 || d.loss > 0 && d.rng.Float64() < d.loss {
		return
	}
	if d.stuck && m.Grant != nil && m.Grant.Ledger != nil && d.rng.IntN(10) > 0 {
		return
	}
	if d.rng.IntN(32) == 0 {
		raw, err := Encode(m)
		if err == nil {
			m = Message{}
			err = Decode(raw, &m)
		}
		if err != nil {
			d.breaks("over the wire: %v", err)
		}
	}
	link := [2]int{from, to}
	at := d.now + time.Millisecond
	if d.delay > 0 {
		at += time.Duration(d.rng.Int64N(int64(d.delay)))
	}
	at = max(at, d.arrival[link])
	d.arrival[link] = at
	d.transit = append(d.transit, shipment{at, from, to, m})
}

// deliver hands over what has arrived.
func (d *drill) deliver() {
	late := d.transit[:0:0]
	for i := 0; i < len(d.transit); i++ { // it grows meanwhile
		p := d.transit[i]
		if p.at > d.now {
			late = append(late, p)
			continue
		}
		m := d.nodes[p.to]
		switch {
		case !m.on || !m.running || d.cut[[2]int{p.from, p.to}] > 0:
		case d.now < m.stalled:
			m.inbox = append(m.inbox, p.m)
		default:
			d.take(m, p.m)
			d.collect(m)
		}
	}
	d.transit = late
}

func (d *drill) take(m *machine, message Message) {
	err := m.Step(m.local(d.now), message)
	d.ghosts.taken(d, m, message, err)
}

// live is what the daemon around the core does: it takes in ledgers, asks for
// quorum rounds, moves claims, tells the fencer of leases, and starts and stops
// what its node may run.
func (d *drill) live(m *machine) {
	if raw := m.TakeLedger(); raw != nil {
		if l, err := DecodeLedger(raw); err != nil {
			d.breaks("%s: %v", m.name, err)
		} else if l.Index > m.ledger.Index {
			d.adopt(m, l)
		}
	}
	d.lead(m)
	local := m.local(d.now)
	if sent, long := m.Lease(), m.LongLease(); sent > m.lease || long >= m.lease && long > 0 {
		if sent-m.lease > fenceAfter-3*time.Second {
			m.leased = 0 // there was a gap, whether or not anybody looked
		}
		m.lease, m.long = max(sent, long), long > 0 && long >= sent
	}
	if !m.valid(local) {
		m.leased = 0
	} else if m.leased == 0 {
		m.leased = local
	}
	if m.leaving {
		if m.long {
			d.halt(m, false)
		}
		return
	}
	for i := range identities {
		identity := fmt.Sprint("x", i)
		holder, granted := m.ledger.Claims[identity]
		claim, runs := m.runs[identity]
		switch {
		case runs && granted && claim != holder.Claim:
			delete(m.runs, identity)
		case !runs && granted && holder.Node == m.name && m.leased > 0 && local-m.leased >= settleFor && m.valid(local):
			m.runs[identity] = holder.Claim
		}
	}
	if m.said == nil || !maps.Equal(m.runs, m.said) {
		d.say(m, States, m.states())
		m.said = maps.Clone(m.runs)
	}
}

// valid reports whether something may be started under the machine's lease.
func (m *machine) valid(local time.Duration) bool {
	return m.lease > 0 && local < m.lease+m.term()-3*time.Second
}

func (m *machine) term() time.Duration {
	if m.long {
		return HandoverLease
	}
	return fenceAfter
}

// fence is the fencer's work: it goes on whatever the daemon does.
func (d *drill) fence(m *machine) {
	if m.on && m.local(d.now) >= m.lease+m.term() {
		clear(m.runs)
	}
}

func (m *machine) states() api.PodStates {
	out := api.PodStates{Node: m.name}
	for i := range identities {
		if claim, runs := m.runs[fmt.Sprint("x", i)]; runs {
			out.Pods = append(out.Pods, api.PodState{
				Pod: api.Pod{Identity: api.Identity{Namespace: "d", Kind: "Pod", Owner: fmt.Sprint("x", i)}, Instance: fmt.Sprint("x", i, "-", m.index)}, Claim: claim,
			})
		}
	}
	return out
}

// lead is what a leader's daemon does.
func (d *drill) lead(m *machine) {
	if m.round != 0 && d.now > m.roundAt {
		if d.confirms(m.index) {
			d.catchUp(m)
			m.Verified(m.round)
		}
		m.round = 0
	}
	if d.now%(500*time.Millisecond) == 0 {
		m.round, m.roundAt = m.Round(), d.now
	}
	if d.now%time.Second != 0 || !m.Leads() || !d.confirms(m.index) {
		return
	}
	for _, o := range d.nodes {
		if on, wanted := m.Handovers()[o.id]; wanted {
			d.propose(Command{Handover: &Handover{ID: o.id, On: on}})
		}
	}
	released := m.Released()
	for i := range identities {
		identity := fmt.Sprint("x", i)
		holder, granted := m.ledger.Claims[identity]
		if granted && !slices.Contains(released, holder.Node) {
			continue
		}
		if to := d.wellKnown(m); to != "" {
			d.propose(Command{Claim: &Claim{Identity: identity, Node: to, Previous: holder.Claim}})
		}
	}
}

// wellKnown returns a node that a leader takes to be well.
func (d *drill) wellKnown(m *machine) string {
	b := m.Board()
	for _, i := range d.rng.Perm(len(d.nodes)) {
		if name := d.nodes[i].name; b.HealthOf(name).Status == api.NodeAlive {
			return name
		}
	}
	return ""
}

// propose changes the ledger; the caller has made sure that a quorum agrees.
func (d *drill) propose(c Command) {
	c.Now = time.Unix(1700000000, 0).Add(d.now)
	l, _ := d.ledger.Apply(d.ledger.Index+1, c) // a refusal is part of the log
	d.commit(l)
}
