package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/agent"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// house is a machine with an agent.
type house struct {
	t          testing.TB
	containerd *testenv.Daemon
	cfg        agent.Config
	agent      *agent.Agent
	stop       func()
	desired    runtime.Desired

	mu     sync.Mutex
	events []string
}

func (h *house) record(e api.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, fmt.Sprintf("%s %s %s %s: %s", e.Time.Format("05.000"), e.Regards.Name, e.Type, e.Reason, e.Message))
}

// story returns what was said of a pod.
func (h *house) story(name string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out strings.Builder
	for _, e := range h.events {
		if strings.Contains(e, " "+name+" ") {
			fmt.Fprintf(&out, "\n%.600s", e)
		}
	}
	return out.String()
}

const image = "example.com/busybox:1"

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, containerd: testenv.Containerd(t), desired: runtime.Desired{Known: true}}
	dir := testenv.Dir(t)
	h.cfg = agent.Config{
		Node: "n1", StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"),
		Containerd: h.containerd.Address, PodCIDR: netip.MustParsePrefix("10.64.1.0/24"),
		Keeper: testenv.Keeper(t),
		Record: h.record,
	}
	testenv.Archive(t, filepath.Join(h.cfg.StateDir, "images"), image, testenv.Image(t, testenv.Busybox()))
	t.Cleanup(func() {
		if h.stop != nil {
			h.stop()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := agent.Reset(ctx, h.cfg); err != nil {
			t.Errorf("reset: %v", err)
		}
		if mounts := testenv.Mounts(dir); len(mounts) > 0 {
			t.Errorf("reset left mounts: %q", mounts)
		}
	})
	h.start()
	return h
}

// start starts the agent.
func (h *house) start() {
	h.t.Helper()
	a, err := agent.New(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	h.agent = a
	h.stop = func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("run: %v", err)
		}
		h.stop = nil
	}
}

// pod returns a pod with one container that runs a shell script.
func pod(name, script string, change ...func(*corev1.Pod)) runtime.Pod {
	instance := uuid.NewString()
	grace := int64(1)
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(instance), Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			NodeName: "n1", RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "app", Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
				Command:                []string{"sh", "-c", script},
				TerminationMessagePath: "/dev/termination-log",
			}},
		},
		Status: corev1.PodStatus{HostIP: "192.0.2.1", HostIPs: []corev1.HostIP{{IP: "192.0.2.1"}}},
	}
	for _, c := range change {
		c(object)
	}
	return runtime.Pod{
		Assignment: api.Assignment{
			Pod: api.Pod{
				Identity: api.Identity{Namespace: "default", Kind: "Pod", Owner: name},
				Revision: "r1", Instance: instance,
			},
			Node: "n1", Unit: "main", Commit: "c1", Created: time.Now(),
		},
		Object: object,
	}
}

func (h *house) run(pods ...runtime.Pod) {
	h.desired.Pods = append(h.desired.Pods, pods...)
	h.agent.Sync(h.desired)
}

func (h *house) status(p runtime.Pod) corev1.PodStatus {
	s, _ := h.agent.Status(p.Instance())
	return s
}

func (h *house) eventually(p runtime.Pod, limit time.Duration, what string, ok func(corev1.PodStatus) bool) corev1.PodStatus {
	h.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		s := h.status(p)
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			b, _ := json.Marshal(s)
			h.t.Fatalf("%s at %s: not within %s: %s\n%s%s",
				p.Object.Name, time.Now().Format("05.000"), limit, what, b, h.story(p.Object.Name))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func ready(s corev1.PodStatus) bool {
	for _, c := range s.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func TestPodRuns(t *testing.T) {
	h := newHouse(t)
	p := pod("web", "echo hello; exec sleep 1000")
	h.run(p)
	begin := time.Now()
	s := h.eventually(p, 30*time.Second, "ready", ready)
	t.Logf("ready after %s: %+v", time.Since(begin), s)
	for i := range 5 {
		p := pod("again"+string(rune('a'+i)), "echo hello; exec sleep 1000")
		begin := time.Now()
		h.run(p)
		h.eventually(p, 30*time.Second, "ready", ready)
		t.Logf("ready after %s", time.Since(begin))
	}
}

func sorted(instances []string) []string {
	out := slices.Clone(instances)
	slices.Sort(out)
	return slices.Compact(out)
}

func without(pods []runtime.Pod, instance string) []runtime.Pod {
	return slices.DeleteFunc(slices.Clone(pods), func(p runtime.Pod) bool { return p.Instance() == instance })
}
