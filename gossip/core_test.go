package gossip

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/testenv"
)

func states(pods ...string) api.PodStates {
	out := api.PodStates{}
	for _, p := range pods {
		out.Pods = append(out.Pods, api.PodState{Pod: api.Pod{Identity: api.Identity{Namespace: "d", Kind: "Pod", Owner: p}, Revision: "r", Instance: p + "-i"}, Ready: true})
	}
	return out
}

// TestFleet: what one node says, all know soon, and what the leader decides.
func TestFleet(t *testing.T) {
	w := newNetwork(t, 5, 1)
	w.raft(0, 1)
	t.Logf("all follow after %s", w.follow(2*time.Second, 0))
	if err := w.nodes[4].SetOwn(w.now, States, states("web")); err != nil {
		t.Fatal(err)
	}
	took := w.until(time.Second, "everybody knows n4's pod", func() bool {
		return !slices.ContainsFunc(w.nodes, func(s *station) bool {
			b := s.Board()
			return len(b.Pods) != 1 || b.Pods[0].Node != "n4" || len(b.Pods[0].Pods) != 1
		})
	})
	t.Logf("a pod's state is known after %s", took)
	set := api.AssignmentSet{Epoch: 1, Term: 1, Quorate: true, Leader: "n0", Pods: []api.Assignment{{Pod: states("web").Pods[0].Pod, Node: "n4"}}}
	facts := api.Facts{Term: 1, Seq: 1, Created: map[string]time.Time{"a/b": time.Unix(1, 0).UTC()}}
	if err := w.nodes[0].SetDecision(set, facts); err != nil {
		t.Fatal(err)
	}
	w.until(time.Second, "everybody has the decision", func() bool {
		return !slices.ContainsFunc(w.nodes, func(s *station) bool {
			return len(s.Board().Assigned.Pods) != 1 || s.Board().Assigned.Pods[0].Node != "n4" || s.Facts().Seq != 1 || len(s.Facts().Created) != 1
		})
	})
	// What a node decides that does not lead is nothing.
	if err := w.nodes[3].SetDecision(api.AssignmentSet{Leader: "n3"}, api.Facts{}); err != nil {
		t.Fatal(err)
	}
	w.run(2 * time.Second)
	if got := w.nodes[3].Board().Assigned; got.Leader != "n0" {
		t.Errorf("n3 obeys %+v", got)
	}
}

// TestIdleTraffic: when nothing happens, little is sent.
func TestIdleTraffic(t *testing.T) {
	w := newNetwork(t, 5, 1)
	w.raft(0, 1)
	w.run(10 * time.Second)
	clear(w.bytes)
	w.run(60 * time.Second)
	for id, n := range w.bytes {
		if perSecond := n / 60; perSecond > 6000 {
			t.Errorf("%s sends %d bytes a second", id, perSecond)
		}
	}
	t.Logf("leader %d bytes/s, follower %d bytes/s", w.bytes["id000"]/60, w.bytes["id004"]/60)
}

// TestLost: a node that falls silent is lost within 3 s, and one that stalls for
// 2 s is not.
func TestLost(t *testing.T) {
	w := newNetwork(t, 5, 1)
	w.raft(0, 1)
	w.follow(2*time.Second, 0)
	for _, stall := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second} {
		w.nodes[3].stalled = w.now + stall
		w.until(stall+time.Second, "it renews again", func() bool {
			if w.nodes[0].status("n3") == api.NodeLost {
				t.Fatalf("lost after a stall of %s", stall)
			}
			return w.now > w.nodes[3].stalled+RenewEvery
		})
	}
	w.nodes[3].down = true
	took := w.until(4*time.Second, "n3 is lost to all", func() bool {
		return !slices.ContainsFunc(w.nodes, func(s *station) bool { return !s.down && s.status("n3") != api.NodeLost })
	})
	t.Logf("lost to all after %s", took)
	if took < LostAfter-RenewEvery-tick || took > LostAfter+RenewEvery {
		t.Errorf("lost after %s", took)
	}
	w.boot(w.nodes[3])
	t.Logf("well again after %s", w.until(3*time.Second, "n3 is well", func() bool { return w.nodes[4].status("n3") == api.NodeAlive }))
}

