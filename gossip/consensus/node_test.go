package consensus_test

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

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/consensus"
	"github.com/shoal-dev/shoal/gossip/consensus/consensustest"
)

var day = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func key(n int) ed25519.PublicKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = byte(n)
	return ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
}

// newLedger returns the ledger of a fleet whose only member is n1.
func newLedger(t testing.TB) gossip.Ledger {
	t.Helper()
	l, err := gossip.NewLedger(gossip.Fleet{ID: "f", ClusterCIDR: "10.64.0.0/11"}, gossip.Member{Name: "n1", Key: key(1)}, nil, day)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func addToken(n int) gossip.Command {
	return gossip.Command{Now: day, AddToken: &gossip.AddToken{Hash: fmt.Sprintf("%064x", n), Expires: day.AddDate(1, 0, 0)}}
}

func addMember(n int) gossip.Command {
	return gossip.Command{Now: day, AddMember: &gossip.AddMember{Name: fmt.Sprintf("n%d", n), Key: key(n), Token: fmt.Sprintf("%064x", n)}}
}

// net connects nodes in memory: a message takes a millisecond, or is lost.
type net struct {
	mu    sync.Mutex
	nodes map[uint64]*consensus.Node
	cut   func(from, to uint64) bool
}

func (n *net) send(from uint64) func(to uint64, raw []byte) {
	return func(to uint64, raw []byte) {
		time.AfterFunc(time.Millisecond, func() {
			n.mu.Lock()
			node, lost := n.nodes[to], n.cut != nil && n.cut(from, to)
			n.mu.Unlock()
			if node != nil && !lost {
				_ = node.Receive(from, raw) // as lost
			}
		})
	}
}

func (n *net) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

// start runs the node of a disk until the returned function is called.
func (n *net) start(t *testing.T, id uint64, disk consensus.Disk) (*consensus.Node, func()) {
	t.Helper()
	ticks := make(chan int)
	node, err := consensus.Open(consensus.Config{Disk: disk, Segment: 1 << 20, Ticks: ticks, Send: n.send(id), CompactEvery: 20, Keep: 5})
	if err != nil {
		t.Fatal(err)
	}
	n.set(func() { n.nodes[id] = node })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- node.Run(ctx) }()
	go func() {
		ticker := time.NewTicker(consensus.TickInterval)
		defer ticker.Stop()
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-ticker.C:
				select {
				case <-ctx.Done():
				case ticks <- 1:
				}
			}
		}
	}()
	return node, func() {
		n.set(func() { delete(n.nodes, id) })
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("close node %d: %v", id, err)
		}
	}
}

