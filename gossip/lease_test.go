package gossip

import (
	"slices"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// confirm plays a leader's quorum rounds while time passes.
func (w *network) confirm(leader int, d time.Duration) {
	for end := w.now + d; w.now < end; {
		round := w.nodes[leader].Round()
		w.run(tick)
		w.nodes[leader].Verified(round)
	}
}

// note plays the ledger: every node hears of what the leader wants noted.
func (w *network) note(leader int) {
	wanted := w.nodes[leader].Handovers()
	for i := range w.nodes {
		if on, named := wanted[w.nodes[i].peer.ID]; named {
			w.nodes[i].peer.Handover = on
		}
	}
	for _, s := range w.nodes {
		s.SetRoster(w.peers())
	}
}

// TestReleased: the claims of a node that falls silent are released fifteen
// seconds after its last renewal, and not once it is heard of again.
func TestReleased(t *testing.T) {
	w := newNetwork(t, 5, 1)
	w.raft(0, 1)
	w.follow(2*time.Second, 0)
	w.confirm(0, 20*time.Second)
	leader := w.nodes[0]
	if got := leader.Released(); len(got) > 0 {
		t.Fatalf("released: %q", got)
	}
	w.nodes[3].down = true
	last, silent := w.nodes[3].Lease(), w.now
	for len(leader.Released()) == 0 {
		w.confirm(0, tick)
		if w.now-silent > 20*time.Second {
			t.Fatal("never released")
		}
	}
	mark := leader.Mark()
	t.Logf("released %s after the lease's renewal was sent", w.now-last)
	if w.now-last < ReleaseAfter || w.now-silent > ReleaseAfter+tick {
		t.Errorf("released after %s", w.now-last)
	}
	if got := leader.Released(); !slices.Equal(got, []string{"n3"}) {
		t.Errorf("released: %q", got)
	}
	if got := w.nodes[1].Released(); got != nil {
		t.Errorf("a follower releases %q", got)
	}
	w.boot(w.nodes[3])
	w.until(3*time.Second, "it is heard of", func() bool { return len(leader.Released()) == 0 })
	w.run(tick)
	if leader.Mark() == mark {
		t.Error("nobody is told of it")
	}
}

// TestReleasedByTheNext: a new leader does not know when the others renewed
// last, and waits from its own election; so does one that was deposed between.
func TestReleasedByTheNext(t *testing.T) {
	w := newNetwork(t, 5, 1)
	w.raft(0, 1)
	w.follow(2*time.Second, 0)
	w.confirm(0, 10*time.Second)
	w.nodes[0].down, w.nodes[4].down = true, true
	last := max(w.nodes[0].Lease(), w.nodes[4].Lease())
	w.run(time.Second)
	w.raft(1, 2)
	elected := w.now
	w.until(20*time.Second, "both are released", func() bool { return len(w.nodes[1].Released()) == 2 })
	t.Logf("released %s after the election", w.now-elected)
	if w.now-elected < ReleaseAfter || w.now-last < ReleaseAfter {
		t.Errorf("released %s after the election", w.now-elected)
	}
	w.raft(1, 3) // it was elected once more: somebody else may have led meanwhile
	if got := w.nodes[1].Released(); len(got) > 0 {
		t.Errorf("released: %q", got)
	}
	w.nodes[1].SetRaft(w.now, Authority{})
	w.run(30 * time.Second)
	if got := w.nodes[1].Released(); len(got) > 0 {
		t.Errorf("an acting leader releases %q", got)
	}
}

// TestRemovedIsReleased: a node that is removed while it runs may run on until its
// lease ends, which nobody renews any more. Its claims are released as long after
// its last renewal as those of any other node, whoever leads by then, and whoever
// has its name; with a long lease that much later.
func TestRemovedIsReleased(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(w *network)
		leader int
		wait   time.Duration // since the removal
		long   bool
	}{
		{"it runs", func(*network) {}, 0, ReleaseAfter, false},
		{"it was dead for long", func(w *network) { w.nodes[4].down = true; w.confirm(0, 20*time.Second) }, 0, 0, false},
		{"its daemon is being restarted", func(w *network) {
			w.nodes[4].HandOver(w.now)
			w.confirm(0, time.Second)
			w.note(0)
			w.confirm(0, time.Second)
			w.nodes[4].down = true
		}, 0, releaseHandover, true},
		{"another one leads then", func(*network) {}, 1, ReleaseAfter + time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newNetwork(t, 5, 1)
			w.raft(0, 1)
			w.follow(2*time.Second, 0)
			w.confirm(0, 20*time.Second)
			c.before(w)
			removed := w.now
			w.nodes[4].peer.Removed = true
			peers := append(w.peers(), Peer{ID: "other", Name: "n4", Key: w.nodes[4].peer.Key, Removed: true})
			for i, s := range w.nodes {
				if i != 4 { // nobody tells it
					s.SetRoster(peers)
				}
			}
			w.strangers = true
			if c.leader != 0 {
				w.confirm(0, time.Second)
				w.nodes[0].down = true
				w.raft(c.leader, 2)
			}
			former, leader := FormerName("n4", w.nodes[4].peer.ID), w.nodes[c.leader]
			mark := leader.Mark()
			for !slices.Contains(leader.Released(), former) {
				w.confirm(c.leader, tick)
				if w.now-removed > 2*HandoverLease {
					t.Fatal("never released")
				}
			}
			lease, length := w.nodes[4].Lease(), 10*time.Second
			if c.long {
				lease, length = w.nodes[4].LongLease(), HandoverLease
			}
			t.Logf("released %s after it was removed, and %s after the lease's renewal was sent", w.now-removed, w.now-lease)
			if w.now-removed > c.wait+2*tick || w.now-lease < length+3*time.Second {
				t.Error("released at the wrong time")
			}
			w.run(2 * tick)
			if c.wait > 0 && leader.Mark() == mark {
				t.Error("nobody is told of it")
			}
			if slices.Contains(leader.Released(), "n4") {
				t.Error("another node of its name is released")
			}
		})
	}
}

