package members

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// TestRemerge: memberlist alone stays apart for ever after a split of 40 seconds.
func TestRemerge(t *testing.T) {
	hosts := func(from, to int) []string {
		var out []string
		for i := from; i <= to; i++ {
			out = append(out, fmt.Sprintf("10.0.0.%d", i))
		}
		return out
	}
	for name, parts := range map[string][][]string{
		"2|3":   {hosts(1, 2), hosts(3, 5)},
		"2|2|1": {hosts(1, 2), hosts(3, 4), hosts(5, 5)},
	} {
		for _, length := range []time.Duration{5 * time.Second, 60 * time.Second, 300 * time.Second} {
			t.Run(fmt.Sprintf("%s for %s", name, length), func(t *testing.T) {
				bubble(t, 5, func(w *world) {
					w.startAll()
					w.seeds = nil
					time.Sleep(time.Minute)
					w.net.Split(parts...)
					time.Sleep(length)
					if length >= time.Minute && (!w.nodes[0].sees(w.nodes[:2]...) || len(w.nodes[4].Alive()) != len(parts[len(parts)-1])) {
						t.Fatal("the parts are not apart")
					}
					w.net.Heal()
					took := w.whole(15*time.Second, w.nodes...)
					t.Logf("one again %s after the heal", took)
				})
			})
		}
	}
}

// TestWithoutRejoining shows what the loop is for.
func TestWithoutRejoining(t *testing.T) {
	bubble(t, 5, func(w *world) {
		w.seeds = []string{"10.0.0.1"}
		for _, n := range w.nodes {
			n.start(func(c *Config) { c.Roster = func() map[string][]string { return nil } })
		}
		w.whole(15*time.Second, w.nodes...)
		w.seeds = nil
		w.net.Split([]string{"10.0.0.1", "10.0.0.2"})
		time.Sleep(time.Minute)
		w.net.Heal()
		time.Sleep(5 * time.Minute)
		if w.nodes[0].sees(w.nodes...) {
			t.Error("memberlist finds itself together again: is the loop needed?")
		}
	})
}

// TestStalls: a node that stalls for two seconds every twenty is not missed for
// longer than four.
func TestStalls(t *testing.T) {
	bubble(t, 5, func(w *world) {
		w.startAll()
		time.Sleep(30 * time.Second)
		missing := map[string]time.Duration{} // by pair
		var worst time.Duration
		const step = 50 * time.Millisecond
		for at := time.Duration(0); at < 10*time.Minute; at += step {
			switch at % (20 * time.Second) {
			case 0:
				w.net.Stall("10.0.0.3")
			case 2 * time.Second:
				w.net.Resume("10.0.0.3")
			}
			time.Sleep(step)
			for _, n := range w.nodes {
				alive := n.Alive()
				for _, o := range w.nodes {
					pair := n.host + " " + o.host
					if slices.Contains(alive, o.self.ID) {
						missing[pair] = 0
						continue
					}
					missing[pair] += step
					worst = max(worst, missing[pair])
				}
			}
		}
		t.Logf("the longest that one missed another: %s", worst)
		if worst > 4*time.Second {
			t.Errorf("one missed another for %s", worst)
		}
	})
}

// TestDeathAndReturn: who is dead is given up, who is back is found again, at the
// same address and with an empty disk too.
func TestDeathAndReturn(t *testing.T) {
	bubble(t, 5, func(w *world) {
		w.startAll()
		time.Sleep(10 * time.Second)
		dead, rest := w.nodes[4], w.nodes[:4]
		dead.crash()
		t.Logf("given up after %s", w.whole(20*time.Second, rest...))
		time.Sleep(5 * time.Minute)
		if err := os.Remove(filepath.Join(dead.dir, "members")); err != nil {
			t.Fatal(err)
		}
		w.seeds = nil
		dead.start()
		t.Logf("back after %s", w.whole(10*time.Second, w.nodes...))
		dead.stop()
		t.Logf("its goodbye was heard after %s", w.whole(2*time.Second, rest...))
	})
}

// TestLoss: packets may get lost.
func TestLoss(t *testing.T) {
	bubble(t, 5, func(w *world) {
		w.net.SetLoss(0.2)
		w.net.SetDelay(20 * time.Millisecond)
		w.startAll()
	})
}

