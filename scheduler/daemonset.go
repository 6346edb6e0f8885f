package scheduler

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/scheduler/place"
)

// daemonTolerations are added to every pod of a DaemonSet, so that it runs on
// nodes where other pods may not. Source: Kubernetes, "DaemonSet: Taints and
// tolerations".
var daemonTolerations = []corev1.Toleration{
	{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
	{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
	{Key: corev1.TaintNodeDiskPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	{Key: corev1.TaintNodePIDPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	{Key: corev1.TaintNodeUnschedulable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	{Key: unstableTaint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
}

// expandDaemonSet makes a workload with one slot per matching node; the slot's
// name is the node's.
func expandDaemonSet(value *appsv1.DaemonSet, object api.Object, nodes []node) workload {
	template := value.Spec.Template.DeepCopy()
	template.Spec.Tolerations = append(template.Spec.Tolerations, daemonTolerations...)
	if template.Spec.HostNetwork {
		template.Spec.Tolerations = append(template.Spec.Tolerations, corev1.Toleration{
			Key: corev1.TaintNodeNetworkUnavailable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule,
		})
	}
	w := newWorkload(object, template)
	filter := newFilter(place.RulesOf(&template.Spec))
	for i := range nodes {
		if filter.matches(&nodes[i]) {
			w.slots = append(w.slots, nodes[i].info.Name)
		}
	}
	w.want = len(w.slots)
	w.decide = func(w *workload, pods []*pod, in *input) change { return decideDaemonSet(w, value, pods, in) }
	return w
}

// decideDaemonSet leaves nodes that are gone alone: their pods wait for them, and
// do not hold a rollout up on the others.
func decideDaemonSet(w *workload, value *appsv1.DaemonSet, pods []*pod, in *input) change {
	var c change
	minReady := seconds(value.Spec.MinReadySeconds)
	slots := slices.DeleteFunc(slices.Clone(w.slots), func(slot string) bool { return in.node(slot).gone() })
	bySlot := map[string][]*pod{}
	here := slices.DeleteFunc(slices.Clone(pods), func(p *pod) bool { return p.lost })
	here, resting := c.rest(here, in.now)
	for _, p := range c.replaceEnded(here) {
		n := in.node(p.Slot)
		switch _, matches := slices.BinarySearch(w.slots, p.Slot); {
		case p.node != "" && p.node != p.Slot:
			c.stop(p, reasonNodeMismatch)
		case matches:
			bySlot[p.Slot] = append(bySlot[p.Slot], p)
		case n != nil && !n.gone():
			c.stop(p, reasonNodeMismatch)
		}
	}
	surge, unavailable := daemonBudget(value, len(slots))
	for _, slot := range slots {
		if !slices.ContainsFunc(bySlot[slot], func(p *pod) bool { ok, at := p.available(minReady, in.now); c.wakeAt(at); return ok }) {
			unavailable--
		}
	}
	for _, slot := range slots {
		current, old := splitRevision(bySlot[slot], w.revision)
		current = mostWanted(current)
		for _, p := range current[min(1, len(current)):] {
			c.stop(p, reasonSurplus)
		}
		switch {
		case len(current) == 0 && len(old) == 0:
			// The pod of a slot whose old instance is still stopping waits
			// for it: both may want the same host port.
			if (in.goingSlot[w.id.At(slot)] == 0 || surge > 0) && in.node(slot).unusable() == "" && !resting[slot] {
				c.start(slot, w.current(), reasonNodeJoin)
			}
		case value.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType || len(old) == 0:
		case len(current) > 0:
			if ok, _ := current[0].available(minReady, in.now); ok {
				c.stopAll(old, reasonSuperseded)
			}
		case surge > 0:
			surge--
			c.start(slot, w.current(), reasonRollout)
		case !old[0].ready():
			c.stopAll(old, reasonSuperseded)
		case unavailable > 0:
			unavailable--
			c.stopAll(old, reasonSuperseded)
		}
	}
	return c
}

// evictedRest is for how long the slot of a pod that its node evicted stays empty: a
// DaemonSet tolerates the pressure that the next one would meet, too.
const evictedRest = time.Minute

// rest leaves the pods alone that were evicted a moment ago, and returns the others
// and the slots of those. Kubernetes' controller waits longer and longer instead.
func (c *change) rest(pods []*pod, now time.Time) (others []*pod, resting map[string]bool) {
	resting = map[string]bool{}
	for _, p := range pods {
		if until := p.endedAt(now).Add(evictedRest); p.wasEvicted() && now.Before(until) {
			c.wakeAt(until)
			resting[p.Slot] = true
			continue
		}
		others = append(others, p)
	}
	return others, resting
}

// daemonBudget returns how many nodes may have an extra pod and how many none
// during a rolling update. Source: DaemonSet.spec.updateStrategy.rollingUpdate.
func daemonBudget(value *appsv1.DaemonSet, want int) (surge, unavailable int) {
	rolling := value.Spec.UpdateStrategy.RollingUpdate
	if rolling == nil {
		return 0, 1
	}
	one, zero := intstr.FromInt32(1), intstr.FromInt32(0)
	surge, _ = intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(rolling.MaxSurge, zero), want, true)
	unavailable, _ = intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(rolling.MaxUnavailable, one), want, true)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, unavailable
}

func splitRevision(pods []*pod, revision string) (current, old []*pod) {
	for _, p := range pods {
		if p.Revision == revision {
			current = append(current, p)
		} else {
			old = append(old, p)
		}
	}
	return current, old
}
