package gossip

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// Timers of the fleet. Their reasons are in docs/adr/0012-leases.md.
const (
	RenewEvery      = 500 * time.Millisecond  // a node renews its lease
	SuspectAfter    = 1500 * time.Millisecond // of silence: peers are asked
	LostAfter       = 2500 * time.Millisecond // of silence, and no peer reached it
	ActingLostAfter = 4 * time.Second         // the same for a leader without a quorum, see patience
	OrphanAfter     = 3 * time.Second         // without a quorate leader: somebody must act
	AnswerWithin    = time.Second             // by which a lower node must answer, or the next one acts
	resendAfter     = time.Second             // what was sent and is not confirmed is sent again
	compareEvery    = time.Second             // with one peer after another
	refusalHolds    = 10 * time.Second        // after it was last heard
	tickSlack       = 20 * time.Millisecond   // what is due that soon does not wait for the next tick
)

// A Peer is a node of the roster, as far as talking to it goes.
type Peer struct {
	ID      string // see identity
	Name    string
	Key     ed25519.PublicKey
	Voter   bool
	Removed bool
	// Handover says that the ledger has noted that the node's lease may be a
	// long one, because its daemon is about to be restarted.
	Handover bool
}

// CoreConfig says who this node is.
type CoreConfig struct {
	Fleet string
	Self  Peer
	Key   ed25519.PrivateKey
	Boot  int64 // Unix nanoseconds at which the daemon started
	Solo  bool  // this node was never in company: it need not ask around

	planted Planted
}

// Core is all that a node decides about its company: whom to follow, what to
// tell whom, and, as the leader, who is alive. It does nothing by itself: it is
// given the time, messages and what the consensus says, and is asked for
// messages to send:
//
//	for {
//		select {
//		case m := <-received:
//			core.Step(now, m)
//		case <-ticker:
//			core.Tick(now)
//		}
//		for _, m := range core.Ready() {
//			send(m) // without waiting; it may be lost
//		}
//	}
//
// Times are those of a clock that never steps and that counts while the machine
// sleeps. Equal calls lead to equal messages. It is not safe for concurrent use.
type Core struct {
	cfg     CoreConfig
	now     time.Duration
	wall    time.Time
	roster  map[string]Peer
	peers   []Peer            // without this node and those removed, by ID
	names   map[string]string // IDs by name
	records *Records
	seq     api.Seq
	outbox  []Message
	heard   map[string]time.Duration // when each peer was last heard of directly
	events  []string                 // for the log

	// As a follower.
	authority Authority // the one that is followed
	granted   time.Duration
	lease     time.Duration // Sent of the newest renewal that a quorum confirmed
	long      time.Duration // the same of renewals that asked for a long lease, and were granted it
	handover  bool          // a long lease is wanted: the daemon is about to be restarted
	renewed   time.Duration // when the last renewal was sent
	renewals  uint64
	asked     int           // peers that were asked for a leader, in turn
	quorate   time.Duration // when a quorate leader was last heard of
	pinged    time.Duration // when the lower nodes were asked; zero when they were not
	set       Document
	facts     Document
	ledger    ledgerCopy
	fresh     []byte // a ledger that came and was not taken out yet
	born      time.Duration
	health    []api.NodeHealth // as the leader says
	// healthQuorate says that it was one with a quorum.
	healthQuorate bool
	leaving       bool
	refused       string
	refusedAt     time.Duration
	sent          map[Kind]outgoing // own records on their way to the leader
	wantAll       bool              // the leader asked for the digest
	compared      time.Duration
	turn          int    // exchanges so far
	salt          uint64 // makes every node begin with another peer

	probes     map[string][]string // who asked whether a node is reached
	revision   uint64              // of the health of followers
	pendingOwn time.Duration
	lastingOwn bool

	lead *lead // non-nil while this node leads
	raft Authority
}

// ledgerCopy is the replicated ledger as it is handed to those that do not vote.
type ledgerCopy struct {
	ledgerVersion
	raw []byte
}

// ledgerVersion is how far a ledger goes.
type ledgerVersion struct{ epoch, index uint64 }

// less reports whether v is older.
func (v ledgerVersion) less(other ledgerVersion) bool {
	return v.epoch < other.epoch || v.epoch == other.epoch && v.index < other.index
}

type outgoing struct {
	version Version
	at      time.Duration
}

// NewCore returns a core that knows nobody but itself.
func NewCore(cfg CoreConfig) *Core {
	c := &Core{
		cfg: cfg, heard: map[string]time.Duration{}, probes: map[string][]string{}, sent: map[Kind]outgoing{}, seq: api.Seq{Boot: cfg.Boot},
	}
	for _, b := range []byte(cfg.Self.ID) {
		c.salt = c.salt*31 + uint64(b)
	}
	c.SetRoster([]Peer{cfg.Self})
	c.records = NewRecords(cfg.Fleet, func(node string) (ed25519.PublicKey, bool) {
		p, known := c.roster[node]
		return p.Key, known && !p.Removed
	})
	c.records.planted = cfg.planted
	return c
}