// TestNewAddress: a node that comes up at another address, without a goodbye from
// the old one, is found through any that know it.
func TestNewAddress(t *testing.T) {
	bubble(t, 5, func(w *world) {
		w.startAll()
		time.Sleep(10 * time.Second)
		w.seeds = nil
		moved := w.nodes[2]
		moved.crash()
		moved.host = "10.0.1.3"
		moved.start()
		known := w.within(10*time.Second, "all know the new address", func() bool {
			return !slices.ContainsFunc(w.nodes, func(n *node) bool { return !slices.Equal(n.Addresses(moved.self.ID), []string{"10.0.1.3:7947"}) })
		})
		there := w.within(30*time.Second, "memberlist has it there", func() bool {
			c, _ := moved.table.card(moved.self.ID)
			return !slices.ContainsFunc(w.nodes, func(n *node) bool {
				n.table.mu.Lock()
				defer n.table.mu.Unlock()
				return n.table.there[moved.self.ID] != c.raw
			})
		})
		t.Logf("known after %s, there after %s more", known, there)
	})
}

// TestNewAddressThroughOne: it reaches one of them only, and the others hear of it.
func TestNewAddressThroughOne(t *testing.T) {
	bubble(t, 5, func(w *world) {
		w.startAll()
		time.Sleep(10 * time.Second)
		moved := w.nodes[2]
		moved.crash()
		if err := os.Remove(filepath.Join(moved.dir, "members")); err != nil {
			t.Fatal(err)
		}
		moved.host, w.seeds = "10.0.1.3", []string{"10.0.0.1:7946"}
		moved.start()
		took := w.within(10*time.Second, "all know the new address", func() bool {
			return !slices.ContainsFunc(w.nodes, func(n *node) bool { return !slices.Equal(n.Addresses(moved.self.ID), []string{"10.0.1.3:7947"}) })
		})
		t.Logf("known after %s", took)
	})
}

// TestAddressChangesWhileRunning: the daemon need not be started again.
func TestAddressChangesWhileRunning(t *testing.T) {
	bubble(t, 3, func(w *world) {
		w.startAll()
		moved := w.nodes[1]
		w.net.Crash("10.0.0.2:7946")
		moved.mu.Lock()
		moved.host = "10.0.1.2"
		moved.mu.Unlock()
		took := w.within(10*time.Second, "all know the new address", func() bool {
			return !slices.ContainsFunc(w.nodes, func(n *node) bool { return !slices.Equal(n.Addresses(moved.self.ID), []string{"10.0.1.2:7947"}) })
		})
		t.Logf("known after %s, there after %s more", took, w.whole(20*time.Second, w.nodes...))
	})
}

// TestAllMoveButOne: after a night without power every node but one has another
// address, and that one is enough.
func TestAllMoveButOne(t *testing.T) {
	bubble(t, 5, func(w *world) {
		w.startAll()
		time.Sleep(10 * time.Second)
		w.seeds = nil
		for _, n := range w.nodes {
			n.crash()
		}
		for i, n := range w.nodes[1:] {
			n.host = fmt.Sprintf("10.0.1.%d", i+2)
		}
		for _, n := range w.nodes {
			n.start()
		}
		t.Logf("one again after %s", w.whole(15*time.Second, w.nodes...))
	})
}

// TestRosterHints: the addresses of the roster are enough to begin with.
func TestRosterHints(t *testing.T) {
	bubble(t, 3, func(w *world) {
		for _, n := range w.nodes {
			n.hints[w.nodes[0].self.ID] = []string{"no address", "10.0.0.1:7947"}
			n.start()
		}
		t.Logf("found after %s", w.whole(10*time.Second, w.nodes...))
	})
}

// TestKeysRotate without anybody being missed.
func TestKeysRotate(t *testing.T) {
	bubble(t, 3, func(w *world) {
		w.startAll()
		for i := range byte(4) {
			w.mu.Lock()
			w.keys = append(w.keys, key(i+2))
			w.keys = w.keys[max(0, len(w.keys)-2):]
			w.mu.Unlock()
			for range 600 {
				time.Sleep(100 * time.Millisecond)
				for _, n := range w.nodes {
					if !n.sees(w.nodes...) {
						t.Fatalf("rotation %d: %s sees %d nodes", i, n.host, len(n.Alive()))
					}
				}
			}
		}
	})
}

