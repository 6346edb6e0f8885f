package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-dev/shoal/gossip"
)

// What Core and Node return. A caller asks which it was.
var (
	// ErrNoLeader says that nobody leads, or that whoever leads takes nothing
	// now: nothing was proposed.
	ErrNoLeader = errors.New("the consensus has no leader")
	// ErrBusy says that the voters are being changed: nothing was proposed, and
	// it can be in some ticks.
	ErrBusy = errors.New("the voters are being changed")
	// ErrNotLeader says that this node does not lead.
	ErrNotLeader = errors.New("this node does not lead the consensus")
	// ErrStranger is returned for messages of nodes that may not send them.
	ErrStranger = errors.New("the sender is not part of the consensus")
	// ErrEpoch is returned for messages of another epoch or lineage.
	ErrEpoch = errors.New("the message is of another epoch")
)

// Ticks of the core. A tick is 50 ms: a heartbeat every 100 ms, an election
// after 0.5 to 0.95 s of silence. With fewer and longer ticks two nodes would
// more often begin an election at the same time, which costs another round.
const (
	DefaultElectionTicks  = 10
	DefaultHeartbeatTicks = 2
)

// CoreConfig configures a Core. Zero values stand for defaults.
type CoreConfig struct {
	Store          *Store
	ElectionTicks  int
	HeartbeatTicks int
	// CompactEvery is how many entries are applied before the log is cut off;
	// Keep is how many of them stay, for nodes that lag behind. 1,024 and 256.
	CompactEvery, Keep uint64

	planted Planted
}

// Core is one node of the consensus. It does nothing by itself: see the package
// comment. It is not safe for concurrent use.
type Core struct {
	cfg    CoreConfig
	store  *Store
	raw    *raft.RawNode
	id     uint64
	epoch  uint64
	ledger gossip.Ledger
	conf   *pb.ConfState
	lead   uint64
	role   raft.StateType
	hard   root // Term, Vote and Commit as of the last Ready
	failed error
	out    Output

	applying bool
	full     bool   // the log has no room for more
	passive  bool   // the fleet says that this node does not vote, though its log does
	newer    uint64 // the highest epoch heard of that is not this one's
	told     []uint64
	toldAt   uint64 // index of the ledger that named those in told as voters
	quiet    int    // ticks since a leader was heard

	wanted    []uint64 // raft IDs of those that should vote
	calm      int      // ticks until commands are taken again after the voters changed
	fullFor   int      // looks at the configuration while the disk was full
	steerIn   int      // ticks until the configuration is looked at again
	compactIn int      // ticks until it is tried again to cut the log off
	snapshots map[uint64]int
	reads     []raft.ReadState
	cached    *pb.Snapshot
}

