package consensus

import (
	"slices"

	"github.com/shoal-dev/shoal/gossip"
)

// Output is what came of the calls since the last Ready.
type Output struct {
	Messages []Message // to be sent; they may be lost
	Applied  []Applied // in the order of the log
	Verified []uint64  // numbers of Verify
	Changed  bool      // State or Ledger may be others than before
}

// Empty reports whether nothing came of them.
func (o Output) Empty() bool {
	return len(o.Messages) == 0 && len(o.Applied) == 0 && len(o.Verified) == 0 && !o.Changed
}

// Applied is an entry of the log that was applied.
type Applied struct {
	Ledger  gossip.Ledger // after it
	Number  uint64        // of Propose, when this node proposed it; else 0
	Refused error         // a *gossip.Refusal
}

// State is what a core knows of the consensus.
type State struct {
	RaftID uint64
	Epoch  uint64
	Term   uint64
	Leader uint64 // raft ID; 0 when none is known
	Leads  bool
	Voter  bool // this node is one
	// Voters and Learners are the configuration in force; while it is Joint,
	// the old voters count too.
	Voters, Learners []uint64
	Joint            bool
	Applied, Commit  uint64
	// Quiet is the number of ticks since a leader was heard of; 0 on a leader.
	Quiet int
	// Full says that the log takes no more commands, because the disk is full.
	Full bool
	// NewerEpoch is an epoch that others are in and this node is not; 0 when
	// none was heard of.
	NewerEpoch uint64
	// Failed is why this node takes part no more: an error of its disk, or a
	// *Damaged. nil while it does.
	Failed error
}

// State returns what the core knows.
func (c *Core) State() State {
	s := State{
		RaftID: c.id, Epoch: c.epoch, Term: c.hard.Term, Leader: c.lead, Leads: c.leads() && c.failed == nil,
		Voters: slices.Clone(c.conf.GetVoters()), Learners: slices.Clone(c.conf.GetLearners()),
		Joint: c.joint(), Applied: c.ledger.Index, Commit: c.hard.Commit,
		Quiet: c.quiet, Full: c.full, NewerEpoch: c.newer, Failed: c.failed,
	}
	slices.Sort(s.Voters)
	slices.Sort(s.Learners)
	s.Voter = slices.Contains(s.Voters, c.id) && !c.passive
	return s
}
