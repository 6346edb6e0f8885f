package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/agent"
	"github.com/shoal-dev/shoal/runtime/logs"
)

// probed gives a pod a readiness probe that succeeds once a second.
func probed(p *corev1.Pod) {
	p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
		TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(80)},
	}}
}

const server = "echo up; mkdir -p /www; httpd -p 80 -h /www; i=0; while true; do i=$((i+1)); echo line $i; sleep 0.05; done"

// watchReady reports whether a pod was ever seen not ready until stop is called.
func (h *house) watchReady(pods ...runtime.Pod) (stop func() []string) {
	done, result := make(chan struct{}), make(chan []string)
	a := h.agent
	go func() {
		var seen []string
		for {
			for _, p := range pods {
				if s, found := a.Status(p.Instance()); found && !ready(s) {
					b, _ := json.Marshal(s.Conditions)
					seen = append(seen, p.Object.Name+": "+string(b))
				}
			}
			select {
			case <-done:
				result <- seen
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() []string { close(done); return <-result }
}

// TestDaemonRestart: pods run on while no agent does, and the next one adopts
// them as they are.
func TestDaemonRestart(t *testing.T) {
	h := newHouse(t)
	p, q := pod("web", server, probed), pod("job", "exit 3", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })
	h.run(p, q)
	before := h.eventually(p, soon, "ready", ready)
	h.eventually(q, soon, "failed", func(s corev1.PodStatus) bool { return s.Phase == corev1.PodFailed })
	h.says(p, "app", "line 3\n")
	pid := h.pid(p)
	h.stop()

	begin := time.Now()
	h.start() // and the desired state is not known yet
	stop := h.watchReady(p)
	testenv.Eventually(t, soon, "adoption", h.agent.Adopted)
	// From then on whoever decides believes that this is all there is.
	if states := h.agent.States().Pods; len(states) != 2 || states[1].Pod != p.Assignment.Pod || !states[1].Ready {
		t.Errorf("adopted, and the states are %+v", states)
	}
	after := h.eventually(p, soon, "ready after the restart", ready)
	t.Logf("adopted after %s", time.Since(begin))
	if after.PodIP != before.PodIP || after.ContainerStatuses[0].ContainerID != before.ContainerStatuses[0].ContainerID {
		t.Errorf("the pod changed: %+v, %+v", before, after)
	}
	h.agent.Sync(h.desired)
	count := strings.Count(h.log(p, "app", corev1.PodLogOptions{}), "\n")
	testenv.Eventually(t, soon, "the log goes on", func() bool {
		return strings.Count(h.log(p, "app", corev1.PodLogOptions{}), "\n") > count+20
	})
	if seen := stop(); len(seen) > 0 {
		t.Errorf("not ready during adoption: %s", seen[0])
	}
	h.numbered(p)
	if got := h.pid(p); got != pid {
		t.Errorf("process: got %d, want %d", got, pid)
	}
	s := h.status(q)
	if e := terminated(s); e == nil || e.ExitCode != 3 || e.Reason != "Error" {
		t.Errorf("the job's end was forgotten: %+v", s)
	}
	h.removeAll()
}

// numbered checks that no line of a pod's log is missing.
func (h *house) numbered(p runtime.Pod) {
	h.t.Helper()
	n := 0
	for line := range strings.Lines(h.log(p, "app", corev1.PodLogOptions{})) {
		var i int
		if _, err := fmt.Sscanf(line, "line %d", &i); err == nil {
			if n++; i != n {
				h.t.Fatalf("log: line %d follows line %d", i, n-1)
			}
		}
	}
}

// TestContainerdRestart: nobody notices that containerd was killed.
func TestContainerdRestart(t *testing.T) {
	h := newHouse(t)
	p := pod("web", server, probed)
	h.run(p)
	before := h.eventually(p, soon, "ready", ready)
	stop := h.watchReady(p)
	h.containerd.Kill()
	testenv.Eventually(t, soon, "the node is not ready", func() bool {
		for _, c := range h.agent.Node(context.Background()).Conditions {
			if c.Type == corev1.NodeReady {
				return c.Status == corev1.ConditionFalse && c.Reason == "ContainerRuntimeDown"
			}
		}
		return false
	})
	q := pod("later", "exec sleep 1000")
	h.run(q)
	h.containerd.Start()
	h.eventually(q, soon, "a pod starts again", ready)
	if seen := stop(); len(seen) > 0 {
		t.Errorf("not ready: %s", seen[0])
	}
	after := h.status(p)
	if after.ContainerStatuses[0].RestartCount != 0 || after.PodIP != before.PodIP {
		t.Errorf("the pod changed: %+v", after)
	}
	h.says(p, "app", "line 40\n")
	h.numbered(p)
	if err := syscall.Kill(h.pid(p), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.eventually(p, soon, "restarted", func(s corev1.PodStatus) bool { return s.ContainerStatuses[0].RestartCount == 1 && ready(s) })
	h.removeAll()
}

// TestKeeperKilled: containers and their logs survive the keeper.
func TestKeeperKilled(t *testing.T) {
	h := newHouse(t)
	p := pod("web", server)
	h.run(p)
	h.says(p, "app", "line 3\n")
	pid := h.keeperPID()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	count := strings.Count(h.log(p, "app", corev1.PodLogOptions{}), "\n")
	testenv.Eventually(t, soon, "the log goes on", func() bool {
		return strings.Count(h.log(p, "app", corev1.PodLogOptions{}), "\n") > count+20
	})
	h.numbered(p)
	if n := h.status(p).ContainerStatuses[0].RestartCount; n != 0 {
		t.Errorf("restarts: got %d", n)
	}
	if now := h.keeperPID(); now == pid || now == 0 {
		t.Errorf("keeper: got %d, was %d", now, pid)
	}
	h.removeAll()
}

func (h *house) keeperPID() int {
	entries, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, e := range entries {
		b, _ := os.ReadFile(e)
		if strings.Contains(string(b), h.cfg.RunDir+"/keeper.sock") {
			var pid int
			_, _ = fmt.Sscanf(e, "/proc/%d/", &pid)
			return pid
		}
	}
	return 0
}

// TestReboot: after a boot the containers' processes, the run directory and the
// network are gone, and the same pods start again.
func TestReboot(t *testing.T) {
	h := newHouse(t)
	p := pod("web", "echo up; exec sleep 1000", func(p *corev1.Pod) {
		first := p.Spec.Containers[0]
		first.Name, first.Command = "first", []string{"sh", "-c", "echo init"}
		p.Spec.InitContainers = []corev1.Container{first}
	})
	h.run(p)
	h.eventually(p, soon, "recorded", func(s corev1.PodStatus) bool { return ready(s) && s.ContainerStatuses[0].ImageID != "" })
	h.stop()
	h.containerd.Kill()
	h.killShims()
	if err := logs.StopKeeper(h.cfg.RunDir); err != nil {
		t.Fatal(err)
	}
	testenv.Unmount(h.cfg.RunDir)
	testenv.Unmount(h.cfg.StateDir)
	if err := os.RemoveAll(h.cfg.RunDir); err != nil {
		t.Fatal(err)
	}
	h.containerd.Start()
	h.start()
	h.agent.Sync(h.desired)
	s := h.eventually(p, soon, "ready", func(s corev1.PodStatus) bool { return ready(s) && s.ContainerStatuses[0].RestartCount == 1 })
	if s.InitContainerStatuses[0].RestartCount != 1 {
		t.Errorf("init container: got %+v", s.InitContainerStatuses[0])
	}
	h.removeAll()
}

// killShims ends every shim and container of this test.
func (h *house) killShims() {
	entries, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, e := range entries {
		b, _ := os.ReadFile(e)
		if strings.Contains(string(b), h.containerd.Address) && strings.HasPrefix(filepath.Base(string(b[:max(0, strings.IndexByte(string(b), 0))])), "containerd-shim") {
			var pid int
			if _, err := fmt.Sscanf(e, "/proc/%d/", &pid); err == nil {
				children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
				_ = syscall.Kill(pid, syscall.SIGKILL)
				for c := range strings.FieldsSeq(string(children)) {
					var child int
					if _, err := fmt.Sscan(c, &child); err == nil {
						_ = syscall.Kill(child, syscall.SIGKILL)
					}
				}
			}
		}
	}
}

// TestPulls fetches images through a mirror and says what is wrong with others.
func TestPulls(t *testing.T) {
	h := newHouse(t)
	h.stop()
	registry := testenv.Registry(t)
	testenv.Push(t, registry, "library/web:1", testenv.Image(t, testenv.Busybox()))
	h.cfg.HostsDir = testenv.Mirrors(t, registry, "docker.io")
	h.start()
	good := pod("good", "exec sleep 1000", func(p *corev1.Pod) {
		p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = "web:1", corev1.PullAlways
	})
	plain := pod("plain", "exec sleep 1000", func(p *corev1.Pod) { p.Spec.Containers[0].Image = registry + "/library/web:1" })
	missing := pod("missing", "exec sleep 1000", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "web:2" })
	never := pod("never", "exec sleep 1000", func(p *corev1.Pod) {
		p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = "example.com/later:1", corev1.PullNever
	})
	badName := pod("bad", "exec sleep 1000", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "UPPER:1" })
	h.run(good, plain, missing, never, badName)
	s := h.eventually(good, soon, "ready", func(s corev1.PodStatus) bool { return ready(s) && s.ContainerStatuses[0].ImageID != "" })
	if c := s.ContainerStatuses[0]; !strings.HasPrefix(c.ImageID, "docker.io/library/web@sha256:") || c.Image != "docker.io/library/web:1" {
		t.Errorf("image: got %q, %q", c.Image, c.ImageID)
	}
	h.eventually(plain, soon, "ready", ready)
	s = h.eventually(missing, soon, "failing", waits("ErrImagePull"))
	if got := s.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(got, "docker.io/library/web:2: not found") {
		t.Errorf("message: got %q", got)
	}
	h.eventually(badName, soon, "refused", waits("InvalidImageName"))
	h.eventually(never, soon, "waiting", waits("ErrImageNeverPull"))

	// What upcoming pods need is fetched ahead; where that fails a pod is not made to wait.
	ahead := func(image string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: image}}}}
	}
	h.desired.Upcoming = []*corev1.Pod{ahead("absent:1"), ahead("docker.io/library/web:1"), ahead("next:1")}
	testenv.Push(t, registry, "library/next:1", testenv.Image(t, testenv.Busybox()))
	h.agent.Sync(h.desired)
	testenv.Eventually(t, soon, "the next image is there", func() bool { return h.holds("docker.io/library/next:1") })
	testenv.Eventually(t, soon, "both are told", func() bool {
		story := h.story("n1")
		return strings.Contains(story, `ImagePrefetched: Successfully pulled image "next:1"`) && strings.Contains(story, `ImagePrefetchFailed: Failed to pull image "absent:1"`)
	})
	absent := pod("absent", "exec sleep 1000", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "absent:1" })
	h.run(absent)
	h.eventually(absent, soon, "failing for the first time", waits("ErrImagePull"))

	// Images that appear in the folder heal at once; a broken archive does not hurt.
	if err := os.WriteFile(filepath.Join(h.cfg.StateDir, "images", "broken.tar"), []byte("no tar"), 0o644); err != nil {
		t.Fatal(err)
	}
	testenv.Archive(t, filepath.Join(h.cfg.StateDir, "images"), "example.com/later:1", testenv.Image(t, testenv.Busybox()))
	h.eventually(never, soon, "ready", ready)
	if len(h.agent.Node(context.Background()).Images) < 3 {
		t.Errorf("images: got %+v", h.agent.Node(context.Background()).Images)
	}
	h.removeAll()
}

