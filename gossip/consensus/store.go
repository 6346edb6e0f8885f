package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// The files of a store.
const (
	stateFile    = "state"
	snapshotFile = "snapshot"
	stagedFile   = "snapshot.new"
	stateSize    = 2 * rootAt
)

var logFiles = [2]string{"log-0", "log-1"}

// DefaultSegment is the size of each of the two log files, in bytes. A command
// takes some hundred bytes, and the log is cut off every 1,024 of them.
const DefaultSegment = 8 << 20

// ErrNone is returned by OpenStore where no store was ever made. A node that was
// a member before must not begin anew with the raft ID it had: see gossip.Rejoin.
var ErrNone = errors.New("there is no consensus state")

// ErrFull is returned for what the log has no room for, because the disk is full
// and so it could not be cut off.
var ErrFull = errors.New("the consensus log is full")

// Damaged is the error of a store that does not hold what it acknowledged. Its
// node must not vote under its raft ID again.
type Damaged struct{ What string }

// Error says what is damaged.
func (d *Damaged) Error() string { return "the consensus state is damaged: " + d.What }

// Birth is what a store begins with.
type Birth struct {
	RaftID  uint64
	Epoch   uint64
	Lineage uint64 // 0 for a node that joins: it takes over that of its first message
	Term    uint64
	// Snapshot is what the epoch begins with; nil for a node that joins.
	Snapshot *pb.Snapshot
}

// Store keeps what a node promised and what it heard, on a Disk. It is what raft
// reads its log from, see raft.Storage. An error of the disk is final: after it
// every write fails, because nobody can know what the disk holds.
//
// The log is in one of two preallocated files. To cut it off, what stays is
// written to the other one. Which one counts, and up to which byte, is said by
// the state file, in two slots that are written in turn: a write that is torn
// by a crash leaves the other one. Both are always written in this order and
// synced in between, so a slot never promises bytes that are not there, and
// every byte that it promises must be read back: whatever cannot be is damage.
// What is beyond was never acknowledged, and is forgotten.
//
// It is not safe for concurrent use.
type Store struct {
	disk    Disk
	size    int64
	state   File
	logs    [2]File
	root    root
	head    segmentHead
	entries []*pb.Entry // after head.Base
	snap    *pb.Snapshot
	staged  *pb.Snapshot
	failed  error
	// current makes a snapshot of now, for a peer that lacks much; nil for the
	// one on the disk.
	current func() (*pb.Snapshot, error)
	planted Planted
}

