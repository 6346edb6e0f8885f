package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// All numbers on the disk are little endian; every piece ends in or begins with
// the CRC-32C of the rest. The first eight bytes say what it is, and in which
// version.
const (
	stateMagic    = "SHOALST1"
	segmentMagic  = "SHOALLG1"
	snapshotMagic = "SHOALSN1"
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

func sum(b []byte) uint32 { return crc32.Checksum(b, crcTable) }

// root is what a store begins to read from: the promises of this node, and how
// far the log has been acknowledged.
type root struct {
	Seq     uint64 // grows with every one written
	RaftID  uint64
	Epoch   uint64
	Lineage uint64
	Term    uint64
	Vote    uint64
	Commit  uint64
	Segment uint64 // generation of the segment in use
	End     uint64 // every byte of the segment before it was acknowledged
}

const (
	rootFields = 9
	rootSize   = 8 + rootFields*8 + 4
	rootAt     = 4096 // the second slot; the slots share no block
)

func (r *root) fields() [rootFields]*uint64 {
	return [...]*uint64{&r.Seq, &r.RaftID, &r.Epoch, &r.Lineage, &r.Term, &r.Vote, &r.Commit, &r.Segment, &r.End}
}

func (r root) encode() []byte {
	b := append(make([]byte, 0, rootSize), stateMagic...)
	for _, field := range r.fields() {
		b = binary.LittleEndian.AppendUint64(b, *field)
	}
	return binary.LittleEndian.AppendUint32(b, sum(b))
}

var errCRC = errors.New("the checksum does not match")

func decodeRoot(b []byte) (root, error) {
	if len(b) < rootSize || string(b[:8]) != stateMagic {
		return root{}, errors.New("it is none, or of another version")
	}
	b = b[:rootSize]
	if binary.LittleEndian.Uint32(b[rootSize-4:]) != sum(b[:rootSize-4]) {
		return root{}, errCRC
	}
	var r root
	for i, field := range r.fields() {
		*field = binary.LittleEndian.Uint64(b[8+i*8:])
	}
	return r, nil
}

// segmentHead begins a segment: the log goes on after the entry (Base, Term).
type segmentHead struct{ Generation, Base, Term uint64 }

const segmentHeadSize = 8 + 3*8 + 4

func (h segmentHead) encode() []byte {
	b := append(make([]byte, 0, segmentHeadSize), segmentMagic...)
	for _, field := range []uint64{h.Generation, h.Base, h.Term} {
		b = binary.LittleEndian.AppendUint64(b, field)
	}
	return binary.LittleEndian.AppendUint32(b, sum(b))
}

func decodeSegmentHead(b []byte) (segmentHead, error) {
	if len(b) < segmentHeadSize || string(b[:8]) != segmentMagic {
		return segmentHead{}, errors.New("it is none, or of another version")
	}
	if binary.LittleEndian.Uint32(b[segmentHeadSize-4:]) != sum(b[:segmentHeadSize-4]) {
		return segmentHead{}, errCRC
	}
	number := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8+i*8:]) }
	return segmentHead{Generation: number(0), Base: number(1), Term: number(2)}, nil
}

// An entry of the log on the disk: length of the rest, its CRC, then term,
// index, type and data.
const (
	entryHeadSize  = 8
	entryFixedSize = 17
)

func entrySize(e *pb.Entry) int { return entryHeadSize + entryFixedSize + len(e.GetData()) }

func appendEntry(b []byte, e *pb.Entry) []byte {
	start := len(b)
	b = append(b, make([]byte, entryHeadSize)...)
	b = binary.LittleEndian.AppendUint64(b, e.GetTerm())
	b = binary.LittleEndian.AppendUint64(b, e.GetIndex())
	b = append(b, byte(e.GetType()))
	b = append(b, e.GetData()...)
	payload := b[start+entryHeadSize:]
	binary.LittleEndian.PutUint32(b[start:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[start+4:], sum(payload))
	return b
}

// decodeEntry returns the first entry of b and what follows it. The entry does
// not share memory with b.
func decodeEntry(b []byte) (*pb.Entry, []byte, error) {
	if len(b) < entryHeadSize {
		return nil, nil, errors.New("it is cut off")
	}
	length := binary.LittleEndian.Uint32(b)
	if length < entryFixedSize || uint64(length) > uint64(len(b)-entryHeadSize) {
		return nil, nil, fmt.Errorf("it cannot be %d bytes long", length)
	}
	payload := b[entryHeadSize : entryHeadSize+length]
	if binary.LittleEndian.Uint32(b[4:]) != sum(payload) {
		return nil, nil, errCRC
	}
	e := &pb.Entry{
		Term:  new(binary.LittleEndian.Uint64(payload)),
		Index: new(binary.LittleEndian.Uint64(payload[8:])),
		Type:  pb.EntryType(payload[16]).Enum(),
	}
	if length > entryFixedSize {
		e.Data = append([]byte(nil), payload[entryFixedSize:]...)
	}
	return e, b[entryHeadSize+length:], nil
}

// A snapshot on the disk: magic, epoch and lineage, CRC, then raft's encoding.
const snapshotHeadSize = 8 + 2*8 + 4

func encodeSnapshot(epoch, lineage uint64, snap *pb.Snapshot) ([]byte, error) {
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(snap)
	if err != nil {
		return nil, fmt.Errorf("encode the snapshot: %w", err)
	}
	b := append(make([]byte, 0, snapshotHeadSize+len(payload)), snapshotMagic...)
	b = binary.LittleEndian.AppendUint64(b, epoch)
	b = binary.LittleEndian.AppendUint64(b, lineage)
	crc := crc32.Update(sum(b), crcTable, payload)
	b = binary.LittleEndian.AppendUint32(b, crc)
	return append(b, payload...), nil
}

func decodeSnapshot(b []byte) (epoch, lineage uint64, snap *pb.Snapshot, err error) {
	if len(b) < snapshotHeadSize || string(b[:8]) != snapshotMagic {
		return 0, 0, nil, errors.New("it is none, or of another version")
	}
	head, payload := b[:snapshotHeadSize-4], b[snapshotHeadSize:]
	if binary.LittleEndian.Uint32(b[snapshotHeadSize-4:]) != crc32.Update(sum(head), crcTable, payload) {
		return 0, 0, nil, errCRC
	}
	snap = &pb.Snapshot{}
	if err := proto.Unmarshal(payload, snap); err != nil {
		return 0, 0, nil, err
	}
	return binary.LittleEndian.Uint64(head[8:]), binary.LittleEndian.Uint64(head[16:]), pb.EnsureSnapshot(snap), nil
}
