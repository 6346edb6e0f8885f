package scheduler

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// expandReplicas makes a workload of a ReplicaSet or ReplicationController. As
// in Kubernetes these keep a number of pods and roll nothing: a changed
// template is used for the pods that are started from then on.
func expandReplicas(object api.Object, template *corev1.PodTemplateSpec, replicas *int32, minReady int32) workload {
	w := newWorkload(object, template)
	w.setReplicas(replicas)
	w.exclusive = w.annotated()
	w.decide = func(w *workload, pods []*pod, in *input) change {
		return decideReplicas(w, seconds(minReady), pods, in)
	}
	return w
}

func decideReplicas(w *workload, minReady time.Duration, pods []*pod, in *input) change {
	var c change
	if w.exclusive {
		c.decideExclusive(w, pods, exclusivity{target: w.current(), unavailable: 1, minReady: minReady}, in)
		return c
	}
	all := in.muster(w, pods)
	c.scale(w, all, c.replaceEnded(all.here), w.current(), level{floor: all.want, moves: 1, minReady: minReady}, in)
	return c
}

// scale keeps the number of pods right without regard to their template.
func (c *change) scale(w *workload, all crew, live []*pod, t template, l level, in *input) {
	for _, p := range live {
		if p.ready() {
			l.available++
		}
	}
	each := c.oneEach(w, live, &l, t, in)
	if surplus := len(each) - all.want; surplus > 0 {
		c.giveUp(leastWanted(each)[:surplus], live)
		return
	}
	inUse := slices.Concat(each, all.waiting)
	for i, slot := range freeSlots(all.want-len(each), inUse) {
		c.start(slot, t, c.reasonOf(slot, i, all.lost, reasonMissing))
	}
}

// giveUp stops pods beyond the wanted number, with all that fill their slots.
func (c *change) giveUp(surplus, live []*pod) {
	for _, p := range surplus {
		c.starts = slices.DeleteFunc(c.starts, func(s start) bool { return s.slot == p.Slot })
		for _, other := range live {
			told := slices.ContainsFunc(c.stops, func(s stop) bool { return s.pod == other })
			if other.Slot == p.Slot && !told {
				c.stop(other, reasonSurplus)
			}
		}
	}
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
