package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-dev/shoal/gossip"
)

// Message is what one node tells another.
type Message struct {
	Epoch   uint64
	Lineage uint64
	Raft    *pb.Message
}

// To returns the raft ID of the node that the message is for.
func (m Message) To() uint64 { return m.Raft.GetTo() }

const (
	wireVersion  = 1
	wireHeadSize = 1 + 2*8
)

// MaxMessage is the length of the longest message that is read, in bytes: one
// with a snapshot of the largest ledger.
const MaxMessage = gossip.MaxLedger + 64<<10

// Encode writes the message the way DecodeMessage reads it.
func (m Message) Encode() ([]byte, error) {
	b := append(make([]byte, 0, wireHeadSize+proto.Size(m.Raft)), wireVersion)
	b = binary.LittleEndian.AppendUint64(b, m.Epoch)
	b = binary.LittleEndian.AppendUint64(b, m.Lineage)
	b, err := proto.MarshalOptions{}.MarshalAppend(b, m.Raft)
	if err != nil {
		return nil, fmt.Errorf("encode a message of the consensus: %w", err)
	}
	return b, nil
}

// DecodeMessage reads a message that came from the network. What it says is
// judged by Core.Step.
func DecodeMessage(raw []byte) (Message, error) {
	switch {
	case len(raw) > MaxMessage:
		return Message{}, fmt.Errorf("a message of the consensus of %d bytes: %d are the most", len(raw), MaxMessage)
	case len(raw) < wireHeadSize:
		return Message{}, errors.New("a message of the consensus is cut off")
	case raw[0] != wireVersion:
		return Message{}, fmt.Errorf("a message of the consensus of version %d", raw[0])
	}
	m := Message{Epoch: binary.LittleEndian.Uint64(raw[1:]), Lineage: binary.LittleEndian.Uint64(raw[9:]), Raft: &pb.Message{}}
	if err := proto.Unmarshal(raw[wireHeadSize:], m.Raft); err != nil {
		return Message{}, fmt.Errorf("decode a message of the consensus: %w", err)
	}
	return m, nil
}

// proposalHead precedes a command in the log: who proposed it, and that node's
// number for it.
const proposalHead = 16

func encodeProposal(raftID, number uint64, c gossip.Command) ([]byte, error) {
	raw, err := c.Encode()
	if err != nil {
		return nil, err
	}
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, proposalHead+len(raw)), raftID)
	b = binary.LittleEndian.AppendUint64(b, number)
	return append(b, raw...), nil
}

func decodeProposal(b []byte) (raftID, number uint64, c gossip.Command, err error) {
	if len(b) < proposalHead {
		return 0, 0, c, errors.New("a proposal is cut off")
	}
	c, err = gossip.DecodeCommand(b[proposalHead:])
	return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), c, err
}

// plausible returns an error for what no honest peer sends, and what raft would
// not survive.
func plausible(m *pb.Message) error {
	entries := m.GetEntries()
	switch m.GetType() {
	case pb.MsgApp:
		term := m.GetLogTerm()
		for i, e := range entries {
			if e.GetIndex() != m.GetIndex()+uint64(i)+1 || e.GetTerm() < term || e.GetTerm() > m.GetTerm() {
				return fmt.Errorf("entry %d of %d is of index %d and term %d, after index %d and term %d",
					i, len(entries), e.GetIndex(), e.GetTerm(), m.GetIndex(), term)
			}
			term = e.GetTerm()
		}
	case pb.MsgProp:
		if len(entries) != 1 || entries[0].GetType() != pb.EntryNormal || len(entries[0].GetData()) > proposalHead+gossip.MaxCommand {
			return errors.New("a proposal must be one command")
		}
		if _, _, _, err := decodeProposal(entries[0].GetData()); err != nil {
			return err
		}
	case pb.MsgSnap:
		meta := m.GetSnapshot().GetMetadata()
		if meta.GetIndex() == 0 || meta.GetTerm() == 0 || meta.GetTerm() > m.GetTerm() || len(meta.GetConfState().GetVoters()) == 0 {
			return errors.New("a snapshot must say where it is from")
		}
	case pb.MsgHeartbeat, pb.MsgAppResp, pb.MsgHeartbeatResp, pb.MsgVote, pb.MsgVoteResp,
		pb.MsgPreVote, pb.MsgPreVoteResp, pb.MsgTimeoutNow:
		if len(entries) > 0 {
			return fmt.Errorf("a %s has no entries", m.GetType())
		}
	default:
		return fmt.Errorf("a %s is not sent between nodes", m.GetType())
	}
	if m.GetTerm() == 0 && m.GetType() != pb.MsgProp {
		return fmt.Errorf("a %s must have a term", m.GetType())
	}
	return nil
}
