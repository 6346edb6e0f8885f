package usage_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime/usage"
)

// TestRead: both versions of cgroups tell the same, as recorded.
func TestRead(t *testing.T) {
	for version, cpu := range map[string]time.Duration{"v1": 1234567890, "v2": 1234567 * time.Microsecond} {
		got, err := usage.Roots{Proc: "testdata/proc", Cgroup: "testdata/" + version}.Read(map[string]string{"i1": "/shoal/i1", "gone": "/shoal/gone"}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		want := usage.Counters{
			At: time.Hour, Node: usage.Counter{CPU: 14 * time.Second, Memory: 8192000 << 10},
			Pods: map[string]usage.Counter{"i1": {CPU: cpu, Memory: 40 << 20}},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", version, diff)
		}
	}
}

// TestReadHere reads this machine.
func TestReadHere(t *testing.T) {
	got, err := usage.Kernel().Read(map[string]string{"all": "/"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got.Node.CPU <= 0 || got.Node.Memory <= 0 || got.Pods["all"].CPU <= 0 {
		t.Errorf("got %+v", got)
	}
}

// TestBetween: what hardly changes is not told again.
func TestBetween(t *testing.T) {
	const second = time.Second
	now := time.Unix(1000, 0)
	reading := func(at, node, pod time.Duration, memory int64) usage.Counters {
		return usage.Counters{At: at, Node: usage.Counter{CPU: node, Memory: memory << 20}, Pods: map[string]usage.Counter{"i": {CPU: pod, Memory: memory << 16}}}
	}
	text := func(u api.Usage) string {
		show := func(l corev1.ResourceList) string { return l.Cpu().String() + " " + l.Memory().String() }
		return show(u.Used) + ", " + show(u.Pods["i"])
	}
	zero := reading(0, 0, 0, 1024)
	first := usage.Between(zero, reading(10*second, 5*second, 2*second, 1024), api.Usage{}, "n1", now)
	if got := text(first); got != "500m 1Gi, 200m 64Mi" || first.Node != "n1" || !first.Time.Equal(now) {
		t.Errorf("got %s", got)
	}
	same := usage.Between(zero, reading(10*second, 5500*time.Millisecond, 2400*time.Millisecond, 1040), first, "n1", now.Add(second))
	if diff := cmp.Diff(first, same); diff != "" {
		t.Errorf("told again: %s", diff)
	}
	more := usage.Between(zero, reading(10*second, 8*second, 2400*time.Millisecond, 2048), first, "n1", now.Add(second))
	if got := text(more); got != "800m 2Gi, 200m 128Mi" || !more.Time.After(now) {
		t.Errorf("got %s", got)
	}
	if got := usage.Between(zero, zero, first, "n1", now); cmp.Diff(first, got) != "" {
		t.Error("no time passed, and something was told")
	}
	gone := reading(10*second, 5*second, 2*second, 1024)
	gone.Pods = nil
	if got := usage.Between(zero, gone, first, "n1", now); len(got.Pods) != 0 || got.Used.Cpu().String() != "500m" {
		t.Errorf("a pod that is gone: %s", text(got))
	}
	fresh := usage.Between(usage.Counters{}, reading(10*second, 5*second, 2*second, 1024), api.Usage{}, "n1", now)
	if _, told := fresh.Pods["i"][corev1.ResourceCPU]; told {
		t.Error("the processor time of a pod that was not there is told")
	}
}

// TestContainers: all tries of a container are read, in both versions.
func TestContainers(t *testing.T) {
	for _, version := range []string{"v1", "v2"} {
		got := usage.Roots{Proc: "testdata/proc", Cgroup: "testdata/" + version}.Containers(map[string]string{"i1": "/shoal/i1", "gone": "/shoal/gone"})
		want := map[string]map[string]usage.Counter{"i1": {"app": {CPU: 12 * time.Millisecond, Memory: 4 << 20}}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", version, diff)
		}
	}
}

// TestExact: what something is decided by is told in small steps, and again after
// a minute though it is the same.
func TestExact(t *testing.T) {
	const second = time.Second
	now := time.Unix(1000, 0)
	reading := func(at, pod time.Duration) usage.Counters {
		return usage.Counters{
			At: at, Pods: map[string]usage.Counter{"i": {CPU: pod}}, Exact: map[string]bool{"i": true},
			Containers: map[string]map[string]usage.Counter{"i": {"app": {CPU: pod / 2}}},
		}
	}
	zero := reading(0, 0)
	first := usage.Between(zero, reading(10*second, second), api.Usage{}, "n1", now)
	cpu := func(list corev1.ResourceList) string { return list.Cpu().String() }
	if cpu(first.Pods["i"]) != "100m" || cpu(first.Containers["i"]["app"]) != "50m" || first.Window != 10*second {
		t.Errorf("got %+v", first)
	}
	if same := usage.Between(zero, reading(10*second, second+second/100), first, "n1", now.Add(10*second)); !same.Time.Equal(now) {
		t.Errorf("told again: %+v", same)
	}
	more := usage.Between(zero, reading(10*second, second+second/20), first, "n1", now.Add(10*second))
	if got := cpu(more.Pods["i"]); got != "105m" {
		t.Errorf("got %s", got)
	}
	if again := usage.Between(zero, reading(10*second, second), first, "n1", now.Add(time.Minute)); !again.Time.After(now) {
		t.Error("what is told is never told again")
	}
}

// TestPrecise: what was measured, without the steps in which it is told.
func TestPrecise(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	first := usage.Counters{At: time.Second, Node: usage.Counter{10 * time.Second, 0}, Pods: map[string]usage.Counter{"a": {time.Second, 0}, "gone": {}}, Containers: map[string]map[string]usage.Counter{"a": {"c": {time.Second / 2, 0}}}}
	last := usage.Counters{
		At: 11 * time.Second, Node: usage.Counter{15 * time.Second, 1<<30 + 1}, Pods: map[string]usage.Counter{"a": {1070 * time.Millisecond, 12345}, "new": {time.Second, 7}},
		Containers: map[string]map[string]usage.Counter{"a": {"c": {540 * time.Millisecond, 345}, "d": {time.Second, 12000}}},
	}
	u := usage.Precise(first, last, "n1", now)
	show := func(l corev1.ResourceList) string {
		cpu, measured := l[corev1.ResourceCPU]
		return fmt.Sprint(cpu.MilliValue(), " ", measured, " ", l.Memory().Value())
	}
	for _, c := range []struct{ what, got, want string }{
		{"node", show(u.Used), "500 true 1073741825"},
		{"a", show(u.Pods["a"]), "7 true 12345"},
		{"new", show(u.Pods["new"]), "0 false 7"},
		{"c", show(u.Containers["a"]["c"]), "4 true 345"},
		{"d", show(u.Containers["a"]["d"]), "0 false 12000"},
		{"the rest", fmt.Sprintf("%s %d %s %t", u.Node, len(u.Pods), u.Window, u.Time.Equal(now)), "n1 2 10s true"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %s, want %s", c.what, c.got, c.want)
		}
	}
	if u := usage.Precise(last, last, "n1", now); u.Used != nil {
		t.Errorf("no time has passed, and %v was used", u.Used)
	}
}
