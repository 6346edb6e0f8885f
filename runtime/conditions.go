package runtime

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
)

// conditions returns the pod's conditions in kubelet's order. The time of a
// transition is kept from prev, else taken from the machine where it remembers
// it, else now.
func (v view) conditions(s corev1.PodStatus, prev corev1.PodStatus) []corev1.PodCondition {
	done := s.Phase == corev1.PodSucceeded || s.Phase == corev1.PodFailed
	unready := v.unready(s)

	sandbox := condition(corev1.PodReadyToStartContainers, v.pod.Sandbox.State == SandboxReady, "", "")
	initialized := condition(corev1.PodInitialized, v.initialized, "ContainersNotInitialized",
		"containers with incomplete status: "+bracket(v.uninitialized()))
	if s.Phase == corev1.PodSucceeded {
		initialized.Reason = "PodCompleted"
	}
	message := "containers with unready status: " + bracket(unready)
	containers := condition(corev1.ContainersReady, len(unready) == 0 && v.initialized, "ContainersNotReady", message)
	switch {
	case s.Phase == corev1.PodSucceeded:
		containers.Status, containers.Reason, containers.Message = corev1.ConditionFalse, "PodCompleted", ""
	case done:
		containers.Status, containers.Reason, containers.Message = corev1.ConditionFalse, "PodFailed", ""
	}
	ready := containers
	ready.Type = corev1.PodReady
	if ready.Status == corev1.ConditionTrue && !v.pod.Removing.IsZero() {
		ready.Status, ready.Reason = corev1.ConditionFalse, "PodTerminating"
	}
	scheduled := condition(corev1.PodScheduled, true, "", "")

	out := []corev1.PodCondition{sandbox, initialized, ready, containers, scheduled}
	if v.pod.evicted() && !v.pod.Evicted.Unadmitted {
		// Source: Kubernetes, "Disruptions: Pod disruption conditions".
		out = append([]corev1.PodCondition{{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "TerminationByKubelet", Message: v.pod.Evicted.Message,
		}}, out...)
	}
	for i := range out {
		out[i].LastTransitionTime = v.since(out[i], prev)
	}
	return out
}

func condition(kind corev1.PodConditionType, ok bool, reason, message string) corev1.PodCondition {
	if ok {
		return corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue}
	}
	return corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message}
}

// since returns when a condition became what it is.
func (v view) since(c corev1.PodCondition, prev corev1.PodStatus) metav1.Time {
	for _, before := range prev.Conditions {
		if before.Type == c.Type {
			if before.Status == c.Status {
				return before.LastTransitionTime
			}
			return metav1.NewTime(v.now)
		}
	}
	// Nothing is known of before: this daemon has just met the pod.
	since := v.pod.Admitted
	if c.Status == corev1.ConditionTrue && (c.Type == corev1.PodReady || c.Type == corev1.ContainersReady) {
		for _, p := range v.pod.Probes {
			if p.Ready && p.Since.After(since) {
				since = p.Since
			}
		}
	}
	if since.IsZero() {
		since = v.now
	}
	return metav1.NewTime(since)
}

func (v view) unready(s corev1.PodStatus) []string {
	var out []string
	for _, c := range s.InitContainerStatuses {
		if !c.Ready && sidecar(v.spec, c.Name) {
			out = append(out, c.Name)
		}
	}
	for _, c := range s.ContainerStatuses {
		if !c.Ready {
			out = append(out, c.Name)
		}
	}
	return out
}

func (v view) uninitialized() []string {
	var out []string
	for i := range v.spec.InitContainers {
		if !passed(v.spec, v.pod, i) {
			out = append(out, v.spec.InitContainers[i].Name)
		}
	}
	return out
}

// bracket prints names as kubelet does: [a b].
func bracket(names []string) string {
	return fmt.Sprintf("[%s]", strings.Join(names, " "))
}

// State returns the digest of a pod that routing and scheduling need. status is
// what Status returned for it.
func State(d Desired, p ObservedPod, status corev1.PodStatus) api.PodState {
	assignment := p.Labels
	if pod, known := p.pod(d); known {
		assignment = pod.Assignment
	}
	out := api.PodState{
		Pod:      assignment.Pod,
		Commit:   assignment.Commit,
		Unit:     assignment.Unit,
		Claim:    assignment.Claim,
		Phase:    status.Phase,
		IP:       status.PodIP,
		Stopping: !p.Removing.IsZero(),
		Reason:   status.Reason,
		Message:  status.Message,
		Started:  p.Admitted,
	}
	if out.Phase == "" {
		out.Phase = corev1.PodUnknown
	}
	for _, c := range status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			out.Ready, out.ReadyAt = true, c.LastTransitionTime.Time
		}
	}
	for _, statuses := range [][]corev1.ContainerStatus{status.InitContainerStatuses, status.ContainerStatuses} {
		for _, c := range statuses {
			out.Restarts += c.RestartCount
			if w := c.State.Waiting; w != nil && out.Reason == "" && w.Reason != WaitingCreating && w.Reason != WaitingInit {
				out.Reason, out.Message = w.Reason, w.Message
			}
			if t := c.State.Terminated; t != nil && status.Phase == corev1.PodFailed && out.ExitCode == 0 {
				out.ExitCode = t.ExitCode
				if out.Reason == "" && t.ExitCode != 0 {
					out.Reason, out.Message = t.Reason, t.Message
				}
			}
		}
	}
	if out.Phase == corev1.PodRunning && !out.Ready && !out.Stopping && out.Reason == "" {
		out.Reason, out.Message = unreadyReason(p, status)
	}
	out.Containers = append(details(out, status), debugDetails(p.Debug, status)...)
	return out
}

// unreadyReason returns why a pod that runs is not ready: what the probe of the
// first container that is not says, else the condition's own words.
func unreadyReason(p ObservedPod, status corev1.PodStatus) (reason, message string) {
	for _, c := range status.Conditions {
		if c.Type == corev1.ContainersReady {
			reason, message = c.Reason, c.Message
		}
	}
	for _, c := range status.ContainerStatuses {
		if probes := p.Probes[c.Name]; !c.Ready && probes.Message != "" && probes.Attempt == c.RestartCount {
			return reason, c.Name + ": " + probes.Message
		}
	}
	return reason, message
}
