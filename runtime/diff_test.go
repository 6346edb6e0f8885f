package runtime_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
)

var t0 = time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC)

// aPod returns a pod with the named containers; "init:x" is an init container, and
// "sidecar:x" one that runs on.
func aPod(instance string, policy corev1.RestartPolicy, containers ...string) runtime.Pod {
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: types.UID(instance)},
		Spec:       corev1.PodSpec{RestartPolicy: policy},
	}
	for _, name := range containers {
		if rest, runsOn := strings.CutPrefix(name, "sidecar:"); runsOn {
			always := corev1.ContainerRestartPolicyAlways
			object.Spec.InitContainers = append(object.Spec.InitContainers, corev1.Container{Name: rest, Image: rest, RestartPolicy: &always})
			continue
		}
		if rest, init := strings.CutPrefix(name, "init:"); init {
			object.Spec.InitContainers = append(object.Spec.InitContainers, corev1.Container{Name: rest, Image: rest})
			continue
		}
		object.Spec.Containers = append(object.Spec.Containers, corev1.Container{Name: name, Image: name})
	}
	return runtime.Pod{
		Assignment: api.Assignment{Pod: api.Pod{
			Identity: api.Identity{Namespace: "default", Kind: "Pod", Owner: "web"}, Instance: instance,
		}},
		Object: object,
	}
}

func present(names ...string) map[string]runtime.Image {
	out := map[string]runtime.Image{}
	for _, n := range names {
		out[n] = runtime.Image{State: runtime.ImagePresent}
	}
	return out
}

// settled returns what the machine holds of a pod that is set up.
func settled(p runtime.Pod, containers ...runtime.Container) runtime.ObservedPod {
	return runtime.ObservedPod{
		Instance: p.Instance(), Record: &p, Containers: containers,
		Sandbox: runtime.Sandbox{State: runtime.SandboxReady, ID: "s1", IPs: []string{"10.64.0.2"}},
		Volumes: runtime.Volumes{Ready: true}, Admitted: t0,
	}
}

func running(name string, attempt int32) runtime.Container {
	return runtime.Container{
		ID: fmt.Sprintf("%s-%d", name, attempt), Name: name, Attempt: attempt, Crashes: attempt,
		Sandbox: "s1", State: runtime.ContainerRunning, Started: t0,
	}
}

func exited(name string, attempt, code int32, ran time.Duration) runtime.Container {
	c := running(name, attempt)
	c.State, c.ExitCode, c.Finished = runtime.ContainerExited, code, t0.Add(ran)
	return c
}

func asInit(c runtime.Container) runtime.Container { c.Init = true; return c }

