package consensus

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Step takes a message from the node with this raft ID, which the caller has
// made sure of. The error says why the message was passed over.
func (c *Core) Step(from uint64, m Message) error {
	if c.failed != nil {
		return c.failed
	}
	if from == 0 || m.Raft.GetFrom() != from || m.To() != c.id {
		return fmt.Errorf("%w: %d sent a message from %d to %d", ErrStranger, from, m.Raft.GetFrom(), m.To())
	}
	if err := plausible(m.Raft); err != nil {
		return fmt.Errorf("a message from %d: %w", from, err)
	}
	if err := c.sameHistory(m); err != nil {
		return err
	}
	switch m.Raft.GetType() {
	case pb.MsgApp, pb.MsgHeartbeat, pb.MsgSnap:
		// A leader may have begun to vote while this node was away: then it is
		// not in this node's configuration, but in a ledger that it was told.
		if !c.part(from) && !c.votes(from) {
			return fmt.Errorf("%w: %d sent a %s", ErrStranger, from, m.Raft.GetType())
		}
		if err := c.heed(m); err != nil {
			return err
		}
	case pb.MsgVote, pb.MsgPreVote:
		// Nor does this node know that it votes itself, as long as it has not
		// heard that the change was committed; without its vote nobody would
		// ever tell it. Whom to vote for is a matter of terms and logs, not of
		// configurations (Ongaro, Consensus: Bridging Theory and Practice, 4.2.2).
		if !c.part(from) && !c.votes(from) {
			return fmt.Errorf("%w: %d sent a %s", ErrStranger, from, m.Raft.GetType())
		}
	default:
		if !c.part(from) {
			return fmt.Errorf("%w: %d sent a %s", ErrStranger, from, m.Raft.GetType())
		}
		if err := c.bears(m.Raft); err != nil {
			return err
		}
	}
	err := c.guard("step", func() error { return c.raw.Step(m.Raft) })
	c.process()
	if errors.Is(err, raft.ErrProposalDropped) {
		return ErrNoLeader
	}
	return err
}

// sameHistory passes messages of this node's epoch and lineage.
func (c *Core) sameHistory(m Message) error {
	_, _, lineage := c.store.Identity()
	if m.Epoch > c.epoch && m.Epoch > c.newer {
		c.newer = m.Epoch
		c.out.Changed = true
	}
	switch {
	case c.cfg.planted == PlantedAnyLineage && m.Epoch == c.epoch:
		return nil
	case m.Epoch != c.epoch:
		return fmt.Errorf("%w: %d, not %d", ErrEpoch, m.Epoch, c.epoch)
	case lineage == 0 && len(c.conf.GetVoters()) == 0 && m.Lineage != 0:
		switch m.Raft.GetType() {
		case pb.MsgApp, pb.MsgHeartbeat, pb.MsgSnap:
			c.store.Adopt(m.Lineage)
		}
		return nil
	case m.Lineage != lineage:
		return fmt.Errorf("%w: %d, but begun otherwise (%x, not %x)", ErrEpoch, m.Epoch, m.Lineage, lineage)
	}
	return nil
}

// part reports whether the node is in the configuration.
func (c *Core) part(id uint64) bool {
	return slices.Contains(c.conf.GetVoters(), id) || slices.Contains(c.conf.GetLearners(), id) ||
		slices.Contains(c.conf.GetVotersOutgoing(), id) || slices.Contains(c.conf.GetLearnersNext(), id)
}

// votes reports whether the node may lead as far as this one was told. A node
// that never heard anything, and is to join, obeys any member.
func (c *Core) votes(id uint64) bool {
	if c.told == nil {
		return len(c.conf.GetVoters()) == 0
	}
	return slices.Contains(c.told, id)
}

// heed looks at a leader's message before raft does: whether there is room for
// what it brings, and whether this node still has what the leader knows it has.
func (c *Core) heed(m Message) error {
	r := m.Raft
	if r.GetTerm() < c.hard.Term {
		return nil // raft answers it, and changes nothing
	}
	c.passive, c.quiet = false, 0
	switch r.GetType() {
	case pb.MsgHeartbeat:
		if last := c.store.last(); r.GetCommit() > last {
			return c.fail(&Damaged{fmt.Sprintf("this node acknowledged %d entries, and has %d", r.GetCommit(), last)})
		}
	case pb.MsgApp:
		size := int64(0)
		for _, e := range r.GetEntries() {
			size += int64(entrySize(e))
		}
		if !c.admits(size) {
			return ErrFull
		}
	case pb.MsgSnap:
		if r.GetSnapshot().GetMetadata().GetIndex() <= c.hard.Commit {
			return nil // raft will pass it over
		}
		if _, err := ledgerOf(r.GetSnapshot()); err != nil {
			return fmt.Errorf("a snapshot from %d: %w", r.GetFrom(), err)
		}
		if err := c.store.Stage(r.GetSnapshot()); err != nil {
			c.full = true
			return err
		}
	}
	return nil
}
