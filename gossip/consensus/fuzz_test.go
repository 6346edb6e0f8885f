package consensus_test

import (
	"errors"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/shoal-dev/shoal/gossip/consensus"
	"github.com/shoal-dev/shoal/gossip/consensus/consensustest"
)

func FuzzDecodeMessage(f *testing.F) {
	m := consensus.Message{Epoch: 1, Lineage: 2, Raft: &pb.Message{
		Type: pb.MsgApp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(2)), Index: new(uint64(1)),
		LogTerm: new(uint64(1)), Entries: []*pb.Entry{entry(2, 2, 3)}, Commit: new(uint64(9)),
	}}
	raw, err := m.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	m.Raft.Type, m.Raft.Entries, m.Raft.Snapshot = pb.MsgSnap.Enum(), nil, snapshotAt(2, 9)
	if raw, err = m.Encode(); err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := consensus.DecodeMessage(raw)
		if err != nil {
			return
		}
		// Whatever an authenticated peer says, a node that joins survives it.
		disk := &consensustest.Disk{}
		if err := consensus.Join(disk, m.To(), m.Epoch); err != nil {
			return
		}
		core, err := consensus.OpenPlanted(disk, consensus.DefaultSegment, consensus.CoreConfig{}, consensus.PlantedNothing)
		if err != nil {
			return // the raft ID is one that raft keeps for itself
		}
		_ = core.Step(m.Raft.GetFrom(), m)
		core.Tick()
		core.State()
	})
}

func FuzzOpenStore(f *testing.F) {
	disk := &consensustest.Disk{}
	s, err := consensus.CreateStore(disk, consensus.Birth{RaftID: 1, Epoch: 1, Lineage: 7, Term: 1, Snapshot: snapshotAt(1, 1)}, smallSegment)
	if err != nil {
		f.Fatal(err)
	}
	if err := errors.Join(s.Save(hardState(2, 1, 1), []*pb.Entry{entry(1, 2, 9)}), s.Close()); err != nil {
		f.Fatal(err)
	}
	read := func(name string) []byte {
		raw, err := disk.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		return raw
	}
	f.Add(read("state"), read("log-1"), read("snapshot"))
	f.Fuzz(func(t *testing.T, state, log, snapshot []byte) {
		disk := &consensustest.Disk{}
		for name, raw := range map[string][]byte{"state": state, "log-1": log, "snapshot": snapshot} {
			if err := disk.WriteFile(name, raw); err != nil {
				t.Fatal(err)
			}
		}
		if s, err := consensus.OpenStore(disk, smallSegment); err == nil {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		consensus.Salvage(disk, smallSegment)
	})
}
