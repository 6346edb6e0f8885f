package consensus_test

import (
	"container/heap"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/consensus"
	"github.com/shoal-dev/shoal/gossip/consensus/consensustest"
)

// The tests by seed run a fleet of cores without goroutines: one queue of
// events, one source of randomness, and virtual time. The same seed and the same
// faults give the same run to the last bit.

const (
	simNodes   = 5
	simLength  = 60 * time.Second
	simCalm    = 45 * time.Second // no fault begins or lasts after it
	simSegment = 64 << 10
	simBase    = 2 // the epoch
)

// event is something that happens at a time. Of events at the same time the
// earlier scheduled happens first.
type event struct {
	at   time.Duration
	seq  uint64
	node int // -1 for those of the fleet
	do   func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}

// simNode is a machine of the simulated fleet.
type simNode struct {
	name    string
	member  string
	disk    *consensustest.Disk
	core    *consensus.Core // nil while it is down
	raftID  uint64
	tick    time.Duration
	stalled time.Duration // until when it does nothing
	lazy    bool          // its clock stands still
	damaged bool          // its disk was damaged; it comes back under another raft ID
	hurt    bool          // what is wrong with its disk was planted
	ledger  gossip.Ledger
}

// fleet is a run.
type fleet struct {
	rng     *rand.Rand
	now     time.Duration
	queue   events
	seq     uint64
	nodes   []*simNode
	byID    map[uint64]*simNode
	planted consensus.Planted
	reuse   bool // the planted mistake of coming back under the same raft ID

	// The network.
	cut      map[[2]int]bool
	loss     float64
	dup      float64
	delay    time.Duration
	storm    bool     // whoever votes loses its power at once, and is back at once
	wanted   []uint64 // voters, while overridden
	damages  int      // nodes that lost their log, and are not back
	number   uint64
	proposed map[uint64]gossip.Command
	verify   map[uint64]uint64 // index that was acknowledged when it was asked

	// What must hold.
	leaders map[uint64]uint64
	history map[uint64]gossip.Hash
	newest  gossip.Ledger
	acked   uint64 // the highest index of an acknowledged command
	answers int
	broken  string
	trace   interface {
		Write([]byte) (int, error)
		Sum64() uint64
	}
}

// newFleet returns a fleet of five voters, which begins as a recovered one does.
func newFleet(t *testing.T, seed uint64, planted consensus.Planted) *fleet {
	t.Helper()
	cryptotest.SetGlobalRandom(t, seed)
	f := &fleet{
		rng: rand.New(rand.NewPCG(seed, 1)), planted: planted, byID: map[uint64]*simNode{}, cut: map[[2]int]bool{},
		proposed: map[uint64]gossip.Command{}, verify: map[uint64]uint64{}, leaders: map[uint64]uint64{},
		history: map[uint64]gossip.Hash{}, trace: fnv.New64a(),
	}
	l := newLedger(t)
	voters := []uint64{1}
	for i := 2; i <= simNodes; i++ {
		for _, command := range []gossip.Command{addToken(i), addMember(i)} {
			next, err := l.Apply(l.Index+1, command)
			if err != nil {
				t.Fatal(err)
			}
			l = next
		}
		voters = append(voters, uint64(i))
	}
	l, err := l.Recovered(simBase, voters)
	if err != nil {
		t.Fatal(err)
	}
	f.newest = l
	for i := range simNodes {
		n := &simNode{
			name: fmt.Sprintf("n%d", i+1), member: gossip.MemberID(key(i + 1)), disk: &consensustest.Disk{}, raftID: uint64(i + 1),
			tick: consensus.TickInterval * time.Duration(950+f.rng.IntN(100)) / 1000, ledger: l,
		}
		if err := consensus.Recover(n.disk, n.raftID, 1, l); err != nil {
			t.Fatal(err)
		}
		f.nodes = append(f.nodes, n)
		f.byID[n.raftID] = n
	}
	for i := range f.nodes {
		f.open(i)
		f.ticks(i, time.Duration(f.rng.Int64N(int64(consensus.TickInterval))))
	}
	f.every(130*time.Millisecond, f.client)
	f.every(330*time.Millisecond, f.reader)
	f.every(500*time.Millisecond, f.tend)
	return f
}

