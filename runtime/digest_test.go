package runtime_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
)

// TestContainersOfOthers: what a node tells of a pod's containers is what it
// shows itself, but for their IDs; of a pod that is well it tells nothing.
func TestContainersOfOthers(t *testing.T) {
	initialized := aPod("i2", corev1.RestartPolicyAlways, "app")
	initialized.Object = initialized.Object.DeepCopy()
	initialized.Object.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "init:1"}}
	setUp := exited("init", 0, 0, time.Second)
	setUp.Init = true
	for _, c := range []struct {
		name  string
		pod   runtime.ObservedPod
		spec  *corev1.PodSpec
		quiet bool
	}{
		{"well", ready(settled(aPod("i1", corev1.RestartPolicyAlways, "app", "side"), running("app", 0), running("side", 0)), 0, 0), nil, true},
		{"with an init container", ready(settled(initialized, setUp, running("app", 0)), 0), &initialized.Object.Spec, true},
		{"not started", settled(aPod("i1", corev1.RestartPolicyAlways, "app")), nil, true},
		{"restarted", ready(settled(aPod("i1", corev1.RestartPolicyAlways, "app", "side"), running("app", 0), exited("side", 1, 137, time.Minute), running("side", 2)), 0, 2), nil, false},
		{"crashing", settled(aPod("i1", corev1.RestartPolicyAlways, "app", "side"), running("app", 0), exited("side", 3, 1, time.Second)), nil, false},
		{"a job that is done", settled(aPod("i1", corev1.RestartPolicyNever, "app"), exited("app", 0, 0, time.Second)), nil, false},
		{"a job that failed", settled(aPod("i1", corev1.RestartPolicyNever, "app", "side"), exited("app", 0, 0, time.Second), exited("side", 0, 9, time.Second)), nil, false},
	} {
		d := runtime.Desired{Known: true}
		status := runtime.Status(d, c.pod, corev1.PodStatus{}, t0)
		state := runtime.State(d, c.pod, status)
		raw, err := json.Marshal(state)
		if err != nil {
			t.Fatal(err)
		}
		var told api.PodState
		if err := json.Unmarshal(raw, &told); err != nil {
			t.Fatal(err)
		}
		if quiet := len(told.Containers) == 0; quiet != c.quiet {
			t.Errorf("%s: it tells %+v", c.name, told.Containers)
		}
		spec := c.spec
		if spec == nil {
			spec = &c.pod.Record.Object.Spec
		}
		init, regular := runtime.Containers(spec, told)
		options := cmp.Options{
			cmpopts.IgnoreFields(corev1.ContainerStatus{}, "ContainerID", "ImageID", "Image", "Started"),
			cmpopts.IgnoreFields(corev1.ContainerStateTerminated{}, "ContainerID"),
			cmpopts.EquateEmpty(),
		}
		if c.quiet { // times of what is well are guessed
			options = append(options, cmpopts.IgnoreFields(corev1.ContainerStateRunning{}, "StartedAt"), cmpopts.IgnoreFields(corev1.ContainerStateTerminated{}, "StartedAt", "FinishedAt"))
		}
		if diff := cmp.Diff(status.InitContainerStatuses, init, options); diff != "" {
			t.Errorf("%s: init containers: %s", c.name, diff)
		}
		if diff := cmp.Diff(status.ContainerStatuses, regular, options); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

// ready makes the containers of a pod ready, by their attempts.
func ready(p runtime.ObservedPod, attempts ...int32) runtime.ObservedPod {
	p.Probes = map[string]runtime.Probes{}
	for i, c := range p.Record.Object.Spec.Containers {
		p.Probes[c.Name] = runtime.Probes{Attempt: attempts[i], Started: true, Ready: true}
	}
	return p
}
