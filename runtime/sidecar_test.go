package runtime_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-dev/shoal/runtime"
)

// TestSidecars: each case is named after what Kubernetes' documentation says, in
// "Sidecar Containers" and "Pod Lifecycle".
func TestSidecars(t *testing.T) {
	always, never := corev1.RestartPolicyAlways, corev1.RestartPolicyNever
	web := aPod("i1", always, "init:a", "sidecar:proxy", "init:b", "app")
	job := aPod("i1", never, "sidecar:first", "sidecar:second", "app")
	started := runtime.Probes{Started: true}
	done := func(name string) runtime.Container { return asInit(exited(name, 0, 0, time.Second)) }
	proxy := asInit(running("proxy", 0))
	crashed := asInit(exited("proxy", 0, 1, time.Second))
	wanted := func(p runtime.Pod) runtime.Desired { return runtime.Desired{Known: true, Pods: []runtime.Pod{p}} }
	unwanted := runtime.Desired{Known: true, Remove: []string{"i1"}}

	for _, c := range []struct {
		name    string
		desired runtime.Desired
		pod     runtime.ObservedPod
		change  func(*runtime.ObservedPod)
		after   time.Duration
		want    []string
		status  string // "": not looked at
	}{
		{
			name: "it is started in its turn among the init containers", desired: wanted(web), pod: settled(web, done("a")),
			want:   []string{"StartContainer i1/proxy attempt 0: it is the next init container"},
			status: "Pending a=ended:Completed+ proxy=waiting:PodInitializing b=waiting:PodInitializing app=waiting:PodInitializing PodReadyToStartContainers",
		},
		{name: "the next one waits until it has started", desired: wanted(web), pod: settled(web, done("a"), proxy)},
		{
			name: "once it has started the next one starts, though it is not ready", desired: wanted(web), pod: settled(web, done("a"), proxy),
			change: func(p *runtime.ObservedPod) { p.Probes = map[string]runtime.Probes{"proxy": started} },
			want:   []string{"StartContainer i1/b attempt 0: it is the next init container"},
			status: "Pending a=ended:Completed+ proxy=running b=waiting:PodInitializing app=waiting:PodInitializing PodReadyToStartContainers",
		},
		{
			name: "it runs on when the pod is initialized", desired: wanted(web), pod: settled(web, done("a"), proxy, done("b")),
			change: func(p *runtime.ObservedPod) { p.Probes = map[string]runtime.Probes{"proxy": started} },
			want:   []string{"StartContainer i1/app attempt 0: the pod is assigned to this node"},
		},
		{
			name: "its readiness is that of the pod", desired: wanted(web), pod: settled(web, done("a"), proxy, done("b"), running("app", 0)),
			change: func(p *runtime.ObservedPod) {
				p.Probes = map[string]runtime.Probes{"proxy": started, "app": {Started: true, Ready: true}}
			},
			status: "Running a=ended:Completed+ proxy=running b=ended:Completed+ app=running+ PodReadyToStartContainers Initialized",
		},
		{
			name: "it is restarted while the pod runs, whatever its exit code", desired: wanted(web), pod: settled(web, done("a"), asInit(exited("proxy", 0, 0, time.Second)), done("b"), running("app", 0)),
			after: time.Second, want: []string{"StartContainer i1/proxy attempt 1: the container has ended and its policy is to restart"},
		},
		{
			name: "it is restarted with restartPolicy Never", desired: wanted(job), pod: settled(job, asInit(exited("first", 0, 1, time.Second)), asInit(running("second", 0)), running("app", 0)),
			after: time.Second, want: []string{"StartContainer i1/first attempt 1: the container has ended and its policy is to restart"},
			status: "Running first=ended:Error second=running app=running PodReadyToStartContainers Initialized",
		},
		{
			name: "its crash holds no later init container up", desired: wanted(web), pod: settled(web, done("a"), crashed, asInit(running("b", 0))),
			after: time.Second, want: []string{"StartContainer i1/proxy attempt 1: the container has ended and its policy is to restart"},
		},
		{
			name: "it ends when the pod's containers have ended, the last one first", desired: wanted(job),
			pod:  settled(job, asInit(running("first", 0)), asInit(running("second", 0)), exited("app", 0, 0, time.Second)),
			want: []string{"StopContainer i1/second within 30s: the pod has finished"},
		},
		{
			name: "then the one before it", desired: wanted(job),
			pod:  settled(job, asInit(running("first", 0)), asInit(exited("second", 0, 143, time.Second)), exited("app", 0, 0, time.Second)),
			want: []string{"StopContainer i1/first within 30s: the pod has finished"},
		},
		{
			name: "how it ends does not matter to the pod", desired: wanted(job),
			pod:    settled(job, asInit(exited("first", 0, 137, time.Second)), asInit(exited("second", 0, 1, time.Second)), exited("app", 0, 0, time.Second)),
			want:   []string{"RemoveSandbox i1: the pod has finished"},
			status: "Succeeded first=ended:Error second=ended:Error app=ended:Completed PodReadyToStartContainers Initialized",
		},
		{
			name: "in a removal the others are stopped first", desired: unwanted, pod: settled(web, done("a"), proxy, done("b"), running("app", 0)),
			change: func(p *runtime.ObservedPod) { p.Removing = t0 },
			want:   []string{"StopContainer i1/app within 30s: the assignment was withdrawn"},
		},
		{
			name: "it has what they left of the grace period", desired: unwanted, pod: settled(web, done("a"), proxy, done("b"), exited("app", 0, 0, 20*time.Second)),
			change: func(p *runtime.ObservedPod) { p.Removing = t0 }, after: 20 * time.Second,
			want: []string{"StopContainer i1/proxy within 10s: the assignment was withdrawn"},
		},
		{
			name: "and two seconds at least", desired: unwanted, pod: settled(web, done("a"), proxy, done("b"), exited("app", 0, 137, 30*time.Second)),
			change: func(p *runtime.ObservedPod) { p.Removing = t0 }, after: 31 * time.Second,
			want: []string{"StopContainer i1/proxy within 2s: the assignment was withdrawn"},
		},
		{
			name: "one that is left of a pod whose network is gone is stopped", desired: wanted(web), pod: settled(web, done("a"), proxy, done("b"), exited("app", 0, 1, time.Second)),
			change: func(p *runtime.ObservedPod) { p.Sandbox = runtime.Sandbox{} }, after: time.Second,
			want: []string{"StopContainer i1/proxy within 30s: the pod's network is gone"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.pod.Images == nil {
				c.pod.Images = present("a", "b", "app", "proxy", "first", "second")
			}
			if c.change != nil {
				c.change(&c.pod)
			}
			now := t0.Add(c.after)
			observed := runtime.Observed{Known: true, Pods: []runtime.ObservedPod{c.pod}}
			actions, _ := runtime.Decide(c.desired, observed, now)
			var got []string
			for _, a := range actions {
				if !strings.HasPrefix(string(a.Verb), "RemoveContainer") {
					got = append(got, a.String())
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("actions (-want +got):\n%s", diff)
			}
			if got := line(runtime.Status(c.desired, c.pod, corev1.PodStatus{}, now)); c.status != "" && got != c.status {
				t.Errorf("status\n%s\nwant\n%s", got, c.status)
			}
		})
	}
}

// TestSidecarsShareThePodsLimit: what a pod may use is what its containers and
// sidecars may together, or an init container with the sidecars before it.
func TestSidecarsShareThePodsLimit(t *testing.T) {
	pod := aPod("i1", corev1.RestartPolicyAlways, "init:a", "sidecar:proxy", "init:b", "app")
	limit := func(c *corev1.Container, memory string) {
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memory)}
	}
	spec := &pod.Object.Spec
	limit(&spec.InitContainers[0], "50Mi")
	limit(&spec.InitContainers[1], "20Mi")
	limit(&spec.InitContainers[2], "10Mi")
	limit(&spec.Containers[0], "25Mi")
	if got := runtime.PodLimits(spec).MemoryLimit >> 20; got != 50 {
		t.Errorf("got %d MiB, want those of a, which is alone: 50", got)
	}
	limit(&spec.InitContainers[2], "40Mi")
	if got := runtime.PodLimits(spec).MemoryLimit >> 20; got != 60 {
		t.Errorf("got %d MiB, want those of b beside proxy: 60", got)
	}
	limit(&spec.Containers[0], "60Mi")
	if got := runtime.PodLimits(spec).MemoryLimit >> 20; got != 80 {
		t.Errorf("got %d MiB, want those of app beside proxy: 80", got)
	}
}
