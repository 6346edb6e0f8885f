package daemon

import (
	"context"
	"time"

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
		now, err := c.machine.Usage(c.agent.Groups(), c.machine.Boot())
		c.report("measure usage", err)
		if err != nil {
			return next
		}
		if last.Pods == nil {
			last = now
			return time.Now().Add(usageFirst)
		}
		told = usage.Between(last, now, told, c.cfg.Node, time.Now().Truncate(time.Second))
		last = now
		c.report("tell the fleet of this node's usage", c.part.SetUsage(told))
		return next
	}
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
