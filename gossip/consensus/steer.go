package consensus

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// SetVoters says who should vote, by raft ID; nil for whoever does. While this
// node leads it brings that about, one change at a time: whoever shall vote
// becomes a learner first, until it has the log; then all voters change in one
// joint step, which needs a majority of the old ones and of the new ones.
// Members that the ledger does not know, or that were removed, are left out.
func (c *Core) SetVoters(ids []uint64) {
	if !slices.Equal(c.wanted, ids) {
		c.wanted, c.steerIn = slices.Clone(ids), 0
	}
}

// lag is how many entries a learner may lack and still become a voter: it hears
// them while the change is agreed on.
const lag = 50

// steer takes the next step towards the voters that are wanted.
func (c *Core) steer() {
	if c.steerIn > 0 {
		c.steerIn--
		return
	}
	c.steerIn = c.cfg.ElectionTicks / 2
	if c.handOver() {
		return
	}
	if c.busy() {
		return // raft leaves the joint configuration by itself
	}
	voters := c.target()
	if len(voters) == 0 {
		return
	}
	// Whoever leads does not vote itself out. If it did, it would stop leading
	// before the others have heard that the change is done, and what they then
	// need for an election may be the vote of those that do not vote any more. It
	// votes on until a leader that stays can be found.
	if !slices.Contains(voters, c.id) {
		if c.abdicate(voters) {
			return
		}
		voters = append(voters, c.id)
	}
	progress := c.progress()
	for _, id := range voters {
		if !c.part(id) {
			c.change(&pb.ConfChangeSingle{Type: pb.ConfChangeAddLearnerNode.Enum(), NodeId: new(id)})
			return
		}
	}
	if !sameSet(voters, c.conf.GetVoters()) {
		c.revote(voters, progress)
		return
	}
	for _, id := range c.conf.GetLearners() {
		p := progress[id]
		if slices.Contains(voters, id) || (c.lives(id) && p.RecentActive && p.Match < c.ledger.Index) {
			continue // it has yet to hear that it is no voter any more
		}
		c.change(&pb.ConfChangeSingle{Type: pb.ConfChangeRemoveNode.Enum(), NodeId: new(id)})
		return
	}
}

// handOver lets somebody else lead while this node's disk is full. When all
// disks are, leadership does not go round in circles fast.
func (c *Core) handOver() bool {
	if !c.full {
		c.fullFor = 0
		return false
	}
	c.fullFor++
	to := c.heir(c.conf.GetVoters())
	if c.fullFor%fullTurns != 1 || to == 0 {
		return false
	}
	return c.Transfer(to) == nil
}

// fullTurns is after how many looks at the configuration a leader whose disk is
// full tries again to hand over.
const fullTurns = 200

// joint reports whether the old voters count beside the new ones.
func (c *Core) joint() bool { return len(c.conf.GetVotersOutgoing()) > 0 }

// busy reports whether this leader takes no commands: from the moment that the
// voters change until all have heard that they did. If the leader died then,
// those who do not vote any more, and so ask for no votes, might have entries
// that those who vote do not have, and refuse them their votes for that; but
// those who vote do not know yet that they can do without them.
func (c *Core) busy() bool { return c.leads() && (c.joint() || c.calm > 0) }

// target returns the living members that should vote.
func (c *Core) target() []uint64 {
	wanted := c.wanted
	if wanted == nil {
		wanted = c.conf.GetVoters()
	}
	var out []uint64
	for _, id := range wanted {
		if c.lives(id) {
			out = append(out, id)
		}
	}
	return out
}

// lives reports whether the raft ID is of a member that was not removed.
func (c *Core) lives(id uint64) bool {
	m, found := c.ledger.ByRaftID(id)
	return found && !m.Removed
}

// abdicate hands over to one of those that should vote, if one votes already.
func (c *Core) abdicate(voters []uint64) bool {
	var stay []uint64
	for _, id := range c.conf.GetVoters() {
		if slices.Contains(voters, id) {
			stay = append(stay, id)
		}
	}
	to := c.heir(stay)
	return to != 0 && c.Transfer(to) == nil
}

