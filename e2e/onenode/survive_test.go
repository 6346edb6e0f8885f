//go:build e2e

package onenode

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRestartsTouchNoPod kills the daemon and containerd at bad moments, again
// and again: every container keeps its process, and nothing is left behind.
func TestRestartsTouchNoPod(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	r.write(map[string]string{"hello.yaml": helloYAML})
	r.commit("hello")
	m.start(r.dir)
	m.ready("default", 3)
	before, traces := m.pids(), m.traces()
	requests := m.requests("http://" + m.field("{.spec.clusterIP}", "get", "service", "hello") + "/")
	same := func(what string) {
		t.Helper()
		m.eventually(30*time.Second, "all pods ready after "+what, func() (bool, string) {
			s, err := m.status()
			ready := 0
			for _, p := range s.Pods {
				if p.Ready {
					ready++
				}
				if p.Restarts > 0 {
					t.Fatalf("after %s pod %s has restarted: %+v", what, p.Name, p)
				}
			}
			return err == nil && s.Observed && ready == 3, fmt.Sprintf("%d ready, %v", ready, err)
		})
		if after := m.pids(); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Fatalf("%s changed what runs:\n%v\n%v", what, before, after)
		}
	}
	rounds := 3
	if full() {
		rounds = 30
	}
	for i := range rounds {
		m.stop(syscall.SIGKILL)
		m.restart()
		if i%2 == 0 {
			time.Sleep(time.Duration(i) * 37 * time.Millisecond) // a kill at another moment each time
		}
	}
	same("kill -9 of the daemon")
	m.containerd.Kill()
	m.eventually(20*time.Second, "the node says that containerd is gone", func() (bool, string) {
		out, err := m.kubectl("get", "nodes")
		return err == nil && strings.Contains(out, "NotReady"), out
	})
	if body, err := get("http://" + m.field("{.spec.clusterIP}", "get", "service", "hello") + "/"); err != nil {
		t.Errorf("the Service does not answer while containerd is down: %v %s", err, body)
	}
	m.containerd.Start()
	m.eventually(20*time.Second, "the node is ready again", func() (bool, string) {
		out, err := m.kubectl("get", "nodes")
		return err == nil && !strings.Contains(out, "NotReady") && strings.Contains(out, "Ready"), out
	})
	same("kill -9 of containerd")
	m.stop(syscall.SIGTERM)
	m.restart()
	same("a restart of the daemon")
	requests("restarts of the daemon and of containerd")
	if after := m.traces(); !slices.Equal(after, traces) {
		t.Errorf("traces before\n%s\nand after\n%s", strings.Join(traces, "\n"), strings.Join(after, "\n"))
	}

	// A container that is killed comes back at once, and only that one.
	victim := slices.Sorted(maps2(before))[0]
	if err := exec.Command("kill", "-9", before[victim]).Run(); err != nil {
		t.Fatal(err)
	}
	m.eventually(20*time.Second, "one restart and three ready pods", func() (bool, string) {
		s, err := m.status()
		restarts, ready := int32(0), 0
		for _, p := range s.Pods {
			restarts += p.Restarts
			if p.Ready {
				ready++
			}
		}
		return err == nil && restarts == 1 && ready == 3, fmt.Sprintf("%d restarts, %d ready", restarts, ready)
	})
}

// TestLostDecisions: a daemon that has lost what it decided finds it in what
// runs, and changes nothing.
func TestLostDecisions(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	r.write(map[string]string{"hello.yaml": helloYAML + "---\n" + `apiVersion: v1
kind: Pod
metadata: {name: lone}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: hello, image: hello:1}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: each}
spec:
  selector: {matchLabels: {app: each}}
  template: {metadata: {labels: {app: each}}, spec: {containers: [{name: hello, image: hello:1}]}}
`})
	r.commit("hello")
	m.start(r.dir)
	m.ready("default", 5)
	pids := m.pids()
	const uids = "{range .items[*]}{.metadata.name} {.metadata.uid}{\"\\n\"}{end}"
	before := m.field(uids, "get", "pods", "--sort-by", ".metadata.name")
	url := "http://" + m.field("{.spec.clusterIP}", "get", "service", "hello") + "/"
	requests := m.requests(url)
	decided := filepath.Join(m.state, "decided.json")
	for name, damage := range map[string]func() error{
		"removed":   func() error { return os.Remove(decided) },
		"damaged":   func() error { return os.WriteFile(decided, []byte("{\"x\": 1}"), 0o600) },
		"truncated": func() error { return os.Truncate(decided, 17) },
	} {
		m.stop(syscall.SIGKILL)
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		m.restart()
		m.ready("default", 5)
		// A commit makes it decide again.
		r.git("commit", "--allow-empty", "-q", "-m", name)
		m.inForce(strings.TrimSpace(r.git("rev-parse", "HEAD")))
		m.ready("default", 5)
		if after := m.field(uids, "get", "pods", "--sort-by", ".metadata.name"); after != before {
			t.Errorf("decisions %s: the pods were\n%s\nand are\n%s", name, before, after)
		}
		if after := m.pids(); fmt.Sprint(after) != fmt.Sprint(pids) {
			t.Errorf("decisions %s: what runs changed:\n%v\n%v", name, pids, after)
		}
		if _, err := os.Stat(decided); err != nil {
			t.Errorf("decisions %s: they were not kept again: %v", name, err)
		}
	}
	requests("starts without decisions")
}

