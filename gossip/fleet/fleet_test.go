package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/identity"
	"github.com/shoal-dev/shoal/gossip/members"
	"github.com/shoal-dev/shoal/gossip/peer"
)

// house is one node on the loopback interface.
type house struct {
	*Fleet
	t       *testing.T
	name    string
	dir     string
	address string
	node    identity.Node
	id      *identity.Identity
	gossip  members.Config
	stop    func()
	said    *bytes.Buffer
	mu      sync.Mutex
}

var origin = time.Now()

func dial(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

func newHouse(t *testing.T, name string) *house {
	t.Helper()
	h := &house{t: t, name: name, dir: t.TempDir(), address: "127.0.0.1:0", said: &bytes.Buffer{}}
	var err error
	if h.node, err = identity.OpenNode(h.dir); err != nil {
		t.Fatal(err)
	}
	l := h.listen() // to learn a free port
	h.address = l.Addr().String()
	l.Close()
	return h
}

func (h *house) listen() net.Listener {
	h.t.Helper()
	l, err := net.Listen("tcp", h.address)
	if err != nil {
		h.t.Fatal(err)
	}
	return l
}

func (h *house) port() string {
	_, port, _ := net.SplitHostPort(h.address)
	return port
}

// found makes a fleet on this node and runs it.
func found(t *testing.T) *house {
	t.Helper()
	h := newHouse(t, "n1")
	var err error
	if h.id, err = identity.Open(h.dir, identity.Fleet{PodCIDR: "10.64.0.0/24", ClusterCIDR: "10.64.0.0/11", ServiceCIDR: "10.96.0.0/12", Domain: "cluster.local"}); err != nil {
		t.Fatal(err)
	}
	fleet := gossip.Fleet{ID: h.id.Fleet.ID, ClusterCIDR: "10.64.0.0/11", ServiceCIDR: "10.96.0.0/12", Domain: "cluster.local"}
	if err := Found(h.dir, h.node, "n1", fleet, []string{h.address}, "", make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	h.start()
	return h
}

// join lets another node into h's fleet and runs it.
func (h *house) join(name string) *house {
	h.t.Helper()
	o := newHouse(h.t, name)
	token, err := h.NewToken(h.t.Context(), h.id.Fingerprint(), time.Hour, "")
	if err != nil {
		h.t.Fatal(err)
	}
	if err := o.enter(token, h.address); err != nil {
		h.t.Fatal(err)
	}
	o.start()
	return o
}

func (h *house) enter(token identity.Token, address string) error {
	request, key, err := identity.Request([]string{h.name}, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
	defer cancel()
	joined, err := Join(ctx, h.dir, h.node, Invitation{Address: address, Token: token, Name: h.name, Port: h.port(), Request: request, Dial: dial})
	if err != nil {
		return err
	}
	if err := identity.Install(h.dir, joined.Pinned, joined.CA, joined.Certificate, key); err != nil {
		return err
	}
	h.id, err = identity.Read(h.dir)
	return err
}

func (h *house) start() {
	h.t.Helper()
	f, err := Open(Config{
		Dir: h.dir, Node: h.node, Name: h.name, Listener: h.listen(), Dial: dial, Authority: h.id, Gossip: h.gossip,
		Boot: func() time.Duration { return time.Since(origin) + time.Hour },
		Answer: func(context.Context, string, string, []byte) ([]byte, error) {
			return nil, errors.New("no such question")
		},
		Serve: func(context.Context, string, string, peer.Stream) error { return errors.New("no such stream") },
		Say: func(text string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			fmt.Fprintf(h.said, "%s %s %s\n", time.Now().Format("05.000"), h.name, text)
		},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.Fleet = f
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("%s: %v", h.name, err)
		}
	})
	h.t.Cleanup(func() {
		h.stop()
		if h.t.Failed() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.t.Logf("%s said:\n%s", h.name, h.said)
		}
	})
	if err := f.SetInfo(api.NodeInfo{Name: h.name, Peer: h.address}); err != nil {
		h.t.Fatal(err)
	}
}

func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// agree waits until all follow one quorate leader that is one of them, and know
// all of them.
func agree(t *testing.T, limit time.Duration, houses ...*house) *house {
	t.Helper()
	var leader *house
	begin := time.Now()
	eventually(t, limit, "a quorate leader whom all follow", func() bool {
		names := map[string]bool{}
		leader = nil
		for _, h := range houses {
			v := h.View()
			if !v.Authority.Quorate || v.Heard > 2*gossip.RenewEvery || len(v.Board.Nodes) < len(houses) {
				return false
			}
			names[v.Leader] = true
			if v.Leads {
				leader = h
			}
		}
		return len(names) == 1 && leader != nil
	})
	t.Logf("all follow %s after %s", leader.name, time.Since(begin).Round(time.Millisecond))
	return leader
}

// TestFleetOfOne leads itself at once.
func TestFleetOfOne(t *testing.T) {
	begin := time.Now()
	h := found(t)
	if v := h.View(); !v.Leads || !v.Authority.Quorate || v.Leader != "n1" || h.Self().PodCIDR != "10.64.0.0/24" {
		t.Errorf("after %s: %+v", time.Since(begin), v.Authority)
	}
	if err := h.Publish(api.AssignmentSet{Leader: "n1", Term: 1}, api.Facts{Seq: 3}); err != nil {
		t.Fatal(err)
	}
	if v := h.View(); v.Board.Assigned.Leader != "n1" || v.Facts.Seq != 3 {
		t.Errorf("got %+v", v)
	}
	h.stop()
	h.start()
	if v := h.View(); !v.Leads {
		t.Errorf("after a restart: %+v", v.Authority)
	}
	if err := Found(h.dir, h.node, "other", gossip.Fleet{}, nil, "", nil); err == nil {
		h.stop()
		if err := Found(h.dir, h.node, "other", gossip.Fleet{}, nil, "", nil); err != nil {
			t.Errorf("founding where a fleet is does nothing: %v", err)
		}
	}
}

// TestJoinAndFailover: three nodes; the leader dies; the next one leads, and the
// dead one is lost; it comes back.
func TestJoinAndFailover(t *testing.T) {
	a := found(t)
	b, c := a.join("n2"), a.join("n3")
	all := []*house{a, b, c}
	if leader := agree(t, 5*time.Second, all...); leader != a {
		t.Errorf("%s leads", leader.name)
	}
	cidrs := []string{a.Self().PodCIDR, b.Self().PodCIDR, c.Self().PodCIDR}
	if !slices.Equal(cidrs, []string{"10.64.0.0/24", "10.64.1.0/24", "10.64.2.0/24"}) {
		t.Errorf("pod ranges are %v", cidrs)
	}
	eventually(t, 30*time.Second, "all three vote and hold the API's key", func() bool {
		for _, h := range all {
			if _, key := h.id.Export(); len(h.Voters()) != 3 || key == nil {
				return false
			}
		}
		return true
	})
	if err := c.SetStates(api.PodStates{Pods: []api.PodState{{Pod: api.Pod{Instance: "i"}}}}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	eventually(t, time.Second, "n2 knows n3's pod", func() bool { b := b.View().Board; return len(b.Pods) == 1 && len(b.Pods[0].Pods) == 1 })
	t.Logf("a pod's state is known after %s", time.Since(begin))

	if err := a.Yield(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*time.Second, "n2 leads because n1 lets it", func() bool { return b.View().Leads && b.View().Authority.Quorate && !a.View().Leads })
	if err := a.Yield(t.Context(), "n3"); err == nil {
		t.Error("a node that does not lead lets another one lead")
	}
	agree(t, 4*time.Second, all...)
	if err := b.Yield(t.Context(), "n1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*time.Second, "n1 leads again", func() bool { return a.View().Leads && a.View().Authority.Quorate && !b.View().Leads })
	agree(t, 4*time.Second, all...)

	a.stop()
	dead := time.Now()
	leader := agree(t, 4*time.Second, b, c)
	t.Logf("new leader after %s", time.Since(dead))
	eventually(t, 4*time.Second, "n1 is lost to both", func() bool {
		return b.View().Board.HealthOf("n1").Status == api.NodeLost && c.View().Board.HealthOf("n1").Status == api.NodeLost
	})
	t.Logf("lost after %s", time.Since(dead))
	if _, err := leader.NewToken(t.Context(), leader.id.Fingerprint(), time.Hour, ""); err != nil {
		t.Errorf("a token of the new leader: %v", err)
	}
	a.start()
	agree(t, 5*time.Second, all...)
	eventually(t, 5*time.Second, "n1 is well", func() bool { return len(leader.View().Board.Health) == 0 })

	// The last one standing acts, with fewer rights.
	a.stop()
	b.stop()
	left := time.Now()
	eventually(t, 8*time.Second, "n3 acts", func() bool { v := c.View(); return v.Leads && !v.Authority.Quorate })
	t.Logf("acting after %s", time.Since(left))
	if err := c.Propose(t.Context(), gossip.Command{RotateGossipKey: &gossip.RotateGossipKey{Key: make([]byte, 32)}}); err == nil {
		t.Error("an acting leader changed the ledger")
	}
}

// TestTokens: a token lets one node in, for its time, into its fleet.
func TestTokens(t *testing.T) {
	a := found(t)
	token, err := a.NewToken(t.Context(), a.id.Fingerprint(), time.Hour, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := newHouse(t, "n2").enter(token, a.address); err != nil {
		t.Fatal(err)
	}
	refused := func(name, want string, token identity.Token, h *house) {
		t.Helper()
		a.guard.mu.Lock()
		a.guard.tries = nil
		a.guard.mu.Unlock()
		if err := h.enter(token, a.address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, want)
		}
		if _, err := os.Stat(filepath.Join(h.dir, "ledger")); err == nil {
			t.Errorf("%s: files were made", name)
		}
	}
	refused("used", "token", token, newHouse(t, "n3"))
	guessed := token
	guessed.Secret = make([]byte, 32)
	refused("guessed", "token", guessed, newHouse(t, "n3"))
	expired, err := a.NewToken(t.Context(), a.id.Fingerprint(), time.Millisecond, "")
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Millisecond)
	refused("expired", "token", expired, newHouse(t, "n3"))
	other := found(t)
	foreign, err := other.NewToken(t.Context(), other.id.Fingerprint(), time.Hour, "")
	if err != nil {
		t.Fatal(err)
	}
	refused("of another fleet", "no node of the fleet", foreign, newHouse(t, "n3"))
	good, err := a.NewToken(t.Context(), a.id.Fingerprint(), time.Hour, "")
	if err != nil {
		t.Fatal(err)
	}
	refused("a name that is taken", "n1", good, newHouse(t, "n1"))
	a.guard.mu.Lock()
	a.guard.tries = nil
	a.guard.mu.Unlock()
	guesser := newHouse(t, "n9")
	for range joinTries {
		_ = guesser.enter(guessed, a.address) // refused, as above
	}
	if err := guesser.enter(good, a.address); err == nil || !strings.Contains(err.Error(), "wait, then try again") {
		t.Errorf("guessing goes on: %v", err)
	}
}

// TestRemoved: a node that was removed is refused for good.
func TestRemoved(t *testing.T) {
	a := found(t)
	b := a.join("n2")
	agree(t, 5*time.Second, a, b)
	if err := a.Command(t.Context(), gossip.Command{RemoveMember: &gossip.RemoveMember{ID: b.node.ID}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "n1 is alone", func() bool { return len(a.View().Board.Nodes) == 1 })
	eventually(t, 5*time.Second, "n2 hears nothing", func() bool { return b.View().Heard > time.Second })
	b.stop()
	b.start()
	time.Sleep(time.Second)
	if v := a.View(); len(v.Board.Nodes) != 1 {
		t.Errorf("n1 knows %v", v.Board.Nodes)
	}
}

// damage flips a bit in a file of a node that does not run.
func (h *house) damage(name string) {
	h.t.Helper()
	path := filepath.Join(h.dir, "raft", name)
	raw, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	raw[min(len(raw)/2, 40)] ^= 4
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// TestLostLogs: a node whose log is damaged or gone gets a new one and votes
// again; the only node of a fleet goes on in a new epoch.
func TestLostLogs(t *testing.T) {
	a := found(t)
	b, c := a.join("n2"), a.join("n3")
	all := []*house{a, b, c}
	voting := func(what string) {
		t.Helper()
		agree(t, 10*time.Second, all...)
		eventually(t, 30*time.Second, "all three vote after "+what, func() bool {
			for _, h := range all {
				if s := h.log.State(); !s.Voter || len(s.Voters) != 3 {
					return false
				}
			}
			return true
		})
	}
	voting("the beginning")
	eventually(t, 5*time.Second, "the ledger is kept", func() bool {
		l, err := c.keeper.load()
		return err == nil && l.Index == c.log.Ledger().Index
	})
	raftID := c.Self().RaftID
	for what, lose := range map[string]func(){
		"a flipped bit in the state": func() { c.damage("state") },
		"a log that is gone": func() {
			if err := os.RemoveAll(filepath.Join(c.dir, "raft")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		c.stop()
		lose()
		if err := Found(c.dir, c.node, "n3", gossip.Fleet{ID: "x", ClusterCIDR: "10.64.0.0/11"}, nil, "", make([]byte, 32)); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		c.start()
		eventually(t, 20*time.Second, "n3 has a new raft ID after "+what, func() bool { return c.log.Absent() == nil && c.Self().RaftID > raftID })
		raftID = c.Self().RaftID
		voting(what)
	}

	lone := found(t)
	eventually(t, 5*time.Second, "the ledger is kept", func() bool { _, err := lone.keeper.load(); return err == nil })
	lone.stop()
	lone.damage("state")
	lone.start()
	if v := lone.View(); !v.Leads || v.Ledger.Epoch != 2 {
		t.Errorf("the only node, after its log was damaged: leads %v in epoch %d", v.Leads, v.Ledger.Epoch)
	}
}
