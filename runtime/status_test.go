package runtime_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// line prints a status in one line: phase, then each container, then the
// conditions that are true.
func line(s corev1.PodStatus) string {
	out := []string{string(s.Phase)}
	for _, c := range append(append([]corev1.ContainerStatus{}, s.InitContainerStatuses...), s.ContainerStatuses...) {
		state := "?"
		switch {
		case c.State.Waiting != nil:
			state = "waiting:" + c.State.Waiting.Reason
		case c.State.Running != nil:
			state = "running"
		case c.State.Terminated != nil:
			state = "ended:" + c.State.Terminated.Reason
		}
		if c.LastTerminationState.Terminated != nil {
			state += "(after " + c.LastTerminationState.Terminated.Reason + ")"
		}
		if c.Ready {
			state += "+"
		}
		out = append(out, c.Name+"="+state)
	}
	for _, c := range s.Conditions {
		if c.Status == corev1.ConditionTrue && c.Type != corev1.PodScheduled {
			out = append(out, string(c.Type))
		}
	}
	return strings.Join(out, " ")
}

func TestStatus(t *testing.T) {
	always, never, onFailure := corev1.RestartPolicyAlways, corev1.RestartPolicyNever, corev1.RestartPolicyOnFailure
	web, staged, job, retry := aPod("i1", always, "app"), aPod("i1", always, "init:a", "init:b", "app"), aPod("i1", never, "app", "side"), aPod("i1", onFailure, "app")
	ready := map[string]runtime.Probes{"app": {Started: true, Ready: true, Since: t0.Add(time.Second)}}
	gone := aPod("i1", never, "app")
	gone.Assignment.Ended = corev1.PodFailed
	for _, c := range []struct {
		name   string
		pod    runtime.ObservedPod
		change func(*runtime.ObservedPod)
		want   string
	}{
		{"nothing yet", runtime.ObservedPod{Instance: "i1", Record: &web}, nil, "Pending app=waiting:ContainerCreating Initialized"},
		{"pulling fails", runtime.ObservedPod{Instance: "i1", Record: &web, Images: map[string]runtime.Image{
			"app": {State: runtime.ImageFailed, Failure: runtime.Failure{Reason: "ImagePullBackOff"}},
		}}, nil, "Pending app=waiting:ImagePullBackOff Initialized"},
		{"configuration missing", settled(web), func(p *runtime.ObservedPod) {
			p.Failures = map[string]runtime.Failure{"app": {Reason: "CreateContainerConfigError"}}
		}, "Pending app=waiting:CreateContainerConfigError PodReadyToStartContainers Initialized"},
		{"running, not probed yet", settled(web, running("app", 0)), nil, "Running app=running PodReadyToStartContainers Initialized"},
		{
			"ready", settled(web, running("app", 0)), func(p *runtime.ObservedPod) { p.Probes = ready },
			"Running app=running+ PodReadyToStartContainers Initialized Ready ContainersReady",
		},
		{
			"going", settled(web, running("app", 0)), func(p *runtime.ObservedPod) { p.Probes, p.Removing = ready, t0 },
			"Running app=running+ PodReadyToStartContainers Initialized ContainersReady",
		},
		{
			"just crashed", settled(web, exited("app", 0, 1, time.Second)), nil,
			"Running app=ended:Error PodReadyToStartContainers Initialized",
		},
		{
			"crash loop", settled(web, exited("app", 3, 1, time.Second)), nil,
			"Running app=waiting:CrashLoopBackOff(after Error) PodReadyToStartContainers Initialized",
		},
		{
			"restarted", settled(web, exited("app", 0, 137, time.Second), running("app", 1)), nil,
			"Running app=running(after Error) PodReadyToStartContainers Initialized",
		},
		{
			"first init container runs", settled(staged, asInit(running("a", 0))), nil,
			"Pending a=running b=waiting:PodInitializing app=waiting:PodInitializing PodReadyToStartContainers",
		},
		{
			"init container fails", settled(staged, asInit(exited("a", 2, 1, time.Second))), nil,
			"Pending a=waiting:CrashLoopBackOff(after Error) b=waiting:PodInitializing app=waiting:PodInitializing PodReadyToStartContainers",
		},
		{
			"initialized", settled(staged, asInit(exited("a", 0, 0, time.Second)), asInit(exited("b", 0, 0, time.Second))), nil,
			"Pending a=ended:Completed+ b=ended:Completed+ app=waiting:ContainerCreating PodReadyToStartContainers Initialized",
		},
		{
			"one of two has ended", settled(job, exited("app", 0, 0, time.Second), running("side", 0)), nil,
			"Running app=ended:Completed side=running PodReadyToStartContainers Initialized",
		},
		{
			"succeeded", settled(job, exited("app", 0, 0, time.Second), exited("side", 0, 0, time.Second)),
			func(p *runtime.ObservedPod) { p.Sandbox = runtime.Sandbox{} },
			"Succeeded app=ended:Completed side=ended:Completed Initialized",
		},
		{
			"failed", settled(job, exited("app", 0, 0, time.Second), exited("side", 0, 9, time.Second)), nil,
			"Failed app=ended:Completed side=ended:Error PodReadyToStartContainers Initialized",
		},
		{
			"retrying", settled(retry, exited("app", 1, 1, time.Second)), nil,
			"Running app=waiting:CrashLoopBackOff(after Error) PodReadyToStartContainers Initialized",
		},
		{"past its deadline", settled(web, exited("app", 0, 137, time.Second)), func(p *runtime.ObservedPod) {
			second := int64(1)
			own := *p.Record
			own.Object = own.Object.DeepCopy()
			own.Object.Spec.ActiveDeadlineSeconds = &second
			p.Record = &own
		}, "Failed app=ended:Error PodReadyToStartContainers Initialized"},
		{"ended, and forgotten", runtime.ObservedPod{Instance: "i1", Record: &gone}, nil, "Failed app=ended:ContainerStatusUnknown Initialized"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.change != nil {
				c.change(&c.pod)
			}
			if got := line(runtime.Status(runtime.Desired{Known: true}, c.pod, corev1.PodStatus{}, t0.Add(2*time.Second))); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func since(s corev1.PodStatus, kind corev1.PodConditionType) time.Time {
	for _, c := range s.Conditions {
		if c.Type == kind {
			return c.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

// Conditions keep the time of their last transition, and after a restart of the
// daemon the time that the machine remembers.
func TestTransitions(t *testing.T) {
	web := aPod("i1", corev1.RestartPolicyAlways, "app")
	p := settled(web, running("app", 0))
	d := runtime.Desired{Known: true}
	p.Probes = map[string]runtime.Probes{"app": {Started: true, Ready: true, Since: t0.Add(5 * time.Second)}}
	first := runtime.Status(d, p, corev1.PodStatus{}, t0.Add(time.Hour))
	if got := since(first, corev1.PodReady); !got.Equal(t0.Add(5 * time.Second)) {
		t.Errorf("adopted: ready since %s", got)
	}
	again := runtime.Status(d, p, first, t0.Add(2*time.Hour))
	if !cmp.Equal(first, again) {
		t.Errorf("it changed: %s", cmp.Diff(first, again))
	}
	p.Probes = nil
	unready := runtime.Status(d, p, again, t0.Add(3*time.Hour))
	if got := since(unready, corev1.PodReady); !got.Equal(t0.Add(3 * time.Hour)) {
		t.Errorf("not ready since %s", got)
	}
	state := runtime.State(d, p, again)
	if !state.Ready || !state.ReadyAt.Equal(t0.Add(5*time.Second)) || state.IP != "10.64.0.2" || state.Phase != corev1.PodRunning {
		t.Errorf("state: got %+v", state)
	}
}

func TestState(t *testing.T) {
	job := aPod("i1", corev1.RestartPolicyNever, "app", "side")
	p := settled(job, exited("app", 0, 0, time.Second), exited("side", 0, 9, time.Second))
	d := runtime.Desired{Known: true}
	state := runtime.State(d, p, runtime.Status(d, p, corev1.PodStatus{}, t0))
	if state.ExitCode != 9 || state.Reason != "Error" || state.Pod != job.Assignment.Pod {
		t.Errorf("got %+v", state)
	}
	// Without its record, a pod is known by its labels.
	p.Record, p.Labels = nil, job.Assignment
	state = runtime.State(d, p, runtime.Status(d, p, corev1.PodStatus{}, t0))
	if state.Phase != corev1.PodUnknown || state.Pod != job.Assignment.Pod {
		t.Errorf("got %+v", state)
	}
}

// TestStateTellsWhyNotReady: a pod that runs and does not serve says what its
// probe said.
func TestStateTellsWhyNotReady(t *testing.T) {
	web := aPod("i1", corev1.RestartPolicyAlways, "app", "side")
	p := settled(web, running("app", 0), running("side", 2))
	p.Probes = map[string]runtime.Probes{
		"app":  {Started: true, Ready: true},
		"side": {Attempt: 2, Started: true, Message: "Readiness probe failed: HTTP probe failed with statuscode: 503"},
	}
	d := runtime.Desired{Known: true}
	state := runtime.State(d, p, runtime.Status(d, p, corev1.PodStatus{}, t0))
	if got, want := state.Reason+": "+state.Message, "ContainersNotReady: side: Readiness probe failed: HTTP probe failed with statuscode: 503"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	p.Probes["side"] = runtime.Probes{Attempt: 2, Started: true}
	state = runtime.State(d, p, runtime.Status(d, p, corev1.PodStatus{}, t0))
	if got, want := state.Reason+": "+state.Message, "ContainersNotReady: containers with unready status: [side]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestQOSAndLimits(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		out := corev1.ResourceList{}
		if cpu != "" {
			out[corev1.ResourceCPU] = resource.MustParse(cpu)
		}
		if memory != "" {
			out[corev1.ResourceMemory] = resource.MustParse(memory)
		}
		return out
	}
	for _, c := range []struct {
		name             string
		requests, limits corev1.ResourceList
		qos              corev1.PodQOSClass
		want             runtime.Resources
	}{
		{"none", nil, nil, corev1.PodQOSBestEffort, runtime.Resources{CPUShares: 2, OOMScoreAdj: 1000}},
		{
			"guaranteed", list("500m", "1Gi"), list("500m", "1Gi"), corev1.PodQOSGuaranteed,
			runtime.Resources{CPUShares: 512, CPUQuota: 50_000, MemoryLimit: 1 << 30, OOMScoreAdj: -997},
		},
		{
			"burstable", list("250m", "1Gi"), list("", "2Gi"), corev1.PodQOSBurstable,
			runtime.Resources{CPUShares: 256, MemoryLimit: 2 << 30, OOMScoreAdj: 750},
		},
		{"a tiny request", list("1m", "1"), nil, corev1.PodQOSBurstable, runtime.Resources{CPUShares: 2, OOMScoreAdj: 999}},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := &corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: c.requests, Limits: c.limits}}}}
			if got := runtime.QOS(spec); got != c.qos {
				t.Errorf("QoS: got %s", got)
			}
			if got := runtime.Limits(spec, &spec.Containers[0], 4<<30); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "1", "B": "$(A)"}
	for in, want := range map[string]string{
		"$(A)": "1", "x$(A)y$(A)": "x1y1", "$(B)": "$(A)", "$$(A)": "$(A)", "$(NO)": "$(NO)", "$A": "$A", "$": "$", "$(": "$(", "$(A": "$(A", "$$$(A)": "$1", "$()": "$()",
	} {
		got := runtime.Expand(in, func(n string) (string, bool) { v, ok := values[n]; return v, ok })
		if got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("a$(A)$$$(")
	f.Fuzz(func(t *testing.T, s string) {
		none := func(string) (string, bool) { return "", false }
		if got := runtime.Expand(s, none); !strings.Contains(s, "$$") && got != s {
			t.Errorf("%q became %q", s, got)
		}
	})
}

func TestServiceEnv(t *testing.T) {
	no := false
	s := runtime.Sources{
		Desired: runtime.Desired{Services: []*corev1.Service{
			{ObjectMeta: metav1.ObjectMeta{Name: "redis-leader", Namespace: "default"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.7", Ports: []corev1.ServicePort{{Name: "tcp", Port: 6379}}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "headless", Namespace: "default"}, Spec: corev1.ServiceSpec{ClusterIP: "None", Ports: []corev1.ServicePort{{Port: 1}}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "elsewhere", Namespace: "other"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.8", Ports: []corev1.ServicePort{{Port: 1}}}},
		}},
		Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default"}},
	}
	c := &corev1.Container{Env: []corev1.EnvVar{{Name: "URL", Value: "redis://$(REDIS_LEADER_SERVICE_HOST):$(REDIS_LEADER_SERVICE_PORT)"}}}
	got, err := runtime.Env(s, c)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"REDIS_LEADER_SERVICE_HOST=10.96.0.7", "REDIS_LEADER_SERVICE_PORT=6379", "REDIS_LEADER_SERVICE_PORT_TCP=6379",
		"REDIS_LEADER_PORT=tcp://10.96.0.7:6379", "REDIS_LEADER_PORT_6379_TCP=tcp://10.96.0.7:6379", "REDIS_LEADER_PORT_6379_TCP_PROTO=tcp",
		"REDIS_LEADER_PORT_6379_TCP_PORT=6379", "REDIS_LEADER_PORT_6379_TCP_ADDR=10.96.0.7", "URL=redis://10.96.0.7:6379",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	s.Pod.Spec.EnableServiceLinks = &no
	if got, err := runtime.Env(s, c); err != nil || len(got) != 1 {
		t.Errorf("without links: got %q, %v", got, err)
	}
}