// TestRemoved: a node that was removed is not shown, though memberlist has it, and
// gets nowhere once the key is another one.
func TestRemoved(t *testing.T) {
	bubble(t, 4, func(w *world) {
		w.startAll()
		gone, rest := w.nodes[3], w.nodes[:3]
		w.mu.Lock()
		w.removed[gone.self.ID] = true
		w.mu.Unlock()
		for _, n := range rest {
			if !n.sees(rest...) || n.Addresses(gone.self.ID) != nil {
				t.Errorf("%s still shows the removed node", n.host)
			}
		}
		gone.crash()
		time.Sleep(2 * time.Minute)
		gone.start()
		time.Sleep(time.Minute)
		for _, n := range rest {
			if n.table.isThere(gone.self.ID) {
				t.Errorf("%s takes the removed node in again", n.host)
			}
		}
	})
}

// TestStrangers: none of these gets in, and none does harm.
func TestStrangers(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"another fleet": func(c *Config) { c.Fleet = "other" },
		"another key":   func(c *Config) { c.Keys = func() [][]byte { return [][]byte{key(99)} } },
		"another node's key": func(c *Config) {
			c.Node.Private = identityOf(77).Private
		},
		"no member": func(c *Config) { c.Node = identityOf(78) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 4, func(w *world) {
				w.seeds = []string{"10.0.0.1"}
				for _, n := range w.nodes[:3] {
					n.start()
				}
				w.whole(15*time.Second, w.nodes[:3]...)
				stranger := w.nodes[3]
				stranger.start(change)
				time.Sleep(2 * time.Minute)
				for _, n := range w.nodes[:3] {
					if !n.sees(w.nodes[:3]...) || n.Addresses(stranger.cfg.Node.ID) != nil {
						t.Errorf("%s sees %d nodes, and said %q", n.host, len(n.Alive()), n.said)
					}
				}
			})
		})
	}
}

// TestTwin: two machines with one state folder are told about, and the fleet
// goes on.
func TestTwin(t *testing.T) {
	bubble(t, 4, func(w *world) {
		w.startAll()
		twin := &node{w: w, self: w.nodes[3].self, dir: t.TempDir(), host: "10.0.2.4", hints: map[string][]string{}}
		twin.start()
		defer twin.stop()
		w.within(2*time.Minute, "one of the two tells", func() bool {
			for _, n := range []*node{twin, w.nodes[3]} {
				n.mu.Lock()
				told := slices.ContainsFunc(n.said, func(text string) bool { return strings.Contains(text, "state folder was copied") })
				n.mu.Unlock()
				if told {
					return true
				}
			}
			return false
		})
		for _, n := range w.nodes[:3] {
			for _, o := range w.nodes[:3] {
				if !slices.Contains(n.Alive(), o.self.ID) {
					t.Errorf("%s misses %s", n.host, o.host)
				}
			}
		}
	})
}

// TestOnTheLoopback: memberlist's own network, on free ports.
func TestOnTheLoopback(t *testing.T) {
	w := newWorld(t, 2)
	real := func(n *node) {
		n.start(func(c *Config) {
			c.Bind = "127.0.0.1:0"
			c.Transport = nil
			c.Advertise = func() string { return "127.0.0.1:7947" }
			c.Seeds = func() []string {
				c, _ := w.nodes[0].table.card(w.nodes[0].self.ID)
				return []string{c.gossip.String()}
			}
		})
	}
	real(w.nodes[0])
	defer w.nodes[0].stop()
	w.within(10*time.Second, "it listens", func() bool { return w.nodes[0].sees(w.nodes[0]) })
	real(w.nodes[1])
	defer w.nodes[1].stop()
	t.Logf("found after %s", w.whole(15*time.Second, w.nodes...))
	c, _ := w.nodes[0].table.card(w.nodes[0].self.ID)
	second := New(w.nodes[0].config())
	second.cfg.Transport, second.cfg.Bind = nil, c.gossip.String()
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "listen for gossip") {
		t.Errorf("a port in use: %v", err)
	}
	w.nodes[1].stop()
	w.within(3*time.Second, "its goodbye is heard", func() bool { return w.nodes[0].sees(w.nodes[0]) })
}

var _ memberlist.Transport = (*wire)(nil)
