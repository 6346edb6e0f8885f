package evict_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/runtime/evict"
)

var begin = time.Unix(1_000_000, 0)

// usual is kubelet's policy, with a soft threshold of memory.
func usual(t interface{ Fatal(...any) }) evict.Policy {
	p, err := evict.Parse(evict.Settings{
		Hard: []string{"memory.available<100", "nodefs.available<10%", "nodefs.inodesFree<5%", "imagefs.available<15%", "pid.available<10%"},
		Soft: []string{"memory.available<200"}, SoftGrace: []string{"memory.available=1m"},
		MinimumReclaim: []string{"memory.available=50"}, MaxPodGrace: 20 * time.Second, Transition: 5 * time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func low(signal evict.Signal, available int64) map[evict.Signal]evict.Reading {
	return map[evict.Signal]evict.Reading{signal: {Available: available, Capacity: 1000}}
}

// Each case is a sentence of Kubernetes' "Node-pressure Eviction".
func TestWhoGoes(t *testing.T) {
	pod := func(name string, priority int32, used, requested int64) evict.Pod {
		return evict.Pod{Instance: name, Priority: priority, Used: evict.Use{Memory: used, Disk: used, Layers: used, Inodes: used, Processes: used}, Memory: requested, Disk: requested}
	}
	critical := pod("critical", 2000000000, 900, 0)
	critical.Critical = true
	for _, c := range []struct {
		sentence string
		readings map[evict.Signal]evict.Reading
		pods     []evict.Pod
		want     string
	}{
		{"pods whose usage exceeds requests go first", low(evict.Memory, 50), []evict.Pod{pod("below", 0, 400, 500), pod("above", 1000, 20, 10)}, "above"},
		{"among these by priority", low(evict.Memory, 50), []evict.Pod{pod("low", 1, 20, 10), pod("high", 2, 500, 10)}, "low"},
		{"then by how much usage exceeds requests", low(evict.Memory, 50), []evict.Pod{pod("more", 0, 300, 200), pod("most", 0, 250, 100)}, "most"},
		{"pods below their requests go last, by priority", low(evict.Memory, 50), []evict.Pod{pod("low", 1, 10, 20), pod("high", 2, 10, 20)}, "low"},
		{"critical pods are never evicted", low(evict.Memory, 50), []evict.Pod{critical, pod("below", 5, 10, 20)}, "below"},
		{"critical pods are never evicted, whatever that means", low(evict.Memory, 50), []evict.Pod{critical}, ""},
		{"inodes have no requests: priority counts", low(evict.NodeInodes, 10), []evict.Pod{pod("low", 1, 5, 100), pod("high", 2, 500, 0)}, "low"},
		{"process IDs have no requests: priority counts", low(evict.PIDs, 10), []evict.Pod{pod("low", 1, 5, 100), pod("high", 2, 500, 0)}, "low"},
		{"disk is ranked by local storage", low(evict.NodeFS, 10), []evict.Pod{pod("above", 0, 30, 10), pod("below", 0, 90, 100)}, "above"},
		{"disk of images by what containers wrote", low(evict.ImageFS, 10), []evict.Pod{pod("above", 0, 30, 10), pod("below", 0, 90, 100)}, "above"},
		{"nobody goes while there is enough", low(evict.Memory, 500), []evict.Pod{pod("a", 0, 30, 10)}, ""},
		{"nobody goes by what was not measured", nil, []evict.Pod{pod("a", 0, 30, 10)}, ""},
		{"one that uses nothing of it stays", low(evict.NodeFS, 10), []evict.Pod{pod("a", 0, 0, 0)}, ""},
		{"equals go by name", low(evict.Memory, 50), []evict.Pod{pod("b", 0, 30, 10), pod("a", 0, 30, 10)}, "a"},
		{"memory of all pods counts like the machine's", low(evict.Allocatable, 50), []evict.Pod{pod("a", 0, 30, 10)}, "a"},
	} {
		d := evict.Decide(usual(t), evict.Input{Readings: c.readings, Pods: c.pods, Now: begin, Reclaimed: true})
		got := ""
		if d.Victim != nil {
			got = d.Victim.Instance
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.sentence, got, c.want)
		}
	}
}

// TestOverTime follows one machine: what is short, and what is said and done then.
func TestOverTime(t *testing.T) {
	p, hog := usual(t), evict.Pod{Instance: "hog", Grace: 30 * time.Second, Used: evict.Use{Memory: 500, Disk: 500}}
	var past evict.Past
	for _, c := range []struct {
		what     string
		after    time.Duration
		readings map[evict.Signal]evict.Reading
		ending   time.Duration // when the pod began to end; 0: it did not
		freed    bool
		want     string
	}{
		{"enough", 0, low(evict.Memory, 300), 0, false, "[]"},
		{"a soft threshold says so at once", time.Second, low(evict.Memory, 180), 0, false, "[MemoryPressure]"},
		{"and evicts after its grace period", 61 * time.Second, low(evict.Memory, 180), 0, false, "[MemoryPressure] hog 20s"},
		{"one at a time", 62 * time.Second, low(evict.Memory, 180), 61 * time.Second, false, "[MemoryPressure]"},
		{"what is reclaimed is more than the threshold", 100 * time.Second, low(evict.Memory, 240), 0, false, "[MemoryPressure] hog 20s"},
		{"then it is over, and the condition holds on", 110 * time.Second, low(evict.Memory, 250), 0, false, "[MemoryPressure]"},
		{"the grace period begins anew", 120 * time.Second, low(evict.Memory, 150), 0, false, "[MemoryPressure]"},
		{"a hard threshold does not wait", 130 * time.Second, low(evict.Memory, 99), 0, false, "[MemoryPressure] hog 0s"},
		{"five minutes", 429 * time.Second, low(evict.Memory, 300), 0, false, "[MemoryPressure]"},
		{"are over", 430 * time.Second, low(evict.Memory, 300), 0, false, "[]"},
		{"disk: what nobody needs goes first", 500 * time.Second, low(evict.NodeFS, 50), 0, false, "[DiskPressure] reclaim"},
		{"and pods when that was not enough", 501 * time.Second, low(evict.NodeFS, 50), 0, true, "[DiskPressure] hog 0s"},
		{"the clock goes back", 0, low(evict.NodeFS, 500), 0, true, "[]"},
	} {
		pod := hog
		if c.ending > 0 {
			pod.Ending = begin.Add(c.ending)
		}
		d := evict.Decide(p, evict.Input{Readings: c.readings, Pods: []evict.Pod{pod}, Now: begin.Add(c.after), Reclaimed: c.freed, Past: past})
		past = d.Past
		got := fmt.Sprint(d.Conditions)
		if d.Reclaim {
			got += " reclaim"
		}
		if v := d.Victim; v != nil {
			got += fmt.Sprintf(" %s %s", v.Instance, v.Grace)
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.what, got, c.want)
		}
	}
}

// A machine with one disk goes by the thresholds of the node's disk.
func TestOneDisk(t *testing.T) {
	in := evict.Input{Readings: low(evict.ImageFS, 120), Pods: []evict.Pod{{Instance: "a", Used: evict.Use{Layers: 1}}}, Now: begin, Reclaimed: true}
	if d := evict.Decide(usual(t), in); d.Victim == nil {
		t.Error("the disk of images is full, and nothing happens")
	}
	in.OneDisk = true
	if d := evict.Decide(usual(t), in); d.Victim != nil || len(d.Conditions) > 0 {
		t.Errorf("got %+v", d)
	}
}

func TestMessage(t *testing.T) {
	in := evict.Input{Readings: map[evict.Signal]evict.Reading{evict.Memory: {Available: 50 << 20, Capacity: 1 << 30}}, Now: begin, Pods: []evict.Pod{{
		Instance: "a", Used: evict.Use{Memory: 30 << 20}, Containers: []evict.Container{{Name: "app", Memory: 20<<20 + 5, Request: 10 << 20}, {Name: "small", Memory: 1, Request: 2}},
	}}}
	p, err := evict.Parse(evict.Settings{Hard: []string{"memory.available<100Mi"}})
	if err != nil {
		t.Fatal(err)
	}
	want := "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container app was using 20Mi, request is 10Mi, has larger consumption of memory. "
	if got := evict.Decide(p, in).Victim.Message; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestAdmit: under memory pressure pods without requests are not admitted.
func TestAdmit(t *testing.T) {
	const memory, disk = corev1.NodeMemoryPressure, corev1.NodeDiskPressure
	critical := int32(2000001000)
	tolerant := corev1.PodSpec{Tolerations: []corev1.Toleration{{Key: corev1.TaintNodeDiskPressure, Operator: corev1.TolerationOpExists}}}
	for _, c := range []struct {
		spec  corev1.PodSpec
		class corev1.PodQOSClass
		under []corev1.NodeConditionType
		want  string
	}{
		{corev1.PodSpec{}, corev1.PodQOSBestEffort, nil, ""},
		{corev1.PodSpec{}, corev1.PodQOSBestEffort, []corev1.NodeConditionType{memory}, "MemoryPressure"},
		{corev1.PodSpec{}, corev1.PodQOSBurstable, []corev1.NodeConditionType{memory}, ""},
		{corev1.PodSpec{}, corev1.PodQOSGuaranteed, []corev1.NodeConditionType{disk, memory}, "DiskPressure"},
		{tolerant, corev1.PodQOSBestEffort, []corev1.NodeConditionType{disk}, ""},
		{tolerant, corev1.PodQOSBestEffort, []corev1.NodeConditionType{disk, memory}, "MemoryPressure"},
		{corev1.PodSpec{Priority: &critical}, corev1.PodQOSBestEffort, []corev1.NodeConditionType{disk, memory}, ""},
	} {
		got := evict.Admit(&c.spec, c.class, c.under)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%v under %v: got %q, want %q", c.class, c.under, got, c.want)
		}
	}
}

// Whatever is measured: no pod goes below its requests while one is above, none of
// higher priority before a lower one of the same kind, no critical one, nobody
// while somebody is going, and the same is always decided.
func TestVictimProperties(t *testing.T) {
	p := usual(t)
	small := rapid.Int64Range(0, 4)
	rapid.Check(t, func(t *rapid.T) {
		in := evict.Input{Now: begin, Reclaimed: rapid.Bool().Draw(t, "reclaimed"), Readings: map[evict.Signal]evict.Reading{}}
		for _, s := range []evict.Signal{evict.Memory, evict.NodeFS, evict.PIDs, evict.NodeInodes} {
			in.Readings[s] = evict.Reading{Available: rapid.Int64Range(0, 300).Draw(t, string(s)), Capacity: 1000}
		}
		going := false
		for i := range rapid.IntRange(0, 6).Draw(t, "pods") {
			pod := evict.Pod{
				Instance: fmt.Sprint(i), Priority: int32(small.Draw(t, "priority")), Critical: rapid.IntRange(0, 5).Draw(t, "critical") == 0,
				Memory: small.Draw(t, "requested"), Disk: small.Draw(t, "claimed"),
				Used: evict.Use{Memory: small.Draw(t, "memory"), Disk: small.Draw(t, "disk"), Inodes: small.Draw(t, "inodes"), Processes: small.Draw(t, "processes")},
			}
			if rapid.IntRange(0, 9).Draw(t, "ending") == 0 {
				pod.Ending, going = begin.Add(-time.Second), true
			}
			in.Pods = append(in.Pods, pod)
		}
		d := evict.Decide(p, in)
		slices.Reverse(in.Pods)
		if again := evict.Decide(p, in); fmt.Sprint(again.Victim) != fmt.Sprint(d.Victim) && (again.Victim == nil || d.Victim == nil || *again.Victim != *d.Victim) {
			t.Fatalf("the order of pods matters: %+v, %+v", d.Victim, again.Victim)
		}
		if d.Victim == nil {
			return
		}
		i := slices.IndexFunc(in.Pods, func(pod evict.Pod) bool { return pod.Instance == d.Victim.Instance })
		victim := in.Pods[i]
		if victim.Critical || going {
			t.Fatalf("%+v goes", victim)
		}
		above := func(pod evict.Pod) bool {
			switch d.Victim.Signal {
			case evict.Memory:
				return pod.Used.Memory > pod.Memory
			case evict.NodeFS:
				return pod.Used.Disk > pod.Disk
			}
			return true
		}
		uses := map[evict.Signal]func(evict.Use) int64{
			evict.Memory: func(u evict.Use) int64 { return u.Memory }, evict.NodeFS: func(u evict.Use) int64 { return u.Disk },
			evict.PIDs: func(u evict.Use) int64 { return u.Processes }, evict.NodeInodes: func(u evict.Use) int64 { return u.Inodes },
		}[d.Victim.Signal]
		for _, other := range in.Pods {
			if other.Critical || uses(other.Used) == 0 {
				continue
			}
			if above(other) && !above(victim) || above(other) == above(victim) && other.Priority < victim.Priority {
				t.Fatalf("%+v goes before %+v by %s", victim, other, d.Victim.Signal)
			}
		}
	})
}
