package peer

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/shoal-dev/shoal/gossip/identity"
)

// Ask asks a member a question of some kind and returns its answer.
func (p *Peers) Ask(ctx context.Context, id, kind string, question []byte) ([]byte, error) {
	conn, err := p.conn(id)
	if err != nil {
		return nil, err
	}
	return ask(ctx, conn, kind, question)
}

// AskStranger asks whoever listens at an address, which must prove the key of
// one of the given IDs. It is how a node joins that knows nobody yet.
func AskStranger(ctx context.Context, node identity.Node, dial Config, address string, ids []string, kind string, question []byte) ([]byte, error) {
	p := &Peers{cfg: dial}
	config, err := node.PeerTLS(func(id string, _ ed25519.PublicKey) error {
		if !slices.Contains(ids, id) {
			return errors.New("this is no node of the fleet that the token is for")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	conn, err := p.connect(address, config, func() []string { return []string{address} })
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // the answer is there, or it failed
	return ask(ctx, conn, kind, question)
}

func ask(ctx context.Context, conn *grpc.ClientConn, kind string, question []byte) ([]byte, error) {
	var answer frame
	err := conn.Invoke(metadata.AppendToOutgoingContext(ctx, kindHeader, kind), askMethod, &frame{question}, &answer)
	if err != nil {
		return nil, errors.New(status.Convert(err).Message())
	}
	return answer.data, nil
}

func (p *Peers) handleAsk(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // gRPC's order of arguments
	from, err := asker(ctx)
	if err != nil {
		return nil, err
	}
	var question frame
	if err := decode(&question); err != nil {
		return nil, err
	}
	answer, err := p.cfg.Answer(ctx, from, kindOf(ctx), question.data)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &frame{answer}, nil
}

func kindOf(ctx context.Context) string { return header(ctx, kindHeader) }

// header returns what the other end sent with a stream or question.
func header(ctx context.Context, name string) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if values := md.Get(name); len(values) == 1 {
		return values[0]
	}
	return ""
}

// Stream is an opaque stream of bytes between two nodes. CloseWrite tells the
// other end that nothing more comes.
type Stream interface {
	io.Reader
	io.Writer
	CloseWrite() error
}

// Open opens an opaque stream of some kind to a member. It ends with ctx, which
// must end at some time.
func (p *Peers) Open(ctx context.Context, id, kind string) (Stream, error) {
	// The connection stays for as long, though no message may be sent.
	p.mu.Lock()
	p.opened[id]++
	p.mu.Unlock()
	context.AfterFunc(ctx, func() { p.closed(id) })
	conn, err := p.conn(id)
	if err != nil {
		return nil, err
	}
	ctx = metadata.AppendToOutgoingContext(ctx, kindHeader, kind)
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, openMethod)
	if err != nil {
		return nil, fmt.Errorf("open a stream to node %.12s: %s", id, status.Convert(err).Message())
	}
	return &pipe{stream: s, close: s.CloseSend}, nil
}

// closed notes that an opaque stream to a node has ended.
func (p *Peers) closed(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opened[id]--; p.opened[id] == 0 {
		delete(p.opened, id)
	}
}

func (p *Peers) handleOpen(_ any, s grpc.ServerStream) error {
	id, err := p.member(s.Context())
	if err != nil {
		return err
	}
	return p.cfg.Serve(s.Context(), id, kindOf(s.Context()), &pipe{stream: s, close: func() error { return nil }})
}

// pipe makes a stream of bytes of a stream of frames.
type pipe struct {
	stream interface {
		SendMsg(m any) error
		RecvMsg(m any) error
	}
	close func() error
	rest  []byte
}

// piece is the most that is sent at once.
const piece = 64 << 10

func (s *pipe) Read(b []byte) (int, error) {
	for len(s.rest) == 0 {
		var f frame
		if err := s.stream.RecvMsg(&f); err != nil {
			if errors.Is(err, io.EOF) {
				return 0, io.EOF
			}
			return 0, errors.New(status.Convert(err).Message())
		}
		s.rest = f.data
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *pipe) Write(b []byte) (int, error) {
	for at := 0; at < len(b); at += piece {
		part := slices.Clone(b[at:min(len(b), at+piece)]) // gRPC sends it later, and the caller uses b again
		if err := s.stream.SendMsg(&frame{part}); err != nil {
			return at, err
		}
	}
	return len(b), nil
}

func (s *pipe) CloseWrite() error { return s.close() }
