package network

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// The tunnel between nodes that share no network.
const (
	TunnelName = "shoal-vxlan"
	TunnelVNI  = 0x53484c // "SHL"
	TunnelPort = 4789     // UDP; IANA's number for VXLAN
	// TunnelOverhead is what VXLAN adds to a packet over IPv4: an Ethernet, an
	// IP, a UDP and a VXLAN header. Source: RFC 7348, section 5.
	TunnelOverhead = 14 + 20 + 8 + 8
)

// A Peer is another node and the range of its pods.
type Peer struct {
	Node    string
	Address netip.Addr // invalid while it is not known: then its paths stay as they are
	// Network is the range in which it takes other nodes to be within reach of
	// its link; invalid when it does not say.
	Network netip.Prefix
	PodCIDR netip.Prefix
}

// A Link is an interface of this machine over which other nodes may be reached.
type Link struct {
	Name    string
	Index   int
	MTU     int
	Addrs   []netip.Prefix // with the host's own bits: 10.9.1.3/24
	Default bool           // a default route leads over it
}

// Paths is how pods of other nodes are reached. It is a whole state: an entry
// of ours that is not in it must not exist.
type Paths struct {
	Routes []Route // sorted by To
	Tunnel *Tunnel // nil when no peer needs it
	// Kept are pod ranges of peers whose address is not known now, sorted:
	// what leads to them stays.
	Kept []netip.Prefix
	// Skipped are peers to which nothing leads, sorted by node.
	Skipped []Skip
}

// A Route leads to the pods of one node.
type Route struct {
	To     netip.Prefix
	Via    netip.Addr // the node itself, or in the tunnel the first address of its range
	Link   int        // index of the interface; 0 for the tunnel
	Tunnel bool
}

// A Tunnel is the VXLAN device and its ends. It needs no multicast: who is
// behind which address is written down.
type Tunnel struct {
	Address netip.Addr // of the device: the first address of our own range
	MAC     net.HardwareAddr
	MTU     int
	Ends    []End // sorted by Address
}

// An End is the far end of the tunnel on one node.
type End struct {
	Address  netip.Addr       // of its device
	MAC      net.HardwareAddr // of its device
	Underlay netip.Addr       // of the node
}

// A Skip says why nothing leads to a peer.
type Skip struct{ Node, Reason string }

// String returns "node n2: reason".
func (s Skip) String() string { return "node " + s.Node + ": " + s.Reason }

// TunnelMAC returns the hardware address of a node's tunnel device. It follows
// from the name alone, so that no node has to tell it to another.
func TunnelMAC(node string) net.HardwareAddr {
	sum := sha256.Sum256([]byte("shoal tunnel " + node))
	mac := net.HardwareAddr(slices.Clone(sum[:6]))
	mac[0] = mac[0]&^1 | 2 // unicast, locally administered
	return mac
}