func (f *fleet) at(when time.Duration, node int, do func()) {
	f.seq++
	heap.Push(&f.queue, event{when, f.seq, node, do})
}

func (f *fleet) every(interval time.Duration, do func()) {
	f.at(f.now+interval, -1, func() { do(); f.every(interval, do) })
}

func (f *fleet) ticks(i int, in time.Duration) {
	f.at(f.now+in, i, func() {
		if n := f.nodes[i]; n.core != nil && !n.lazy {
			n.core.Tick()
		}
		f.ticks(i, f.nodes[i].tick)
	})
}

// run lets everything happen until a time, or until an invariant is broken.
func (f *fleet) run(until time.Duration) {
	for f.broken == "" && len(f.queue) > 0 && f.queue[0].at <= until {
		e := heap.Pop(&f.queue).(event)
		f.now = e.at
		if e.node >= 0 && f.nodes[e.node].stalled > f.now {
			f.at(f.nodes[e.node].stalled, e.node, e.do)
			continue
		}
		e.do()
		for i := range f.nodes {
			if e.node < 0 || e.node == i {
				f.collect(i)
			}
		}
	}
	f.now = until
}

func (f *fleet) breaks(format string, args ...any) {
	if f.broken == "" {
		f.broken = fmt.Sprintf("%v: ", f.now) + fmt.Sprintf(format, args...)
	}
}

// open starts a node on what its disk holds.
func (f *fleet) open(i int) {
	n := f.nodes[i]
	if n.core != nil {
		return
	}
	core, err := consensus.OpenPlanted(n.disk, simSegment, consensus.CoreConfig{CompactEvery: 30, Keep: 10}, f.planted)
	var damaged *consensus.Damaged
	switch {
	case err == nil:
		n.core = core
		f.collect(i)
	case errors.As(err, &damaged):
		f.lost(n, err)
	case errors.Is(err, consensustest.ErrPower), errors.Is(err, consensustest.ErrIO), errors.Is(err, consensustest.ErrNoSpace), errors.Is(err, consensus.ErrNone):
		if errors.Is(err, consensus.ErrNone) && !n.damaged {
			f.breaks("%s: %v", n.name, err)
		}
	default:
		f.breaks("%s cannot be opened: %v", n.name, err)
	}
}

// lost notes that a node must come back under another raft ID.
func (f *fleet) lost(n *simNode, err error) {
	if !n.hurt {
		f.breaks("%s, whose disk is well: %v", n.name, err)
	}
	n.core = nil
	if !n.damaged {
		n.damaged = true
		f.damages++
	}
}

// down ends a node. Nothing that it has not written survives.
func (f *fleet) down(i int, keep func() bool) {
	n := f.nodes[i]
	n.core = nil
	n.disk.Restart(keep)
}

// collect takes what a core made, checks it, and sends its messages.
func (f *fleet) collect(i int) {
	n := f.nodes[i]
	if n.core == nil {
		return
	}
	out := n.core.Ready()
	term, leads, index, failed := n.core.Brief()
	for _, m := range out.Messages {
		f.send(i, m)
	}
	for _, a := range out.Applied {
		f.applied(n, a)
	}
	for _, number := range out.Verified {
		if index < f.verify[number] {
			f.breaks("%s confirmed that it leads at index %d, but %d was acknowledged before it was asked", n.name, index, f.verify[number])
		}
	}
	if leads {
		if other, known := f.leaders[term]; known && other != n.raftID {
			f.breaks("%d and %d both lead in term %d", other, n.raftID, term)
		}
		f.leaders[term] = n.raftID
	}
	if !out.Empty() {
		fmt.Fprintf(f.trace, "%d %d %d %v %d %d %x\n", f.now, i, term, leads, index, len(out.Messages), f.history[index])
	}
	var damaged *consensus.Damaged
	switch {
	case failed == nil:
		if n.disk.Off() {
			n.core = nil // the power went where the core could go on without its disk
		}
	case errors.As(failed, &damaged):
		f.lost(n, failed)
	case errors.Is(failed, consensustest.ErrPower), errors.Is(failed, consensustest.ErrIO):
		n.core = nil // whoever broke the disk starts the node again
	default:
		f.breaks("%s takes part no more: %v", n.name, failed)
	}
}

