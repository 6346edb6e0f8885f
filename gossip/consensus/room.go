package consensus

import (
	"fmt"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-dev/shoal/gossip"
)

// ledgerOf returns the ledger of a snapshot.
func ledgerOf(snap *pb.Snapshot) (gossip.Ledger, error) {
	l, err := gossip.DecodeLedger(snap.GetData())
	if err == nil && l.Index != snap.GetMetadata().GetIndex() {
		err = fmt.Errorf("the ledger of index %d is in the snapshot of %d", l.Index, snap.GetMetadata().GetIndex())
	}
	return l, err
}

// snapshot makes a snapshot of what is applied.
func (c *Core) snapshot() (*pb.Snapshot, error) {
	if c.applying || c.ledger.Index == 0 {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	if c.cached.GetMetadata().GetIndex() == c.ledger.Index {
		return c.cached, nil
	}
	term, err := c.store.Term(c.ledger.Index)
	if err != nil {
		return nil, fmt.Errorf("make a snapshot at index %d: %w", c.ledger.Index, err)
	}
	data, err := c.ledger.Encode()
	if err != nil {
		return nil, err
	}
	c.cached = &pb.Snapshot{Data: data, Metadata: &pb.SnapshotMetadata{
		ConfState: proto.CloneOf(c.conf), Index: new(c.ledger.Index), Term: new(term),
	}}
	return c.cached, nil
}

// compact cuts the log off when it is long. Where that is impossible, because
// the disk is full, it is tried again after a while.
func (c *Core) compact() {
	if c.compactIn > 0 {
		c.compactIn--
		return
	}
	index := c.store.snap.GetMetadata().GetIndex()
	long := c.ledger.Index >= index+c.cfg.CompactEvery || (c.store.Room() < c.store.size/2 && c.ledger.Index > index)
	if c.failed != nil || !long {
		return
	}
	c.compactIn = 10 * c.cfg.ElectionTicks
	snap, err := c.snapshot()
	if err == nil {
		after := snap.GetMetadata().GetIndex() - min(c.cfg.Keep, snap.GetMetadata().GetIndex())
		err = c.store.Compact(snap, after)
	}
	if c.store.Failed() != nil {
		_ = c.fail(c.store.Failed()) // State says so
		return
	}
	if full := err != nil && c.store.Room() < c.store.size/4; full != c.full {
		c.full, c.out.Changed = full, true
	}
}

// exhausted reports whether not even a leader's first entry has room. Such a
// node votes, and does not ask for votes.
func (c *Core) exhausted() bool { return c.store.Room() < 1024 }

// bears returns an error where this node cannot write now what a message that is
// not a leader's would have it write.
func (c *Core) bears(m *pb.Message) error {
	switch {
	case m.GetType() == pb.MsgProp && c.busy():
		return ErrBusy
	case m.GetType() == pb.MsgProp && !c.admits(int64(entrySize(m.GetEntries()[0]))),
		m.GetType() == pb.MsgTimeoutNow && c.exhausted():
		return ErrFull
	}
	return nil
}

// admits reports whether the log has room for so many bytes and a reserve: the
// first entry of a new leader and changes of voters cannot be refused.
func (c *Core) admits(size int64) bool {
	if size == 0 {
		return true
	}
	reserve := min(c.store.size/8, 64<<10)
	full := size > c.store.Room()-reserve
	if full != c.full {
		c.full, c.out.Changed = full, true
	}
	return !full
}
