package fencer_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime/fence"
	"github.com/shoal-dev/shoal/runtime/fencer"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// hierarchies are the ones that the tests use.
func hierarchies(t *testing.T) []string {
	t.Helper()
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return []string{"/sys/fs/cgroup"}
	}
	return []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup/freezer"}
}

// pod makes the cgroups of a pod with one container, and removes them with all
// that is in them.
func pod(t *testing.T, name string) fence.Pod {
	t.Helper()
	root := fmt.Sprintf("/shoal-fencer-test-%d", os.Getpid())
	p := fence.Pod{Instance: name, Group: root + "/" + name}
	for _, h := range hierarchies(t) {
		if err := os.MkdirAll(h+p.Group+"/app", 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			testenv.Eventually(t, 5*time.Second, "the cgroup is empty", func() bool {
				for _, pid := range processes(p) {
					_ = exec.Command("kill", "-9", pid).Run() // it may have ended
				}
				for _, dir := range []string{p.Group + "/app", p.Group, root} {
					_ = os.Remove(h + dir) // the last pod removes the root
				}
				_, err := os.Stat(h + p.Group)
				return err != nil
			})
		})
	}
	return p
}

func processes(p fence.Pod) []string {
	var out []string
	for _, h := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		raw, _ := os.ReadFile(h + p.Group + "/app/cgroup.procs")
		out = append(out, strings.Fields(string(raw))...)
	}
	return out
}

// start runs a script in the pod's container, as the first process of a PID
// namespace.
func start(t *testing.T, p fence.Pod, script string) *exec.Cmd {
	t.Helper()
	enter := ""
	for _, h := range hierarchies(t) {
		enter += "echo $$ > " + h + p.Group + "/app/cgroup.procs && "
	}
	cmd := exec.Command("sh", "-c", enter+"exec unshare -f -p --kill-child sh -c '"+script+"'")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return cmd
}

func client(t *testing.T, dir, version string) *fencer.Client {
	t.Helper()
	t.Cleanup(func() {
		if err := fencer.Stop(dir); err != nil {
			t.Error(err)
		}
	})
	return fencer.NewClient(fencer.ClientConfig{
		RunDir: dir, Version: version, Program: testenv.Program(t, "github.com/shoal-dev/shoal/cmd/shoal-keeper"),
	})
}

