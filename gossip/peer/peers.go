package peer

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/identity"
)

// Config says who talks and what is done with what is heard. All functions may
// be called concurrently, except where it says so.
type Config struct {
	Node identity.Node
	Boot int64 // of this daemon, see api.Seq
	// Listener takes connections. Peers closes it.
	Listener net.Listener
	// Dial connects to an address.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Addresses returns where a node may be found, the likeliest first.
	Addresses func(id string) []string
	// Member judges whether a node belongs to the fleet; an error says why not.
	Member func(id string) error
	// Receive takes a message. Messages of one node and lane come one after
	// the other.
	Receive func(m gossip.Message)
	// Refused is called when a peer refuses this node's messages for good, with
	// what it says.
	Refused func(why string)
	// Closed is called when the connection from a node has ended.
	Closed func(id string)
	// Answer answers a question of a node, which may be a stranger.
	Answer func(ctx context.Context, from Asker, kind string, question []byte) ([]byte, error)
	// Serve serves an opaque stream that a member has opened, until it returns.
	Serve func(ctx context.Context, from, kind string, stream Stream) error
}

// Asker is who asks a question: the key is proven, whether it belongs to the
// fleet is for the answer to judge.
type Asker struct {
	ID     string
	Key    ed25519.PublicKey
	Remote string // its address, for limits and for people
}

// Peers talks to other nodes. All its methods may be called concurrently.
type Peers struct {
	cfg    Config
	server *grpc.Server
	ctx    context.Context // Run's
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	lines  map[lineKey]*line
	conns  map[string]*grpc.ClientConn
	opened map[string]int // opaque streams to each node, which need its connection
	// incoming are the streams from each node.
	incoming map[string]*caller

	dropped atomic.Uint64
}

// caller is a node that talks to this one.
type caller struct {
	boot    string    // of its daemon
	streams int       // that are open
	heard   time.Time // when its last message came
}

type lineKey struct {
	id   string
	lane lane
}

// New returns a Peers that does not listen before Run.
func New(cfg Config) (*Peers, error) {
	p := &Peers{cfg: cfg, lines: map[lineKey]*line{}, conns: map[string]*grpc.ClientConn{}, opened: map[string]int{}, incoming: map[string]*caller{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	// Whoever holds a key may connect: strangers come to join. What is not for
	// strangers is refused at each stream.
	config, err := cfg.Node.PeerTLS(func(id string, _ ed25519.PublicKey) error {
		if id == cfg.Node.ID {
			return errors.New("the peer holds this node's own key: its state folder was copied")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	p.server = grpc.NewServer(
		grpc.Creds(credentials.NewTLS(config)), grpc.ForceServerCodec(codec{}), grpc.MaxRecvMsgSize(gossip.MaxMessage),
		grpc.MaxConcurrentStreams(256), grpc.ConnectionTimeout(5*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	p.server.RegisterService(p.description(), p)
	return p, nil
}

// Run serves until ctx ends.
func (p *Peers) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, p.server.Stop)
	err := p.server.Serve(p.cfg.Listener)
	if ctx.Err() != nil {
		err = nil
	}
	stop()
	p.cancel()
	p.server.Stop()
	p.wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, conn := range p.conns {
		_ = conn.Close() // nothing is sent any more
		delete(p.conns, id)
	}
	if err != nil {
		return fmt.Errorf("listen for peers on %s: %w", p.cfg.Listener.Addr(), err)
	}
	return nil
}

// Dropped returns how many messages were not sent because a node was not
// reached or did not keep up.
func (p *Peers) Dropped() uint64 { return p.dropped.Load() }

// conn returns the connection to a node, which may not be connected yet.
func (p *Peers) conn(id string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if conn, found := p.conns[id]; found {
		return conn, nil
	}
	if p.ctx.Err() != nil {
		return nil, p.ctx.Err()
	}
	conn, err := p.dial(id, func() []string { return p.cfg.Addresses(id) })
	if err != nil {
		return nil, err
	}
	p.conns[id] = conn
	return conn, nil
}

// drop ends the connection to a node.
func (p *Peers) drop(id string, conn *grpc.ClientConn) {
	p.mu.Lock()
	if p.conns[id] == conn {
		delete(p.conns, id)
	}
	p.mu.Unlock()
	_ = conn.Close() // it failed already, or nobody needs it
}

// dial prepares a connection to a node that must prove the key of id, at the
// first address that answers.
func (p *Peers) dial(id string, addresses func() []string) (*grpc.ClientConn, error) {
	config, err := p.cfg.Node.PeerTLS(func(shown string, _ ed25519.PublicKey) error {
		if shown != id {
			return fmt.Errorf("the peer is node %.12s, not %.12s", shown, id)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p.connect(id, config, addresses)
}

// errNowhere is returned when no address of a node is known.
var errNowhere = errors.New("no address of the node is known")