// applied checks what a node applied.
func (f *fleet) applied(n *simNode, a consensus.Applied) {
	l := a.Ledger
	if command, known := f.proposed[a.Number]; known {
		if c := command.Claim; c != nil && a.Refused == nil && n.ledger.Index+1 == l.Index && n.ledger.Claims[c.Identity].Claim != c.Previous {
			f.breaks("%s was given to %s, which did not know of the claim %+v", c.Identity, c.Node, n.ledger.Claims[c.Identity])
		}
		delete(f.proposed, a.Number)
		f.answers++
		f.acked = max(f.acked, l.Index)
	}
	if known, seen := f.history[l.Index]; seen && known != l.Hash {
		f.breaks("at index %d %s has the ledger %s, another node %s", l.Index, n.name, l.Hash, known)
	}
	f.history[l.Index] = l.Hash
	for _, old := range []gossip.Ledger{n.ledger, f.newest} {
		if old.Index > l.Index {
			continue
		}
		for identity, holder := range l.Claims {
			if before := old.Claims[identity]; before != holder && !before.Claim.Less(holder.Claim) {
				f.breaks("the claim of %s went from %+v to %+v", identity, before, holder)
			}
		}
	}
	n.ledger = l
	if l.Index > f.newest.Index {
		f.newest = l
	}
}

// send lets the network do with a message what it does.
func (f *fleet) send(from int, m consensus.Message) {
	to := f.byID[m.To()]
	if to == nil || to.raftID != m.To() {
		return
	}
	target, sender := slices.Index(f.nodes, to), f.nodes[from].raftID
	if f.storm && m.Raft.GetType() == raftpb.MsgVoteResp {
		f.at(f.now, -1, func() { f.down(from, f.some()) })
		f.at(f.now+time.Millisecond, -1, func() { f.mend(from) })
	}
	copies := 1
	if f.dup > 0 && f.rng.Float64() < f.dup {
		copies = 2
	}
	for range copies {
		if f.cut[[2]int{from, target}] || f.loss > 0 && f.rng.Float64() < f.loss {
			continue
		}
		delay := time.Duration(200+f.rng.IntN(2000)) * time.Microsecond
		if f.delay > 0 {
			delay += time.Duration(f.rng.Int64N(int64(f.delay)))
		}
		sent := m
		if copies > 1 || f.rng.IntN(16) == 0 {
			sent = f.copied(m)
		}
		f.at(f.now+delay, target, func() {
			if to.core != nil && to.raftID == m.To() {
				_ = to.core.Step(sender, sent) // as lost
			}
		})
	}
}

// copied sends a message over the wire.
func (f *fleet) copied(m consensus.Message) consensus.Message {
	raw, err := m.Encode()
	if err != nil {
		f.breaks("encode %v: %v", m.Raft, err)
		return m
	}
	back, err := consensus.DecodeMessage(raw)
	if err != nil || !proto.Equal(back.Raft, m.Raft) {
		f.breaks("%v became %v: %v", m.Raft, back.Raft, err)
	}
	return back
}