// until waits for a condition, within some virtual seconds.
func until(t *testing.T, what string, condition func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !condition() {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("%s: not within 20 s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}

// grow brings the nodes 2 to n into the fleet of node 1 and makes them voters.
func grow(t *testing.T, network *net, leader *consensus.Node, n int) (map[uint64]*consensus.Node, map[uint64]func()) {
	t.Helper()
	nodes, stops := map[uint64]*consensus.Node{1: leader}, map[uint64]func(){}
	voters := []uint64{1}
	for i := 2; i <= n; i++ {
		for _, command := range []gossip.Command{addToken(i), addMember(i)} {
			if _, err := leader.Propose(t.Context(), command); err != nil {
				t.Fatal(err)
			}
		}
		id := uint64(i)
		disk := &consensustest.Disk{}
		if err := consensus.Join(disk, id, 1); err != nil {
			t.Fatal(err)
		}
		nodes[id], stops[id] = network.start(t, id, disk)
		voters = append(voters, id)
	}
	if err := leader.SetVoters(t.Context(), voters); err != nil {
		t.Fatal(err)
	}
	until(t, "all vote", func() bool {
		for _, node := range nodes {
			if !node.State().Voter || node.State().Joint || !slices.Equal(node.Ledger().VoterIDs, voters) {
				return false
			}
		}
		return true
	})
	return nodes, stops
}

func TestAFleetOfOneLeadsAtOnce(t *testing.T) {
	disk := &consensustest.Disk{}
	if err := consensus.Bootstrap(disk, newLedger(t)); err != nil {
		t.Fatal(err)
	}
	for run := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		node, err := consensus.Open(consensus.Config{Disk: disk, Send: func(uint64, []byte) { t.Error("a fleet of one sends a message") }})
		if err != nil {
			t.Fatal(err)
		}
		if s := node.State(); !s.Leads || !s.Voter || s.Leader != 1 {
			t.Fatalf("run %d: got %+v", run, s)
		}
		ended := make(chan error)
		go func() { ended <- node.Run(ctx) }()
		if _, err := node.Propose(ctx, addToken(run)); err != nil {
			t.Fatal(err)
		}
		if err := node.Verify(ctx); err != nil {
			t.Fatal(err)
		}
		if got := len(node.Ledger().Tokens); got != run+1 {
			t.Errorf("run %d: %d tokens", run, got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if _, err := node.Propose(t.Context(), addToken(9)); !errors.Is(err, consensus.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	}
}

func TestThreeNodesGrowLoseTheirLeaderAndGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &net{nodes: map[uint64]*consensus.Node{}}
		disk := &consensustest.Disk{}
		if err := consensus.Bootstrap(disk, newLedger(t)); err != nil {
			t.Fatal(err)
		}
		one, stop := network.start(t, 1, disk)
		nodes, stops := grow(t, network, one, 3)
		for i := range 60 { // past some snapshots
			if _, err := one.Propose(t.Context(), addToken(100+i)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := nodes[2].Propose(t.Context(), addToken(100)); err != nil {
			t.Errorf("a follower proposes: %v", err)
		}
		if err := one.Verify(t.Context()); err != nil {
			t.Error(err)
		}
		if err := nodes[2].Verify(t.Context()); !errors.Is(err, consensus.ErrNotLeader) {
			t.Errorf("a follower confirms that it leads: %v", err)
		}
		_, err := one.Propose(t.Context(), gossip.Command{Now: day, Claim: &gossip.Claim{Identity: "a", Node: "nobody"}})
		if _, refused := errors.AsType[*gossip.Refusal](err); !refused {
			t.Errorf("a claim for nobody: %v", err)
		}
		stop()
		took := until(t, "a new leader", func() bool { return nodes[2].State().Leads || nodes[3].State().Leads })
		t.Logf("a new leader after %v", took)
		leader := nodes[2]
		if nodes[3].State().Leads {
			leader = nodes[3]
		}
		if _, err := leader.Propose(t.Context(), gossip.Command{Now: day, Claim: &gossip.Claim{Identity: "a", Node: "n2"}}); err != nil {
			t.Fatal(err)
		}
		disk.Restart(nil)
		one, stop = network.start(t, 1, disk)
		until(t, "the old leader catches up", func() bool { return one.Ledger().Claims["a"].Node == "n2" })
		if one.Ledger().Hash != leader.Ledger().Hash && one.Ledger().Index == leader.Ledger().Index {
			t.Error("the ledgers forked")
		}
		stop()
		stops[2]()
		stops[3]()
	})
}

func TestWithoutAMajorityNobodyLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &net{nodes: map[uint64]*consensus.Node{}}
		disk := &consensustest.Disk{}
		if err := consensus.Bootstrap(disk, newLedger(t)); err != nil {
			t.Fatal(err)
		}
		one, stop := network.start(t, 1, disk)
		nodes, stops := grow(t, network, one, 3)
		network.set(func() { network.cut = func(from, to uint64) bool { return from == 1 || to == 1 } })
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := one.Verify(ctx); !errors.Is(err, consensus.ErrNotLeader) {
			t.Errorf("a leader that is cut off is confirmed: %v", err)
		}
		until(t, "another leads", func() bool { return nodes[2].State().Leads || nodes[3].State().Leads })
		if _, err := one.Propose(ctx, addToken(77)); !errors.Is(err, consensus.ErrNoLeader) {
			t.Errorf("a node that is cut off proposes: %v", err)
		}
		network.set(func() { network.cut = nil })
		until(t, "all follow one", func() bool {
			return one.State().Leader != 0 && one.State().Leader == nodes[2].State().Leader && one.State().Term == nodes[2].State().Term
		})
		leader := nodes[one.State().Leader]
		if err := leader.Transfer(ctx, 0); err != nil {
			t.Error(err)
		}
		until(t, "leadership is handed over", func() bool { s := one.State(); return s.Leader != 0 && nodes[s.Leader] != leader })
		stop()
		stops[2]()
		stops[3]()
	})
}

func TestVotersChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &net{nodes: map[uint64]*consensus.Node{}}
		disk := &consensustest.Disk{}
		if err := consensus.Bootstrap(disk, newLedger(t)); err != nil {
			t.Fatal(err)
		}
		one, stop := network.start(t, 1, disk)
		nodes, stops := grow(t, network, one, 5)
		// The leader itself is not among those wanted.
		for _, node := range nodes {
			if err := node.SetVoters(t.Context(), []uint64{3, 4, 5}); err != nil {
				t.Fatal(err)
			}
		}
		until(t, "three vote", func() bool {
			s := nodes[4].State()
			return slices.Equal(s.Voters, []uint64{3, 4, 5}) && len(s.Learners) == 0 && !s.Joint
		})
		if s := one.State(); s.Voter {
			t.Errorf("the old leader still votes: %+v", s)
		}
		var leader *consensus.Node
		for _, node := range nodes {
			if node.State().Leads {
				leader = node
			}
		}
		if leader == nil || leader == one {
			t.Fatal("nobody leads, or one that does not vote")
		}
		// A member that was removed does not vote any more, whoever is wanted.
		id := gossip.MemberID(key(5))
		if leader == nodes[5] {
			id = gossip.MemberID(key(4))
		}
		if _, err := leader.Propose(t.Context(), gossip.Command{Now: day, RemoveMember: &gossip.RemoveMember{ID: id}}); err != nil {
			t.Fatal(err)
		}
		until(t, "two vote", func() bool { return len(leader.State().Voters) == 2 })
		stop()
		for _, stop := range stops {
			stop()
		}
	})
}