// SetRoster tells who belongs to the fleet. The whole roster comes at once.
func (c *Core) SetRoster(peers []Peer) {
	c.roster, c.names = make(map[string]Peer, len(peers)+1), make(map[string]string, len(peers)+1)
	for _, p := range append([]Peer{c.cfg.Self}, peers...) {
		c.roster[p.ID] = p
		if !p.Removed {
			c.names[p.Name] = p.ID
		}
	}
	c.peers = nil
	for _, p := range c.roster {
		if p.ID != c.cfg.Self.ID && !p.Removed {
			c.peers = append(c.peers, p)
		}
	}
	slices.SortFunc(c.peers, func(a, b Peer) int { return strings.Compare(a.ID, b.ID) })
	if c.records == nil {
		return
	}
	c.records.Forget(func(node string) bool { return !c.roster[node].Removed && c.roster[node].ID != "" })
	for id := range c.heard {
		if _, member := c.roster[id]; !member {
			delete(c.heard, id)
		}
	}
}

// SetRaft tells what the consensus says: who leads it, and in which term. A
// Leader of "" means that nobody does, or that this node does not vote.
func (c *Core) SetRaft(now time.Duration, a Authority) {
	c.now = now
	c.raft = a
	switch {
	case a.Leader == c.cfg.Self.ID && c.deposed(a):
		// Its consensus is the last to hear of it.
	case a.Leader == c.cfg.Self.ID:
		c.takeLead(a)
	case c.lead != nil && c.lead.authority.Quorate:
		c.layDown("the consensus has deposed this node")
	}
	if a.Known() && a.Leader != c.cfg.Self.ID && a.Beats(c.authority) && !c.deposed(a) {
		if c.lead != nil {
			c.layDown("a better authority is there: " + c.named(a))
		}
		c.follow(a)
	}
}

// TakeLedger returns the ledger that the leader sent since the last call, nil
// when it sent none.
func (c *Core) TakeLedger() []byte {
	out := c.fresh
	c.fresh = nil
	return out
}

// SetLedger hands in the newest replicated ledger, for those that do not vote.
func (c *Core) SetLedger(epoch, index uint64, raw []byte) {
	if v := (ledgerVersion{epoch, index}); c.ledger.less(v) {
		c.ledger = ledgerCopy{v, raw}
	}
}

// SetOwn says something new of this node: an api.NodeInfo, api.PodStates or
// api.Usage. Saying the same again does nothing.
func (c *Core) SetOwn(now time.Duration, kind Kind, value any) error {
	c.now = now
	old := c.records.Get(c.cfg.Self.ID, kind)
	next, err := NewRecord(old, c.cfg.Fleet, c.cfg.Self.ID, kind, api.Seq{Boot: c.seq.Boot, N: c.seq.N + 1}, value, c.cfg.Key)
	if err != nil || next.Seq == old.Seq {
		return err
	}
	c.seq = next.Seq
	c.records.Put(next)
	c.changed(next.key(), old)
	if kind != Usage && c.lead == nil {
		c.renew() // the leader need not wait for it
	}
	return nil
}

// SetDecision hands in what this node decided as the leader. What a node decides
// that does not lead is dropped.
func (c *Core) SetDecision(set api.AssignmentSet, facts api.Facts) error {
	if c.lead == nil {
		return nil
	}
	next, err := EncodeFacts(c.facts, facts)
	if err != nil {
		return err
	}
	c.facts = next
	if !set.Known() {
		return nil // a leader without a memory that has not heard everybody yet
	}
	if next, err = EncodeSet(c.set, set); err != nil {
		return err
	}
	c.set = next
	return nil
}

// Restore hands in the decisions that were kept from before the daemon's start.
func (c *Core) Restore(set api.AssignmentSet, facts api.Facts) error {
	var err error
	if c.set, err = EncodeSet(Document{}, set); err != nil {
		return err
	}
	c.facts, err = EncodeFacts(Document{}, facts)
	return err
}

// Leave makes the following renewals say goodbye.
func (c *Core) Leave() { c.leaving = true }

// Tick tells the time; wall is only shown to people.
func (c *Core) Tick(now time.Duration, wall time.Time) {
	c.now, c.wall = now, wall
	if c.born == 0 {
		c.born = now
	}
	if c.lead != nil {
		if c.lead.authority.Quorate {
			c.quorate = now
		}
		c.watch()
	} else {
		if now-c.renewed >= RenewEvery-tickSlack {
			c.renew()
		}
		c.orphan()
	}
	if now-c.compared >= compareEvery {
		c.compare()
	}
}