// TestNewLeader: when the leader dies with a voter majority left, the next one
// counts the silence of the dead one from when it fell silent.
func TestNewLeader(t *testing.T) {
	w := newNetwork(t, 5, 1)
	w.raft(0, 1)
	w.follow(2*time.Second, 0)
	w.nodes[0].down = true
	w.run(time.Second) // the election
	w.raft(1, 2)
	w.follow(time.Second, 1)
	w.until(2*time.Second, "n0 is lost", func() bool { return w.nodes[1].status("n0") == api.NodeLost })
	w.run(5 * time.Second)
	for _, s := range w.nodes[1:] {
		if got := s.Board().Health; len(got) != 1 {
			t.Errorf("%s believes %v", s.peer.Name, got)
		}
	}
	// The deposed leader comes back and still believes in itself: nobody obeys.
	w.boot(w.nodes[0])
	w.nodes[0].SetRaft(w.now, Authority{Leader: "id000", Quorate: true, Epoch: 1, Term: 1})
	w.run(3 * time.Second)
	w.follow(time.Second, 1, 1, 2, 3, 4)
}

// TestTheDeadStayDead: a machine that is lost does not come back because somebody
// else leads, and one that was only said to be lost does within a renewal.
func TestTheDeadStayDead(t *testing.T) {
	w := newNetwork(t, 5, 1)
	w.raft(0, 1)
	w.follow(2*time.Second, 0)
	w.nodes[4].down, w.nodes[3].down = true, true
	w.until(5*time.Second, "n3 and n4 are lost", func() bool {
		return w.nodes[1].status("n4") == api.NodeLost && w.nodes[1].status("n3") == api.NodeLost
	})
	w.run(2 * time.Second)
	w.boot(w.nodes[3]) // nobody has heard of it when the next one leads
	w.nodes[0].down = true
	w.raft(1, 2)
	for range 40 {
		w.run(100 * time.Millisecond)
		if got := w.nodes[1].status("n4"); got != api.NodeLost {
			t.Fatalf("at %s n4, which is dead, is %q", w.now, got)
		}
	}
	if got := w.nodes[1].status("n3"); got != api.NodeAlive {
		t.Errorf("n3, which came back, is %q", got)
	}
}

// TestActingLeader: without a quorum the lowest node that is reached acts, in
// each part of a split, and lays down when a quorate leader is heard of.
func TestActingLeader(t *testing.T) {
	w := newNetwork(t, 5, 1)
	w.raft(0, 1)
	w.follow(2*time.Second, 0)
	w.cut = split([]int{0, 1, 2}, []int{3, 4})
	took := w.follow(7*time.Second, 3, 3, 4)
	t.Logf("n3 acts after %s", took)
	if took > OrphanAfter+AnswerWithin+LostAfter {
		t.Errorf("it took %s", took)
	}
	if w.nodes[3].lead.authority.Quorate {
		t.Error("it believes that it has a quorum")
	}
	w.follow(time.Second, 0, 0, 1, 2)
	w.until(ActingLostAfter+RenewEvery, "both parts see what is lost", func() bool {
		return w.nodes[0].status("n4") == api.NodeLost && w.nodes[4].status("n0") == api.NodeLost
	})
	w.cut = split([]int{0, 1, 2, 3, 4})
	t.Logf("one again after %s", w.follow(5*time.Second, 0))
	w.agree(5 * time.Second)
	w.until(3*time.Second, "all are well", func() bool { return len(w.nodes[0].Board().Health) == 0 })

	// No quorum anywhere.
	w.cut = split([]int{0, 1}, []int{2}, []int{3, 4})
	for _, s := range w.nodes {
		s.SetRaft(w.now, Authority{})
	}
	w.follow(8*time.Second, 0, 0, 1)
	w.follow(8*time.Second, 2, 2)
	w.follow(8*time.Second, 3, 3, 4)
	w.cut = split([]int{0, 1, 2, 3, 4})
	w.follow(5*time.Second, 0)
	w.raft(2, 5)
	w.follow(5*time.Second, 2)
}

