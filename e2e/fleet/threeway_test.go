//go:build e2e

package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

const lateYAML = `apiVersion: apps/v1
kind: Deployment
metadata: {name: late, namespace: app}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: late}}
  template:
    metadata: {labels: {app: late}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: hello:1}]}
`

// parts divides five machines two, two and one, so that every part has one of
// the three voters.
func (w *world) parts() [][]*node {
	w.t.Helper()
	s, err := w.voter().status()
	if err != nil || len(s.Voters) != 3 {
		w.t.Fatalf("voters: %v %v", s.Voters, err)
	}
	var out [][]*node
	var rest []*node
	for _, n := range w.nodes {
		if slices.Contains(s.Voters, n.name) {
			out = append(out, []*node{n})
		} else {
			rest = append(rest, n)
		}
	}
	for i, n := range rest {
		out[i] = append(out[i], n)
	}
	return out
}

func (w *world) cut(parts [][]*node) {
	w.t.Helper()
	for i, part := range parts {
		for _, n := range part {
			n.cable(fmt.Sprintf("sw%d", i))
		}
	}
}

func (w *world) heal() {
	w.t.Helper()
	for _, n := range w.nodes {
		n.cable("sw0")
	}
}

func namesOf(part []*node) []string {
	var out []string
	for _, n := range part {
		out = append(out, n.name)
	}
	return out
}

// TestThreeParts: five machines fall into parts of two, two and one, none with a
// quorum. After 5 s nothing has moved. After longer each part has an acting
// leader: it follows commits and runs all ordinary pods, and it starts no
// exclusive one and lets nobody in. The exclusive pod that was there has ended.
// After the heal there is one fleet within 15 s, and each pod once within 60 s.
func TestThreeParts(t *testing.T) {
	w := newWorld(t, 5)
	s, where := w.exclusive(t)
	w.write(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, 5)})
	w.commit("five")
	before := w.ready(w.nodes[4], "hello", 5, 60*time.Second)
	where()
	processes := w.processes("")
	parts := w.parts()
	t.Logf("the parts are %v, %v and %v, %s leads", namesOf(parts[0]), namesOf(parts[1]), namesOf(parts[2]), w.leader().name)

	w.cut(parts)
	time.Sleep(5 * time.Second)
	w.heal()
	healed := time.Now()
	w.settled(15 * time.Second)
	t.Logf("one fleet %s after a split of 5 s", time.Since(healed).Round(10*time.Millisecond))
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if now := w.processes(""); !maps.Equal(now, processes) {
			t.Fatalf("a split of 5 s: processes were\n%v\nand are\n%v", processes, now)
		}
	}
	if now := w.ready(w.nodes[0], "hello", 5, 10*time.Second); !maps.Equal(now, before) {
		t.Fatalf("a split of 5 s: pods were\n%v\nand are\n%v", before, now)
	}

	begin, start := uptime(t), time.Now()
	_, pod := where()
	w.cut(parts)
	for _, part := range parts {
		w.acts(part, 15*time.Second)
		w.runsAll(part, 5, 25*time.Second)
	}
	t.Logf("all five pods in each part %s after the cut", time.Since(start).Round(10*time.Millisecond))
	w.write(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, 6), "late.yaml": lateYAML})
	w.commit("six, and another exclusive one")
	for _, part := range parts {
		w.runsAll(part, 6, 15*time.Second)
		if out, err := part[0].shoal("token", "create"); err == nil {
			t.Errorf("%s lets nodes in without a quorum: %s", part[0].name, out)
		}
	}
	for uptime(t) < begin+fault(90) {
		s.check()
		if late := w.processes("late"); len(late) > 0 {
			t.Fatalf("an exclusive pod was started without a quorum: %v", late)
		}
		time.Sleep(500 * time.Millisecond)
	}
	cut := uptime(t)
	beats, _ := s.beats()
	if last := beats[len(beats)-1]; last.pod != pod || last.at-begin > 10.5 {
		t.Errorf("the exclusive pod: %s was alive %.2f s after the cut", last.pod, last.at-begin)
	} else {
		t.Logf("the exclusive pod was last alive %.2f s after the cut", last.at-begin)
	}

	w.heal()
	healed = time.Now()
	w.settled(15 * time.Second)
	t.Logf("one fleet %s after the heal", time.Since(healed).Round(10*time.Millisecond))
	w.eventually(60*time.Second-time.Since(healed), "each pod runs once, and all machines agree", func() (bool, string) { return w.converged(6) })
	t.Logf("each pod runs once %s after the heal", time.Since(healed).Round(10*time.Millisecond))
	if beats, _ := s.beats(); beats[len(beats)-1].at < cut {
		t.Errorf("the exclusive pod does not run again: %v", beats[len(beats)-1])
	}
	s.check()
}

// acts waits until a part of the fleet follows one of its own, which has no
// quorum.
func (w *world) acts(part []*node, limit time.Duration) {
	w.t.Helper()
	names := namesOf(part)
	w.eventually(limit, fmt.Sprintf("the part %v has an acting leader", names), func() (bool, string) {
		leaders, last := map[string]bool{}, ""
		for _, n := range part {
			s, err := n.status()
			last += fmt.Sprintf("%s: leader %s quorate %v heard %s, unwell %v %v\n", n.name, s.Leader, s.Quorate, s.Heard, s.Health, err)
			if err != nil || s.Quorate || !slices.Contains(names, s.Leader) {
				return false, last
			}
			leaders[s.Leader] = true
		}
		return len(leaders) == 1, last
	})
}

// runsAll waits until a part of the fleet runs all ordinary pods by itself, as
// its machines see it and in truth.
func (w *world) runsAll(part []*node, want int, limit time.Duration) {
	w.t.Helper()
	names := namesOf(part)
	w.eventually(limit, fmt.Sprintf("the part %v runs %d pods by itself", names, want), func() (bool, string) {
		there, last := 0, ""
		for _, n := range part {
			seen := 0
			s, err := n.status()
			for _, p := range s.Pods {
				if strings.HasPrefix(p.Name, "hello") {
					last += fmt.Sprintf("%s sees %+v\n", n.name, p)
				}
				if strings.HasPrefix(p.Name, "hello") && p.Ready && slices.Contains(names, p.Node) {
					seen++
				}
			}
			if err != nil || seen != want {
				return false, fmt.Sprintf("%s%s: %d, unwell %v %v", last, n.name, seen, s.Health, err)
			}
			there += len(n.containers("hello"))
		}
		return there == want, fmt.Sprintf("%s%d run", last, there)
	})
}

// converged reports whether exactly so many ordinary pods, one of the DaemonSet
// on every machine and each exclusive pod once run, in all machines' eyes and in
// truth.
func (w *world) converged(want int) (bool, string) {
	w.t.Helper()
	last := ""
	for prefix, want := range map[string]int{"hello": want, "each": len(w.nodes), "one": 1, "late": 1} {
		for _, n := range w.nodes {
			s, err := n.status()
			all, ready := 0, 0
			for _, p := range s.Pods {
				if strings.HasPrefix(p.Name, prefix) {
					all++
					if p.Ready {
						ready++
					}
					last += fmt.Sprintf("%s sees %+v\n", n.name, p)
				}
			}
			if err != nil || all != want || ready != want {
				return false, fmt.Sprintf("%s%s: %d pods %s*, %d ready %v", last, n.name, all, prefix, ready, err)
			}
		}
		if got := w.processes(prefix); len(got) != want {
			return false, fmt.Sprintf("%d containers of %s*, not %d: %v", len(got), prefix, want, got)
		}
	}
	return true, last
}
