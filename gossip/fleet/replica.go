package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/consensus"
	"github.com/shoal-dev/shoal/gossip/identity"
)

// replica is this node's copy of the consensus' log, or its absence: a node whose
// copy was damaged or lost goes on without one, as nodes do that do not vote,
// until the leader has given it a new raft ID. With the old one it could break
// promises that it does not remember.
type replica struct {
	disk    *consensus.Folder
	open    func() (*consensus.Node, error)
	changed chan struct{}
	reborn  chan struct{}

	mu      sync.Mutex
	node    *consensus.Node // nil while it is absent
	told    gossip.Ledger   // while it is absent
	missing error           // why it is
	stop    func()          // ends the node's Run; nil while it does not run
	ended   <-chan error    // what came of it
}

// errAbsent is returned for what needs the log, where it is missing.
var errAbsent = errors.New("this node's copy of the fleet's log is missing: it is being given a new one")

// openReplica opens the log in a folder. kept is the ledger that the node
// remembers besides. A damaged log of the only node of a fleet is made anew, in
// a new epoch, from what can be read of it. One of an epoch that is past is not
// used.
func openReplica(disk *consensus.Folder, cfg consensus.Config, kept gossip.Ledger, self identity.Node) (*replica, error) {
	cfg.Disk = disk
	r := &replica{
		disk: disk, open: func() (*consensus.Node, error) { return consensus.Open(cfg) },
		changed: make(chan struct{}, 1), reborn: make(chan struct{}, 1), told: kept,
	}
	var err error
	if r.node, err = r.open(); err == nil {
		return r, r.outdated(kept)
	}
	_, damaged := errors.AsType[*consensus.Damaged](err)
	if lost := errors.Is(err, consensus.ErrNone) && kept.Known(); !damaged && !lost {
		return nil, fmt.Errorf("open the consensus: %w", err)
	}
	r.missing = err
	last := kept
	if salvaged, ok := consensus.Salvage(disk, consensus.DefaultSegment); ok && newer(salvaged, last) {
		last = salvaged
	}
	if !last.Known() {
		return nil, fmt.Errorf("open the consensus: %w, and no other copy of the fleet's ledger is left: run shoal reset and let the node join anew", err)
	}
	r.told = last
	if m := last.Members[self.ID]; len(last.VoterIDs) == 1 && last.Votes(m.RaftID) {
		return r, r.resurrect(last, self)
	}
	return r, nil
}

// resurrect makes the log of the only voter anew. Nobody else knows more than
// this node does; the new epoch keeps whoever heard more from being contradicted
// in silence.
func (r *replica) resurrect(l gossip.Ledger, self identity.Node) error {
	next, err := resurrected(l, self.ID, self.Private)
	if err == nil {
		err = r.recover(next, l.Members[self.ID].RaftID, 1)
	}
	if err != nil {
		return fmt.Errorf("make the fleet's log anew after %w: %w", r.missing, err)
	}
	return nil
}

// recover makes the log of the only voter of a new epoch, whatever there was.
func (r *replica) recover(l gossip.Ledger, raftID, term uint64) error {
	if err := r.retire(fmt.Errorf("epoch %d begins", l.Epoch)); err != nil {
		return err
	}
	if err := consensus.Wipe(r.disk); err != nil {
		return err
	}
	if err := consensus.Recover(r.disk, raftID, term, l); err != nil {
		return err
	}
	return r.begin()
}

// rejoin makes an empty log under a raft ID that no log was ever made for.
func (r *replica) rejoin(raftID, epoch uint64) error {
	if err := consensus.Wipe(r.disk); err != nil {
		return err
	}
	if err := consensus.Join(r.disk, raftID, epoch); err != nil {
		return err
	}
	return r.begin()
}

// begin opens the log that was just made.
func (r *replica) begin() error {
	node, err := r.open()
	if err != nil {
		return fmt.Errorf("open the consensus: %w", err)
	}
	r.mu.Lock()
	r.node, r.missing = node, nil
	r.mu.Unlock()
	poke(r.reborn)
	return nil
}