func hold(t *testing.T, c *fencer.Client, pods ...fence.Pod) {
	t.Helper()
	for _, p := range pods {
		if err := c.Hold(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
}

func renew(t *testing.T, c *fencer.Client, l fence.Lease) []string {
	t.Helper()
	fenced, err := c.Renew(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return fenced
}

const forks = "trap : TERM; while true; do sleep 60 & sleep 0.01; done"

// TestFence: nobody renews; a pod that heeds TERM ends at the notice, one that
// does not, and forks, is killed at the end of the lease; nothing can be started
// in it then, until there is a lease again.
func TestFence(t *testing.T) {
	dir := testenv.Dir(t)
	c := client(t, dir, "1")
	polite, stubborn, bound := pod(t, "polite"), pod(t, "stubborn"), pod(t, "bound")
	bound.Bound = true
	lease := fence.Lease{Sent: fencer.Now() - fence.Length + fence.Notice + 700*time.Millisecond} // the notice comes in 0.7 s
	renew(t, c, lease)
	hold(t, c, polite, stubborn, bound)
	t.Logf("degraded: %q", c.Degraded())
	start(t, polite, `trap "exit 0" TERM; while true; do sleep 0.01; done`)
	start(t, stubborn, forks)
	start(t, bound, "sleep 60")
	testenv.Eventually(t, 5*time.Second, "all run", func() bool {
		return len(processes(polite)) > 0 && len(processes(stubborn)) > 5 && len(processes(bound)) > 0
	})
	if fenced := renew(t, c, fence.Lease{Sent: 1}); len(fenced) > 0 {
		t.Errorf("fenced: %q", fenced)
	}
	testenv.Eventually(t, 10*time.Second, "the polite one ends", func() bool { return len(processes(polite)) == 0 })
	if now := fencer.Now(); now < lease.Warns() || now > lease.Warns()+time.Second || len(processes(stubborn)) == 0 {
		t.Errorf("the polite one ended %s after the notice; of the stubborn one %d processes are left", now-lease.Warns(), len(processes(stubborn)))
	}
	testenv.Eventually(t, 10*time.Second, "the stubborn one ends", func() bool { return len(processes(stubborn)) == 0 })
	now := fencer.Now()
	t.Logf("killed %s after the end of the lease", now-lease.Ends())
	if now < lease.Ends() || now > lease.Ends()+time.Second { // this test has no priority on a busy machine
		t.Errorf("the stubborn one ended %s after the lease", now-lease.Ends())
	}
	// Whoever was about to start a container comes too late.
	cmd := start(t, stubborn, "sleep 60")
	if err := cmd.Wait(); err == nil {
		t.Error("a container started after the end of the lease")
	}
	if len(processes(bound)) == 0 {
		t.Error("a pod bound to this node was fenced")
	}
	if fenced := renew(t, c, fence.Lease{Sent: fencer.Now()}); !slices.Equal(fenced, []string{"polite", "stubborn"}) {
		t.Errorf("fenced: %q", fenced)
	}
	testenv.Eventually(t, time.Second, "it is open again", func() bool { return len(renew(t, c, fence.Lease{})) == 0 && open(stubborn) })
	start(t, stubborn, "sleep 60")
	testenv.Eventually(t, time.Second, "it runs again", func() bool { return len(processes(stubborn)) > 0 })
}

// open reports whether a pod may have processes.
func open(p fence.Pod) bool {
	for _, h := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		if raw, err := os.ReadFile(h + p.Group + "/pids.max"); err == nil {
			return strings.TrimSpace(string(raw)) == "max"
		}
	}
	return false
}

// TestSuccessor: a fencer outlives its daemon and keeps the time; one that was
// killed, stopped or is of another version has a successor that knows all.
func TestSuccessor(t *testing.T) {
	dir := testenv.Dir(t)
	first := client(t, dir, "1")
	p := pod(t, "p")
	lease := fence.Lease{Sent: fencer.Now(), For: fence.Handover}
	renew(t, first, lease)
	hold(t, first, p)
	start(t, p, "sleep 60")
	pid := first.PID()

	next := client(t, dir, "1") // the next daemon
	held, err := next.Held(t.Context())
	if err != nil || !slices.Equal(held, []fence.Pod{p}) || next.PID() != pid {
		t.Fatalf("held %v, %v, by %d instead of %d", held, err, next.PID(), pid)
	}
	// The daemon is back: once it is heard of, nobody waits for a minute.
	if fenced := renew(t, first, fence.Lease{}); len(fenced) > 0 {
		t.Errorf("fenced: %q", fenced)
	}
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		old := next.PID()
		if err := syscall.Kill(old, signal); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, time.Second, "the signal has arrived", func() bool {
			raw, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(old), "stat"))
			return err != nil || strings.Contains(string(raw), ") T ") || strings.Contains(string(raw), ") Z ")
		})
		begin := time.Now()
		renew(t, next, fence.Lease{Sent: fencer.Now()})
		t.Logf("after signal %d there is another fencer after %s", signal, time.Since(begin))
		if next.PID() == old || time.Since(begin) > 2*time.Second {
			t.Errorf("after %s: pid %d", time.Since(begin), next.PID())
		}
		if _, err := os.Stat(filepath.Join("/proc", fmt.Sprint(old), "exe")); err == nil {
			t.Errorf("the old one lives")
		}
	}
	newer := client(t, dir, "2") // a daemon of another build
	old := next.PID()
	held, err = newer.Held(t.Context())
	if err != nil || !slices.Equal(held, []fence.Pod{p}) || newer.PID() == old {
		t.Errorf("held %v, %v, by %d", held, err, newer.PID())
	}
	if len(processes(p)) == 0 {
		t.Error("the pod ended")
	}
	if err := newer.Release(t.Context(), "p"); err != nil || newer.PID() != 0 {
		t.Errorf("release: %v, and %d runs on", err, newer.PID())
	}
	if held, err := newer.Held(t.Context()); err != nil || len(held) > 0 {
		t.Errorf("held %v, %v", held, err)
	}
}

// TestNoFencer: one that cannot be started is an error, soon.
func TestNoFencer(t *testing.T) {
	c := fencer.NewClient(fencer.ClientConfig{RunDir: t.TempDir(), Program: "/bin/false"})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := c.Hold(ctx, fence.Pod{Instance: "p", Group: "/a/p"}); err == nil {
		t.Error("a pod is held by nobody")
	}
	if fenced, err := c.Renew(t.Context(), fence.Lease{Sent: 1}); err != nil || len(fenced) > 0 {
		t.Errorf("%v, %v", fenced, err)
	}
}

// TestGroups: nothing but the cgroup of a pod is ever taken.
func TestGroups(t *testing.T) {
	var w fencer.Warden
	for _, g := range []string{"", "/", "/shoal", "shoal/p", "/shoal/../x", "/shoal/p/", "//p"} {
		if err := w.Hold(fence.Pod{Instance: "p", Group: g}); err == nil {
			t.Errorf("%q is taken", g)
		}
	}
	if err := w.Hold(fence.Pod{Group: "/shoal/p"}); err == nil {
		t.Error("a pod without a name is taken")
	}
	if next, err := w.Tick(fencer.Now()); next != 0 || err != nil {
		t.Errorf("%s, %v", next, err)
	}
}