// Plan works out the paths to the pods of all peers. A peer whose address lies
// in a network of one of our links is reached directly, as the longest prefix
// says, unless we do not lie in its network: then it would answer through the
// tunnel, of which we would know nothing. Every other one is reached through the
// tunnel. Each peer is reached in exactly one
// way, and our own range is never routed.
func Plan(self Peer, peers []Peer, links []Link) Paths {
	var out Paths
	var ends []End
	taken := []Peer{self}
	for _, p := range sortedPeers(peers) {
		if p.Node == self.Node {
			continue
		}
		if reason := refusePeer(p, taken, links); reason != "" {
			out.Skipped = append(out.Skipped, Skip{p.Node, reason})
			continue
		}
		to := p.PodCIDR.Masked()
		taken = append(taken, p)
		if !p.Address.IsValid() {
			out.Kept = append(out.Kept, to)
			continue
		}
		if link, shared := sharedLink(p, links); shared {
			out.Routes = append(out.Routes, Route{To: to, Via: p.Address, Link: link.Index})
			continue
		}
		out.Routes = append(out.Routes, Route{To: to, Via: to.Addr(), Tunnel: true})
		ends = append(ends, End{Address: to.Addr(), MAC: TunnelMAC(p.Node), Underlay: p.Address})
	}
	if len(ends) > 0 {
		slices.SortFunc(ends, func(a, b End) int { return a.Address.Compare(b.Address) })
		out.Tunnel = tunnel(self, links, ends)
	}
	slices.SortFunc(out.Routes, func(a, b Route) int { return a.To.Addr().Compare(b.To.Addr()) })
	slices.SortFunc(out.Kept, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return out
}

func tunnel(self Peer, links []Link, ends []End) *Tunnel {
	return &Tunnel{
		Address: self.PodCIDR.Masked().Addr(), MAC: TunnelMAC(self.Node), MTU: PodMTU(links), Ends: ends,
	}
}

// sortedPeers orders peers so that of two with the same range it is always the
// same one that gets it.
func sortedPeers(peers []Peer) []Peer {
	return slices.SortedFunc(slices.Values(peers), func(a, b Peer) int {
		if c := strings.Compare(a.Node, b.Node); c != 0 {
			return c
		}
		return strings.Compare(a.PodCIDR.String()+a.Address.String(), b.PodCIDR.String()+b.Address.String())
	})
}

// refusePeer says why a peer cannot be routed to, "" when it can.
func refusePeer(p Peer, taken []Peer, links []Link) string {
	if !p.PodCIDR.IsValid() || !p.PodCIDR.Addr().Is4() {
		return "it has no IPv4 pod range"
	}
	for _, other := range taken {
		switch {
		case other.Node == p.Node:
			return "it is named twice"
		case other.PodCIDR.Overlaps(p.PodCIDR):
			return fmt.Sprintf("its pod range %s overlaps with %s of node %s", p.PodCIDR, other.PodCIDR, other.Node)
		}
	}
	for _, link := range links {
		for _, own := range link.Addrs {
			if p.PodCIDR.Contains(own.Addr()) {
				return fmt.Sprintf("our own address %s lies in its pod range", own.Addr())
			}
		}
	}
	if !p.Address.IsValid() {
		return ""
	}
	if !p.Address.Is4() || p.Address.IsLoopback() || p.Address.IsUnspecified() || p.Address.IsMulticast() {
		return fmt.Sprintf("its address %s cannot be routed to", p.Address)
	}
	if p.PodCIDR.Contains(p.Address) {
		return fmt.Sprintf("its address %s lies in its own pod range", p.Address)
	}
	for _, link := range links {
		for _, own := range link.Addrs {
			if own.Addr() == p.Address {
				return fmt.Sprintf("its address %s is one of our own", p.Address)
			}
		}
	}
	return ""
}

// sharedLink returns the link whose network a peer's address lies in, and which
// lies in that of the peer: the one with the longest prefix, then the first by
// name. A link that has the address of the network's only host shares nothing.
func sharedLink(p Peer, links []Link) (best Link, found bool) {
	bits := -1
	for _, link := range links {
		for _, own := range link.Addrs {
			if own.Bits() == 32 || !own.Contains(p.Address) || p.Network.IsValid() && !p.Network.Contains(own.Addr()) {
				continue
			}
			if own.Bits() > bits || own.Bits() == bits && link.Name < best.Name {
				best, bits, found = link, own.Bits(), true
			}
		}
	}
	return best, found
}

// PodMTU returns the MTU of pod interfaces and of the tunnel: that of the links
// with a default route, or of all links when there is none, less what the
// tunnel adds. It returns 0 when there is no link to tell.
//
// The tunnel's share is taken off also where no peer is behind one. A fleet
// changes its shape while pods run: if the first node behind a router made the
// MTU smaller, old and new pods of one bridge would differ, and a bridge drops
// what is too large for a port without telling the sender. 50 bytes of 1,500
// are the price of never having to touch a running pod.
func PodMTU(links []Link) int {
	least := func(include func(Link) bool) int {
		mtu := 0
		for _, l := range links {
			if include(l) && l.MTU > 0 && (mtu == 0 || l.MTU < mtu) {
				mtu = l.MTU
			}
		}
		return mtu
	}
	mtu := least(func(l Link) bool { return l.Default })
	if mtu == 0 {
		mtu = least(func(Link) bool { return true })
	}
	if mtu == 0 {
		return 0
	}
	return max(mtu-TunnelOverhead, 576) // every IPv4 host must take 576: RFC 791
}

// with returns the paths together with what of ours leads to the ranges that
// are kept. MTU, address and MAC of a tunnel that is only kept
// are those it would have now.
func (p Paths) with(have Paths, self Peer, links []Link) Paths {
	out := p
	out.Routes = slices.Clone(p.Routes)
	var ends []End
	if p.Tunnel != nil {
		ends = slices.Clone(p.Tunnel.Ends)
	}
	for _, r := range have.Routes {
		if !slices.Contains(p.Kept, r.To) {
			continue
		}
		if !r.Tunnel {
			out.Routes = append(out.Routes, r)
			continue
		}
		if have.Tunnel == nil {
			continue
		}
		for _, e := range have.Tunnel.Ends {
			if e.Address == r.Via {
				out.Routes = append(out.Routes, r)
				ends = append(ends, e)
			}
		}
	}
	if len(ends) > 0 {
		slices.SortFunc(ends, func(a, b End) int { return a.Address.Compare(b.Address) })
		out.Tunnel = tunnel(self, links, ends)
	}
	slices.SortFunc(out.Routes, func(a, b Route) int { return a.To.Addr().Compare(b.To.Addr()) })
	return out
}