// revote changes the voters, when those that are new have the log and a majority
// of the result is heard of.
func (c *Core) revote(voters []uint64, progress map[uint64]tracker.Progress) {
	heard := 0
	for _, id := range voters {
		p := progress[id]
		if id == c.id || p.RecentActive {
			heard++
		}
		// raft takes who was just added to be active; one that has never
		// answered must not vote.
		if !slices.Contains(c.conf.GetVoters(), id) && (!p.RecentActive || p.Match == 0 || p.Match+lag < c.hard.Commit) {
			return
		}
	}
	if 2*heard <= len(voters) {
		return
	}
	var changes []*pb.ConfChangeSingle
	for _, id := range voters {
		if !slices.Contains(c.conf.GetVoters(), id) {
			changes = append(changes, &pb.ConfChangeSingle{Type: pb.ConfChangeAddNode.Enum(), NodeId: new(id)})
		}
	}
	for _, id := range c.conf.GetVoters() {
		if slices.Contains(voters, id) {
			continue
		}
		what := pb.ConfChangeAddLearnerNode
		if !c.lives(id) {
			what = pb.ConfChangeRemoveNode
		}
		changes = append(changes, &pb.ConfChangeSingle{Type: what.Enum(), NodeId: new(id)})
	}
	c.change(changes...)
}

// change proposes a change of the configuration. It may be lost: steer looks
// again.
func (c *Core) change(changes ...*pb.ConfChangeSingle) {
	if c.exhausted() {
		return
	}
	cc := &pb.ConfChangeV2{Changes: changes}
	if len(changes) > 1 {
		cc.Transition = pb.ConfChangeTransitionJointImplicit.Enum()
	}
	// Dropped while leadership is handed over; looked at again.
	_ = c.guard("change the voters", func() error { return c.raw.ProposeConfChange(cc) })
	c.process()
}

// heir returns who of the voters should lead next: one that is heard of, with
// most of the log. It returns 0 when there is none.
func (c *Core) heir(voters []uint64) uint64 {
	progress := c.progress()
	best := uint64(0)
	for _, id := range voters {
		p := progress[id]
		if id != c.id && p.RecentActive && p.State == tracker.StateReplicate && (best == 0 || p.Match > progress[best].Match) {
			best = id
		}
	}
	return best
}

// progress returns how far each node of the configuration is.
func (c *Core) progress() map[uint64]tracker.Progress {
	out := map[uint64]tracker.Progress{}
	c.raw.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) { out[id] = p })
	return out
}

// unstick sends a snapshot again that was not answered: raft waits for an answer
// for ever.
func (c *Core) unstick() {
	if len(c.snapshots) == 0 {
		return
	}
	progress := c.progress()
	for _, id := range sortedKeys(c.snapshots) {
		if progress[id].State != tracker.StateSnapshot {
			delete(c.snapshots, id)
			continue
		}
		if c.snapshots[id]++; c.snapshots[id] > 2*c.cfg.ElectionTicks {
			delete(c.snapshots, id)
			_ = c.guard("send a snapshot again", func() error {
				c.raw.ReportSnapshot(id, raft.SnapshotFailure)
				return nil
			})
		}
	}
	c.process()
}

func sortedKeys(m map[uint64]int) []uint64 {
	out := make([]uint64, 0, len(m))
	for id := range m {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// sameSet reports whether two lists without repetitions hold the same numbers.
func sameSet(a, b []uint64) bool {
	if len(a) != len(b) {
		return false
	}
	for _, id := range a {
		if !slices.Contains(b, id) {
			return false
		}
	}
	return true
}

// silent is raft's logger. What matters is in State; a panic is caught by guard.
type silent struct{}

func (silent) Debug(...any)              {}
func (silent) Debugf(string, ...any)     {}
func (silent) Error(...any)              {}
func (silent) Errorf(string, ...any)     {}
func (silent) Info(...any)               {}
func (silent) Infof(string, ...any)      {}
func (silent) Warning(...any)            {}
func (silent) Warningf(string, ...any)   {}
func (silent) Fatal(v ...any)            { panic(v) }
func (silent) Fatalf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
func (silent) Panic(v ...any)            { panic(v) }
func (silent) Panicf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
