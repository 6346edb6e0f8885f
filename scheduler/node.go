package scheduler

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
)

// unstableTaint keeps new pods away from a node that comes and goes.
const unstableTaint = "fleet.shoal.dev/unstable"

// A node is a node of the board, and what follows from its state.
type node struct {
	info     api.NodeInfo
	object   *corev1.Node // for the affinity helpers: name and labels
	status   api.NodeStatus
	reported bool           // the board has a record of its pods
	taints   []corev1.Taint // its own, and those that follow from its state
}

// newNodes lists the nodes of a board by name.
func newNodes(board api.Board) []node {
	reported := make(map[string]bool, len(board.Pods))
	for _, record := range board.Pods {
		reported[record.Node] = true
	}
	health := healthByName(board)
	out := make([]node, len(board.Nodes))
	for i, info := range board.Nodes {
		out[i] = node{
			info:     info,
			object:   &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: info.Name, Labels: info.Labels}},
			status:   api.NodeAlive,
			reported: reported[info.Name],
		}
		h, judged := health[info.Name]
		if judged {
			out[i].status = h.Status
		}
		out[i].taints = effectiveTaints(info, h.Unstable)
	}
	slices.SortFunc(out, func(a, b node) int { return strings.Compare(a.info.Name, b.info.Name) })
	return out
}

func healthByName(board api.Board) map[string]api.NodeHealth {
	out := make(map[string]api.NodeHealth, len(board.Health))
	for _, h := range board.Health {
		out[h.Node] = h
	}
	return out
}

// effectiveTaints are a node's own taints and those that Kubernetes' node
// controller would have added. Source: Kubernetes, "Taints and Tolerations",
// "Taint based Evictions" and "Taint Nodes by Condition".
func effectiveTaints(info api.NodeInfo, unstable bool) []corev1.Taint {
	out := slices.Clip(info.Taints)
	if !isReady(info) {
		out = append(out, corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute})
	}
	if info.Unschedulable || info.Draining {
		out = append(out, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	if unstable {
		out = append(out, corev1.Taint{Key: unstableTaint, Effect: corev1.TaintEffectNoSchedule})
	}
	return out
}

func isReady(info api.NodeInfo) bool {
	for _, c := range info.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return true
}

// gone reports whether the pods of the node count as gone.
func (n *node) gone() bool { return n.status == api.NodeLost || n.status == api.NodeLeft }

// unusable says why nothing may be started on the node now, whatever it is; ""
// when something may.
func (n *node) unusable() string {
	switch {
	case n.status == api.NodeLost:
		return "node(s) were lost"
	case n.status == api.NodeLeft:
		return "node(s) had left"
	case n.status == api.NodeSuspect:
		return "node(s) were not heard of"
	case !n.reported:
		return "node(s) had not reported their pods yet"
	}
	return ""
}

// settleTime is how long a node that came back must stay before a pod is
// stopped because of what it brings along.
const settleTime = 30 * time.Second

// away brings the memory of absent nodes up to date.
func away(known map[string]time.Time, health map[string]api.NodeHealth, now time.Time) map[string]time.Time {
	out := map[string]time.Time{}
	for name, back := range known {
		switch {
		case health[name].Gone():
			// noted below
		case back.IsZero():
			out[name] = now
		case now.Sub(back) < settleTime:
			out[name] = back
		}
	}
	for name, h := range health {
		if h.Gone() {
			out[name] = time.Time{}
		}
	}
	return out
}
