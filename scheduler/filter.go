package scheduler

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/scheduler/place"
)

// A filter holds the conditions a node must meet whatever runs on it.
type filter struct {
	nodeName    string
	affinity    nodeaffinity.RequiredNodeAffinity
	tolerations []corev1.Toleration
}

func newFilter(r api.NodeRules) filter {
	return filter{
		nodeName:    r.Name,
		affinity:    nodeaffinity.NewRequiredNodeAffinity(r.Selector, &corev1.Affinity{NodeAffinity: r.Affinity}),
		tolerations: r.Tolerations,
	}
}

func (f filter) matches(n *node) bool { return f.refuse(n) == "" }

// refuse says why the node is not for this template, "" when it is. The words
// are kube-scheduler's.
func (f filter) refuse(n *node) string {
	if f.nodeName != "" && f.nodeName != n.info.Name {
		return "node(s) didn't match the requested node name"
	}
	if ok, err := f.affinity.Match(n.object); err != nil || !ok {
		return "node(s) didn't match Pod's node affinity/selector"
	}
	for i := range n.taints {
		if n.taints[i].Effect == corev1.TaintEffectPreferNoSchedule || place.Tolerates(f.tolerations, &n.taints[i]) {
			continue
		}
		if n.taints[i].Key == corev1.TaintNodeUnschedulable {
			return "node(s) were unschedulable"
		}
		return fmt.Sprintf("node(s) had untolerated taint(s) {%s: %s}", n.taints[i].Key, n.taints[i].Value)
	}
	return ""
}

// selects reports whether the template asks for this node, whatever the node's
// state: by its name, a selector or an affinity.
func (f filter) selects(n *node) bool {
	if f.nodeName != "" && f.nodeName != n.info.Name {
		return false
	}
	ok, err := f.affinity.Match(n.object)
	return err == nil && ok
}
