package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-dev/shoal/gossip"
)

// TickInterval is the time between two ticks of a Node.
const TickInterval = 50 * time.Millisecond

// inboxSize is how many messages may wait; more are lost, as on a network.
const inboxSize = 1024

// ErrLost is returned for a command of which nobody knows whether it will be
// applied: the leader changed while it was on its way. Read the ledger, and
// propose again what is still wanted.
var ErrLost = errors.New("the leader changed before the command was applied; it may still be")

// ErrClosed is returned when the node does not run any more.
var ErrClosed = errors.New("the consensus was closed")

// Config configures a Node.
type Config struct {
	Disk    Disk
	Segment int64 // size of a log file; 0 for DefaultSegment
	// Ticks says how many times TickInterval has passed. Ticks that nobody waits
	// for may be lost.
	Ticks <-chan int
	// Send hands a message to the network for a raft ID. It must not block, and
	// may lose the message. It is called by one goroutine.
	Send func(to uint64, raw []byte)
	// CompactEvery and Keep are those of CoreConfig.
	CompactEvery, Keep uint64
}

// Node runs a Core. Its methods may be called concurrently, before, during and
// after Run.
type Node struct {
	cfg     Config
	core    *Core
	store   *Store
	inbox   chan envelope
	calls   chan func()
	done    chan struct{}
	changed chan struct{}

	// These belong to the goroutine of Run.
	number  uint64
	pending map[uint64]proposal
	held    []uint64 // numbers of proposals that wait until the voters have changed
	round   round

	mu     sync.Mutex
	state  State
	ledger gossip.Ledger
	told   gossip.Ledger
}

type envelope struct {
	from uint64
	m    Message
}

// proposal is a command on its way.
type proposal struct {
	command gossip.Command
	term    uint64
	reply   chan<- outcome
}

type outcome struct {
	index uint64
	err   error
}

// round confirms that this node leads, for all who asked before it began.
type round struct {
	number  uint64 // 0 while there is none
	term    uint64
	asked   []chan<- error
	waiting []chan<- error // for the next one
}

// Open opens the store and returns a node that takes part when Run is called. A
// fleet with one voter has its leader when Open returns. The error is ErrNone,
// a *Damaged, or one of the disk.
func Open(cfg Config) (*Node, error) {
	if cfg.Segment == 0 {
		cfg.Segment = DefaultSegment
	}
	store, err := OpenStore(cfg.Disk, cfg.Segment)
	if err != nil {
		return nil, err
	}
	core, err := NewCore(CoreConfig{Store: store, CompactEvery: cfg.CompactEvery, Keep: cfg.Keep})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	n := &Node{
		cfg: cfg, core: core, store: store, inbox: make(chan envelope, inboxSize), calls: make(chan func()),
		done: make(chan struct{}), changed: make(chan struct{}, 1), pending: map[uint64]proposal{},
	}
	// Numbers of this run are higher than those of every run before: the store
	// was written to since.
	n.number = store.root.Seq << 24
	n.state, n.ledger = core.State(), core.Ledger()
	n.deliver()
	return n, nil
}

// Run takes part until the context ends, then closes the store. An error of the
// store does not end it: State.Failed says that this node takes part no more.
func (n *Node) Run(ctx context.Context) error {
	defer close(n.done)
	for {
		select {
		case <-ctx.Done():
			n.abandon(ErrClosed)
			return n.store.Close()
		case passed := <-n.cfg.Ticks:
			for range passed {
				n.core.Tick()
			}
			n.retry()
		case e := <-n.inbox:
			// What is wrong with a message of an honest peer is put right by its
			// next one; others are not worth a word.
			_ = n.core.Step(e.from, e.m)
		case call := <-n.calls:
			call()
		}
		n.deliver()
	}
}

// deliver hands out what the core has made, and what comes of that.
func (n *Node) deliver() {
	for out := n.core.Ready(); !out.Empty(); out = n.core.Ready() {
		n.handOut(out)
	}
	n.mu.Lock()
	n.state.Quiet = n.core.quiet
	n.mu.Unlock()
}

