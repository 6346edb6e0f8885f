package consensus

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/shoal-dev/shoal/gossip"
)

// Bootstrap makes the store of a new fleet on its first node, which is the only
// member of the ledger, see gossip.NewLedger.
func Bootstrap(disk Disk, l gossip.Ledger) error {
	if l.Index != 0 || len(l.VoterIDs) != 1 {
		return errors.New("found a fleet: the ledger is not a new one")
	}
	return begin(disk, l.Follow(1, []byte("founded "+l.Fleet.ID), nil), l.VoterIDs[0], 1)
}

// Join makes the store of a node that joins a fleet, or that comes back after
// its store was lost or damaged, under a raft ID that no store was ever made
// for. It votes when it was made a voter.
func Join(disk Disk, raftID, epoch uint64) error {
	if raftID == 0 {
		return errors.New("join the consensus: no raft ID was given")
	}
	return born(CreateStore(disk, Birth{RaftID: raftID, Epoch: epoch}, DefaultSegment))
}

// Recover makes the store of one voter of a new epoch, after most voters of the
// last one were lost for good. The ledger must be the result of
// gossip.Ledger.Recovered. All voters of the epoch must begin with the same one:
// whoever signs the recovery names its Hash. Those that do not will not hear one
// another, because the lineage follows from it. The term is any that no leader
// the caller knows of has reached.
func Recover(disk Disk, raftID, term uint64, l gossip.Ledger) error {
	if !l.Votes(raftID) {
		return fmt.Errorf("recover the consensus: the node %d is not among the voters %v", raftID, l.VoterIDs)
	}
	return begin(disk, l, raftID, max(term, 1))
}

func begin(disk Disk, l gossip.Ledger, raftID, term uint64) error {
	data, err := l.Encode()
	if err != nil {
		return err
	}
	snap := &pb.Snapshot{Data: data, Metadata: &pb.SnapshotMetadata{
		ConfState: &pb.ConfState{Voters: slices.Clone(l.VoterIDs)}, Index: new(l.Index), Term: new(term),
	}}
	return born(CreateStore(disk, Birth{
		RaftID: raftID, Epoch: l.Epoch, Lineage: lineageOf(l), Term: term, Snapshot: pb.EnsureSnapshot(snap),
	}, DefaultSegment))
}

func born(s *Store, err error) error {
	if err != nil {
		return err
	}
	return s.Close()
}

// lineageOf returns the number of the history that begins with this ledger. It
// is never 0.
func lineageOf(l gossip.Ledger) uint64 {
	b := binary.BigEndian.AppendUint64(slices.Clone(l.Hash[:]), l.Epoch)
	for _, id := range l.VoterIDs {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	for _, id := range slices.Sorted(func(yield func(string) bool) {
		for id := range l.Members {
			if !yield(id) {
				return
			}
		}
	}) {
		b = append(b, id...)
	}
	h := sha256.Sum256(append(b, l.Fleet.ID...))
	return binary.BigEndian.Uint64(h[:8]) | 1
}

// Salvage returns the newest ledger that can be read from a damaged store: that
// of the snapshot, and the entries after it that are whole. The only voter of a
// fleet goes on from it, in a new epoch; nobody else knows more. It returns false
// when not even the snapshot can be read.
func Salvage(disk Disk, segment int64) (gossip.Ledger, bool) {
	raw, err := disk.ReadFile(snapshotFile)
	if err != nil {
		return gossip.Ledger{}, false
	}
	_, _, snap, err := decodeSnapshot(raw)
	if err != nil {
		return gossip.Ledger{}, false
	}
	l, err := ledgerOf(snap)
	if err != nil {
		return gossip.Ledger{}, false
	}
	best := l
	for _, name := range logFiles {
		if replayed := replay(disk, name, segment, l); replayed.Index > best.Index {
			best = replayed
		}
	}
	return best, true
}

// replay applies what can be read of a log file to a ledger that is older.
func replay(disk Disk, name string, segment int64, l gossip.Ledger) gossip.Ledger {
	f, err := disk.Open(name, segment)
	if err != nil {
		return l
	}
	defer func() { _ = f.Close() }() // it was only read
	raw := make([]byte, segment)
	if _, err := f.ReadAt(raw, 0); err != nil {
		return l
	}
	head, err := decodeSegmentHead(raw)
	if err != nil {
		return l
	}
	entries := map[uint64]*pb.Entry{}
	last := head.Base
	for rest := raw[segmentHeadSize:]; ; {
		var e *pb.Entry
		// What follows the end is of the time before the file was last begun.
		if e, rest, err = decodeEntry(rest); err != nil || e.GetIndex() != last+1 {
			break
		}
		last = e.GetIndex()
		entries[last] = e
	}
	for index := l.Index + 1; index <= last && entries[index] != nil; index++ {
		e := entries[index]
		if e.GetType() != pb.EntryNormal || len(e.GetData()) == 0 {
			l = l.Follow(index, e.GetData(), nil)
			continue
		}
		_, _, command, err := decodeProposal(e.GetData())
		if err != nil {
			break
		}
		l, _ = l.Apply(index, command) // what is refused is refused again
	}
	return l
}
