//go:build e2e

package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// pods returns the pods of an owner that a node knows of, by node, those on lost
// nodes left out.
func (n *node) pods(prefix string) map[string]int {
	out := map[string]int{}
	s, err := n.status()
	if err != nil {
		return out
	}
	for _, p := range s.Pods {
		if strings.HasPrefix(p.Name, prefix) && p.Ready {
			out[p.Node]++
		}
	}
	return out
}

// three waits until a node knows of exactly three ready pods, and nothing else
// of their owner.
func (w *world) three(eyes *node, limit time.Duration) {
	w.t.Helper()
	took := w.eventually(limit, "exactly three pods in the eyes of "+eyes.name, func() (bool, string) {
		s, err := eyes.status()
		ready, all, last := 0, 0, ""
		for _, p := range s.Pods {
			if strings.HasPrefix(p.Name, "hello") {
				all++
				last += fmt.Sprintf("%+v\n", p)
				if p.Ready {
					ready++
				}
			}
		}
		return err == nil && ready == 3 && all == 3, last
	})
	w.t.Logf("three pods as %s sees it after %s", eyes.name, took.Round(10*time.Millisecond))
}

// TestSplit: a split of 5 s and one that is longer. Each part goes on with what
// Git says, only one of them with a quorum; after the heal the fleet is one
// again, and what is surplus goes.
func TestSplit(t *testing.T) {
	w := newWorld(t, 3)
	w.write(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, 3)})
	w.commit("three")
	w.ready(w.nodes[2], "hello", 3, 40*time.Second)
	lengths := []time.Duration{5 * time.Second, 20 * time.Second}
	if full() {
		lengths = []time.Duration{5 * time.Second, 90 * time.Second}
	}
	for _, length := range lengths {
		alone := w.nodes[2]
		if leader := w.leader(); leader == alone {
			alone = w.nodes[0]
		}
		others := slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return n == alone })
		t.Logf("a split of %s: %s is alone", length, alone.name)
		begin := time.Now()
		alone.cable("sw1")
		if length >= 15*time.Second {
			w.eventually(15*time.Second, "both parts run three pods", func() (bool, string) {
				a, b := alone.pods("hello"), others[0].pods("hello")
				return a[alone.name] == 3 && b[others[0].name]+b[others[1].name] == 3, fmt.Sprint(a, b)
			})
			t.Logf("both parts run three pods after %s", time.Since(begin).Round(10*time.Millisecond))
			if s, err := alone.status(); err != nil || s.Quorate || s.Leader != alone.name {
				t.Errorf("%s alone: leader %s, quorate %v, %v", alone.name, s.Leader, s.Quorate, err)
			}
			if s, err := others[0].status(); err != nil || !s.Quorate {
				t.Errorf("the other part has no quorate leader: %+v, %v", s.Leader, err)
			}
			// A commit is followed in both parts.
			w.write(map[string]string{"more.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: m" + fmt.Sprint(int(length.Seconds())) + ", namespace: app}\nspec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: hello:1}]}\n"})
			commit := w.commit("more")
			for _, n := range w.nodes {
				w.eventually(10*time.Second, n.name+" follows the commit", func() (bool, string) {
					s, err := n.status()
					return err == nil && len(s.Units) == 1 && string(s.Units[0].Accepted.Commit) == commit, fmt.Sprint(err)
				})
			}
		}
		time.Sleep(time.Until(begin.Add(length)))
		alone.cable("sw0")
		healed := time.Now()
		w.settled(15 * time.Second)
		t.Logf("one fleet %s after the heal", time.Since(healed).Round(10*time.Millisecond))
		w.three(alone, 60*time.Second)
	}
}

// TestLastNodeStanding: two of three machines die, and the third runs everything.
func TestLastNodeStanding(t *testing.T) {
	w := newWorld(t, 3)
	w.write(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, 3)})
	w.commit("three")
	w.ready(w.nodes[2], "hello", 3, 40*time.Second)
	begin := time.Now()
	w.nodes[0].die()
	w.nodes[1].die()
	w.ready(w.nodes[2], "hello", 3, 20*time.Second)
	t.Logf("the last node runs all after %s", time.Since(begin).Round(10*time.Millisecond))
	// Commits go on.
	w.write(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, 4)})
	w.commit("four")
	w.ready(w.nodes[2], "hello", 4, 10*time.Second)
	w.nodes[0].revive()
	w.nodes[1].revive()
	w.settled(30 * time.Second)
}

// TestDrain: a node is emptied with its replacements first, and is used again.
func TestDrain(t *testing.T) {
	w := newWorld(t, 3)
	w.write(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, 3)})
	w.commit("three")
	w.ready(w.nodes[2], "hello", 3, 40*time.Second)
	w.nodes[1].must("drain")
	w.eventually(30*time.Second, "the node is empty but for its DaemonSet pod", func() (bool, string) {
		pods := w.nodes[0].pods("hello")
		return pods["n2"] == 0 && pods["n1"]+pods["n3"] == 3 && w.nodes[0].pods("each")["n2"] == 1, fmt.Sprint(pods)
	})
	w.three(w.nodes[1], 30*time.Second)
	w.nodes[1].must("drain", "--off")
	w.write(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, 6)})
	w.commit("six")
	w.eventually(30*time.Second, "the node is used again", func() (bool, string) {
		pods := w.nodes[0].pods("hello")
		return pods["n2"] >= 2, fmt.Sprint(pods)
	})
	if _, err := w.nodes[2].shoal("remove", "n3"); err == nil || !strings.Contains(err.Error(), "cannot remove itself") {
		t.Errorf("a node removed itself: %v", err)
	}
	w.nodes[0].must("remove", "n3")
	w.eventually(30*time.Second, "pods of the removed node run elsewhere", func() (bool, string) {
		pods := w.nodes[0].pods("hello")
		return pods["n1"]+pods["n2"] == 6, fmt.Sprint(pods)
	})
}