func (n *Node) handOut(out Output) {
	for _, m := range out.Messages {
		if raw, err := m.Encode(); err == nil {
			n.cfg.Send(m.To(), raw)
		}
	}
	state := n.core.State()
	n.mu.Lock()
	n.state, n.ledger = state, n.core.Ledger()
	n.mu.Unlock()
	// Only now: whoever gets the answer finds what it brought about.
	for _, a := range out.Applied {
		if p, mine := n.pending[a.Number]; mine {
			delete(n.pending, a.Number)
			p.reply <- outcome{a.Ledger.Index, a.Refused}
		}
	}
	for _, number := range out.Verified {
		if number == n.round.number {
			n.endRound(nil)
		}
	}
	if !out.Changed {
		return
	}
	for number, p := range n.pending {
		if p.term != state.Term || state.Failed != nil {
			delete(n.pending, number)
			p.reply <- outcome{0, errors.Join(ErrLost, state.Failed)}
		}
	}
	if n.round.number != 0 && (!state.Leads || n.round.term != state.Term) {
		n.endRound(ErrNotLeader)
	}
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// abandon answers everybody who waits.
func (n *Node) abandon(err error) {
	for number, p := range n.pending {
		delete(n.pending, number)
		p.reply <- outcome{0, err}
	}
	n.round.asked, n.round.waiting = append(n.round.asked, n.round.waiting...), nil
	n.endRound(err)
}

// endRound answers who asked, and begins the next round for those who came
// later.
func (n *Node) endRound(err error) {
	for _, reply := range n.round.asked {
		reply <- err
	}
	waiting := n.round.waiting
	n.round = round{}
	n.beginRound(waiting)
}

func (n *Node) beginRound(asked []chan<- error) {
	if len(asked) == 0 {
		return
	}
	n.number++
	n.round = round{number: n.number, term: n.core.State().Term, asked: asked}
	if err := n.core.Verify(n.number); err != nil {
		n.endRound(err)
	}
}

// do runs a call in the goroutine of Run.
func (n *Node) do(ctx context.Context, call func()) error {
	select {
	case n.calls <- call:
		return nil
	case <-n.done:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Propose changes the ledger and returns the index of the command once this node
// has applied it. A command that was applied and changed nothing returns its
// index and a *gossip.Refusal. With ErrNoLeader and ErrFull nothing was
// proposed; with ErrLost and errors of the context the command may or may not be
// applied later. A node that does not vote cannot propose: ask the leader.
func (n *Node) Propose(ctx context.Context, command gossip.Command) (uint64, error) {
	reply := make(chan outcome, 1)
	var number uint64
	err := n.do(ctx, func() {
		n.number++
		number = n.number
		n.pending[number] = proposal{command, n.core.State().Term, reply}
		n.propose(number)
	})
	if err != nil {
		return 0, fmt.Errorf("propose to the consensus: %w", err)
	}
	select {
	case o := <-reply:
		if o.err != nil && o.index == 0 {
			return 0, fmt.Errorf("propose to the consensus: %w", o.err)
		}
		return o.index, o.err
	case <-ctx.Done():
		forget := func() { delete(n.pending, number) }
		_ = n.do(context.WithoutCancel(ctx), forget) // the node may be closed, and has then forgotten
		return 0, fmt.Errorf("propose to the consensus: %w", ctx.Err())
	}
}

// propose hands a pending proposal to the core.
func (n *Node) propose(number uint64) {
	p, wanted := n.pending[number]
	if !wanted {
		return
	}
	switch err := n.core.Propose(number, p.command); {
	case errors.Is(err, ErrBusy):
		n.held = append(n.held, number)
	case err != nil:
		delete(n.pending, number)
		p.reply <- outcome{0, err}
	}
}

// retry proposes again what was held.
func (n *Node) retry() {
	held := n.held
	n.held = nil
	for _, number := range held {
		n.propose(number)
	}
}

// Verify returns nil when a majority of the voters confirmed, after the call,
// that this node leads. All who ask while a round is on its way share the next
// one.
func (n *Node) Verify(ctx context.Context) error {
	reply := make(chan error, 1)
	err := n.do(ctx, func() {
		if n.round.number != 0 {
			n.round.waiting = append(n.round.waiting, reply)
			return
		}
		n.beginRound([]chan<- error{reply})
	})
	if err == nil {
		select {
		case err = <-reply:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		return fmt.Errorf("confirm that this node leads: %w", err)
	}
	return nil
}

// Receive takes a message from the node with this raft ID, of which the caller
// has made sure. It does not block: when too many wait, the message is lost. The
// error is of messages that cannot be read.
func (n *Node) Receive(from uint64, raw []byte) error {
	m, err := DecodeMessage(raw)
	if err != nil {
		return err
	}
	select {
	case n.inbox <- envelope{from, m}:
	default:
	}
	return nil
}

// SetVoters says who should vote while this node leads, see Core.SetVoters.
func (n *Node) SetVoters(ctx context.Context, raftIDs []uint64) error {
	return n.do(ctx, func() { n.core.SetVoters(raftIDs) })
}

// Transfer hands leadership over, 0 for to whoever is best. It returns when that
// has begun; State says when it is done. While it lasts commands get ErrNoLeader.
func (n *Node) Transfer(ctx context.Context, to uint64) error {
	reply := make(chan error, 1)
	if err := n.do(ctx, func() { reply <- n.core.Transfer(to) }); err != nil {
		return err
	}
	return <-reply
}

// Inform tells what ledger a quorate leader has, for nodes that are not part of
// the raft configuration and hear of it by other means. The error says that this
// node's ledger and the leader's have forked, which only a mistake in this
// program or a lying leader can bring about.
func (n *Node) Inform(ctx context.Context, l gossip.Ledger) error {
	n.mu.Lock()
	own := n.ledger
	if newer(l, n.told) {
		n.told = l
	}
	n.mu.Unlock()
	if l.Epoch == own.Epoch && l.Index == own.Index && l.Hash != own.Hash {
		return fmt.Errorf("the ledger forked: at index %d the leader has %s, this node %s", l.Index, l.Hash, own.Hash)
	}
	return n.do(ctx, func() { n.core.Inform(l) })
}

// newer reports whether a is the later ledger.
func newer(a, b gossip.Ledger) bool {
	if a.Epoch != b.Epoch {
		return a.Epoch > b.Epoch
	}
	return a.Index > b.Index
}

// Ledger returns the newest ledger that this node applied or was told.
func (n *Node) Ledger() gossip.Ledger {
	n.mu.Lock()
	defer n.mu.Unlock()
	if newer(n.told, n.ledger) {
		return n.told
	}
	return n.ledger
}

// State returns what the node knows of the consensus.
func (n *Node) State() State {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state
}

// Changed returns a channel that is poked when State or Ledger may be others
// than before. It is for one reader.
func (n *Node) Changed() <-chan struct{} { return n.changed }
