package peer

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"

	"github.com/shoal-dev/shoal/gossip"
)

// frame is what gRPC carries here: bytes, which this room reads itself.
type frame struct{ data []byte }

// codec passes frames as they are.
type codec struct{}

var _ encoding.Codec = codec{}

func (codec) Name() string { return "shoal" }

func (codec) Marshal(v any) ([]byte, error) {
	f, ok := v.(*frame)
	if !ok {
		return nil, fmt.Errorf("send a %T: only frames are sent", v)
	}
	return f.data, nil
}

func (codec) Unmarshal(data []byte, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("receive a %T: only frames are received", v)
	}
	f.data = append([]byte(nil), data...) // gRPC uses its buffer again
	return nil
}

// The methods of the service.
const (
	service    = "shoal.Peer"
	talkMethod = "/" + service + "/Talk" // messages, one way
	askMethod  = "/" + service + "/Ask"  // a question and its answer
	openMethod = "/" + service + "/Open" // bytes, both ways
	kindHeader = "shoal-kind"            // of a question or stream
	laneHeader = "shoal-lane"
	bootHeader = "shoal-boot" // of the daemon: tells a restart from a copy
)

// lane is one of the two queues to a node.
type lane string

const (
	fast lane = "fast"
	bulk lane = "bulk"
)

// laneOf returns the lane of a message.
func laneOf(m *gossip.Message) lane {
	switch {
	case m.Raft != nil, m.Ping != nil, m.Probe != nil:
		return fast
	case m.Renewal != nil && m.Renewal.Digest == nil:
		return fast
	}
	return bulk
}

func (p *Peers) description() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Ask", Handler: p.handleAsk}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Talk", Handler: p.handleTalk, ClientStreams: true},
			{StreamName: "Open", Handler: p.handleOpen, ClientStreams: true, ServerStreams: true},
		},
	}
}
