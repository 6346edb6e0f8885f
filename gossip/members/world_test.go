package members

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/shoal-dev/shoal/gossip/identity"
	"github.com/shoal-dev/shoal/internal/simnet"
)

// world is a fleet on a network in memory.
type world struct {
	t     *testing.T
	net   *simnet.Network
	nodes []*node

	mu      sync.Mutex
	removed map[string]bool
	keys    [][]byte
	seeds   []string
}

type node struct {
	*Members
	w    *world
	self identity.Node
	dir  string
	host string
	// hints are what its roster says of the others' addresses.
	hints map[string][]string
	stop  func()

	mu   sync.Mutex
	said []string
}

func key(n byte) []byte { return slices.Repeat([]byte{n}, 32) }

func identityOf(n int) identity.Node {
	private := ed25519.NewKeyFromSeed(slices.Repeat([]byte{byte(n)}, 32))
	public := private.Public().(ed25519.PublicKey)
	return identity.Node{ID: identity.NodeID(public), Public: public, Private: private}
}

// newWorld makes a roster of n nodes. None runs yet.
func newWorld(t *testing.T, n int) *world {
	t.Helper()
	w := &world{t: t, net: simnet.New(1), removed: map[string]bool{}, keys: [][]byte{key(1)}}
	w.net.SetDelay(time.Millisecond)
	for i := range n {
		w.nodes = append(w.nodes, &node{w: w, self: identityOf(i + 1), dir: t.TempDir(), host: fmt.Sprintf("10.0.0.%d", i+1), hints: map[string][]string{}})
	}
	return w
}

func (w *world) member(id string) (ed25519.PublicKey, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		if n.self.ID == id && !w.removed[id] {
			return n.self.Public, nil
		}
	}
	return nil, errors.New("the node is no member")
}

func (w *world) gossipKeys() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.keys)
}

// config is that of a node; tests change it.
func (n *node) config() Config {
	return Config{
		Node: n.self, Fleet: "fleet", Dir: n.dir, Bind: ":7946", Keys: n.w.gossipKeys, Member: n.w.member,
		Advertise: func() string { n.mu.Lock(); defer n.mu.Unlock(); return n.host + ":7947" },
		Transport: func() (memberlist.Transport, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.w.net.Listen(n.host + ":7946")
		},
		Roster: func() map[string][]string {
			out := map[string][]string{}
			for _, o := range n.w.nodes {
				if _, err := n.w.member(o.self.ID); err == nil {
					out[o.self.ID] = n.hints[o.self.ID]
				}
			}
			return out
		},
		Seeds: func() []string { return n.w.seeds },
		Say:   func(text string) { n.mu.Lock(); defer n.mu.Unlock(); n.said = append(n.said, text) },
	}
}

// start runs the node. It is ended with the bubble.
func (n *node) start(change ...func(*Config)) {
	cfg := n.config()
	for _, c := range change {
		c(&cfg)
	}
	n.Members = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.w.t.Errorf("%s: %v", n.host, err)
		}
	})
}

// startAll runs all nodes, which find each other by the first.
func (w *world) startAll() {
	w.seeds = []string{"10.0.0.1"}
	for _, n := range w.nodes {
		n.start()
	}
	w.whole(15*time.Second, w.nodes...)
}

func (w *world) end() {
	for _, n := range w.nodes {
		if n.stop != nil {
			n.stop()
		}
	}
	time.Sleep(10 * time.Minute) // memberlist's goroutines end some time after it
}

// crash ends a node without a goodbye.
func (n *node) crash() {
	n.w.net.Crash(n.host)
	n.stop()
}

// within waits for something and returns how long that took.
func (w *world) within(limit time.Duration, what string, ok func() bool) time.Duration {
	w.t.Helper()
	begin := time.Now()
	for ; !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Since(begin) > limit {
			for _, n := range w.nodes {
				if n.Members != nil {
					w.t.Logf("%s sees %d, said %q", n.host, len(n.Alive()), n.said)
				}
			}
			w.t.Fatalf("not within %s: %s", limit, what)
		}
	}
	return time.Since(begin)
}

// sees reports whether a node takes exactly the others, and itself, to be there.
func (n *node) sees(others ...*node) bool {
	var want []string
	for _, o := range others {
		want = append(want, o.self.ID)
	}
	slices.Sort(want)
	return slices.Equal(n.Alive(), want)
}

// whole waits until all of some nodes see each other and nobody else.
func (w *world) whole(limit time.Duration, nodes ...*node) time.Duration {
	w.t.Helper()
	return w.within(limit, "the nodes see each other", func() bool {
		return !slices.ContainsFunc(nodes, func(n *node) bool { return !n.sees(nodes...) })
	})
}

func bubble(t *testing.T, n int, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, n)
		defer w.end()
		test(w)
	})
}
