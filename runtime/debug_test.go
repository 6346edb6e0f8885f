package runtime_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// TestDebugContainers: each case is named after what Kubernetes' documentation says,
// in "Ephemeral Containers".
func TestDebugContainers(t *testing.T) {
	web, job := aPod("i1", corev1.RestartPolicyAlways, "init:a", "app"), aPod("i1", corev1.RestartPolicyNever, "app")
	look := corev1.EphemeralContainer{
		TargetContainerName:      "app",
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "look", Image: "busybox", Stdin: true, TTY: true},
	}
	wanted := func(p runtime.Pod) runtime.Desired { return runtime.Desired{Known: true, Pods: []runtime.Pod{p}} }
	done := asInit(exited("a", 0, 0, time.Second))
	const start = "StartContainer i1/look attempt 0: somebody looks into the pod"
	for _, c := range []struct {
		name    string
		desired runtime.Desired
		pod     runtime.ObservedPod
		change  func(*runtime.ObservedPod)
		want    []string
		debug   string // how it shows
		phase   corev1.PodPhase
	}{
		{
			name: "it is added to a pod that runs", desired: wanted(web), pod: settled(web, done, running("app", 0)),
			want: []string{start}, debug: "waiting ContainerCreating", phase: corev1.PodRunning,
		},
		{
			name: "its image is fetched first", desired: wanted(web), pod: settled(web, done, running("app", 0)),
			change: func(p *runtime.ObservedPod) { delete(p.Images, "look") },
			want:   []string{"EnsureImage i1/look: the image is not on this machine"}, debug: "waiting ContainerCreating", phase: corev1.PodRunning,
		},
		{
			name: "it is started although an init container cannot be", desired: wanted(web), pod: settled(web),
			change: func(p *runtime.ObservedPod) {
				p.Images["a"] = runtime.Image{State: runtime.ImageFailed, Failure: runtime.Failure{Reason: "ErrImagePull", Retry: t0.Add(time.Hour)}}
			},
			want: []string{start}, debug: "waiting ContainerCreating", phase: corev1.PodPending,
		},
		{
			name: "it counts for nothing", desired: wanted(web), pod: settled(web, done, running("app", 0), running("look", 0)),
			debug: "running", phase: corev1.PodRunning,
		},
		{
			name: "it is never restarted", desired: wanted(web), pod: settled(web, done, running("app", 0), exited("look", 0, 1, time.Second)),
			debug: "ended Error", phase: corev1.PodRunning,
		},
		{
			name: "it is stopped with the pod that has finished", desired: wanted(job), pod: settled(job, exited("app", 0, 0, time.Second), running("look", 0)),
			want: []string{"StopContainer i1/look within 30s: the pod has finished"}, debug: "running", phase: corev1.PodSucceeded,
		},
		{
			name: "it is stopped with the pod that is removed", desired: runtime.Desired{Known: true, Remove: []string{"i1"}}, pod: settled(web, done, running("look", 0)),
			change: func(p *runtime.ObservedPod) { p.Removing = t0 },
			want:   []string{"StopContainer i1/look within 30s: the assignment was withdrawn"}, debug: "running", phase: corev1.PodPending,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.pod.Debug, c.pod.Images = []corev1.EphemeralContainer{look}, present("a", "app", "look")
			if c.change != nil {
				c.change(&c.pod)
			}
			actions, _ := runtime.Decide(c.desired, runtime.Observed{Known: true, Pods: []runtime.ObservedPod{c.pod}}, t0.Add(time.Second))
			var got []string
			for _, a := range actions {
				if a.Container == "look" {
					got = append(got, a.String())
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("actions (-want +got):\n%s", diff)
			}
			status := runtime.Status(c.desired, c.pod, corev1.PodStatus{}, t0.Add(time.Second))
			if status.Phase != c.phase || len(status.ContainerStatuses) != 1 {
				t.Errorf("got %s with %d containers, want %s", status.Phase, len(status.ContainerStatuses), c.phase)
			}
			// Other nodes show the same, from the digest.
			state := runtime.State(c.desired, c.pod, status)
			debug, others := runtime.DebugContainers(state)
			if diff := cmp.Diff([]corev1.EphemeralContainer{look}, debug); diff != "" {
				t.Errorf("on other nodes (-want +got):\n%s", diff)
			}
			for where, statuses := range map[string][]corev1.ContainerStatus{"here": status.EphemeralContainerStatuses, "elsewhere": others} {
				if got := shownAs(statuses); got != c.debug {
					t.Errorf("%s it is %q, want %q", where, got, c.debug)
				}
			}
		})
	}
}

func shownAs(statuses []corev1.ContainerStatus) string {
	var out []string
	for _, s := range statuses {
		switch {
		case s.State.Running != nil:
			out = append(out, "running")
		case s.State.Terminated != nil:
			out = append(out, "ended "+s.State.Terminated.Reason)
		case s.State.Waiting != nil:
			out = append(out, "waiting "+s.State.Waiting.Reason)
		}
	}
	return strings.Join(out, ", ")
}
