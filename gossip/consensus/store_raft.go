package consensus

import (
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// InitialState implements raft.Storage.
func (s *Store) InitialState() (*pb.HardState, *pb.ConfState, error) {
	hard := &pb.HardState{Term: new(s.root.Term), Vote: new(s.root.Vote), Commit: new(s.root.Commit)}
	return hard, pb.EnsureConfState(s.snap.GetMetadata().GetConfState()), nil
}

// Entries implements raft.Storage.
func (s *Store) Entries(lo, hi, maxSize uint64) ([]*pb.Entry, error) {
	if lo <= s.head.Base {
		return nil, raft.ErrCompacted
	}
	if lo > hi || hi > s.last()+1 {
		return nil, raft.ErrUnavailable
	}
	from, to := lo-s.head.Base-1, hi-s.head.Base-1
	size := uint64(0)
	for i := from; i < to; i++ {
		if size += uint64(entrySize(s.entries[i])); size > maxSize && i > from {
			to = i
			break
		}
	}
	return s.entries[from:to:to], nil
}

// Term implements raft.Storage.
func (s *Store) Term(index uint64) (uint64, error) {
	switch {
	case index < s.head.Base:
		return 0, raft.ErrCompacted
	case index == s.head.Base:
		return s.head.Term, nil
	case index > s.last():
		return 0, raft.ErrUnavailable
	}
	return s.entries[index-s.head.Base-1].GetTerm(), nil
}

// LastIndex implements raft.Storage.
func (s *Store) LastIndex() (uint64, error) { return s.last(), nil }

// FirstIndex implements raft.Storage.
func (s *Store) FirstIndex() (uint64, error) { return s.head.Base + 1, nil }

// Snapshot implements raft.Storage.
func (s *Store) Snapshot() (*pb.Snapshot, error) {
	if s.current != nil {
		return s.current()
	}
	return s.snap, nil
}