// client proposes something, at a leader or somewhere else.
func (f *fleet) client() {
	if f.now > simLength-3*time.Second {
		return // what is acknowledged must have time to arrive
	}
	n := f.nodes[f.rng.IntN(len(f.nodes))]
	for _, other := range f.nodes {
		if other.core == nil || f.rng.IntN(4) == 0 {
			continue
		}
		if _, leads, _, _ := other.core.Brief(); leads {
			n = other
		}
	}
	if n.core == nil || n.stalled > f.now {
		return
	}
	l := n.core.Ledger()
	command := addToken(f.rng.IntN(8))
	if f.rng.IntN(3) > 0 {
		identity := string(rune('a' + f.rng.IntN(5)))
		command = gossip.Command{Now: day.Add(f.now), Claim: &gossip.Claim{
			Identity: identity, Node: fmt.Sprintf("n%d", 1+f.rng.IntN(simNodes)), Previous: l.Claims[identity].Claim,
		}}
	}
	f.propose(n, command)
}

func (f *fleet) propose(n *simNode, command gossip.Command) {
	f.number++
	f.proposed[f.number] = command
	if n.core.Propose(f.number, command) != nil {
		delete(f.proposed, f.number)
	}
}

// reader asks everybody who believes to lead for a confirmation.
func (f *fleet) reader() {
	for _, n := range f.nodes {
		if n.core == nil || n.stalled > f.now {
			continue
		}
		if _, leads, _, _ := n.core.Brief(); leads {
			f.number++
			f.verify[f.number] = f.acked
			_ = n.core.Verify(f.number) // whoever does not lead any more says so
		}
	}
}

// tend is what the daemons around the consensus do: say who should vote, and
// bring back who lost its log.
func (f *fleet) tend() {
	for _, n := range f.nodes {
		if n.core == nil || n.stalled > f.now {
			continue
		}
		if _, leads, _, _ := n.core.Brief(); !leads {
			continue
		}
		l := n.core.Ledger()
		for i, other := range f.nodes {
			if other.core != nil && !f.cut[[2]int{slices.Index(f.nodes, n), i}] {
				other.core.Inform(l)
			}
		}
		wanted := f.wanted
		if wanted == nil {
			for _, m := range l.Living() {
				wanted = append(wanted, m.RaftID)
			}
			slices.Sort(wanted)
		}
		n.core.SetVoters(wanted)
		for _, other := range f.nodes {
			if !other.damaged {
				continue
			}
			m := l.Members[other.member]
			if m.RaftID == other.raftID && !f.reuse {
				f.propose(n, gossip.Command{Now: day.Add(f.now), Rejoin: &gossip.Rejoin{ID: other.member, Old: other.raftID}})
				continue
			}
			f.rejoin(other, m.RaftID)
		}
	}
}

func (f *fleet) rejoin(n *simNode, raftID uint64) {
	n.disk.Restart(nil)
	n.disk.Fill(false)
	n.disk.Break(false)
	if err := consensus.Join(n.disk, raftID, simBase); err != nil {
		f.breaks("%s joins again: %v", n.name, err)
		return
	}
	delete(f.byID, n.raftID)
	n.raftID, n.damaged, n.hurt, n.ledger = raftID, false, false, gossip.Ledger{}
	f.byID[raftID] = n
	f.damages--
	f.open(slices.Index(f.nodes, n))
}

// settled checks what must be so once the faults are over: somebody leads, and
// all have every command that was acknowledged.
func (f *fleet) settled() {
	living := 0
	for _, id := range f.newest.VoterIDs {
		if n := f.byID[id]; n != nil && n.raftID == id && !n.damaged {
			living++
		}
	}
	if 2*living <= len(f.newest.VoterIDs) {
		return // the voters are gone for good
	}
	var lines []string
	leaders := 0
	for _, n := range f.nodes {
		if n.core == nil {
			lines = append(lines, n.name+" is down")
			continue
		}
		_, leads, index, _ := n.core.Brief()
		if leads {
			leaders++
		}
		s := n.core.State()
		if index < f.acked && (s.Voter || f.newest.Votes(n.raftID)) {
			lines = append(lines, fmt.Sprintf("%s (%d) has %d of %d acknowledged entries: %+v", n.name, n.raftID, index, f.acked, s))
		}
	}
	if leaders != 1 || len(lines) > 0 {
		f.breaks("%d lead; %s", leaders, strings.Join(lines, "; "))
	}
}
