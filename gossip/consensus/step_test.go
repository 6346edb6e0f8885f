package consensus_test

import (
	"errors"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/consensus"
	"github.com/shoal-dev/shoal/gossip/consensus/consensustest"
)

func TestStepRefusesWhatNoHonestPeerSends(t *testing.T) {
	l := newLedger(t)
	for i := 2; i <= 3; i++ {
		for _, command := range []gossip.Command{addToken(i), addMember(i)} {
			l, _ = l.Apply(l.Index+1, command)
		}
	}
	l, err := l.Recovered(2, []uint64{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	disk := &consensustest.Disk{}
	if err := consensus.Recover(disk, 1, 1, l); err != nil {
		t.Fatal(err)
	}
	core, err := consensus.OpenPlanted(disk, smallSegment*4, consensus.CoreConfig{}, consensus.PlantedNothing)
	if err != nil {
		t.Fatal(err)
	}
	for core.State().Term == 1 && len(core.Ready().Messages) == 0 {
		core.Tick()
	}
	message := func(change func(*pb.Message)) consensus.Message {
		m := &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(5))}
		change(m)
		return consensus.Message{Epoch: 2, Lineage: core.Lineage(), Raft: m}
	}
	type step = func(*pb.Message)
	for name, change := range map[string]step{
		"of another sender":     func(m *pb.Message) { m.From = new(uint64(3)) },
		"to another node":       func(m *pb.Message) { m.To = new(uint64(2)) },
		"without a term":        func(m *pb.Message) { m.Term = nil },
		"of a local kind":       func(m *pb.Message) { m.Type = pb.MsgHup.Enum() },
		"of an unknown kind":    func(m *pb.Message) { m.Type = pb.MessageType(99).Enum() },
		"a gap in the log":      func(m *pb.Message) { m.Type, m.Entries = pb.MsgApp.Enum(), []*pb.Entry{entry(5, 7, 0)} },
		"entries of the future": func(m *pb.Message) { m.Type, m.Entries = pb.MsgApp.Enum(), []*pb.Entry{entry(9, 1, 0)} },
		"an empty proposal":     func(m *pb.Message) { m.Type = pb.MsgProp.Enum() },
		"a change of voters": func(m *pb.Message) {
			m.Type, m.Entries = pb.MsgProp.Enum(), []*pb.Entry{{Type: pb.EntryConfChangeV2.Enum(), Data: []byte("x")}}
		},
		"a snapshot of nothing": func(m *pb.Message) { m.Type = pb.MsgSnap.Enum() },
		"a snapshot with rubbish": func(m *pb.Message) {
			m.Type, m.Snapshot = pb.MsgSnap.Enum(), snapshotAt(5, 100)
		},
	} {
		if err := core.Step(2, message(change)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	vote := message(func(m *pb.Message) { m.Type, m.From = pb.MsgVote.Enum(), new(uint64(3)) })
	if err := core.Step(3, vote); !errors.Is(err, consensus.ErrStranger) {
		t.Errorf("a node that does not vote asks for a vote: %v", err)
	}
	if s := core.State(); s.Failed != nil || s.Term > 2 {
		t.Errorf("got %+v", s)
	}
	// A heartbeat that knows more entries of this node than there are: the log
	// lost something.
	lost := message(func(m *pb.Message) { m.Commit = new(l.Index + 3) })
	var damage *consensus.Damaged
	if err := core.Step(2, lost); !errors.As(err, &damage) || !errors.As(core.State().Failed, &damage) {
		t.Errorf("a log that lost its end: %v", err)
	}
	if err := core.Propose(1, addToken(1)); err == nil {
		t.Error("a node whose log lost its end goes on")
	}
}

// A node that was told of a voter which its log does not name yet gives it its
// vote; one that was not told does not. The candidate may need that vote to
// commit the very change that names it.
func TestAVoterThatOnlyTheLedgerNames(t *testing.T) {
	for _, told := range []bool{false, true} {
		l := newLedger(t)
		for i := 2; i <= 3; i++ {
			for _, command := range []gossip.Command{addToken(i), addMember(i)} {
				l, _ = l.Apply(l.Index+1, command) // as in newTrio
			}
		}
		l, err := l.Recovered(2, []uint64{1, 2})
		if err != nil {
			t.Fatal(err)
		}
		disk := &consensustest.Disk{}
		if err := consensus.Recover(disk, 1, 1, l); err != nil {
			t.Fatal(err)
		}
		core, err := consensus.OpenPlanted(disk, smallSegment*4, consensus.CoreConfig{}, consensus.PlantedNothing)
		if err != nil {
			t.Fatal(err)
		}
		if told {
			newer := l
			newer.Index, newer.VoterIDs = l.Index+3, []uint64{1, 2, 3}
			core.Inform(newer)
		}
		vote := &pb.Message{
			Type: pb.MsgVote.Enum(), From: new(uint64(3)), To: new(uint64(1)),
			Term: new(uint64(5)), LogTerm: new(uint64(4)), Index: new(l.Index + 3),
		}
		err = core.Step(3, consensus.Message{Epoch: 2, Lineage: core.Lineage(), Raft: vote})
		granted := false
		for _, m := range core.Ready().Messages {
			granted = granted || m.Raft.GetType() == pb.MsgVoteResp && m.To() == 3 && !m.Raft.GetReject()
		}
		if granted != told || (err == nil) != told {
			t.Errorf("told %v: the vote is granted: %v, %v", told, granted, err)
		}
	}
}
