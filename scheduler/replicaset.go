package scheduler

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// expandReplicas makes a workload of a ReplicaSet or ReplicationController. As
// in Kubernetes these keep a number of pods and roll nothing: a changed
// template is used for the pods that are started from then on.
func expandReplicas(object api.Object, template *corev1.PodTemplateSpec, replicas *int32) workload {
	w := newWorkload(object, template)
	w.setReplicas(replicas)
	w.decide = decideReplicas
	return w
}

func decideReplicas(w *workload, pods []*pod, in *input) change {
	var c change
	live := c.replaceEnded(pods)
	if surplus := len(live) - w.want; surplus > 0 {
		for _, p := range leastWanted(live)[:surplus] {
			c.stop(p, reasonSurplus)
		}
		return c
	}
	c.fill(w, live, w.current())
	return c
}

// replaceEnded stops the pods that are over and returns the others.
func (c *change) replaceEnded(pods []*pod) []*pod {
	live := make([]*pod, 0, len(pods))
	for _, p := range pods {
		if p.ended() {
			c.stop(p, reasonEnded)
			c.ended++
			continue
		}
		live = append(live, p)
	}
	return live
}

// fill starts as many pods of one template as the workload lacks.
func (c *change) fill(w *workload, live []*pod, t template) {
	for i, slot := range freeSlots(w.want-len(live), live) {
		reason := reasonMissing
		if i < c.ended {
			reason = reasonReplace
		}
		c.start(slot, t, reason)
	}
}
