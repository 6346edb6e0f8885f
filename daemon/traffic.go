package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/shoal-dev/shoal/policy"
	"github.com/shoal-dev/shoal/runtime/network"
)

// verifyEvery is how often the packet rules are looked after: somebody may have
// reloaded a firewall.
const verifyEvery = 30 * time.Second

// ranges are the fleet's address ranges, parsed.
type ranges struct {
	pods, cluster, services netip.Prefix
	dns                     netip.Addr
}

// reserved are the addresses no Service may have: the first one, which is the
// API's in every Kubernetes cluster, and the DNS server's.
func (r ranges) reserved() []netip.Addr {
	return []netip.Addr{r.services.Masked().Addr().Next(), r.dns}
}

// traffic is the loop that makes the machine route what the view says.
type traffic struct {
	cfg      Config
	ranges   ranges
	log      *slog.Logger
	view     func() *view
	rules    Rules
	names    Names
	metrics  *metrics
	drained  func(map[string]bool) // tells which removed pods no rule leads to any more
	verified time.Time
	failed   string
}

func (t *traffic) step(ctx context.Context) time.Time {
	now := time.Now()
	v := t.view()
	if v == nil || !v.observed || !v.snapshot.Known() {
		return now.Add(verifyEvery)
	}
	if now.Sub(t.verified) >= verifyEvery {
		intact, err := t.rules.Verify()
		if err != nil {
			t.log.Warn("check packet rules", "reason", err)
		} else if !intact && !t.verified.IsZero() {
			t.log.Warn("packet rules were changed by somebody else: writing them again")
		}
		t.verified = now
	}
	services := v.services()
	t.names.Set(policy.RecordsOf(t.cfg.Network.Domain, services))
	cfg := policy.Config{
		Node: t.cfg.Node, PodCIDR: t.ranges.pods, ClusterCIDR: t.ranges.cluster, Tunnel: network.TunnelName, LinkLocal: t.cfg.Network.LinkLocal,
	}
	err := t.rules.Set(ctx, policy.Rules(cfg, services, v.trafficPods()))
	t.metrics.rules.Observe(time.Since(now).Seconds())
	t.report(err)
	// Also after an error: a pod must not outlive its removal because rules
	// cannot be written.
	drained := map[string]bool{}
	for _, r := range v.board.Assigned.Remove {
		drained[r.Assignment.Pod.Instance] = true
	}
	t.drained(drained)
	if err != nil {
		return now.Add(time.Second)
	}
	return now.Add(verifyEvery)
}

func (t *traffic) report(err error) {
	message := ""
	if err != nil {
		message = err.Error()
	}
	if message == t.failed {
		return
	}
	t.failed = message
	if err != nil {
		t.log.Error("apply packet rules", "reason", err)
		return
	}
	t.log.Info("apply packet rules: works again")
}