func TestInform(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &net{nodes: map[uint64]*consensus.Node{}}
		disk := &consensustest.Disk{}
		if err := consensus.Bootstrap(disk, newLedger(t)); err != nil {
			t.Fatal(err)
		}
		one, stop := network.start(t, 1, disk)
		for _, command := range []gossip.Command{addToken(2), addMember(2)} {
			if _, err := one.Propose(t.Context(), command); err != nil {
				t.Fatal(err)
			}
		}
		other := &consensustest.Disk{}
		if err := consensus.Join(other, 2, 1); err != nil {
			t.Fatal(err)
		}
		two, stopTwo := network.start(t, 2, other)
		if two.Ledger().Known() {
			t.Error("a node that just joined knows a ledger")
		}
		if err := two.Inform(t.Context(), one.Ledger()); err != nil {
			t.Error(err)
		}
		if two.Ledger().Hash != one.Ledger().Hash {
			t.Error("a node that was told the ledger does not know it")
		}
		if _, err := two.Propose(t.Context(), addToken(3)); !errors.Is(err, consensus.ErrNoLeader) {
			t.Errorf("a node that does not vote proposes: %v", err)
		}
		forked := one.Ledger()
		forked.Hash[0]++
		forked.Claims = map[string]api.ClaimHolder{"a": {Node: "n2"}}
		if err := one.Inform(t.Context(), forked); err == nil {
			t.Error("a fork is not noticed")
		}
		stop()
		stopTwo()
	})
}
