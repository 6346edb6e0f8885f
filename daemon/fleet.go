package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/fleet"
	"github.com/shoal-dev/shoal/gossip/identity"
	"github.com/shoal-dev/shoal/gossip/members"
	"github.com/shoal-dev/shoal/gossip/peer"
	"github.com/shoal-dev/shoal/scheduler"
)

func (c Config) fleetDir() string { return filepath.Join(c.State, "fleet") }

// wanted is what a fleet would be founded with.
func (c Config) wanted() identity.Fleet {
	return identity.Fleet{
		PodCIDR: c.Network.PodCIDR, ClusterCIDR: c.Network.ClusterCIDR, ServiceCIDR: c.Network.ServiceCIDR, Domain: c.Network.Domain,
		Repository: c.Repository.URL, Ref: c.Repository.Ref, Path: c.Repository.Path,
	}
}

// inFleet returns the configuration with what the fleet was founded with, where
// the configuration says nothing of its own.
func (c Config) inFleet(f identity.Fleet) Config {
	standard := Default()
	take := func(own *string, standard, fleet string) {
		if *own == standard && fleet != "" {
			*own = fleet
		}
	}
	take(&c.Network.PodCIDR, standard.Network.PodCIDR, f.PodCIDR)
	take(&c.Network.ClusterCIDR, standard.Network.ClusterCIDR, f.ClusterCIDR)
	take(&c.Network.ServiceCIDR, standard.Network.ServiceCIDR, f.ServiceCIDR)
	take(&c.Network.Domain, standard.Network.Domain, f.Domain)
	if c.Repository.URL == "" {
		c.Repository.URL, c.Repository.Ref, c.Repository.Path = f.Repository, f.Ref, f.Path
	}
	return c
}

// Pinned returns the configuration with what this machine's fleet was founded
// with, where the configuration says nothing of its own; as it is when the
// machine is in no fleet yet.
func Pinned(cfg Config) Config {
	if f, err := identity.ReadFleet(cfg.identityDir()); err == nil {
		return cfg.inFleet(f)
	}
	return cfg
}

// peerAddress is where peers reach a node with an address.
func (c Config) peerAddress(node netip.Addr) string {
	if c.Peer.Advertise != "" {
		return c.Peer.Advertise
	}
	_, port, _ := net.SplitHostPort(c.Peer.Listen) // Validate has seen to it
	return net.JoinHostPort(node.String(), port)
}

// found makes a fleet of this machine when it is in none.
func (m Machine) found(cfg Config, id *identity.Identity, node identity.Node) error {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // crypto/rand documents that it never fails
	pinned := id.Pinned()
	return fleet.Found(cfg.fleetDir(), node, cfg.Node, gossip.Fleet{
		ID: pinned.ID, ClusterCIDR: pinned.ClusterCIDR, ServiceCIDR: pinned.ServiceCIDR, Domain: pinned.Domain,
	}, []string{cfg.peerAddress(m.Address())}, pinned.PodCIDR, key)
}

// dialPeer connects to a peer. A connection whose peer does not confirm what it
// was sent ends soon: after a split the next one must not wait for the old one
// to give up.
func dialPeer(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var set error
		err := raw.Control(func(fd uintptr) {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(4*time.Second/time.Millisecond))
		})
		return errors.Join(err, set)
	}}
	return d.DialContext(ctx, "tcp", address)
}

// openFleet opens this node's part in its fleet.
func (m Machine) openFleet(cfg Config, id *identity.Identity, node identity.Node, listener net.Listener, c *control, log *slog.Logger) (*fleet.Fleet, error) {
	return fleet.Open(fleet.Config{
		Dir: cfg.fleetDir(), Node: node, Name: cfg.Node, Listener: listener, Dial: m.Dial, Boot: m.Boot, Authority: id,
		Gossip: members.Config{
			Bind: cfg.Gossip.Listen, Advertise: func() string { return cfg.peerAddress(m.Address()) },
			Seeds: func() []string { return cfg.Gossip.Seeds }, Transport: m.Transport,
		},
		Answer: c.answer,
		Serve:  c.serveStream,
		Say:    func(text string) { log.Info(text) },
	})
}

// claimWithin is how long a turn waits for claims. Those that come later are
// found at the next turn.
const claimWithin = 500 * time.Millisecond

