package daemon

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/loop"
	"github.com/shoal-dev/shoal/runtime/evict"
)

// ranges parses the address ranges of a validated configuration.
func (c Config) ranges() ranges {
	return ranges{
		pods: netip.MustParsePrefix(c.Network.PodCIDR), cluster: netip.MustParsePrefix(c.Network.ClusterCIDR),
		services: netip.MustParsePrefix(c.Network.ServiceCIDR), dns: netip.MustParseAddr(c.Network.DNS),
	}
}

// lookAtNode keeps the node's own record up to date, and returns when to look
// again before it is time.
func (c *control) lookAtNode(ctx context.Context) time.Time {
	c.looking.Lock()
	defer c.looking.Unlock()
	seen, marks := c.agent.Node(ctx), c.marks.Load()
	next := api.NodeInfo{
		Name: c.cfg.Node, Peer: c.cfg.peerAddress(c.address), PodCIDR: c.cfg.Network.PodCIDR, Capacity: seen.Capacity, Allocatable: seen.Allocatable,
		System: seen.System, Conditions: seen.Conditions, Images: seen.Images,
		Volumes: seen.Volumes,
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: c.address.String()},
			{Type: corev1.NodeHostName, Address: c.cfg.Node},
		},
		Labels: marks.labels(found(c.cfg.Node, seen.System.Architecture)), Taints: slices.Concat(marks.Taints, evict.Taints(c.agent.Pressures())),
		Units: map[string]api.Commit{}, Tips: map[string]api.Commit{},
	}
	if n := c.machine.Network; n != nil && n(c.address).IsValid() {
		next.Network = n(c.address).String()
	}
	c.draining(&next)
	c.lookAtDisk(&next)
	if hasFullDisk(next) {
		c.yield(ctx, time.Now())
	}
	next.System.KubeletVersion = "shoal-" + c.version
	for _, u := range c.repo.Status() {
		next.Units[u.Unit], next.Tips[u.Unit] = u.Accepted.Commit, u.Tip.Commit
	}
	known := c.node.Load()
	stampTransitions(next.Conditions, known)
	if known != nil {
		if hasFullDisk(*known) && !hasFullDisk(next) {
			c.repo.Poke() // it has been waiting longer and longer between its attempts
		}
		next.Seq = known.Seq
		if equality.Semantic.DeepEqual(*known, next) {
			return retry(next)
		}
	}
	next.Seq = api.Seq{Boot: c.boot, N: next.Seq.N + 1}
	c.node.Store(&next)
	c.report("tell the fleet of this node", c.part.SetInfo(next))
	loop.Poke(c.nodeChanged)
	return retry(next)
}

// retry is when to look again at a node that cannot run pods yet, or has no space
// for them: soon.
func retry(n api.NodeInfo) time.Time {
	switch {
	case !canRun(n):
		return time.Now().Add(notReadyRefresh)
	case hasFullDisk(n):
		return time.Now().Add(fullRefresh)
	}
	return time.Time{}
}

// canRun reports whether a node's record says that pods can run.
func canRun(n api.NodeInfo) bool {
	for _, c := range n.Conditions {
		if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
			return false
		}
	}
	return true
}

// nodeReady reports whether this node's record says that pods can run.
func (c *control) nodeReady() bool {
	info := c.node.Load()
	return info != nil && canRun(*info)
}

// stampTransitions gives each condition the time at which it last changed, and
// keeps the heartbeat of one that did not: a heartbeat is not worth a record of
// its own.
func stampTransitions(next []corev1.NodeCondition, known *api.NodeInfo) {
	for i := range next {
		next[i].LastTransitionTime = next[i].LastHeartbeatTime
		if known == nil {
			continue
		}
		for _, old := range known.Conditions {
			if old.Type == next[i].Type && old.Status == next[i].Status {
				next[i].LastTransitionTime = old.LastTransitionTime
				next[i].LastHeartbeatTime = old.LastHeartbeatTime
			}
		}
	}
}

// notify tells systemd how the daemon is, when systemd asks for it.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return // whoever set the variable does not listen
	}
	defer conn.Close()               //nolint:errcheck // nothing can be lost
	_, _ = conn.Write([]byte(state)) // as above
}
