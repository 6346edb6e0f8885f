package daemon

import (
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/fleet"
	"github.com/shoal-dev/shoal/policy"
)

// allocate gives the Services of a snapshot their addresses. What the ledger
// says holds; what is new is in force at once and written into the ledger
// meanwhile, so that the next leader gives it to nobody else. A leader without a
// quorum gives away addresses of a part of the range that is left to it.
func (c *control) allocate(ctx context.Context, snapshot api.Snapshot, company fleet.View, known map[string]api.ServiceAddress) (map[string]api.ServiceAddress, []policy.Conflict) {
	var services []*corev1.Service
	for service := range api.Of[*corev1.Service](snapshot) {
		services = append(services, service)
	}
	merged := maps.Clone(known)
	if merged == nil {
		merged = map[string]api.ServiceAddress{}
	}
	maps.Copy(merged, company.Ledger.Addresses)
	pool := policy.Pool{Range: c.ranges.services, Reserved: c.ranges.reserved(), Provisional: !company.Authority.Quorate}
	out, conflicts := policy.Allocate(services, merged, pool)
	if company.Authority.Quorate {
		c.record(ctx, company.Ledger.Addresses, out)
	}
	return out, conflicts
}

// record writes into the ledger what differs from it. One proposal is under way
// at a time; what has changed meanwhile is found at the next turn, which the
// ledger's change brings about.
func (c *control) record(ctx context.Context, ledger, want map[string]api.ServiceAddress) {
	change := gossip.SetAddresses{Set: map[string]api.ServiceAddress{}}
	for name, address := range want {
		if !ledger[name].Equal(address) {
			change.Set[name] = address
		}
	}
	for name := range ledger {
		if _, wanted := want[name]; !wanted {
			change.Remove = append(change.Remove, name)
		}
	}
	if len(change.Set)+len(change.Remove) == 0 || !c.recording.CompareAndSwap(false, true) {
		return
	}
	slices.Sort(change.Remove)
	c.asides.Go(func() {
		defer c.recording.Store(false)
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if err := c.part.Propose(ctx, gossip.Command{SetAddresses: &change}); err != nil {
			c.log.Debug("write the addresses of Services into the ledger: it is tried again", "reason", err)
		}
	})
}