func TestDecide(t *testing.T) {
	always, never := corev1.RestartPolicyAlways, corev1.RestartPolicyNever
	web := aPod("i1", always, "app")
	job := aPod("i1", never, "app")
	staged := aPod("i1", always, "init:a", "init:b", "app")
	over := aPod("i1", corev1.RestartPolicyOnFailure, "app")
	over.Assignment.Ended = corev1.PodSucceeded
	known := runtime.Desired{Known: true}
	leaving := runtime.Desired{Known: true, Pods: []runtime.Pod{web}, Leaving: []string{"i1"}}
	wanted := func(p runtime.Pod) runtime.Desired { return runtime.Desired{Known: true, Pods: []runtime.Pod{p}} }

	for _, c := range []struct {
		name    string
		desired runtime.Desired
		pod     *runtime.ObservedPod
		change  func(*runtime.ObservedPod)
		after   time.Duration
		want    []string
		wake    time.Duration // 0: none
	}{
		{
			name: "a new pod waits for its image", desired: wanted(web),
			pod:  &runtime.ObservedPod{Instance: "i1"},
			want: []string{"EnsureImage i1/app: the image is not on this machine"},
		},
		{
			name: "a new pod with its image starts at once", desired: wanted(web),
			pod: &runtime.ObservedPod{Instance: "i1", Images: present("app")},
			want: []string{
				"MountVolumes i1: the pod is assigned to this node",
				"CreateSandbox i1: the pod is assigned to this node",
				"StartContainer i1/app attempt 0: the pod is assigned to this node",
			},
		},
		{name: "a running pod is left alone", desired: wanted(web), pod: new(settled(web, running("app", 0)))},
		{name: "absence does not kill", desired: known, pod: new(settled(web, running("app", 0)))},
		{
			name: "unknown desire removes nothing", pod: new(settled(web, exited("app", 0, 1, time.Second))),
			change: func(p *runtime.ObservedPod) { p.Record = nil },
		},
		{
			name: "the first restart is immediate", desired: wanted(web), pod: new(settled(web, exited("app", 0, 1, time.Second))),
			change: func(p *runtime.ObservedPod) { p.Images = present("app") }, after: time.Second,
			want: []string{"StartContainer i1/app attempt 1: the container has ended and its policy is to restart"},
		},
		{
			name: "the second restart waits 10 s", desired: wanted(web), pod: new(settled(web, exited("app", 1, 1, time.Second))),
			change: func(p *runtime.ObservedPod) { p.Images = present("app") }, after: 2 * time.Second, wake: 11 * time.Second,
		},
		{
			name: "and then comes", desired: wanted(web), pod: new(settled(web, exited("app", 1, 1, time.Second))),
			change: func(p *runtime.ObservedPod) { p.Images = present("app") }, after: 11 * time.Second,
			want: []string{"StartContainer i1/app attempt 2: the container has ended and its policy is to restart"},
		},
		{
			name: "ten minutes of running forgive", desired: wanted(web), pod: new(settled(web, exited("app", 6, 1, 10*time.Minute))),
			change: func(p *runtime.ObservedPod) { p.Images = present("app") }, after: 10 * time.Minute,
			want: []string{"StartContainer i1/app attempt 7: the container has ended and its policy is to restart"},
		},
		{
			name: "an unwanted crashed pod is still restarted", desired: known, pod: new(settled(web, exited("app", 0, 1, time.Second))),
			change: func(p *runtime.ObservedPod) { p.Images = present("app") }, after: time.Second,
			want: []string{"StartContainer i1/app attempt 1: the container has ended and its policy is to restart"},
		},
		{
			name: "a finished pod gives its network back", desired: wanted(job), pod: new(settled(job, exited("app", 0, 0, time.Second))),
			want: []string{"RemoveSandbox i1: the pod has finished"},
		},
		{
			name: "what is about to go runs on", desired: leaving, pod: new(settled(web, running("app", 0))),
		},
		{
			name: "what is about to go is not started again", desired: leaving, pod: new(settled(web, exited("app", 0, 1, time.Second))),
			change: func(p *runtime.ObservedPod) { p.Images = present("app") }, after: time.Second,
		},
		{name: "what is about to go is not started", desired: leaving, pod: &runtime.ObservedPod{Instance: "i1"}},
		{name: "what ended is not started, though the machine has nothing of it", desired: wanted(over), pod: &runtime.ObservedPod{Instance: "i1"}},
		{
			name: "what ended gives its network back", desired: wanted(over), pod: new(settled(over, exited("app", 0, 1, time.Second))),
			want: []string{"RemoveSandbox i1: the pod has finished"},
		},
		{
			name: "removal stops first", desired: runtime.Desired{Known: true, Remove: []string{"i1"}},
			pod:  new(settled(web, running("app", 0))),
			want: []string{"StopContainer i1/app within 30s: the assignment was withdrawn"},
		},
		{
			name: "removal waits for the stop", desired: runtime.Desired{Known: true, Remove: []string{"i1"}},
			pod:    new(settled(web, running("app", 0))),
			change: func(p *runtime.ObservedPod) { p.Containers[0].Stopping = true },
		},
		{
			name: "removal then removes", desired: runtime.Desired{Known: true, Remove: []string{"i1"}},
			pod: new(settled(web, exited("app", 0, 143, time.Second))),
			want: []string{
				"RemoveContainer i1/app: the assignment was withdrawn",
				"RemoveSandbox i1: the assignment was withdrawn",
				"RemovePod i1: the assignment was withdrawn",
			},
		},
		{
			name: "a removal that has begun is finished, whatever is desired", desired: runtime.Desired{},
			pod:    new(settled(web)),
			change: func(p *runtime.ObservedPod) { p.Removing = t0 },
			want:   []string{"RemoveSandbox i1: the assignment was withdrawn", "RemovePod i1: the assignment was withdrawn"},
		},
		{
			name: "remains that nobody wants are cleared", desired: known, pod: new(settled(web)),
			want: []string{
				"RemoveSandbox i1: nothing of the pod runs and no assignment names it",
				"RemovePod i1: nothing of the pod runs and no assignment names it",
			},
		},
		{
			name: "init containers run one by one", desired: wanted(staged),
			pod:    new(settled(staged, asInit(exited("a", 0, 0, time.Second)))),
			change: func(p *runtime.ObservedPod) { p.Images = present("a", "b", "app") },
			want:   []string{"StartContainer i1/b attempt 0: it is the next init container"},
		},
		{
			name: "a running init container needs no image", desired: wanted(staged),
			pod:    new(settled(staged, asInit(running("a", 0)))),
			change: func(p *runtime.ObservedPod) { p.Images = present("b", "app") },
		},
		{
			name: "a new sandbox initializes again", desired: wanted(staged),
			pod: new(settled(staged, asInit(exited("a", 0, 0, time.Second)), exited("app", 0, 137, time.Hour), asInit(exited("b", 0, 0, time.Second)))),
			change: func(p *runtime.ObservedPod) {
				p.Images, p.Sandbox = present("a", "b", "app"), runtime.Sandbox{}
			},
			want: []string{
				"CreateSandbox i1: the pod's network is gone",
				"StartContainer i1/a attempt 1: the container ended with the pod's network",
			},
		},
		{
			name: "a half-made sandbox is made anew", desired: wanted(web), pod: new(settled(web)),
			change: func(p *runtime.ObservedPod) {
				p.Images, p.Sandbox.State = present("app"), runtime.SandboxBroken
			},
			want: []string{
				"RemoveSandbox i1: the pod's network is half made",
				"CreateSandbox i1: the pod is assigned to this node",
				"StartContainer i1/app attempt 0: the pod is assigned to this node",
			},
		},
		{
			name: "liveness stops what runs", desired: wanted(web), pod: new(settled(web, running("app", 0))),
			change: func(p *runtime.ObservedPod) {
				p.Record.Object.Spec.Containers[0].LivenessProbe = &corev1.Probe{}
				p.Probes = map[string]runtime.Probes{"app": {Unhealthy: "Liveness"}}
			},
			want: []string{"StopContainer i1/app within 30s: the liveness probe failed"},
		},
		{
			name: "old attempts are collected, the last one stays", desired: wanted(web),
			pod: new(settled(web, exited("app", 0, 1, 0), exited("app", 1, 1, 0), running("app", 2))),
			want: []string{
				"RemoveContainer i1/app: a newer attempt of the container has ended",
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.change != nil {
				c.change(c.pod)
			}
			actions, wake := runtime.Decide(c.desired, runtime.Observed{Known: true, Pods: []runtime.ObservedPod{*c.pod}}, t0.Add(c.after))
			var got []string
			for _, a := range actions {
				got = append(got, a.String())
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("actions (-want +got):\n%s", diff)
			}
			var wantWake time.Time
			if c.wake > 0 {
				wantWake = t0.Add(c.wake)
			}
			if !wake.Equal(wantWake) {
				t.Errorf("wake: got %v, want %v", wake, wantWake)
			}
		})
	}
}

func TestDecideNothingWithoutTheEngine(t *testing.T) {
	web := aPod("i1", corev1.RestartPolicyAlways, "app")
	actions, wake := runtime.Decide(
		runtime.Desired{Known: true, Pods: []runtime.Pod{web}, Remove: []string{"i2"}},
		runtime.Observed{Pods: []runtime.ObservedPod{settled(aPod("i2", corev1.RestartPolicyAlways, "app"), running("app", 0))}}, t0)
	if len(actions) > 0 || !wake.IsZero() {
		t.Errorf("got %v, %v", actions, wake)
	}
}

func TestBackoff(t *testing.T) {
	for n, want := range map[int]time.Duration{
		0: 0, 1: 10 * time.Second, 2: 20 * time.Second, 3: 40 * time.Second, 5: 160 * time.Second, 6: 5 * time.Minute, 40: 5 * time.Minute,
	} {
		if got := runtime.Backoff(n); got != want {
			t.Errorf("Backoff(%d): got %s, want %s", n, got, want)
		}
	}
}
