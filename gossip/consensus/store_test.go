package consensus_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/shoal-dev/shoal/gossip/consensus"
	"github.com/shoal-dev/shoal/gossip/consensus/consensustest"
)

func TestDisks(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		disk := &consensustest.Disk{}
		consensustest.TestDisk(t, func(*testing.T) consensus.Disk { disk.Restart(nil); return disk })
	})
	t.Run("folder", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "raft")
		var last *consensus.Folder
		consensustest.TestDisk(t, func(t *testing.T) consensus.Disk {
			if last != nil {
				if err := last.Close(); err != nil {
					t.Fatal(err)
				}
			}
			folder, err := consensus.OpenFolder(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := consensus.OpenFolder(path); err == nil {
				t.Error("two opened one folder")
			}
			last = folder
			return folder
		})
	})
}

const smallSegment = 4096

func entry(term, index uint64, size int) *pb.Entry {
	return &pb.Entry{Term: new(term), Index: new(index), Type: pb.EntryNormal.Enum(), Data: make([]byte, size)}
}

func snapshotAt(term, index uint64) *pb.Snapshot {
	return &pb.Snapshot{
		Data:     fmt.Appendf(nil, "ledger %d", index),
		Metadata: &pb.SnapshotMetadata{Index: new(index), Term: new(term), ConfState: &pb.ConfState{Voters: []uint64{1, 2, 3}, AutoLeave: new(false)}},
	}
}

func hardState(term, vote, commit uint64) *pb.HardState {
	return &pb.HardState{Term: new(term), Vote: new(vote), Commit: new(commit)}
}

// script is a life of a store: each step returns when all it did was
// acknowledged.
var script = []func(*consensus.Store) error{
	func(s *consensus.Store) error { return s.Save(hardState(1, 2, 1), nil) },
	func(s *consensus.Store) error {
		return s.Save(hardState(1, 2, 1), []*pb.Entry{entry(1, 2, 10), entry(1, 3, 700)})
	},
	func(s *consensus.Store) error { return s.Save(nil, []*pb.Entry{entry(1, 4, 0)}) },
	func(s *consensus.Store) error {
		return s.Save(hardState(2, 3, 2), []*pb.Entry{entry(2, 3, 20), entry(2, 4, 600), entry(2, 5, 5)})
	},
	func(s *consensus.Store) error { return s.Compact(snapshotAt(2, 4), 3) },
	func(s *consensus.Store) error { return s.Save(hardState(3, 1, 4), []*pb.Entry{entry(3, 6, 30)}) },
	func(s *consensus.Store) error { return s.Stage(snapshotAt(3, 20)) },
	func(s *consensus.Store) error { return s.Restore(snapshotAt(3, 20)) },
	func(s *consensus.Store) error { return s.Save(hardState(4, 0, 20), []*pb.Entry{entry(4, 21, 30)}) },
	func(s *consensus.Store) error { return s.Compact(snapshotAt(4, 21), 20) },
	func(s *consensus.Store) error { return s.Save(hardState(5, 2, 21), []*pb.Entry{entry(5, 22, 1)}) },
	func(s *consensus.Store) error { return s.Restore(snapshotAt(5, 22)) },
}

// content says what a store promises and holds.
func content(t *testing.T, s *consensus.Store) string {
	t.Helper()
	hard, conf, err := s.InitialState()
	if err != nil {
		t.Fatal(err)
	}
	last, _ := s.LastIndex()
	out := fmt.Sprintf("term %d vote %d voters %v last %d:", hard.GetTerm(), hard.GetVote(), conf.GetVoters(), last)
	for index := range last + 1 {
		if term, err := s.Term(index); err == nil {
			out += fmt.Sprintf(" %d/%d", index, term)
		}
	}
	return out
}