// NewCore returns the core of a store. A fleet with one voter has its leader at
// once.
func NewCore(cfg CoreConfig) (*Core, error) {
	if cfg.ElectionTicks == 0 {
		cfg.ElectionTicks, cfg.HeartbeatTicks = DefaultElectionTicks, DefaultHeartbeatTicks
	}
	if cfg.CompactEvery == 0 {
		cfg.CompactEvery, cfg.Keep = 1024, 256
	}
	s := cfg.Store
	id, epoch, _ := s.Identity()
	c := &Core{cfg: cfg, store: s, id: id, epoch: epoch, snapshots: map[uint64]int{}, conf: s.snap.GetMetadata().GetConfState()}
	c.hard = s.root
	s.planted = cfg.planted
	if index := s.snap.GetMetadata().GetIndex(); index > 0 {
		l, err := ledgerOf(s.snap)
		if err != nil {
			return nil, &Damaged{err.Error()}
		}
		c.ledger = l
	}
	s.current = c.snapshot
	err := c.guard("begin", func() error {
		var err error
		c.raw, err = raft.NewRawNode(&raft.Config{
			ID: id, Storage: s, Applied: c.ledger.Index,
			ElectionTick: cfg.ElectionTicks, HeartbeatTick: cfg.HeartbeatTicks,
			PreVote: true, CheckQuorum: true, StepDownOnRemoval: true,
			MaxSizePerMsg: 256 << 10, MaxInflightMsgs: 64, MaxUncommittedEntriesSize: uint64(s.size / 4),
			Logger: silent{},
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	c.process()
	if c.failed == nil && !c.exhausted() && slices.Equal(c.conf.GetVoters(), []uint64{id}) && len(c.conf.GetVotersOutgoing()) == 0 {
		_ = c.guard("begin", c.raw.Campaign) // failed says so
		c.process()
	}
	return c, c.failed
}

// guard calls raft. raft panics where its assumptions do not hold; this node
// then takes part no more.
func (c *Core) guard(what string, call func() error) (err error) {
	if c.failed != nil {
		return c.failed
	}
	defer func() {
		if r := recover(); r != nil {
			err = c.fail(&Damaged{fmt.Sprintf("%s: %v", what, r)})
		}
	}()
	return call()
}

func (c *Core) fail(err error) error {
	if c.failed == nil {
		c.failed = err
		c.out.Changed = true
	}
	return c.failed
}

// Tick tells that a tick has passed.
func (c *Core) Tick() {
	c.quiet++
	if c.passive || (!c.leads() && c.exhausted()) {
		c.compact()
		return
	}
	if c.guard("tick", func() error { c.raw.Tick(); return nil }) != nil {
		return
	}
	c.process()
	if !c.joint() && c.calm > 0 {
		c.calm--
	}
	if c.leads() {
		c.quiet = 0
		c.unstick()
		c.steer()
	}
	c.compact()
}

// leads reports whether this node leads.
func (c *Core) leads() bool { return c.role == raft.StateLeader }

// Propose proposes a command, under a number that the caller gives it and that
// it has never given before. ErrNoLeader, ErrBusy and ErrFull say that nothing
// was proposed; otherwise the command may or may not come to be Applied.
func (c *Core) Propose(number uint64, command gossip.Command) error {
	data, err := encodeProposal(c.id, number, command)
	if err != nil {
		return err
	}
	if c.failed != nil {
		return c.failed
	}
	if c.lead == 0 || c.passive {
		return ErrNoLeader
	}
	if c.busy() {
		return ErrBusy
	}
	if !c.admits(int64(len(data)) + entryHeadSize + entryFixedSize) {
		return ErrFull
	}
	err = c.guard("propose", func() error { return c.raw.Propose(data) })
	if errors.Is(err, raft.ErrProposalDropped) {
		return ErrNoLeader
	}
	if err == nil && c.cfg.planted == PlantedEarlyAnswer {
		l := c.ledger
		l.Index = c.store.last() + 1
		c.out.Applied = append(c.out.Applied, Applied{Ledger: l, Number: number})
	}
	c.process()
	return err
}

// Verify begins a round that confirms that this node leads: when a majority has
// answered, the number is among Verified. The round was then begun after the
// call.
func (c *Core) Verify(number uint64) error {
	if !c.leads() {
		return ErrNotLeader
	}
	if c.cfg.planted == PlantedStaleRead {
		c.out.Verified = append(c.out.Verified, number)
		return nil
	}
	err := c.guard("verify", func() error {
		c.raw.ReadIndex(binary.LittleEndian.AppendUint64(nil, number))
		return nil
	})
	c.process()
	return err
}

// Transfer hands leadership to another voter; 0 for whoever has most of the log.
func (c *Core) Transfer(to uint64) error {
	if !c.leads() {
		return ErrNotLeader
	}
	if to == 0 {
		to = c.heir(c.conf.GetVoters())
	}
	if to == 0 || !slices.Contains(c.conf.GetVoters(), to) {
		return fmt.Errorf("hand over to %d: it does not vote, or is not heard of", to)
	}
	err := c.guard("transfer", func() error { c.raw.TransferLeader(to); return nil })
	c.process()
	return err
}

// Inform tells what a quorate leader's ledger is, when it came by other means.
// A node that is not named as a voter there stops asking for votes, and those
// that are named may lead this node.
func (c *Core) Inform(l gossip.Ledger) {
	if l.Epoch == c.epoch && l.Index > c.toldAt {
		c.told, c.toldAt = l.VoterIDs, l.Index
	}
	if l.Epoch == c.epoch && l.Index > c.ledger.Index && !l.Votes(c.id) && !c.leads() {
		c.passive = true
	}
}

// Ledger returns the ledger as far as this node has heard.
func (c *Core) Ledger() gossip.Ledger { return c.ledger }

// Ready returns what came of the calls since it was last called.
func (c *Core) Ready() Output {
	out := c.out
	c.out = Output{}
	return out
}

// process does what raft wants done: write, then send, then apply.
func (c *Core) process() {
	for c.failed == nil && c.raw.HasReady() {
		_ = c.guard("process", func() error {
			rd := c.raw.Ready()
			if c.cfg.planted == PlantedSendFirst {
				c.post(rd.Messages)
				rd.Messages = nil
			}
			if err := c.persist(rd); err != nil {
				return c.fail(err)
			}
			c.post(rd.Messages)
			for _, e := range rd.CommittedEntries {
				if err := c.apply(e); err != nil {
					return c.fail(err)
				}
			}
			c.reads = append(c.reads, rd.ReadStates...)
			c.raw.Advance(rd)
			return nil
		}) // failed says so
	}
	for len(c.reads) > 0 && c.reads[0].Index <= c.ledger.Index {
		c.out.Verified = append(c.out.Verified, binary.LittleEndian.Uint64(c.reads[0].RequestCtx))
		c.reads = c.reads[1:]
	}
}

// persist writes what must not be forgotten.
func (c *Core) persist(rd raft.Ready) error {
	if rd.SoftState != nil {
		if rd.SoftState.RaftState != raft.StateLeader {
			c.reads = nil
		}
		c.lead, c.role, c.out.Changed = rd.SoftState.Lead, rd.SoftState.RaftState, true
	}
	if !raft.IsEmptySnap(rd.Snapshot) {
		l, err := ledgerOf(rd.Snapshot)
		if err != nil {
			return err
		}
		if err := c.store.Restore(rd.Snapshot); err != nil {
			return err
		}
		c.ledger, c.conf = l, rd.Snapshot.GetMetadata().GetConfState()
		c.out.Applied = append(c.out.Applied, Applied{Ledger: l})
		c.out.Changed = true
	}
	if !raft.IsEmptyHardState(rd.HardState) {
		c.out.Changed = c.out.Changed || rd.GetTerm() != c.hard.Term
		c.hard.Term, c.hard.Vote, c.hard.Commit = rd.GetTerm(), rd.GetVote(), rd.GetCommit()
	}
	return c.store.Save(rd.HardState, rd.Entries)
}

// post hands messages out.
func (c *Core) post(messages []*pb.Message) {
	_, _, lineage := c.store.Identity()
	for _, m := range messages {
		if m.GetType() == pb.MsgSnap {
			c.snapshots[m.GetTo()] = 0
		}
		c.out.Messages = append(c.out.Messages, Message{Epoch: c.epoch, Lineage: lineage, Raft: m})
	}
}

// apply applies a committed entry.
func (c *Core) apply(e *pb.Entry) error {
	c.applying = true
	defer func() { c.applying = false }()
	c.out.Changed = true
	done := Applied{}
	index, data := e.GetIndex(), e.GetData()
	switch {
	case e.GetType() == pb.EntryConfChangeV2:
		change := &pb.ConfChangeV2{}
		if err := proto.Unmarshal(data, change); err != nil {
			return fmt.Errorf("the change of voters at index %d: %w", index, err)
		}
		if c.joint() {
			c.calm = 2 * c.cfg.HeartbeatTicks
		}
		c.conf = c.raw.ApplyConfChange(change)
		c.ledger = c.ledger.Follow(index, data, c.conf.GetVoters())
		c.steerIn = 0
	case e.GetType() != pb.EntryNormal:
		return fmt.Errorf("the entry at index %d is of the unknown type %d", index, e.GetType())
	case len(data) == 0:
		c.ledger = c.ledger.Follow(index, nil, nil)
	default:
		raftID, number, command, err := decodeProposal(data)
		if err != nil {
			return fmt.Errorf("the command at index %d, which a newer daemon may understand: %w", index, err)
		}
		if c.cfg.planted == PlantedNodeLedger {
			command.Now = command.Now.Add(1 << (c.id % 8))
		}
		if c.cfg.planted == PlantedBlindClaim && command.Claim != nil {
			command.Claim.Previous = c.ledger.Claims[command.Claim.Identity].Claim
		}
		old := c.ledger
		c.ledger, done.Refused = c.ledger.Apply(index, command)
		if raftID == c.id {
			done.Number = number
		}
		if c.cfg.planted == PlantedShrinkingClaim && command.Claim != nil {
			shrink(old, c.ledger)
		}
	}
	done.Ledger = c.ledger
	c.out.Applied = append(c.out.Applied, done)
	return nil
}

// shrink is what PlantedShrinkingClaim does.
func shrink(old, l gossip.Ledger) {
	for identity, holder := range l.Claims {
		if before, moved := old.Claims[identity]; moved && before != holder {
			holder.Claim.Index = before.Claim.Index - 1
			l.Claims[identity] = holder
		}
	}
}