// TestDaemonKilled kills the daemon at many moments of starting and removing
// pods. Whatever the moment, the next one brings every pod to run once.
func TestDaemonKilled(t *testing.T) {
	h := newHouse(t)
	first := pod("first", "exec sleep 1000")
	h.run(first)
	h.eventually(first, soon, "ready", ready) // the image is there
	h.stop()
	pods := []runtime.Pod{first}
	for round := range 12 {
		p, q := pod(fmt.Sprint("a", round), "exec sleep 1000", probed), pod(fmt.Sprint("b", round), "exec sleep 1000")
		p.Object.Spec.Containers[0].ReadinessProbe = nil
		if len(pods) > 2 { // one goes while others come
			h.desired.Remove = sorted(append(h.desired.Remove, pods[1].Instance()))
			pods = slices.Delete(pods, 1, 2)
		}
		pods = append(pods, p, q)
		h.desired.Pods = slices.Clone(pods)
		h.killedAfter(time.Duration(10+round*17) * time.Millisecond)
	}
	h.start()
	h.agent.Sync(h.desired)
	for _, p := range pods {
		s := h.eventually(p, soon, "ready", ready)
		if n := s.ContainerStatuses[0].RestartCount; n != 0 {
			t.Errorf("%s was restarted %d times, last ended %+v%s", p.Object.Name, n,
				s.ContainerStatuses[0].LastTerminationState.Terminated, h.story(p.Object.Name))
		}
	}
	testenv.Eventually(t, soon, "only wanted pods are held", func() bool { return len(h.agent.States().Pods) == len(pods) })
	h.removeAll()
}