func newStore(t *testing.T, disk consensus.Disk) *consensus.Store {
	t.Helper()
	s, err := consensus.CreateStore(disk, consensus.Birth{RaftID: 1, Epoch: 1, Lineage: 7, Term: 1, Snapshot: snapshotAt(1, 1)}, smallSegment)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Wherever the power goes, and whatever of the last writes reached the disk: the
// store is as it was before the step or after it.
func TestStoreSurvivesACrashAnywhere(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	keeps := []func() bool{nil, func() bool { return false }, func() bool { return rng.IntN(2) == 0 }, func() bool { return rng.IntN(4) == 0 }}
	crashes := 0
	for step := range script {
		for at := 1; ; at++ {
			finished := false
			for i, keep := range keeps {
				disk := &consensustest.Disk{}
				s := newStore(t, disk)
				for _, do := range script[:step] {
					if err := do(s); err != nil {
						t.Fatal(err)
					}
				}
				// All points that either state knows.
				before := content(t, s)
				disk.CrashAfter(at)
				err := script[step](s)
				after := content(t, s)
				if err == nil {
					finished = true
				} else if !errors.Is(err, consensustest.ErrPower) {
					t.Fatalf("step %d: %v", step, err)
				}
				disk.Restart(keep)
				again, openErr := consensus.OpenStore(disk, smallSegment)
				if openErr != nil {
					t.Fatalf("step %d, crash %d, keep %d: %v", step, at, i, openErr)
				}
				crashes++
				got := content(t, again)
				full := content(t, completed(t, step))
				if err == nil && got != after {
					t.Fatalf("step %d was acknowledged:\n%s\nafter the crash:\n%s", step, after, got)
				}
				if got != before && got != full {
					t.Fatalf("step %d, crash %d, keep %d: got\n%s\nwant\n%s\nor\n%s", step, at, i, got, before, full)
				}
			}
			if finished {
				break
			}
		}
	}
	t.Logf("%d crashes", crashes)
}

// completed returns a store after a step without a crash.
func completed(t *testing.T, step int) *consensus.Store {
	t.Helper()
	s := newStore(t, &consensustest.Disk{})
	for _, do := range script[:step+1] {
		if err := do(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Every bit that counts is watched over: a store with one bit changed is
// damaged, or holds the same.
func TestStoreNoticesEveryFlippedBit(t *testing.T) {
	original := &consensustest.Disk{}
	s := newStore(t, original)
	for _, do := range script[:6] {
		if err := do(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want := content(t, s)
	damaged := 0
	for _, name := range original.Names() {
		for at := range original.Used(name) {
			disk := original.Copy()
			disk.Flip(name, at, uint(at))
			s, err := consensus.OpenStore(disk, smallSegment)
			var damage *consensus.Damaged
			switch {
			case errors.As(err, &damage):
				damaged++
			case err != nil:
				t.Fatalf("%s, byte %d: %v", name, at, err)
			default:
				if got := content(t, s); got != want {
					t.Fatalf("%s, byte %d: got\n%s\nwant\n%s", name, at, got, want)
				}
			}
		}
	}
	if damaged < 500 {
		t.Errorf("only %d flips were noticed", damaged)
	}
}

func TestStoreNoticesWhatIsMissing(t *testing.T) {
	original := &consensustest.Disk{}
	s := newStore(t, original)
	for _, do := range script[:6] {
		if err := do(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"log-0", "log-1", "snapshot"} {
		disk := original.Copy()
		if err := disk.Remove(name); err != nil {
			t.Fatal(err)
		}
		_, err := consensus.OpenStore(disk, smallSegment)
		var damage *consensus.Damaged
		if err != nil && !errors.As(err, &damage) {
			t.Errorf("without %s: %v", name, err)
		}
		if name == "snapshot" && err == nil {
			t.Error("a snapshot that is missing is not noticed")
		}
	}
	disk := original.Copy()
	if err := disk.Remove("state"); err != nil {
		t.Fatal(err)
	}
	if _, err := consensus.OpenStore(disk, smallSegment); !errors.Is(err, consensus.ErrNone) {
		t.Errorf("without the state: %v", err)
	}
	for cut := int64(1); cut < 60; cut++ {
		for _, name := range []string{"log-0", "log-1"} {
			disk := original.Copy()
			disk.Cut(name, cut)
			s, err := consensus.OpenStore(disk, smallSegment)
			var damage *consensus.Damaged
			if err == nil && content(t, s) != content(t, completed(t, 5)) || err != nil && !errors.As(err, &damage) {
				t.Fatalf("%s without %d bytes: %v", name, cut, err)
			}
		}
	}
}

func TestAFullDiskStopsNoVote(t *testing.T) {
	disk := &consensustest.Disk{}
	s := newStore(t, disk)
	disk.Fill(true)
	for term := uint64(2); term < 50; term++ {
		if err := s.Save(hardState(term, term%3, 1), nil); err != nil {
			t.Fatal(err)
		}
	}
	index := uint64(1)
	for s.Room() > 200 {
		index++
		if err := s.Save(nil, []*pb.Entry{entry(50, index, 100)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Compact(snapshotAt(50, index), index); !errors.Is(err, consensustest.ErrNoSpace) || s.Failed() != nil {
		t.Errorf("a snapshot on a full disk: %v, then %v", err, s.Failed())
	}
	if err := s.Stage(snapshotAt(50, 100)); !errors.Is(err, consensustest.ErrNoSpace) || s.Failed() != nil {
		t.Errorf("a leader's snapshot on a full disk: %v, then %v", err, s.Failed())
	}
	if err := s.Save(hardState(60, 2, 1), nil); err != nil {
		t.Errorf("a vote on a full disk: %v", err)
	}
	disk.Fill(false)
	if err := s.Compact(snapshotAt(50, index), index); err != nil || s.Room() < 3000 {
		t.Errorf("after there is space again: %v, room for %d", err, s.Room())
	}
	if err := s.Save(nil, []*pb.Entry{entry(60, index+1, 5000)}); !errors.Is(err, consensus.ErrFull) || s.Failed() == nil {
		t.Errorf("an entry larger than the log: %v", err)
	}
}

func TestAFailedSyncIsFinal(t *testing.T) {
	disk := &consensustest.Disk{}
	s := newStore(t, disk)
	disk.Break(true)
	if err := s.Save(hardState(2, 2, 1), nil); !errors.Is(err, consensustest.ErrIO) {
		t.Fatalf("got %v", err)
	}
	disk.Break(false)
	if err := s.Save(hardState(2, 3, 1), nil); !errors.Is(err, consensustest.ErrIO) {
		t.Errorf("a store whose sync failed goes on: %v", err)
	}
}

// BenchmarkStart is the time from nothing to leading a fleet of one that was
// founded before.
func BenchmarkStart(b *testing.B) {
	folder, err := consensus.OpenFolder(filepath.Join(b.TempDir(), "raft"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = folder.Close() })
	if err := consensus.Bootstrap(folder, newLedger(b)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		core, err := consensus.OpenPlanted(folder, consensus.DefaultSegment, consensus.CoreConfig{}, consensus.PlantedNothing)
		if err != nil || !core.State().Leads {
			b.Fatal(err)
		}
		core.Tick() // or the log would never be cut off
		if err := core.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPropose is the time of one command in a fleet of one, with its syncs.
func BenchmarkPropose(b *testing.B) {
	folder, err := consensus.OpenFolder(filepath.Join(b.TempDir(), "raft"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = folder.Close() })
	if err := consensus.Bootstrap(folder, newLedger(b)); err != nil {
		b.Fatal(err)
	}
	core, err := consensus.OpenPlanted(folder, consensus.DefaultSegment, consensus.CoreConfig{}, consensus.PlantedNothing)
	if err != nil {
		b.Fatal(err)
	}
	number := uint64(0)
	for b.Loop() {
		number++
		if err := core.Propose(number, addToken(int(number%8))); err != nil {
			b.Fatal(err)
		}
		core.Ready()
		core.Tick()
	}
}

func TestTheFolderIsSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft")
	folder, err := consensus.OpenFolder(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	if err := consensus.Bootstrap(folder, newLedger(t)); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	total := int64(0)
	for _, file := range files {
		info, err := file.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
		names = append(names, file.Name())
		if info.Mode().Perm() != 0o600 {
			t.Errorf("others may read %s: %v", file.Name(), info.Mode())
		}
	}
	if want := []string{"lock", "log-0", "log-1", "snapshot", "state"}; !slices.Equal(names, want) || total > 20<<20 {
		t.Errorf("got %v, %d bytes", names, total)
	}
}
