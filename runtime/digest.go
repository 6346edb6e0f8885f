package runtime

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
)

// maxDetail is the length of the longest message of a container in a digest, in
// bytes: every node holds the digests of all.
const maxDetail = 256

// details returns the containers of a status that Containers would not guess from
// the rest of the digest.
func details(state api.PodState, status corev1.PodStatus) []api.ContainerState {
	var out []api.ContainerState
	for _, c := range status.InitContainerStatuses {
		if d := detail(c, true); d != guess(c.Name, true, state) {
			out = append(out, d)
		}
	}
	for _, c := range status.ContainerStatuses {
		if d := detail(c, false); d != guess(c.Name, false, state) {
			out = append(out, timed(d, c))
		}
	}
	return out
}

// detail is what a status says of a container, without the time at which a run
// began: that of a healthy one is guessed.
func detail(c corev1.ContainerStatus, init bool) api.ContainerState {
	out := api.ContainerState{
		Name: c.Name, Init: init, Ready: c.Ready, Restarts: c.RestartCount,
		Running: c.State.Running != nil, Ended: end(c.State.Terminated), Before: end(c.LastTerminationState.Terminated),
	}
	if w := c.State.Waiting; w != nil {
		out.Waiting, out.Message = w.Reason, cut(w.Message)
	}
	if init && c.State.Terminated != nil && c.State.Terminated.ExitCode == 0 && c.RestartCount == 0 {
		out.Ended = nil // it is done
	}
	return out
}

// timed adds when a run began.
func timed(d api.ContainerState, c corev1.ContainerStatus) api.ContainerState {
	if c.State.Running != nil {
		d.Since = c.State.Running.StartedAt.Time
	}
	return d
}

func end(t *corev1.ContainerStateTerminated) *api.ContainerEnd {
	if t == nil {
		return nil
	}
	return &api.ContainerEnd{
		ExitCode: t.ExitCode, Reason: t.Reason, Message: cut(t.Message), Started: t.StartedAt.Time, Finished: t.FinishedAt.Time,
	}
}

func cut(message string) string {
	return strings.ToValidUTF8(message[:min(len(message), maxDetail)], "")
}

// guess returns what a container without details is.
func guess(name string, init bool, state api.PodState) api.ContainerState {
	out := api.ContainerState{Name: name, Init: init}
	running := state.Phase == corev1.PodRunning
	switch {
	case init && (running || state.Phase == corev1.PodSucceeded):
		out.Ready = true // it is done
	case running && (state.Ready || state.Reason == "" || state.Reason == "ContainersNotReady"):
		out.Running, out.Ready = true, state.Ready
	case state.Phase == corev1.PodPending && state.Reason == "":
		out.Waiting = WaitingCreating
	default:
		out.Waiting, out.Message = state.Reason, cut(state.Message)
	}
	return out
}

// Containers returns the statuses of a pod's containers as a digest tells them,
// for nodes on which the pod is not. What the digest does not name is guessed
// from the state of the pod: it runs, or it is done, or it waits for the reason
// that the pod has.
func Containers(spec *corev1.PodSpec, state api.PodState) (init, regular []corev1.ContainerStatus) {
	known := map[string]api.ContainerState{}
	for _, c := range state.Containers {
		known[c.Name] = c
	}
	show := func(containers []corev1.Container, isInit bool) (out []corev1.ContainerStatus) {
		for i, c := range containers {
			d, told := known[c.Name]
			if !told {
				d = guess(c.Name, isInit, state)
				d.Since = state.Started
				if len(known) == 0 && i == 0 && !isInit {
					d.Restarts = state.Restarts // an older daemon told nothing else
				}
			}
			out = append(out, shown(c, d, state.Started))
		}
		return out
	}
	return show(spec.InitContainers, true), show(spec.Containers, false)
}

// shown is a container's status.
func shown(spec corev1.Container, d api.ContainerState, begun time.Time) corev1.ContainerStatus {
	out := corev1.ContainerStatus{Name: spec.Name, Image: spec.Image, Ready: d.Ready, RestartCount: d.Restarts, Started: &d.Running}
	switch {
	case d.Running:
		if d.Since.IsZero() {
			d.Since = begun
		}
		out.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(d.Since)}
	case d.Ended != nil:
		out.State.Terminated = terminated(d.Ended)
	case d.Init && d.Ready:
		out.State.Terminated = &corev1.ContainerStateTerminated{Reason: EndedCompleted}
	default:
		out.State.Waiting = &corev1.ContainerStateWaiting{Reason: d.Waiting, Message: d.Message}
	}
	if d.Before != nil {
		out.LastTerminationState.Terminated = terminated(d.Before)
	}
	return out
}

func terminated(e *api.ContainerEnd) *corev1.ContainerStateTerminated {
	out := &corev1.ContainerStateTerminated{ExitCode: e.ExitCode, Reason: e.Reason, Message: e.Message, StartedAt: metav1.NewTime(e.Started), FinishedAt: metav1.NewTime(e.Finished)}
	if e.ExitCode > 128 && e.ExitCode < 160 {
		out.Signal = e.ExitCode - 128
	}
	return out
}