// Step takes in a message. The transport vouches for its From. An error says
// what is wrong with the message; nothing else follows from it.
func (c *Core) Step(now time.Duration, m Message) error {
	c.now = now
	peer, member := c.roster[m.From]
	switch {
	case m.To != c.cfg.Self.ID:
		return fmt.Errorf("a message of %s is for %s", m.From, m.To)
	case m.From == c.cfg.Self.ID:
		return fmt.Errorf("a message of another node with this node's key: its state folder was copied")
	case !member:
		return fmt.Errorf("a message of %s, which is not in the roster", m.From)
	case peer.Removed:
		c.send(Message{To: m.From, Grant: &Grant{Refused: "the node was removed from the fleet"}})
		return fmt.Errorf("a message of %s, which was removed from the fleet", peer.Name)
	}
	c.heard[m.From] = now
	return c.take(m, "")
}

// take acts on a message of a member; via names the relay that brought it.
func (c *Core) take(m Message, via string) error {
	switch {
	case m.Renewal != nil:
		return c.renewal(m.From, via, m.Renewal)
	case m.Grant != nil:
		return c.grant(m.From, m.Grant)
	case m.Ping != nil:
		if !m.Ping.Pong {
			c.send(Message{To: m.From, Ping: &Ping{N: m.Ping.N, Pong: true}})
		} else {
			c.reached(m.From)
		}
	case m.Probe != nil:
		c.probe(m.From, m.Probe)
	case m.Digest != nil:
		return c.answer(m.From, m.Digest)
	case m.Updates != nil:
		return c.learn(m.Updates.Updates)
	case m.Relay != nil:
		return c.relay(m.From, m.Relay)
	}
	return nil
}

// relay passes a message on, or takes it in when it is for this node.
func (c *Core) relay(from string, r *Relay) error {
	if r.Target != c.cfg.Self.ID {
		if from == r.Origin && c.knows(r.Target) { // once: a relay does not pass on to another
			c.send(Message{To: r.Target, Relay: r})
		}
		return nil
	}
	origin, member := c.roster[r.Origin]
	if !member || origin.Removed {
		return fmt.Errorf("a relayed message of %s, which is not in the roster", r.Origin)
	}
	m, err := unwrap(c.cfg.Fleet, r, origin.Key)
	if c.cfg.planted == PlantedUnsignedRelay {
		err = Decode(r.Payload, &m)
	}
	if err != nil {
		return err
	}
	return c.take(m, from)
}

func (c *Core) knows(id string) bool {
	p, member := c.roster[id]
	return member && !p.Removed
}

func (c *Core) send(m Message) {
	m.From = c.cfg.Self.ID
	c.outbox = append(c.outbox, m)
}

// sendVia sends a message through a third node, signed.
func (c *Core) sendVia(via string, m Message) {
	m.From = c.cfg.Self.ID
	if r, err := wrap(c.cfg.Fleet, m, c.cfg.Key); err == nil { // a message of our own always marshals
		c.send(Message{To: via, Relay: r})
	}
}

// Ready returns the messages to send, in order, and forgets them.
func (c *Core) Ready() []Message {
	if c.lead != nil {
		c.push()
	}
	out := c.outbox
	c.outbox = nil
	return out
}

// Events returns what happened that people want to know, and forgets it.
func (c *Core) Events() []string {
	out := c.events
	c.events = nil
	return out
}

func (c *Core) say(format string, args ...any) {
	c.events = append(c.events, fmt.Sprintf(format, args...))
}

// others returns the peers in the order of their IDs, without this node and
// those that were removed.
func (c *Core) others() []Peer { return c.peers }

// learn takes in records. A change of a version that this node does not have is
// not an error: an exchange brings the whole.
func (c *Core) learn(updates []Update) error {
	var first error
	for _, u := range updates {
		if err := c.apply(u); err != nil && first == nil && !errors.Is(err, errBase) {
			first = err
		}
	}
	return first
}

// apply takes in one record.
func (c *Core) apply(u Update) error {
	if u.Node == c.cfg.Self.ID {
		c.outdo(u)
		return nil
	}
	old := c.records.Get(u.Node, u.Kind)
	fresh, err := c.records.Apply(u)
	if fresh {
		c.changed(u.key(), old)
	}
	return err
}

// outdo renews this node's own records when somebody has newer ones: the clock
// went back since the last start, or the state folder came from a backup.
func (c *Core) outdo(u Update) {
	if !c.seq.Less(u.Seq) || !u.Verify(c.cfg.Fleet, c.cfg.Self.Key) {
		return
	}
	c.seq = api.Seq{Boot: u.Seq.Boot + 1}
	for _, kind := range kinds {
		record := c.records.Get(c.cfg.Self.ID, kind)
		if !record.Body.Known() {
			continue
		}
		c.seq.N++
		header := Header{Node: c.cfg.Self.ID, Kind: kind, Seq: c.seq, Hash: record.Hash}
		c.records.Put(Record{header.Sign(c.cfg.Fleet, c.cfg.Key), record.Body})
	}
	clear(c.sent)
}

// changed notes that a record was replaced, for those that must hear of it.
func (c *Core) changed(k key, old Record) {
	if c.lead == nil || k.kind == Usage {
		return
	}
	if _, noted := c.lead.changes[k]; !noted {
		c.lead.changes[k] = old
	}
}