// outdated retires a log whose epoch is over by what a ledger says.
func (r *replica) outdated(l gossip.Ledger) error {
	state := r.State()
	if state.Epoch == 0 || l.Epoch <= state.Epoch {
		return nil
	}
	return r.retire(fmt.Errorf("the log is of epoch %d, and the fleet is in epoch %d", state.Epoch, l.Epoch))
}

// retire makes this node take part no more, until it has another log.
func (r *replica) retire(why error) error {
	r.mu.Lock()
	node, stop, ended := r.node, r.stop, r.ended
	r.node, r.stop, r.missing = nil, nil, why
	if node != nil && newer(node.Ledger(), r.told) {
		r.told = node.Ledger()
	}
	r.mu.Unlock()
	defer poke(r.changed)
	switch {
	case node == nil:
		return nil
	case stop != nil:
		stop()
		return <-ended
	}
	return shut(node)
}

// shut closes a node that does not run.
func shut(node *consensus.Node) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return node.Run(ctx)
}

func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run takes part until ctx ends, with one log after another.
func (r *replica) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		inner, cancel := context.WithCancel(ctx)
		r.mu.Lock()
		node, told := r.node, r.told
		ended := make(chan error, 1)
		if node != nil {
			r.stop, r.ended = cancel, ended
		}
		r.mu.Unlock()
		if node == nil {
			select {
			case <-ctx.Done():
			case <-r.reborn:
			}
			cancel()
			continue
		}
		err := r.serve(inner, node, told)
		cancel()
		ended <- err
		if ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// serve takes part with one log until ctx ends.
func (r *replica) serve(ctx context.Context, node *consensus.Node, told gossip.Ledger) error {
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-node.Changed():
				poke(r.changed)
			}
		}
	}()
	if told.Known() {
		go func() { _ = node.Inform(ctx, told) }() // it ends with Run; a fork is told of at the next ledger
	}
	return node.Run(ctx)
}

func (r *replica) present() *consensus.Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.node
}

// Absent says why there is no log, nil when there is one.
func (r *replica) Absent() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.missing
}

// The rest is the node's, where there is one.

func (r *replica) State() consensus.State {
	if node := r.present(); node != nil {
		return node.State()
	}
	return consensus.State{}
}

func (r *replica) Ledger() gossip.Ledger {
	if node := r.present(); node != nil {
		return node.Ledger()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told
}

func (r *replica) Propose(ctx context.Context, command gossip.Command) (uint64, error) {
	if node := r.present(); node != nil {
		return node.Propose(ctx, command)
	}
	return 0, errAbsent
}

func (r *replica) Verify(ctx context.Context) error {
	if node := r.present(); node != nil {
		return node.Verify(ctx)
	}
	return errAbsent
}

func (r *replica) SetVoters(ctx context.Context, raftIDs []uint64) error {
	if node := r.present(); node != nil {
		return node.SetVoters(ctx, raftIDs)
	}
	return errAbsent
}

func (r *replica) Transfer(ctx context.Context, to uint64) error {
	if node := r.present(); node != nil {
		return node.Transfer(ctx, to)
	}
	return errAbsent
}

func (r *replica) Receive(from uint64, raw []byte) error {
	if node := r.present(); node != nil {
		return node.Receive(from, raw)
	}
	return nil // it is for the log that was lost
}

func (r *replica) Inform(ctx context.Context, l gossip.Ledger) error {
	r.mu.Lock()
	if newer(l, r.told) {
		r.told = l
	}
	r.mu.Unlock()
	if err := r.outdated(l); err != nil {
		return err
	}
	node := r.present()
	if node == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return node.Inform(ctx, l)
}

// Changed is poked when State or Ledger may be others. One reader only.
func (r *replica) Changed() <-chan struct{} { return r.changed }