// TestShortSplit: a split of 5 s that leaves nobody a quorum costs no node, though
// the consensus and the streams take another second to find together again.
func TestShortSplit(t *testing.T) {
	for _, parts := range [][][]int{{{0, 1}, {2, 3}, {4}}, {{0, 4}, {1}, {2, 3}}, {{4, 1}, {3, 2}, {0}}} {
		w := newNetwork(t, 5, 1)
		w.raft(0, 1)
		w.follow(2*time.Second, 0)
		watch := func(d time.Duration) {
			for end := w.now + d; w.now < end; {
				w.run(tick)
				for _, s := range w.nodes {
					if unwell := s.Health(); slices.ContainsFunc(unwell, api.NodeHealth.Gone) {
						t.Fatalf("%v: %s after the cut %s takes nodes for lost: %v", parts, w.now-end+d, s.peer.Name, unwell)
					}
				}
			}
		}
		w.cut = split(parts...)
		watch(time.Second)
		for _, s := range w.nodes {
			s.SetRaft(w.now, Authority{}) // it has noticed
		}
		watch(4 * time.Second)
		// One of those that act is elected before its streams are there again.
		leader := slices.IndexFunc(w.nodes, func(s *station) bool { return s.Leads() })
		w.nodes[leader].SetRaft(w.now, Authority{Leader: w.nodes[leader].peer.ID, Quorate: true, Epoch: 1, Term: 2})
		watch(2 * time.Second)
		w.cut = split([]int{0, 1, 2, 3, 4})
		w.raft(leader, 2)
		watch(10 * time.Second)
	}
}

// TestLastNodeStanding leads itself.
func TestLastNodeStanding(t *testing.T) {
	w := newNetwork(t, 3, 1)
	w.raft(0, 1)
	w.follow(2*time.Second, 0)
	w.nodes[0].down, w.nodes[1].down = true, true
	w.nodes[2].SetRaft(w.now, Authority{})
	w.follow(6*time.Second, 2)
	w.until(4*time.Second, "the others are lost", func() bool {
		return w.nodes[2].status("n0") == api.NodeLost && w.nodes[2].status("n1") == api.NodeLost
	})
}

// TestRelays: a node that does not reach the leader is kept by its peers.
func TestRelays(t *testing.T) {
	for name, cut := range map[string]func(from, to int) bool{
		"both ways":       func(from, to int) bool { return from+to == 4 && from*to == 0 },
		"to the leader":   func(from, to int) bool { return from == 4 && to == 0 },
		"from the leader": func(from, to int) bool { return from == 0 && to == 4 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newNetwork(t, 5, 1)
			w.raft(0, 1)
			w.follow(2*time.Second, 0)
			w.run(10 * time.Second)
			w.cut = cut
			for range 200 {
				w.run(100 * time.Millisecond)
				if got := w.nodes[0].status("n4"); got == api.NodeLost {
					t.Fatalf("n4 is %s\n%s", got, w)
				}
			}
			if a, age := w.nodes[4].Authority(); a.Leader != "id000" || age > 3*time.Second {
				t.Errorf("n4 follows %v, heard %s ago", a, age)
			}
			if err := w.nodes[0].SetDecision(api.AssignmentSet{Leader: "n0", Term: 9}, api.Facts{}); err != nil {
				t.Fatal(err)
			}
			w.until(4*time.Second, "n4 gets the decision", func() bool { return w.nodes[4].Board().Assigned.Term == 9 })
		})
	}
}

// TestLoss: a fifth of all messages lost moves nothing.
func TestLoss(t *testing.T) {
	w := newNetwork(t, 5, 3)
	w.raft(0, 1)
	w.follow(3*time.Second, 0)
	w.loss = 0.2
	for range 600 {
		w.run(time.Second)
		for _, h := range w.nodes[0].Board().Health {
			if h.Gone() {
				t.Fatalf("%+v", h)
			}
		}
	}
	if err := w.nodes[3].SetOwn(w.now, States, states("a", "b")); err != nil {
		t.Fatal(err)
	}
	t.Logf("agreed after %s", w.agree(10*time.Second))
}

// TestBigFleet: many nodes with many pods know the same soon; SHOAL_NODES says how
// many.
func TestBigFleet(t *testing.T) {
	n := 40
	if asked, err := strconv.Atoi(os.Getenv("SHOAL_NODES")); err == nil {
		n = asked
	}
	w := newNetwork(t, n, 1)
	w.raft(0, 1)
	took, sent := w.spread(t, 33)
	t.Logf("%d nodes know of %d pods after %s; %d bytes a node", n, n*33, took, sent)
	if took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
}