// TestRemovalsSurviveKills kills the daemon while it removes pods, at another
// moment each time: what is going is not started again.
func TestRemovalsSurviveKills(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	r.write(map[string]string{"hello.yaml": helloYAML})
	r.commit("hello")
	m.start(r.dir)
	m.ready("default", 3)
	starts := m.starts()
	rounds := 4
	if full() {
		rounds = 20
	}
	want := 0
	for i := range rounds {
		r.write(map[string]string{"hello.yaml": strings.ReplaceAll(helloYAML, "replicas: 3", "replicas: 0")})
		r.commit("none")
		time.Sleep(time.Duration(i) * 400 / time.Duration(rounds) * time.Millisecond)
		m.stop(syscall.SIGKILL)
		m.restart()
		m.ready("default", 0)
		if got := starts(); got != want {
			t.Fatalf("round %d: %d containers were started, want %d: one of a pod that was going was started again", i, got, want)
		}
		r.write(map[string]string{"hello.yaml": helloYAML})
		r.commit("three")
		m.ready("default", 3)
		want += 3
	}
}

// starts counts the containers that containerd starts from now on.
func (m *machine) starts() (count func() int) {
	m.t.Helper()
	cmd := exec.Command("ctr", "-a", m.containerd.Address, "-n", m.namespace, "events")
	path := filepath.Join(filepath.Dir(m.state), "events")
	out, err := os.Create(path)
	if err != nil {
		m.t.Fatal(err)
	}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = out.Close() })
	return func() int {
		raw, err := os.ReadFile(path)
		if err != nil {
			m.t.Fatal(err)
		}
		return strings.Count(string(raw), "/tasks/start")
	}
}

func maps2(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}

// traces lists what the daemon has made on this machine: mounts, links,
// addresses, routes, chains, cgroups.
func (m *machine) traces() []string {
	m.t.Helper()
	var out []string
	add := func(what string, command string, args ...string) {
		raw, err := exec.Command(command, args...).Output()
		if err != nil {
			m.t.Fatalf("%s: %v", command, err)
		}
		for line := range strings.SplitSeq(string(raw), "\n") {
			if line != "" {
				out = append(out, what+" "+line)
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		m.t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(mounts), "\n") {
		if words := strings.Fields(line); len(words) > 2 && strings.Contains(words[1], filepath.Dir(m.state)) {
			out = append(out, "mount "+words[1]+" "+words[2])
		}
	}
	add("link", "sh", "-c", "ls /sys/class/net 2>/dev/null; ip -o link | awk '{print $2}'")
	add("address", "sh", "-c", "ip -o -4 addr show | awk '{print $2, $4}'")
	add("route", "ip", "route")
	add("rule", "sh", "-c", "iptables-save | grep -v '^#' | sed 's/\\[[0-9:]*\\]//'")
	slices.Sort(out)
	return out
}

func TestResetLeavesNothing(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	foreign := []string{"-t", "nat", "-A", "PREROUTING", "-d", "203.0.113.7/32", "-j", "RETURN"}
	if out, err := exec.Command("iptables", foreign...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	before := m.traces()
	r := newRepo(t)
	r.write(map[string]string{"hello.yaml": helloYAML})
	r.commit("hello")
	m.start(r.dir)
	m.ready("default", 3)
	if out, err := m.shoal("reset"); err == nil || !strings.Contains(out, "another shoal daemon") {
		t.Errorf("reset under a running daemon: %v\n%s", err, out)
	}
	m.stop(syscall.SIGTERM)
	if pids := m.pids(); len(pids) != 3 {
		t.Errorf("%d containers run on after the daemon ended, want 3", len(pids))
	}
	if out, err := m.shoal("reset"); err != nil {
		t.Fatalf("reset: %v\n%s", err, out)
	}
	if after := m.traces(); !slices.Equal(after, before) {
		t.Errorf("before the first start\n%s\nafter reset\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	for _, dir := range []string{m.state, m.run} {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
	if out, _ := exec.Command("sh", "-c", "find /sys/fs/cgroup -type d -path '*/"+m.namespace+"*' | head").Output(); len(out) > 0 {
		t.Errorf("cgroups are left:\n%s", out)
	}
	if out, err := exec.Command("pgrep", "-f", "shoal-keeper.*"+m.run).Output(); err == nil {
		t.Errorf("the keeper still runs: %s", out)
	}
}
