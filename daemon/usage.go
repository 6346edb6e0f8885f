package daemon

import (
	"context"
	"maps"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime/usage"
)

// How often usage is measured. In a large fleet many nodes have something new to
// tell all the time: each of them less often, then.
const (
	usageEvery      = 10 * time.Second
	usageEveryLarge = 30 * time.Second
	usageLarge      = 30 // nodes
	// usageShown is how often it is looked at where it matters.
	usageShown = 15 * time.Second
	// usageFirst is how long after the start it is measured for the first time.
	usageFirst = time.Second
)

// Annotations of a Node that tell its usage.
const (
	annotationCPU    = "usage.fleet.shoal.dev/cpu"
	annotationMemory = "usage.fleet.shoal.dev/memory"
)

// measuring returns the step that tells the fleet what this node uses.
func (c *control) measuring() func(context.Context) time.Time {
	var last usage.Counters
	var told api.Usage
	return func(context.Context) time.Time {
		if c.machine.Usage == nil {
			return time.Time{}
		}
		next := time.Now().Add(usageEvery)
		if v := c.view.Load(); v != nil && len(v.board.Nodes) > usageLarge {
			next = time.Now().Add(usageEveryLarge)
		}
		groups := c.agent.Groups()
		now, err := c.machine.Usage(groups, c.machine.Boot())
		c.report("measure usage", err)
		if err != nil {
			return next
		}
		v := c.view.Load()
		if c.machine.ContainerUsage != nil {
			several := v.several(c.cfg.Node)
			maps.DeleteFunc(groups, func(instance string, _ string) bool { return !several[instance] })
			now.Containers = c.machine.ContainerUsage(groups)
		}
		if last.Pods == nil {
			last = now
			return time.Now().Add(usageFirst)
		}
		at := time.Now().Truncate(time.Second)
		precise := usage.Precise(last, now, c.cfg.Node, at)
		c.precise.Store(&precise)
		public := now
		var within map[string]bool
		public.Exact, within = autoscaled(v, c.cfg.Node)
		public.Containers = maps.Clone(now.Containers)
		maps.DeleteFunc(public.Containers, func(instance string, _ map[string]usage.Counter) bool { return !within[instance] })
		told = usage.Between(last, public, told, c.cfg.Node, at)
		last = now
		c.report("tell the fleet of this node's usage", c.part.SetUsage(told))
		return next
	}
}

// several returns the pods of a node that have more than one container, by
// instance: of the others the pod tells all.
func (v *view) several(node string) map[string]bool {
	out := map[string]bool{}
	if v == nil {
		return out
	}
	for _, p := range v.pods {
		if p.node == node && p.object != nil && len(p.object.Spec.Containers)+len(p.object.Spec.InitContainers) > 1 {
			out[p.pod.Instance] = true
		}
	}
	return out
}

// autoscaled returns the pods of a node by whose usage an autoscaler decides, and
// those of which it looks at single containers, by instance.
func autoscaled(v *view, node string) (exact, within map[string]bool) {
	if v == nil {
		return nil, nil
	}
	inside := map[api.Identity]bool{} // by workload; true: at single containers
	for a := range api.Of[*autoscalingv2.HorizontalPodAutoscaler](v.snapshot) {
		target := a.Spec.ScaleTargetRef
		id := api.Identity{Namespace: a.Namespace, Kind: target.Kind, Owner: target.Name}
		inside[id] = inside[id] || slices.ContainsFunc(a.Spec.Metrics, func(m autoscalingv2.MetricSpec) bool { return m.ContainerResource != nil })
	}
	if len(inside) == 0 {
		return nil, nil
	}
	exact, within = map[string]bool{}, map[string]bool{}
	for _, p := range v.pods {
		containers, scaled := inside[p.pod.Workload()]
		if !scaled || p.node != node {
			continue
		}
		exact[p.pod.Instance] = true
		if containers {
			within[p.pod.Instance] = true
		}
	}
	return exact, within
}

// looksAtUsage reports whether something is decided, or shown, by usage: nobody
// pokes when it changes.
func looksAtUsage(snapshot api.Snapshot) bool {
	for range api.Of[*autoscalingv2.HorizontalPodAutoscaler](snapshot) {
		return true
	}
	return false
}

// usageOf returns what is known of a node's usage, as annotations.
func (v *view) usageOf(node string) map[string]string {
	if v.board.HealthOf(node).Gone() {
		return nil
	}
	for _, u := range v.board.Usage {
		if u.Node == node && u.Used != nil {
			return map[string]string{annotationCPU: quantity(u.Used, corev1.ResourceCPU), annotationMemory: quantity(u.Used, corev1.ResourceMemory)}
		}
	}
	return nil
}

func quantity(list corev1.ResourceList, name corev1.ResourceName) string {
	q := list[name]
	return q.String()
}