// spread has every node tell of its pods, all at once, and returns after what time
// all know of all, and how many bytes each node sent for that.
func (w *network) spread(t testing.TB, pods int) (took time.Duration, sent int) {
	t.Helper()
	w.follow(10*time.Second, 0)
	w.agree(30 * time.Second)
	for i, s := range w.nodes {
		var names []string
		for j := range pods {
			names = append(names, string(rune('a'+j%26))+s.peer.Name+string(rune('a'+i%26))+string(rune('a'+j/26)))
		}
		if err := s.SetOwn(w.now, States, states(names...)); err != nil {
			t.Fatal(err)
		}
	}
	clear(w.bytes)
	took = w.agree(30 * time.Second)
	return took, w.sent()
}

// sent returns how many bytes a node has sent on average.
func (w *network) sent() int {
	total := 0
	for _, b := range w.bytes {
		total += b
	}
	return total / len(w.nodes)
}

// BenchmarkBigFleet measures, in virtual time, how what nodes tell each other
// grows with their number. make bench-fleet shows it.
func BenchmarkBigFleet(b *testing.B) {
	for b.Loop() {
		for _, n := range []int{10, 30, 100, 300} {
			w := newNetwork(b, n, 1)
			w.raft(0, 1)
			took, sent := w.spread(b, 33)
			name := fmt.Sprint("sim", n)
			testenv.Report(b, name+"_board_converged", "s", "virtual; 33 pods a node", took.Seconds())
			testenv.Report(b, name+"_bytes_per_node", "B", "until all know", float64(sent))
			w.run(10 * time.Second)
			clear(w.bytes)
			w.run(10 * time.Second)
			testenv.Report(b, name+"_bytes_per_node_s", "B/s", "idle", float64(w.sent())/10)
		}
	}
}

// TestManyLost: when most nodes are lost at once, the leader makes sure that it
// is not itself that is cut off, and says when it has.
func TestManyLost(t *testing.T) {
	w := newNetwork(t, 5, 1)
	w.raft(0, 1)
	w.follow(2*time.Second, 0)
	for _, s := range w.nodes[1:4] {
		s.down = true
	}
	w.until(4*time.Second, "they are lost", func() bool { return len(w.nodes[0].Board().Health) == 3 })
	lost := wall(w.now)
	if got := w.nodes[0].Board().ConnectivityChecked; !got.IsZero() {
		t.Errorf("checked at %s, before anybody was lost", got)
	}
	took := w.until(2*time.Second, "it has checked", func() bool { return !w.nodes[0].Board().ConnectivityChecked.Before(lost) })
	t.Logf("checked after %s", took)
	if took < AnswerWithin-tick {
		t.Errorf("it has checked after %s only", took)
	}
}

// TestRemovedMembers are shown as left, so that their pods count as gone.
func TestRemovedMembers(t *testing.T) {
	w := newNetwork(t, 3, 1)
	w.raft(0, 1)
	w.follow(2*time.Second, 0)
	w.agree(3 * time.Second)
	peers := w.peers()
	peers[2].Removed = true
	w.nodes[0].SetRoster(peers)
	b := w.nodes[0].Board()
	if len(b.Nodes) != 2 || b.HealthOf("n2").Status != api.NodeLeft {
		t.Errorf("%d nodes, n2 is %s", len(b.Nodes), b.HealthOf("n2").Status)
	}
}

// TestRefused: who is refused leads nobody; a refusal by somebody who had not
// heard of a node yet does not keep that node from acting later.
func TestRefused(t *testing.T) {
	w := newNetwork(t, 3, 1)
	w.raft(0, 1)
	w.follow(2*time.Second, 0)
	for _, s := range w.nodes[:2] {
		s.down = true
	}
	alone := w.nodes[2]
	alone.SetRaft(w.now, Authority{})
	for range 8 {
		alone.SetRefused("not in the roster")
		w.run(time.Second)
		if alone.Leads() {
			t.Fatal("it leads though it is refused")
		}
	}
	w.follow(refusalHolds+3*time.Second, 2)

	w = newNetwork(t, 3, 1)
	w.nodes[2].SetRefused("not in the roster")
	w.raft(2, 1)
	w.nodes[2].SetRefused("not in the roster")
	w.follow(2*time.Second, 2)
	w.nodes[0].down, w.nodes[1].down = true, true
	w.nodes[2].SetRaft(w.now, Authority{})
	w.follow(6*time.Second, 2)
}
