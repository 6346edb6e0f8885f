package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/identity"
)

// Limits of what waits for a node that does not keep up.
const (
	queueLength = 128
	idleAfter   = time.Minute
)

// line is one lane to one node.
type line struct {
	queue chan []byte
}

// Send sends a message to its To. It does not wait: a message that cannot be
// sent is lost. Of those that wait the oldest are lost first.
func (p *Peers) Send(m gossip.Message) error {
	raw, err := gossip.Encode(m)
	if err != nil {
		return fmt.Errorf("encode a message: %w", err)
	}
	if len(raw) > gossip.MaxMessage {
		return fmt.Errorf("a message of %d bytes: %d are the most", len(raw), gossip.MaxMessage)
	}
	key := lineKey{m.To, laneOf(&m)}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return nil
	}
	l, open := p.lines[key]
	if !open {
		l = &line{queue: make(chan []byte, queueLength)}
		p.lines[key] = l
		p.wg.Go(func() { p.write(key, l) })
	}
	for {
		select {
		case l.queue <- raw:
			return nil
		default:
		}
		select {
		case <-l.queue:
			p.dropped.Add(1)
		default:
		}
	}
}

// write sends what is put into a line until that is idle.
func (p *Peers) write(key lineKey, l *line) {
	idle := time.NewTimer(idleAfter)
	defer idle.Stop()
	t := talk{end: func() {}}
	defer func() { t.end() }()
	for {
		var raw []byte
		select {
		case <-p.ctx.Done():
			return
		case <-idle.C:
			if p.retire(key, l) {
				return
			}
			idle.Reset(idleAfter)
			continue
		case raw = <-l.queue:
		}
		idle.Reset(idleAfter)
		age := time.Since(t.opened)
		err := p.say(key, &t, raw)
		if errors.Is(err, errEnded) && age > refusalFresh {
			// It may have ended long ago, and nobody said anything since.
			err = p.say(key, &t, raw)
		}
		if err != nil {
			p.dropped.Add(1)
			if !errors.Is(err, errEnded) {
				p.pause(l)
			}
		}
	}
}

// talk is a stream of messages on a connection.
type talk struct {
	conn   *grpc.ClientConn
	stream grpc.ClientStream // nil while there is none
	opened time.Time
	end    func()
}

// errEnded says that a stream has ended; another one may be opened.
var errEnded = errors.New("the stream has ended")

// say sends one message, on a new stream when there is none.
func (p *Peers) say(key lineKey, t *talk, raw []byte) error {
	if t.stream == nil {
		next, err := p.talk(key)
		if err != nil {
			return err
		}
		*t = next
	}
	if t.stream.SendMsg(&frame{raw}) == nil {
		return nil
	}
	p.heed(t.stream, t.opened)
	t.end()
	p.drop(key.id, t.conn)
	*t = talk{end: func() {}}
	return errEnded
}

// refusalFresh is how old a stream may be whose refusal counts. It is noticed
// with the next message only: by then a peer that had not heard of this node yet
// may have, and the next stream tells.
const refusalFresh = 5 * time.Second

// heed finds out why a stream has ended that cannot be written to any more.
func (p *Peers) heed(stream grpc.ClientStream, opened time.Time) {
	s := status.Convert(stream.RecvMsg(&frame{}))
	if p.cfg.Refused != nil && time.Since(opened) < refusalFresh && (s.Code() == codes.PermissionDenied || s.Code() == codes.AlreadyExists) {
		p.cfg.Refused(s.Message())
	}
}

// retire ends a line that nothing waits in.
func (p *Peers) retire(key lineKey, l *line) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(l.queue) > 0 {
		return false
	}
	delete(p.lines, key)
	other := lineKey{key.id, fast}
	if key.lane == fast {
		other.lane = bulk
	}
	if conn := p.conns[key.id]; conn != nil && p.lines[other] == nil && p.opened[key.id] == 0 {
		delete(p.conns, key.id)
		_ = conn.Close() // idle
	}
	return true
}

