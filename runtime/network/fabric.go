package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RouteProtocol marks our routes in the kernel: what carries it is ours, what
// does not is never touched. It is free in iproute2's list of protocols.
const RouteProtocol = 83

// A Fabric makes the pods of other nodes reachable from this machine, without
// rewriting any address. It belongs to the network namespace in which it was
// made. Its methods may be called concurrently.
type Fabric struct {
	self   Peer
	bridge string
	handle *netlink.Handle

	mu   sync.Mutex
	seen []Link // at the last Set
}

// NewFabric returns the fabric of this machine; self is its node and its pods'
// range, the address is not used. bridge is the pods' bridge, "" means shoal0.
// Nothing is changed yet.
func NewFabric(self Peer, bridge string) (*Fabric, error) {
	if !self.PodCIDR.IsValid() || !self.PodCIDR.Addr().Is4() {
		return nil, fmt.Errorf("network between nodes: pod range %s is not an IPv4 prefix", self.PodCIDR)
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if bridge == "" {
		bridge = defaultBridge
	}
	return &Fabric{self: self, bridge: bridge, handle: handle}, nil
}

// Close frees what the fabric holds. Routes and tunnel stay.
func (f *Fabric) Close() { f.handle.Close() }

// Set makes the paths to all peers what they should be, and returns them. It
// may be called again with the same peers at any time; it then changes only
// what somebody else changed. nil peers are not known peers and change nothing:
// no peers are an empty slice.
//
// It goes on after an error and returns all of them; the next call tries again.
func (f *Fabric) Set(ctx context.Context, peers []Peer) (Paths, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if peers == nil {
		return Paths{}, nil
	}
	links, err := f.links()
	if err != nil {
		return Paths{}, fmt.Errorf("list links: %w", err)
	}
	f.seen = links
	have, err := f.read()
	if err != nil {
		return Paths{}, fmt.Errorf("read routes and tunnel: %w", err)
	}
	want := Plan(f.self, peers, links).with(have, f.self, links)
	if err := ctx.Err(); err != nil {
		return Paths{}, err
	}
	return want, f.apply(want, have)
}

// links lists the interfaces over which nodes may be reached, by name: those
// that are up and have an address of more than the link alone.
func (f *Fabric) links() ([]Link, error) { return listLinks(f.handle, f.bridge) }

func listLinks(handle *netlink.Handle, bridge string) ([]Link, error) {
	all, err := handle.LinkList()
	if err != nil {
		return nil, err
	}
	addrs, err := handle.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	routes, err := handle.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, err
	}
	defaults := map[int]bool{}
	for _, r := range routes {
		if !isDefault(r) {
			continue
		}
		defaults[r.LinkIndex] = true
		for _, hop := range r.MultiPath {
			defaults[hop.LinkIndex] = true
		}
	}
	var out []Link
	for _, l := range all {
		a := l.Attrs()
		if a.Flags&net.FlagUp == 0 || a.Flags&net.FlagLoopback != 0 || a.Name == bridge || a.Name == TunnelName {
			continue
		}
		link := Link{Name: a.Name, Index: a.Index, MTU: a.MTU, Default: defaults[a.Index]}
		for _, addr := range addrs {
			ip, ok := netip.AddrFromSlice(addr.IP.To4())
			if ok && addr.LinkIndex == a.Index && !ip.IsLinkLocalUnicast() && !ip.IsLoopback() {
				bits, _ := addr.Mask.Size()
				link.Addrs = append(link.Addrs, netip.PrefixFrom(ip, bits))
			}
		}
		if len(link.Addrs) > 0 {
			slices.SortFunc(link.Addrs, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
			out = append(out, link)
		}
	}
	slices.SortFunc(out, func(a, b Link) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0 && r.Dst.IP.IsUnspecified()
}

// hostMTU returns the MTU that pods get on this machine: that of the pods which
// are there already, else what the links allow; 0 when nothing tells.
func hostMTU(bridge string) int {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return 0
	}
	defer handle.Close()
	if master, err := handle.LinkByName(bridge); err == nil {
		all, _ := handle.LinkList() // without a list no pod is seen
		for _, l := range all {
			if l.Attrs().MasterIndex == master.Attrs().Index {
				return master.Attrs().MTU
			}
		}
	}
	links, err := listLinks(handle, bridge)
	if err != nil {
		return 0
	}
	return PodMTU(links)
}

// read returns what the kernel has of ours.
func (f *Fabric) read() (Paths, error) {
	var out Paths
	device, err := f.device()
	if err != nil {
		return out, err
	}
	index := 0
	if device != nil {
		index = device.Attrs().Index
		if out.Tunnel, err = f.readTunnel(device); err != nil {
			return out, err
		}
	}
	routes, err := ourRoutes(f.handle)
	if err != nil {
		return out, err
	}
	for _, r := range routes {
		to, ok := prefixOf(r.Dst)
		if !ok {
			continue
		}
		via, _ := netip.AddrFromSlice(r.Gw.To4()) // an invalid one equals no route that is wanted
		route := Route{To: to, Via: via, Link: r.LinkIndex}
		if device != nil && r.LinkIndex == index {
			route.Link, route.Tunnel = 0, true
		}
		out.Routes = append(out.Routes, route)
	}
	return out, nil
}

func ourRoutes(handle *netlink.Handle) ([]netlink.Route, error) {
	return handle.RouteListFiltered(netlink.FAMILY_V4,
		&netlink.Route{Protocol: RouteProtocol, Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(n.IP.To4())
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(ip, bits), ok
}

// device returns the tunnel's device, nil when there is none.
func (f *Fabric) device() (netlink.Link, error) {
	link, err := f.handle.LinkByName(TunnelName)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil, nil
	}
	return link, err
}

// readTunnel returns the ends that the kernel knows completely.
func (f *Fabric) readTunnel(device netlink.Link) (*Tunnel, error) {
	a := device.Attrs()
	out := &Tunnel{MAC: a.HardwareAddr, MTU: a.MTU}
	forward, err := f.handle.NeighList(a.Index, unix.AF_BRIDGE)
	if err != nil {
		return nil, err
	}
	underlay := map[string]netip.Addr{}
	for _, n := range forward {
		if ip, ok := netip.AddrFromSlice(n.IP.To4()); ok {
			underlay[n.HardwareAddr.String()] = ip
		}
	}
	neighbors, err := f.handle.NeighList(a.Index, unix.AF_INET)
	if err != nil {
		return nil, err
	}
	for _, n := range neighbors {
		ip, ok := netip.AddrFromSlice(n.IP.To4())
		if !ok || n.State&unix.NUD_PERMANENT == 0 {
			continue
		}
		if via, known := underlay[n.HardwareAddr.String()]; known {
			out.Ends = append(out.Ends, End{Address: ip, MAC: n.HardwareAddr, Underlay: via})
		}
	}
	slices.SortFunc(out.Ends, func(a, b End) int { return a.Address.Compare(b.Address) })
	return out, nil
}

// apply adds before it removes: a peer that moves into or out of the tunnel is
// reached at every moment.
func (f *Fabric) apply(want, have Paths) error {
	var errs []error
	index := 0
	if want.Tunnel != nil {
		device, fresh, err := f.ensureDevice(want.Tunnel)
		if err != nil {
			return fmt.Errorf("make the tunnel %s: %w", TunnelName, err)
		}
		index = device.Attrs().Index
		if fresh { // what led through the one before is gone
			have.Tunnel = nil
			have.Routes = slices.DeleteFunc(have.Routes, func(r Route) bool { return r.Tunnel })
		}
		var ends []End
		if have.Tunnel != nil {
			ends = have.Tunnel.Ends
		}
		errs = append(errs, f.applyEnds(index, want.Tunnel.Ends, ends))
	}
	if len(want.Routes) > 0 {
		errs = append(errs, forwardPackets(f.seen, want.Routes))
	}
	for _, r := range want.Routes {
		if slices.Contains(have.Routes, r) {
			continue
		}
		ours := slices.ContainsFunc(have.Routes, func(h Route) bool { return h.To == r.To })
		errs = append(errs, f.putRoute(r, index, ours))
	}
	for _, r := range have.Routes {
		if !slices.ContainsFunc(want.Routes, func(w Route) bool { return w.To == r.To }) {
			errs = append(errs, f.dropRoute(r, index))
		}
	}
	if want.Tunnel == nil {
		errs = append(errs, dropDevice(f.handle))
	}
	return errors.Join(errs...)
}

// putRoute adds a route, or changes ours. One that somebody else made to the
// same range stays, and is an error.
func (f *Fabric) putRoute(r Route, tunnel int, ours bool) error {
	route := &netlink.Route{
		Dst: ipNet(r.To), Gw: r.Via.AsSlice(), LinkIndex: r.Link, Protocol: RouteProtocol, Table: unix.RT_TABLE_MAIN,
	}
	if r.Tunnel {
		route.LinkIndex, route.Flags = tunnel, int(netlink.FLAG_ONLINK)
	}
	put := f.handle.RouteAdd
	if ours {
		put = f.handle.RouteReplace
	}
	if err := put(route); errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("route to %s: there is one that is not ours", r.To)
	} else if err != nil {
		return fmt.Errorf("route to %s via %s: %w", r.To, r.Via, err)
	}
	return nil
}

func (f *Fabric) dropRoute(r Route, tunnel int) error {
	route := &netlink.Route{Dst: ipNet(r.To), Protocol: RouteProtocol, Table: unix.RT_TABLE_MAIN, LinkIndex: r.Link}
	if r.Tunnel {
		route.LinkIndex = tunnel // 0, any, when the tunnel goes too
	}
	if err := f.handle.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove the route to %s: %w", r.To, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// forwardPackets makes the machine a router, and loosens the check of sources
// where it is strict: of two nodes one may take the direct way where the other
// one tunnels, because their prefixes differ, and then packets come over another
// link than the answers leave by.
// Source: Linux, Documentation/networking/ip-sysctl.rst, rp_filter.
func forwardPackets(links []Link, routes []Route) error {
	const ipv4 = "/proc/sys/net/ipv4/"
	errs := []error{change(ipv4+"ip_forward", "1")}
	for _, l := range links {
		errs = append(errs, loosen(l.Name))
	}
	if slices.ContainsFunc(routes, func(r Route) bool { return r.Tunnel }) {
		errs = append(errs, loosen(TunnelName))
	}
	return errors.Join(errs...)
}

// loosen turns a strict check of sources on a link into a loose one. The
// kernel takes the larger of the link's value and that of all links.
func loosen(link string) error {
	const conf = "/proc/sys/net/ipv4/conf/"
	if own := setting(conf + link + "/rp_filter"); own == "1" || own == "0" && setting(conf+"all/rp_filter") == "1" {
		return change(conf+link+"/rp_filter", "2")
	}
	return nil
}

func change(path, value string) error {
	if setting(path) == value {
		return nil
	}
	return os.WriteFile(path, []byte(value), 0)
}

func setting(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
