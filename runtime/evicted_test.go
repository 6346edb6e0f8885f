package runtime_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// TestEvicted: each case is named after what Kubernetes' documentation says, in
// "Node-pressure Eviction".
func TestEvicted(t *testing.T) {
	pod := aPod("i1", corev1.RestartPolicyAlways, "app")
	wanted := runtime.Desired{Known: true, Pods: []runtime.Pod{pod}}
	evicted := func(e runtime.Eviction, containers ...runtime.Container) runtime.ObservedPod {
		p := settled(pod, containers...)
		e.At, e.Reason, e.Message = t0, "Evicted", "The node was low on resource: memory. "
		p.Evicted, p.Images = e, present("app")
		return p
	}
	for _, c := range []struct {
		name   string
		pod    runtime.ObservedPod
		want   []string
		phase  corev1.PodPhase
		reason string
	}{
		{"a hard threshold leaves no grace period", evicted(runtime.Eviction{}, running("app", 0)), []string{
			"StopContainer i1/app within 0s: the machine runs short of something that the pod uses",
		}, corev1.PodRunning, ""},
		{"a soft threshold leaves its own", evicted(runtime.Eviction{Grace: 5 * time.Second}, running("app", 0)), []string{
			"StopContainer i1/app within 5s: the machine runs short of something that the pod uses",
		}, corev1.PodRunning, ""},
		{"the pod's phase is Failed, and it is not started again", evicted(runtime.Eviction{}, exited("app", 0, 137, time.Second)), []string{
			"RemoveSandbox i1: the machine runs short of something that the pod uses",
		}, corev1.PodFailed, "Evicted"},
		{"a pod that was not admitted never begins", evicted(runtime.Eviction{Unadmitted: true}), []string{
			"RemoveSandbox i1: the machine runs short of something that the pod uses",
		}, corev1.PodFailed, "Evicted"},
	} {
		actions, _ := runtime.Decide(wanted, runtime.Observed{Known: true, Pods: []runtime.ObservedPod{c.pod}}, t0.Add(time.Minute))
		var got []string
		for _, a := range actions {
			got = append(got, a.String())
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		s := runtime.Status(wanted, c.pod, corev1.PodStatus{}, t0.Add(time.Minute))
		if s.Phase != c.phase || s.Reason != c.reason {
			t.Errorf("%s: got %s %s", c.name, s.Phase, s.Reason)
		}
		if state := runtime.State(wanted, c.pod, s); state.Phase != c.phase || c.reason != "" && state.Reason != c.reason {
			t.Errorf("%s: the digest says %s %s", c.name, state.Phase, state.Reason)
		}
		target := len(s.Conditions) > 0 && s.Conditions[0].Type == corev1.DisruptionTarget
		if target == c.pod.Evicted.Unadmitted {
			t.Errorf("%s: conditions %v", c.name, s.Conditions)
		}
	}
}
