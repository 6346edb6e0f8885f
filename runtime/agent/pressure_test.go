package agent_test

import (
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/evict"
)

// TestEviction: on a machine that runs short of memory the pod that uses more than
// it asked for goes, and no other; pods that ask for nothing are not admitted.
func TestEviction(t *testing.T) {
	h := newHouse(t)
	h.stop()
	var short atomic.Bool
	h.cfg.Readings = func() (map[evict.Signal]evict.Reading, bool) {
		left := int64(1 << 30)
		if short.Load() {
			left = 10 << 20
		}
		return map[evict.Signal]evict.Reading{evict.Memory: {Available: left, Capacity: 2 << 30}}, true
	}
	var err error
	if h.cfg.Resources.Eviction, err = evict.Parse(evict.Settings{Hard: []string{"memory.available<300Mi"}}); err != nil {
		t.Fatal(err)
	}
	h.start()
	asks := func(memory string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memory)}
		}
	}
	modest := pod("modest", "exec sleep 1000", asks("64Mi"))
	greedy := pod("greedy", "exec sleep 1000", asks("1"), func(p *corev1.Pod) { p.Spec.Priority = new(int32(5)) })
	h.run(modest, greedy)
	for _, p := range []runtime.Pod{modest, greedy} {
		h.eventually(p, soon, "ready", ready)
	}
	short.Store(true)
	s := h.eventually(greedy, soon, "evicted", func(s corev1.PodStatus) bool { return s.Phase == corev1.PodFailed })
	if s.Reason != "Evicted" || !strings.Contains(s.Message, "The node was low on resource: memory. Threshold quantity: 300Mi, available: 10Mi. Container app was using") {
		t.Errorf("got %s: %s", s.Reason, s.Message)
	}
	testenv.Eventually(t, soon, "the machine says so", func() bool { return len(h.agent.Pressures()) == 1 })
	late := pod("late", "exec sleep 1000")
	h.run(late)
	if s := h.eventually(late, soon, "not admitted", func(s corev1.PodStatus) bool { return s.Phase == corev1.PodFailed }); !strings.Contains(s.Message, "[MemoryPressure]") {
		t.Errorf("got %s: %s", s.Reason, s.Message)
	}
	short.Store(false)
	testenv.Eventually(t, soon, "there is enough", func() bool { return len(h.agent.Pressures()) == 0 })

	// A daemon that starts anew does not start the pod again.
	h.stop()
	h.start()
	h.agent.Sync(h.desired)
	s = h.eventually(greedy, soon, "still evicted", func(s corev1.PodStatus) bool { return s.Phase != "" })
	if s.Phase != corev1.PodFailed || s.Reason != "Evicted" {
		t.Errorf("after a restart: %s %s", s.Phase, s.Reason)
	}
}

// TestEvictionByDisk: what pods have written is measured on the real disk, and who
// wrote most goes, once old logs were not enough.
func TestEvictionByDisk(t *testing.T) {
	h := newHouse(t)
	h.stop()
	var err error
	// Every disk has less than this left.
	if h.cfg.Resources.Eviction, err = evict.Parse(evict.Settings{Hard: []string{"nodefs.available<99.99%"}}); err != nil {
		t.Fatal(err)
	}
	h.start()
	// Pods that tolerate the pressure are admitted.
	tolerates := func(p *corev1.Pod) {
		p.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeDiskPressure, Operator: corev1.TolerationOpExists}}
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	}
	writer := pod("writer", "dd if=/dev/zero of=/v/x bs=1M count=20; dd if=/dev/zero of=/y bs=1M count=5; exec sleep 1000", tolerates)
	critical := pod("critical", "dd if=/dev/zero of=/v/x bs=1M count=40; exec sleep 1000", tolerates, func(p *corev1.Pod) { p.Spec.Priority = new(int32(2000000000)) })
	h.run(writer, critical)
	s := h.eventually(writer, 2*soon, "evicted", func(s corev1.PodStatus) bool { return s.Phase == corev1.PodFailed })
	if s.Reason != "Evicted" || !strings.Contains(s.Message, "low on resource: ephemeral-storage") {
		t.Errorf("got %s: %s", s.Reason, s.Message)
	}
	if s := h.eventually(critical, soon, "ready", ready); s.Phase != corev1.PodRunning {
		t.Errorf("the critical pod: %s", s.Phase)
	}
	if c := h.agent.Node(t.Context()).Conditions[1]; c.Type != corev1.NodeDiskPressure || c.Status != corev1.ConditionTrue {
		t.Errorf("the node: %+v", c)
	}
}
