package runtime

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
)

// Debug containers are added to a pod while it runs, by somebody who looks into it.
// They do not stand in Git, never start again, and count for nothing: not for the
// pod's phase, nor for its readiness.
// Source: kubernetes.io, Ephemeral Containers.

// DebugContainer returns a debug container in the form of others.
func DebugContainer(debug []corev1.EphemeralContainer, name string) (*corev1.Container, bool) {
	for i := range debug {
		if debug[i].Name == name {
			c := corev1.Container(debug[i].EphemeralContainerCommon)
			return &c, true
		}
	}
	return nil, false
}

// debugs reports whether the pod has a debug container of this name.
func (p ObservedPod) debugs(name string) bool {
	return slices.ContainsFunc(p.Debug, func(c corev1.EphemeralContainer) bool { return c.Name == name })
}

// debug returns the debug containers that have never run and may be started now,
// whatever the others wait for.
func (d *decision) debug() (starts []Action) {
	for _, c := range d.pod.Debug {
		if _, exists := d.pod.latest(c.Name); exists {
			continue
		}
		if start, ok := d.start(c.Name, false); ok && d.imageReady(c.Name) {
			start.Reason = ReasonDebug
			starts = append(starts, start)
		}
	}
	return starts
}

// debugStatuses returns the statuses of the pod's debug containers.
func (v view) debugStatuses() (out []corev1.ContainerStatus) {
	for _, c := range v.pod.Debug {
		s := corev1.ContainerStatus{Name: c.Name, Image: c.Image}
		latest, exists := v.pod.latest(c.Name)
		switch {
		case !exists || latest.State == ContainerCreated:
			s.State.Waiting = v.waiting(c.Name, false, WaitingCreating, "")
		case latest.State == ContainerRunning:
			s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(latest.Started)}
		default:
			s.State.Terminated = terminatedAs(latest)
		}
		if exists {
			s.ContainerID, s.ImageID = containerID(latest), latest.ImageID
		}
		out = append(out, s)
	}
	return out
}

// debugDetails returns the debug containers for a digest: nobody can guess them.
func debugDetails(debug []corev1.EphemeralContainer, status corev1.PodStatus) (out []api.ContainerState) {
	for i, c := range status.EphemeralContainerStatuses {
		d := timed(detail(c, false), c)
		d.Debug = &api.DebugContainer{Image: c.Image, Target: debug[i].TargetContainerName, Stdin: debug[i].Stdin, TTY: debug[i].TTY}
		out = append(out, d)
	}
	return out
}

// DebugContainers returns a pod's debug containers and their statuses, as far as a
// digest tells of them.
func DebugContainers(state api.PodState) (debug []corev1.EphemeralContainer, statuses []corev1.ContainerStatus) {
	for _, d := range state.Containers {
		if d.Debug == nil {
			continue
		}
		c := corev1.EphemeralContainer{TargetContainerName: d.Debug.Target, EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: d.Name, Image: d.Debug.Image, Stdin: d.Debug.Stdin, TTY: d.Debug.TTY,
		}}
		debug = append(debug, c)
		s := shown(corev1.Container(c.EphemeralContainerCommon), d, state.Started)
		s.Started = nil
		statuses = append(statuses, s)
	}
	return debug, statuses
}