// CreateStore makes a store and removes the one that was there.
func CreateStore(disk Disk, birth Birth, segment int64) (*Store, error) {
	if err := Wipe(disk); err != nil {
		return nil, err
	}
	s := &Store{disk: disk, size: segment, snap: pb.EnsureSnapshot(birth.Snapshot)}
	raw, err := encodeSnapshot(birth.Epoch, birth.Lineage, s.snap)
	if err != nil {
		return nil, err
	}
	if err := disk.WriteFile(snapshotFile, raw); err != nil {
		return nil, fmt.Errorf("make the consensus state: %w", err)
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	meta := s.snap.GetMetadata()
	s.root = root{RaftID: birth.RaftID, Epoch: birth.Epoch, Lineage: birth.Lineage, Term: birth.Term, Commit: meta.GetIndex()}
	if err := s.startSegment(segmentHead{Generation: 1, Base: meta.GetIndex(), Term: meta.GetTerm()}, nil); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Wipe removes the store, so that OpenStore finds none.
func Wipe(disk Disk) error {
	for _, name := range []string{stateFile, stagedFile, snapshotFile, logFiles[0], logFiles[1]} {
		if err := disk.Remove(name); err != nil {
			return fmt.Errorf("remove the consensus state: %w", err)
		}
	}
	return nil
}

// OpenStore reads a store. The error is ErrNone where there is none, and a
// *Damaged where something is missing or was changed.
func OpenStore(disk Disk, segment int64) (*Store, error) {
	return openStore(disk, segment, PlantedNothing)
}

func openStore(disk Disk, segment int64, planted Planted) (*Store, error) {
	s := &Store{disk: disk, size: segment, planted: planted}
	if err := s.open(); err != nil {
		return nil, err
	}
	err := s.read()
	if err == nil {
		err = s.writeRoot() // Seq tells this run from those before
	}
	if err != nil {
		s.failed = err // nothing is written to what is damaged
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) open() error {
	var err error
	if s.state, err = s.disk.Open(stateFile, stateSize); err != nil {
		return fmt.Errorf("open the consensus state: %w", err)
	}
	for i, name := range logFiles {
		if s.logs[i], err = s.disk.Open(name, s.size); err != nil {
			return errors.Join(fmt.Errorf("open the consensus log: %w", err), s.Close())
		}
	}
	return nil
}

// Close writes how far the log is committed, which is otherwise written along
// with other things, and closes the files.
func (s *Store) Close() error {
	var errs []error
	if s.failed == nil && s.root.Seq > 0 {
		errs = append(errs, s.writeRoot())
	}
	for _, f := range []File{s.state, s.logs[0], s.logs[1]} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if s.failed == nil {
		s.failed = errors.New("the consensus state is closed")
	}
	return errors.Join(errs...)
}

// read fills the store from its files.
func (s *Store) read() error {
	if err := s.readRoot(); err != nil {
		return err
	}
	if err := s.readLog(); err != nil {
		return err
	}
	raw, err := s.disk.ReadFile(snapshotFile)
	if err != nil {
		return &Damaged{fmt.Sprintf("the snapshot cannot be read: %v", err)}
	}
	epoch, lineage, snap, err := decodeSnapshot(raw)
	if err != nil {
		return &Damaged{fmt.Sprintf("the snapshot: %v", err)}
	}
	index, term := snap.GetMetadata().GetIndex(), snap.GetMetadata().GetTerm()
	if epoch != s.root.Epoch || (lineage != s.root.Lineage && index > 0) {
		return &Damaged{fmt.Sprintf("the snapshot is of epoch %d (%x), the log of %d (%x)", epoch, lineage, s.root.Epoch, s.root.Lineage)}
	}
	if index < s.head.Base {
		return &Damaged{fmt.Sprintf("the snapshot is of index %d, the log begins after %d", index, s.head.Base)}
	}
	s.snap = snap
	if s.root.Commit > max(s.last(), index) {
		return &Damaged{fmt.Sprintf("%d entries are committed, %d are there", s.root.Commit, s.last())}
	}
	s.root.Commit = max(s.root.Commit, index)
	if s.root.Term < term {
		s.root.Term, s.root.Vote = term, 0
	}
	if have, err := s.Term(index); err != nil || have != term {
		// The snapshot came from a leader, and the crash came before the log
		// that it replaces was given up.
		return s.startSegment(segmentHead{Generation: s.head.Generation + 1, Base: index, Term: term}, nil)
	}
	return nil
}

func (s *Store) readRoot() error {
	raw := make([]byte, stateSize)
	if _, err := s.state.ReadAt(raw, 0); err != nil {
		return fmt.Errorf("read the consensus state: %w", err)
	}
	var roots [2]root
	blank := 0
	for i := range roots {
		slot := raw[i*rootAt : i*rootAt+rootSize]
		if bytes.Equal(slot, make([]byte, rootSize)) {
			blank++
			continue
		}
		var err error
		if roots[i], err = decodeRoot(slot); err != nil {
			// Sectors are written whole or not at all, so this was no crash.
			return &Damaged{fmt.Sprintf("slot %d of the state: %v", i, err)}
		}
	}
	newest := 0
	if roots[1].Seq > roots[0].Seq {
		newest = 1
	}
	s.root = roots[newest]
	switch {
	case blank == 2:
		return ErrNone
	case s.root.Seq != roots[1-newest].Seq+1:
		return &Damaged{fmt.Sprintf("the slots of the state are of %d and %d", roots[0].Seq, roots[1].Seq)}
	case s.root.Seq%2 != uint64(newest):
		return &Damaged{"the slots of the state are mixed up"}
	}
	return nil
}

func (s *Store) readLog() error {
	end := int64(s.root.End)
	if end < segmentHeadSize || end > s.size {
		return &Damaged{fmt.Sprintf("the log cannot end at byte %d of %d", end, s.size)}
	}
	raw := make([]byte, end)
	if _, err := s.segment().ReadAt(raw, 0); err != nil {
		return &Damaged{fmt.Sprintf("the log cannot be read: %v", err)}
	}
	head, err := decodeSegmentHead(raw)
	if err != nil {
		return &Damaged{fmt.Sprintf("the beginning of the log: %v", err)}
	}
	if head.Generation != s.root.Segment {
		return &Damaged{fmt.Sprintf("the log is of generation %d, not %d", head.Generation, s.root.Segment)}
	}
	s.head = head
	for rest := raw[segmentHeadSize:]; len(rest) > 0; {
		at := int(end) - len(rest)
		var e *pb.Entry
		if e, rest, err = decodeEntry(rest); err != nil {
			if s.planted == PlantedIgnoreDamage {
				s.root.End, s.root.Commit = uint64(at), min(s.root.Commit, s.last())
				return nil
			}
			return &Damaged{fmt.Sprintf("the entry at byte %d of the log: %v", at, err)}
		}
		if i := e.GetIndex(); i <= head.Base || i > s.last()+1 {
			return &Damaged{fmt.Sprintf("the entry at byte %d of the log has the index %d after %d", at, i, s.last())}
		}
		s.mirror([]*pb.Entry{e})
	}
	return nil
}

func (s *Store) segment() File { return s.logs[s.root.Segment%2] }

func (s *Store) last() uint64 { return s.head.Base + uint64(len(s.entries)) }

// mirror puts entries, which follow one another, behind those before them.
func (s *Store) mirror(entries []*pb.Entry) {
	keep := entries[0].GetIndex() - s.head.Base - 1
	// Those who were given a slice of the old entries keep it.
	s.entries = append(s.entries[:keep:keep], entries...)
}

// Room returns how many bytes of entries the log has room for.
func (s *Store) Room() int64 { return s.size - int64(s.root.End) }

// Identity returns whose store this is: raft ID, epoch and lineage.
func (s *Store) Identity() (raftID, epoch, lineage uint64) {
	return s.root.RaftID, s.root.Epoch, s.root.Lineage
}

// Failed returns the error that ended the store, nil while it works.
func (s *Store) Failed() error { return s.failed }

// fail makes an error final.
func (s *Store) fail(what string, err error) error {
	s.failed = fmt.Errorf("%s: %w", what, err)
	return s.failed
}

// Save writes entries, which follow one another, and what this node promises.
// All is durable when it returns. An empty hard state is none; one in which only
// the commit index changed is written later.
func (s *Store) Save(hard *pb.HardState, entries []*pb.Entry) error {
	if s.failed != nil {
		return s.failed
	}
	promised := len(entries) > 0
	if len(entries) > 0 {
		var b []byte
		for _, e := range entries {
			b = appendEntry(b, e)
		}
		if int64(len(b)) > s.Room() {
			return s.fail("append to the consensus log", ErrFull)
		}
		if _, err := s.segment().WriteAt(b, int64(s.root.End)); err != nil {
			return s.fail("append to the consensus log", err)
		}
		if err := s.sync(s.segment()); err != nil {
			return s.fail("sync the consensus log", err)
		}
		s.root.End += uint64(len(b))
		s.mirror(entries)
	}
	if !raft.IsEmptyHardState(hard) {
		promised = promised || hard.GetTerm() != s.root.Term || hard.GetVote() != s.root.Vote
		s.root.Term, s.root.Vote, s.root.Commit = hard.GetTerm(), hard.GetVote(), hard.GetCommit()
	}
	if !promised {
		return nil
	}
	return s.writeRoot()
}

func (s *Store) sync(f File) error {
	if s.planted == PlantedNoSync {
		return nil
	}
	return f.Sync()
}

// writeRoot makes the root durable.
func (s *Store) writeRoot() error {
	s.root.Seq++
	next := s.root
	if s.planted == PlantedForgetVote {
		next.Vote = 0
	}
	if _, err := s.state.WriteAt(next.encode(), int64(next.Seq%2)*rootAt); err != nil {
		return s.fail("write the consensus state", err)
	}
	if err := s.sync(s.state); err != nil {
		return s.fail("sync the consensus state", err)
	}
	return nil
}

// startSegment writes a segment to the file that is not in use, and goes on
// with it.
func (s *Store) startSegment(head segmentHead, entries []*pb.Entry) error {
	b := head.encode()
	for _, e := range entries {
		b = appendEntry(b, e)
	}
	if int64(len(b)) > s.size {
		return s.fail("cut the consensus log off", ErrFull)
	}
	file := s.logs[head.Generation%2]
	if _, err := file.WriteAt(b, 0); err != nil {
		return s.fail("cut the consensus log off", err)
	}
	if err := s.sync(file); err != nil {
		return s.fail("sync the consensus log", err)
	}
	s.head, s.entries = head, slices.Clone(entries)
	s.root.Segment, s.root.End = head.Generation, uint64(len(b))
	return s.writeRoot()
}

// Compact writes a snapshot and keeps of the log what comes after an index,
// which is at most the snapshot's; less when that is more than a quarter of what
// the log has room for. When the snapshot cannot be written, the log
// stays as it is, and that is not final: the disk may have been full.
func (s *Store) Compact(snap *pb.Snapshot, after uint64) error {
	if s.failed != nil {
		return s.failed
	}
	index := snap.GetMetadata().GetIndex()
	after = min(max(after, s.head.Base), index)
	bytes := int64(0)
	for _, e := range s.entries[after-s.head.Base:] {
		bytes += int64(entrySize(e))
	}
	for ; bytes > s.size/4 && after < index; after++ {
		bytes -= int64(entrySize(s.entries[after-s.head.Base]))
	}
	term, err := s.Term(after)
	if err != nil {
		return fmt.Errorf("cut the consensus log off after %d: %w", after, err)
	}
	raw, err := encodeSnapshot(s.root.Epoch, s.root.Lineage, snap)
	if err != nil {
		return err
	}
	if err := s.disk.WriteFile(snapshotFile, raw); err != nil {
		return fmt.Errorf("write the snapshot of the ledger: %w", err)
	}
	s.snap = snap
	kept := s.entries[after-s.head.Base:]
	if s.planted == PlantedCutTooMuch {
		kept = kept[:index-after]
	}
	return s.startSegment(segmentHead{Generation: s.head.Generation + 1, Base: after, Term: term}, kept)
}

// Stage writes a snapshot that came from a leader beside the one in force, so
// that for the lack of space it can still be declined. Restore takes it over.
func (s *Store) Stage(snap *pb.Snapshot) error {
	if s.failed != nil {
		return s.failed
	}
	raw, err := encodeSnapshot(s.root.Epoch, s.root.Lineage, snap)
	if err != nil {
		return err
	}
	if err := s.disk.WriteFile(stagedFile, raw); err != nil {
		return fmt.Errorf("write the leader's snapshot: %w", err)
	}
	s.staged = snap
	return nil
}

// Restore replaces the log by a snapshot, which should have been staged.
func (s *Store) Restore(snap *pb.Snapshot) error {
	if s.failed != nil {
		return s.failed
	}
	meta := snap.GetMetadata()
	staged := s.staged.GetMetadata()
	if staged.GetIndex() != meta.GetIndex() || staged.GetTerm() != meta.GetTerm() {
		if err := s.Stage(snap); err != nil {
			return s.fail("restore the ledger", err)
		}
	}
	if err := s.disk.Rename(stagedFile, snapshotFile); err != nil {
		return s.fail("restore the ledger", err)
	}
	s.staged, s.snap = nil, snap
	s.root.Commit = max(s.root.Commit, meta.GetIndex())
	return s.startSegment(segmentHead{Generation: s.head.Generation + 1, Base: meta.GetIndex(), Term: meta.GetTerm()}, nil)
}

// Adopt takes over the lineage of the fleet's current epoch, for a node that
// joins. It is written with what is written next.
func (s *Store) Adopt(lineage uint64) { s.root.Lineage = lineage }