const daemonEnv = "SHOAL_TEST_DAEMON"

// job is what a daemon process of TestDaemonKilled is told.
type job struct {
	StateDir, RunDir, Containerd, CIDR string
	Keeper                             []byte
	Pods                               []runtime.Pod
	Remove                             []string
}

// killedAfter runs an agent in a process of its own and kills it some time after
// it got its desired state.
func (h *house) killedAfter(d time.Duration) {
	h.t.Helper()
	j := job{
		StateDir: h.cfg.StateDir, RunDir: h.cfg.RunDir, Containerd: h.cfg.Containerd, CIDR: h.cfg.PodCIDR.String(),
		Keeper: h.cfg.Keeper, Pods: h.desired.Pods, Remove: h.desired.Remove,
	}
	b, err := json.Marshal(j)
	if err != nil {
		h.t.Fatal(err)
	}
	file := filepath.Join(h.cfg.StateDir, "job.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=TestDaemonProcess")
	cmd.Env = append(os.Environ(), daemonEnv+"="+file)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	line := make([]byte, 1)
	_, _ = out.Read(line) // it is about to work
	timer := time.NewTimer(d)
	<-timer.C
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// TestDaemonProcess is not a test: it is the process that TestDaemonKilled kills.
func TestDaemonProcess(t *testing.T) {
	file := os.Getenv(daemonEnv)
	if file == "" {
		return
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var j job
	if err := json.Unmarshal(b, &j); err != nil {
		t.Fatal(err)
	}
	a, err := agent.New(agent.Config{
		Node: "n1", StateDir: j.StateDir, RunDir: j.RunDir, Containerd: j.Containerd,
		PodCIDR: netip.MustParsePrefix(j.CIDR), Keeper: j.Keeper,
	})
	if err != nil {
		t.Fatal(err)
	}
	a.Sync(runtime.Desired{Known: true, Pods: j.Pods, Remove: j.Remove})
	fmt.Println("go")
	if err := a.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
}
