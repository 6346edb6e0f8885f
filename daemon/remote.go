package daemon

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
)

// What other nodes say of themselves, as Kubernetes' objects show it.

// remoteStatus returns the status of a pod on another node, as far as that
// node's digest tells.
func remoteStatus(object *corev1.Pod, state *api.PodState, host string) corev1.PodStatus {
	started := metav1.NewTime(state.Started)
	out := corev1.PodStatus{
		Phase: state.Phase, Reason: "", PodIP: state.IP, HostIP: host, StartTime: &started,
		QOSClass: object.Status.QOSClass,
	}
	if host != "" {
		out.HostIPs = []corev1.HostIP{{IP: host}}
	}
	if state.IP != "" {
		out.PodIPs = []corev1.PodIP{{IP: state.IP}}
	}
	running := state.Phase == corev1.PodRunning
	condition := func(kind corev1.PodConditionType, holds bool, since time.Time) {
		c := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(since)}
		if holds {
			c.Status = corev1.ConditionTrue
		} else {
			c.Reason, c.Message = state.Reason, state.Message
		}
		out.Conditions = append(out.Conditions, c)
	}
	since := state.Started
	if state.Ready {
		since = state.ReadyAt
	}
	condition(corev1.PodInitialized, running || state.Phase == corev1.PodSucceeded, state.Started)
	condition(corev1.PodReady, state.Ready, since)
	condition(corev1.ContainersReady, state.Ready, since)
	condition(corev1.PodScheduled, true, state.Started)
	out.InitContainerStatuses, out.ContainerStatuses = runtime.Containers(&object.Spec, *state)
	return out
}

// lose makes a pod one whose node is lost: it may run or not. As in Kubernetes it
// is shown as ready no more, and as terminating once another has its place.
func (p *podView) lose(health api.NodeHealth, replaced bool) {
	p.lost = true
	if p.state != nil {
		state := *p.state
		state.Ready, state.Phase, state.Reason, state.Message = false, corev1.PodUnknown, "NodeLost", "The leader hears nothing of node "+p.node+" any more."
		p.state = &state
	}
	if p.object == nil {
		return
	}
	shown := *p.object
	shown.Status.Reason, shown.Status.Message = "NodeLost", "The leader hears nothing of node "+p.node+" any more."
	if runtime.Bound(&shown.Spec) {
		shown.Status.Message += " The pod waits for it: its volumes are there."
	}
	shown.Status.Conditions = slices.Clone(shown.Status.Conditions)
	for i := range shown.Status.Conditions {
		if c := &shown.Status.Conditions[i]; c.Type == corev1.PodReady || c.Type == corev1.ContainersReady {
			c.Status, c.Reason, c.LastTransitionTime = corev1.ConditionFalse, "NodeLost", metav1.NewTime(health.Since)
		}
	}
	if replaced && shown.DeletionTimestamp == nil {
		at := deletionTime(shown.Spec.TerminationGracePeriodSeconds, health.Since)
		shown.DeletionTimestamp, shown.DeletionGracePeriodSeconds = &at, shown.Spec.TerminationGracePeriodSeconds
	}
	p.object = &shown
}

// unheardOf returns the conditions of a node that nobody hears of: what it said
// last is not known to hold any more. The words are those of Kubernetes' node
// controller.
func unheardOf(conditions []corev1.NodeCondition, health api.NodeHealth) []corev1.NodeCondition {
	out := slices.Clone(conditions)
	for i := range out {
		out[i].Status, out[i].Reason = corev1.ConditionUnknown, "NodeStatusUnknown"
		out[i].Message = "The leader hears nothing of this node any more."
		if health.Status == api.NodeLeft {
			out[i].Message = "The node has said good-bye."
		}
		out[i].LastTransitionTime = metav1.NewTime(health.Since)
	}
	return out
}

// addressOf returns the address of a node, "" when it is not known.
func (c *control) addressOf(node string) string {
	v := c.view.Load()
	if v == nil {
		return ""
	}
	info, _ := v.board.Node(node)
	for _, a := range info.Addresses {
		if a.Type == corev1.NodeInternalIP {
			return a.Address
		}
	}
	return ""
}