// TestHandover: before a planned restart a follower gets a long lease, once the
// ledger says so; its claims wait for as long, also with the next leader; when
// it is back all is as before.
func TestHandover(t *testing.T) {
	for _, c := range []struct {
		name        string
		who, leader int
		elect       bool
	}{{"a follower", 3, 0, false}, {"a follower, and the leader dies", 3, 1, true}, {"the leader", 0, 1, true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newNetwork(t, 5, 1)
			w.raft(0, 1)
			w.follow(2*time.Second, 0)
			w.confirm(0, 2*time.Second)
			node := w.nodes[c.who]
			asked := w.now
			node.HandOver(w.now)
			w.confirm(0, time.Second)
			if node.LongLease() != 0 {
				t.Fatal("a long lease, and the ledger does not know of it")
			}
			w.note(0)
			w.confirm(0, time.Second)
			long := node.LongLease()
			if long < asked || long > w.now {
				t.Fatalf("a long lease of %s, asked for at %s", long, asked)
			}
			if got := w.nodes[0].Handovers(); len(got) > 0 {
				t.Errorf("to be noted: %v", got)
			}
			node.down = true
			if c.elect {
				w.nodes[0].down = true
				w.run(time.Second)
				w.raft(1, 2)
			}
			leader := w.nodes[c.leader]
			for !slices.Contains(leader.Released(), node.peer.Name) {
				w.confirm(c.leader, tick)
				if w.now-long > 2*HandoverLease {
					t.Fatal("never released")
				}
			}
			t.Logf("released %s after the lease's renewal was sent", w.now-long)
			if w.now-long < HandoverLease+3*time.Second {
				t.Errorf("released %s after the lease's renewal was sent", w.now-long)
			}
			w.boot(node)
			w.until(5*time.Second, "it is heard of", func() bool { return leader.status(node.peer.Name) == api.NodeAlive })
			w.note(c.leader)
			if node.peer.Handover {
				t.Error("the ledger still says that its lease is long")
			}
			node.down = true
			begin := w.now
			w.until(20*time.Second, "released as usual", func() bool { return slices.Contains(leader.Released(), node.peer.Name) })
			if w.now-begin > ReleaseAfter+tick {
				t.Errorf("released after %s", w.now-begin)
			}
		})
	}
}

// TestLeaseOfAnotherBoot: when a machine reboots, its clock begins anew, and the
// lease from before means nothing.
func TestLeaseOfAnotherBoot(t *testing.T) {
	w := newNetwork(t, 3, 1)
	w.raft(0, 1)
	w.follow(2*time.Second, 0)
	w.confirm(0, 2*time.Second)
	if w.nodes[2].Lease() == 0 {
		t.Fatal("no lease")
	}
	old := w.nodes[2].Core
	w.boot(w.nodes[2])
	if err := w.nodes[2].Step(w.now, Message{From: "id000", To: "id002", Grant: &Grant{
		Authority: w.nodes[0].lead.authority, Boot: old.cfg.Boot, Lease: w.now, Long: w.now,
	}}); err != nil {
		t.Fatal(err)
	}
	w.run(time.Second)
	if got := w.nodes[2]; got.Lease() != 0 || got.LongLease() != 0 {
		t.Errorf("a lease of %s and %s from before", got.Lease(), got.LongLease())
	}
	begin := w.now
	w.confirm(0, 2*time.Second)
	if w.nodes[2].Lease() < begin {
		t.Errorf("the lease is of %s, and it is %s", w.nodes[2].Lease(), w.now)
	}
}
