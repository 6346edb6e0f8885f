package daemon

import (
	"context"
	"time"

	"github.com/shoal-dev/shoal/runtime/fence"
)

// handoverWithin is for how long the end of the daemon waits for the leader. A
// restart that takes less than the ordinary lease needs no other one.
const handoverWithin = 1500 * time.Millisecond

// lease returns the right of this node to run exclusive pods.
func (c *control) lease() fence.Lease {
	sent, long := c.part.Lease()
	if long > 0 && long >= sent {
		return fence.Lease{Sent: long, For: fence.Handover}
	}
	return fence.Lease{Sent: sent}
}

// linger returns a context that ends soon after ctx: before, the exclusive pods of
// this node get a lease that lasts until the next daemon is there.
func (c *control) linger(ctx context.Context) (context.Context, context.CancelFunc) {
	inner, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		defer end()
		c.handOver(inner)
	})
	return inner, func() { stop(); end() }
}

// handOver gives the fencer a long lease, where there is anything to fence.
func (c *control) handOver(ctx context.Context) {
	if c.part.Alone() || !c.agent.Fences() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handoverWithin)
	defer cancel()
	err := c.part.HandOver(ctx)
	if err == nil {
		err = c.agent.HandOver(ctx, c.lease())
	}
	if err != nil {
		c.log.Warn("exclusive pods end in some seconds, unless the daemon is back by then", "reason", err)
		return
	}
	c.log.Info("exclusive pods run on for a minute without a daemon")
}