// pause waits a moment before a node that was not reached is tried again, and
// forgets what should have been sent meanwhile: it is old by then.
func (p *Peers) pause(l *line) {
	select {
	case <-p.ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
	for {
		select {
		case <-l.queue:
			p.dropped.Add(1)
		default:
			return
		}
	}
}

// talk opens a stream of messages.
func (p *Peers) talk(key lineKey) (talk, error) {
	conn, err := p.conn(key.id)
	if err != nil {
		return talk{}, err
	}
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(p.ctx, laneHeader, string(key.lane), bootHeader, strconv.FormatInt(p.cfg.Boot, 10)))
	stop := time.AfterFunc(2*time.Second, cancel) // for the connection to be made
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, talkMethod, grpc.WaitForReady(true))
	if !stop.Stop() || err != nil {
		cancel()
		p.drop(key.id, conn)
		return talk{}, errors.Join(err, ctx.Err())
	}
	return talk{conn, stream, time.Now(), cancel}, nil
}

// connect prepares a connection. It is made when it is first used.
func (p *Peers) connect(id string, config *tls.Config, addresses func() []string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+id,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			errs := []error{errNowhere}
			for _, address := range addresses() {
				attempt, cancel := context.WithTimeout(ctx, time.Second)
				conn, err := p.cfg.Dial(attempt, address)
				cancel()
				if err == nil {
					return conn, nil
				}
				errs = append(errs, err)
			}
			return nil, errors.Join(errs[min(1, len(errs)-1):]...)
		}),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{}), grpc.MaxCallRecvMsgSize(gossip.MaxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			MinConnectTimeout: 2 * time.Second,
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
		}),
		grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
	)
}

// asker returns who is at the other end.
func asker(ctx context.Context) (Asker, error) {
	info, found := grpcpeer.FromContext(ctx)
	if !found {
		return Asker{}, status.Error(codes.Unauthenticated, "nobody is at the other end")
	}
	state, ok := info.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return Asker{}, status.Error(codes.Unauthenticated, "the connection is not TLS")
	}
	key, err := identity.PeerKey(state.State)
	if err != nil {
		return Asker{}, status.Error(codes.Unauthenticated, err.Error())
	}
	return Asker{ID: identity.NodeID(key), Key: key, Remote: info.Addr.String()}, nil
}

// member returns the ID of the other end when it belongs to the fleet.
func (p *Peers) member(ctx context.Context) (string, error) {
	from, err := asker(ctx)
	if err != nil {
		return "", err
	}
	if err := p.cfg.Member(from.ID); err != nil {
		return "", status.Error(codes.PermissionDenied, err.Error())
	}
	return from.ID, nil
}

// handleTalk takes messages until the stream ends.
func (p *Peers) handleTalk(_ any, stream grpc.ServerStream) error {
	id, err := p.member(stream.Context())
	if err != nil {
		return err
	}
	from, err := p.welcome(id, header(stream.Context(), bootHeader))
	if err != nil {
		return err
	}
	defer p.farewell(id, from)
	for {
		var f frame
		if err := stream.RecvMsg(&f); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		var m gossip.Message
		if err := gossip.Decode(f.data, &m); err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		if m.From != id {
			return status.Error(codes.PermissionDenied, "the message bears another node's name")
		}
		if err := p.cfg.Member(id); err != nil { // it may have been removed meanwhile
			return status.Error(codes.PermissionDenied, err.Error())
		}
		p.mu.Lock()
		from.heard = time.Now()
		p.mu.Unlock()
		p.cfg.Receive(m)
	}
}

// rivalAfter is how long a daemon must have been silent for another one with
// the same key to be its successor though its streams are open: its machine may
// have lost power.
const rivalAfter = 1500 * time.Millisecond

// welcome takes in a stream from a node. A daemon that comes while another one
// with the same key talks is a copy of it, and is refused.
func (p *Peers) welcome(id, boot string) (*caller, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.incoming[id]
	if c != nil && c.boot != boot {
		if time.Since(c.heard) < rivalAfter {
			return nil, status.Error(codes.AlreadyExists,
				"another daemon runs with this node's key: a state folder was copied; run shoal reset on one of the machines and let it join anew")
		}
		c = nil
	}
	if c == nil {
		c = &caller{boot: boot}
		p.incoming[id] = c
	}
	c.streams++
	c.heard = time.Now()
	return c, nil
}

// farewell notes the end of a stream, and tells of the last one's.
func (p *Peers) farewell(id string, c *caller) {
	p.mu.Lock()
	c.streams--
	last := c.streams == 0 && p.incoming[id] == c
	if last {
		delete(p.incoming, id)
	}
	p.mu.Unlock()
	if last && p.cfg.Closed != nil {
		p.cfg.Closed(id)
	}
}
