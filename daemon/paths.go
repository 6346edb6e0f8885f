package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime/network"
)

// paths is the loop that keeps the pods of other nodes reachable.
type paths struct {
	self   string
	fabric Fabric
	view   func() *view
	log    *slog.Logger
	failed string
}

func newPaths(m Machine, self string, pods netip.Prefix, v func() *view, log *slog.Logger) (*paths, error) {
	fabric, err := m.Fabric(network.Peer{Node: self, PodCIDR: pods})
	if err != nil {
		return nil, err
	}
	return &paths{self: self, fabric: fabric, view: v, log: log}, nil
}

// step makes the paths to all members of the roster. Where a node is, it says
// itself; one that is not heard of keeps its paths.
func (p *paths) step(ctx context.Context) time.Time {
	v := p.view()
	if v == nil || !v.company.Ledger.Known() {
		return time.Time{}
	}
	peers := []network.Peer{}
	for _, m := range v.company.Ledger.Living() {
		cidr, err := netip.ParsePrefix(m.PodCIDR)
		if m.Name == p.self || err != nil {
			continue
		}
		peer := network.Peer{Node: m.Name, PodCIDR: cidr}
		info, _ := v.board.Node(m.Name)
		for _, a := range info.Addresses {
			if a.Type == corev1.NodeInternalIP {
				peer.Address, _ = netip.ParseAddr(a.Address)
			}
		}
		peer.Network, _ = netip.ParsePrefix(info.Network) // older ones do not say it
		peers = append(peers, peer)
	}
	_, err := p.fabric.Set(ctx, peers)
	message := ""
	if err != nil {
		message = err.Error()
	}
	if message != p.failed {
		p.failed = message
		if err != nil {
			p.log.Error("make paths to other nodes", "reason", err)
		} else {
			p.log.Info("make paths to other nodes: works again")
		}
	}
	if err != nil {
		return time.Now().Add(time.Second)
	}
	return time.Time{}
}