// claim asks the consensus for the right to run exclusive pods, and reports
// whether any was granted.
func (c *control) claim(ctx context.Context, requests []scheduler.ClaimRequest) bool {
	ctx, cancel := context.WithTimeout(ctx, claimWithin)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(32)
	granted := make([]bool, len(requests))
	for i, r := range requests {
		g.Go(func() error {
			err := c.part.Propose(ctx, gossip.Command{Claim: &gossip.Claim{Identity: r.Identity.String(), Node: r.Node, Previous: r.Expect}})
			granted[i] = err == nil
			return err
		})
	}
	c.report("claim exclusive pods", g.Wait())
	for _, ok := range granted {
		if ok {
			return true
		}
	}
	return false
}

// release lets the ledger forget claims that nobody will need again. One proposal
// is under way at a time; what it does not cover is found at a later turn.
func (c *control) release(ctx context.Context, claims map[string]api.Claim) {
	if len(claims) == 0 || !c.releasing.CompareAndSwap(false, true) {
		return
	}
	c.asides.Go(func() {
		defer c.releasing.Store(false)
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if err := c.part.Propose(ctx, gossip.Command{ReleaseClaims: &gossip.ReleaseClaims{Claims: claims}}); err != nil {
			c.log.Debug("let the ledger forget claims: it is tried again", "reason", err)
		}
	})
}

// The kinds of opaque streams between nodes.
const (
	streamLogs    = "logs"
	streamObjects = "objects"
)

// logsQuestion begins a stream of logs. A line of JSON holds it.
type logsQuestion struct {
	Instance  string               `json:"instance"`
	Container string               `json:"container"`
	Options   corev1.PodLogOptions `json:"options"`
}

// serveStream serves what another node opens.
func (c *control) serveStream(ctx context.Context, _, kind string, stream peer.Stream) error {
	switch kind {
	case streamObjects:
		return c.repo.Serve(ctx, stream)
	case streamExec:
		return c.serveExec(ctx, stream)
	case streamForward:
		return c.serveForward(ctx, stream)
	case streamDebug:
		return c.serveDebug(stream)
	case streamLogs:
		return c.serveLogs(ctx, stream)
	case streamImage:
		return c.serveImage(ctx, stream)
	case streamBlob:
		return c.serveBlob(ctx, stream)
	}
	return fmt.Errorf("no such stream: %q: this daemon may be older than the one that asks", kind)
}

func (c *control) serveLogs(ctx context.Context, stream peer.Stream) error {
	var q logsQuestion
	if err := readLine(stream, &q); err != nil {
		return err
	}
	logs, err := c.agent.Logs(ctx, q.Instance, q.Container, q.Options)
	if err != nil {
		return err
	}
	defer logs.Close() // it was only read
	_, err = io.Copy(stream, logs)
	return err
}

// logs reads a container's log where the pod runs.
func (c *control) logs(ctx context.Context, instance, container string, options corev1.PodLogOptions) (io.ReadCloser, error) {
	node := ""
	if v := c.view.Load(); v != nil {
		for _, p := range v.pods {
			if p.pod.Instance == instance {
				node = p.node
			}
		}
	}
	if node == "" || node == c.cfg.Node {
		return c.agent.Logs(ctx, instance, container, options)
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.part.Open(ctx, node, streamLogs)
	if err == nil {
		err = writeLine(stream, logsQuestion{instance, container, options})
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("read the log on node %s: %w", node, err)
	}
	return &remoteLog{stream, cancel}, nil
}

type remoteLog struct {
	io.Reader
	cancel func()
}

func (r *remoteLog) Close() error { r.cancel(); return nil }

// hint fetches from Git at once when another node has a commit that this one
// does not: whoever hears of a push first tells all.
func (c *control) hint(nodes []api.NodeInfo) {
	for _, own := range c.repo.Status() {
		for _, n := range nodes {
			for _, commit := range []api.Commit{n.Units[own.Unit], n.Tips[own.Unit]} {
				if n.Name == c.cfg.Node || commit == "" || commit == own.Accepted.Commit || commit == own.Tip.Commit || c.hinted[commit] {
					continue
				}
				if len(c.hinted) > 1000 {
					clear(c.hinted)
				}
				c.hinted[commit] = true
				c.repo.Poke()
			}
		}
	}
}
