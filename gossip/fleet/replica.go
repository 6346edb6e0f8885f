package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/consensus"
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
}

// errAbsent is returned for what needs the log, where it is missing.
var errAbsent = errors.New("this node's copy of the fleet's log is missing: it is being given a new one")

// openReplica opens the log in a folder. kept is the ledger that the node
// remembers besides. A damaged log of the only node of a fleet is made anew, in
// a new epoch, from what can be read of it.
func openReplica(disk *consensus.Folder, cfg consensus.Config, kept gossip.Ledger, self string) (*replica, error) {
	cfg.Disk = disk
	r := &replica{
		disk: disk, open: func() (*consensus.Node, error) { return consensus.Open(cfg) },
		changed: make(chan struct{}, 1), reborn: make(chan struct{}, 1), told: kept,
	}
	var err error
	if r.node, err = r.open(); err == nil {
		return r, nil
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
	if m := last.Members[self]; len(last.VoterIDs) == 1 && last.Votes(m.RaftID) {
		return r, r.resurrect(last, m.RaftID)
	}
	return r, nil
}

// resurrect makes the log of the only voter anew. Nobody else knows more than
// this node does; the new epoch keeps whoever heard more from being contradicted
// in silence.
func (r *replica) resurrect(l gossip.Ledger, raftID uint64) error {
	next, err := l.Recovered(l.Epoch+1, []uint64{raftID})
	if err == nil {
		err = consensus.Wipe(r.disk)
	}
	if err == nil {
		err = consensus.Recover(r.disk, raftID, 1, next)
	}
	if err == nil {
		r.node, err = r.open()
	}
	if err != nil {
		return fmt.Errorf("make the fleet's log anew after %w: %w", r.missing, err)
	}
	r.missing = nil
	return nil
}

// rejoin makes an empty log under a raft ID that no log was ever made for.
func (r *replica) rejoin(raftID, epoch uint64) error {
	if err := consensus.Wipe(r.disk); err != nil {
		return err
	}
	if err := consensus.Join(r.disk, raftID, epoch); err != nil {
		return err
	}
	node, err := r.open()
	if err != nil {
		return fmt.Errorf("open the consensus: %w", err)
	}
	r.mu.Lock()
	r.node, r.missing = node, nil
	r.mu.Unlock()
	r.reborn <- struct{}{}
	return nil
}

// Run takes part until ctx ends.
func (r *replica) Run(ctx context.Context) error {
	node := r.present()
	if node == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-r.reborn:
			node = r.present()
		}
	}
	done := make(chan struct{})
	defer func() { <-done }()
	forward, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(done)
		for {
			select {
			case <-forward.Done():
				return
			case <-node.Changed():
				select {
				case r.changed <- struct{}{}:
				default:
				}
			}
		}
	}()
	r.mu.Lock()
	told := r.told
	r.mu.Unlock()
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
	node := r.node
	r.mu.Unlock()
	if node == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return node.Inform(ctx, l)
}

// Changed is poked when State or Ledger may be others. One reader only.
func (r *replica) Changed() <-chan struct{} { return r.changed }
