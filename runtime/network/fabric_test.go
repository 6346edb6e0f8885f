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
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/shoal-dev/shoal/internal/testenv"
)

func (m *machine) kernel() []string {
	m.t.Helper()
	var have Paths
	if err := m.host.Do(func() (err error) { have, err = m.fabric.read(); return err }); err != nil {
		m.t.Fatal(err)
	}
	have.Kept, have.Skipped = nil, nil
	for i := range have.Routes { // indexes differ from run to run
		have.Routes[i].Link = 0
	}
	out := have.describe()
	slices.Sort(out)
	return out
}

func TestPodsOfAllNodesReachEachOther(t *testing.T) {
	_, m := twoSites(t, 1450)
	setAll(m...)
	reach(t, m...)
	for _, to := range m[1:] {
		if err := m[0].unsplit(to, 1450-28); err != nil {
			t.Errorf("a full packet from n1 to %s: %v", to.name, err)
		}
	}
	// From the machine itself, through the tunnel, with the tunnel's address.
	var source net.IP
	err := m[0].host.Do(func() error {
		routes, err := netlink.RouteGet(net.ParseIP(m[2].podIP()))
		if err == nil {
			source = routes[0].Src
		}
		return err
	})
	if err != nil || source.String() != "10.64.1.0" {
		t.Errorf("n1 itself speaks to pods of n3 as %s, want 10.64.1.0, %v", source, err)
	}
	want := m[0].kernel()
	if again := m[0].set(m[0].peer(), m[1].peer(), m[2].peer()); len(again.Routes) != 2 {
		t.Errorf("the second Set gives %q", again.describe())
	}
	if got := m[0].kernel(); !slices.Equal(got, want) {
		t.Errorf("the second Set changed\n%q to\n%q", want, got)
	}
	if !slices.Equal(m[1].kernel(), []string{
		"10.64.1.0/24 via 10.9.1.1 over link 0", "10.64.3.0/24 via 10.64.3.0 over tunnel", "end 10.64.3.0 at 10.9.2.3", "tunnel invalid IP mtu 1450",
	}) {
		t.Errorf("n2 has %q", m[1].kernel())
	}
}

// Pods that were made with a larger MTU than the tunnel's are told by their own
// node, and TCP goes on.
func TestPodsWithALargerMTULearnTheWay(t *testing.T) {
	_, m := twoSites(t, 1500)
	setAll(m...)
	reach(t, m...)
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := m[0].unsplit(m[2], 1472)
		if errors.Is(err, syscall.EMSGSIZE) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a datagram of 1,472 bytes: %v, want %v", err, syscall.EMSGSIZE)
		}
	}
	if err := m[0].unsplit(m[2], 1422); err != nil {
		t.Error(err)
	}
}

func TestAddressChangesHeal(t *testing.T) {
	w, m := twoSites(t, 1450)
	pokes := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var watch sync.WaitGroup
	watch.Go(func() {
		err := m[0].host.Do(func() error {
			return m[0].fabric.Watch(ctx, func() {
				select {
				case pokes <- struct{}{}:
				default:
				}
			})
		})
		if err != nil {
			t.Error(err)
		}
	})
	defer watch.Wait()
	defer cancel()
	poked := func(what string) {
		t.Helper()
		select {
		case <-pokes:
		case <-time.After(5 * time.Second):
			t.Fatalf("no poke after %s", what)
		}
	}
	poked("the start")
	setAll(m...)
	quiet := func() {
		for {
			select {
			case <-pokes:
			case <-time.After(200 * time.Millisecond):
				return
			}
		}
	}
	quiet()

	// Another address in the same network, and one behind the tunnel.
	readdress(w, m[1], "10.9.1.22/24", "10.9.1.254")
	readdress(w, m[2], "10.9.2.33/24", "10.9.2.254")
	setAll(m...)
	reach(t, m...)
	quiet()

	// The link goes down and comes back: the kernel dropped its routes.
	w.in(m[0].host, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetDown(link), netlink.LinkSetUp(link)); err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP("10.9.1.254")})
	})
	poked("the link came back")
	setAll(m...)
	reach(t, m...)
	quiet()

	// Somebody removed a route.
	w.in(m[0].host, func() error { return netlink.RouteDel(&netlink.Route{Dst: ipNet(m[2].cidr)}) })
	poked("a route was removed")
	setAll(m...)
	reach(t, m...)
	quiet()

	// Somebody removed the tunnel.
	w.in(m[0].host, func() error { return dropDevice(m[0].fabric.handle) })
	poked("the tunnel was removed")
	setAll(m...)
	reach(t, m...)
}

// readdress replaces the address of a machine's uplink.
func readdress(w *wire, m *machine, address, gateway string) {
	w.t.Helper()
	w.in(m.host, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		old, err := netlink.ParseAddr(m.uplink)
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.AddrDel(link, old), giveAddress(link, address)); err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(gateway)})
	})
	m.uplink = address
}

func TestOnlyOurOwnIsRemoved(t *testing.T) {
	w, m := twoSites(t, 1450)
	foreign := &netlink.Route{Dst: ipNet(prefix("10.64.7.0/24")), Gw: net.ParseIP("10.9.1.254")}
	w.in(m[0].host, func() error { return netlink.RouteAdd(foreign) })
	setAll(m...)

	// A range that somebody else routes is theirs.
	err := m[0].host.Do(func() error {
		_, err := m[0].fabric.Set(t.Context(), []Peer{m[1].peer(), m[2].peer(), peer("n7", "10.9.1.7", "10.64.7.0/24")})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "not ours") {
		t.Errorf("got %v", err)
	}
	reach(t, m...)

	before := m[0].kernel()
	w.in(m[0].host, func() error { _, err := m[0].fabric.Set(t.Context(), nil); return err })
	if after := m[0].kernel(); !slices.Equal(before, after) {
		t.Errorf("unknown peers changed %q to %q", before, after)
	}
	// Peers whose address is forgotten are still reached.
	n2, n3 := m[1].peer(), m[2].peer()
	n2.Address, n3.Address = netip.Addr{}, netip.Addr{}
	m[0].set(n2, n3)
	reach(t, m...)

	m[0].set(m[1].peer())
	if got := m[0].kernel(); !slices.Equal(got, []string{"10.64.2.0/24 via 10.9.1.2 over link 0"}) {
		t.Errorf("without n3: %q", got)
	}
	m[0].set(m[1].peer(), m[2].peer())
	reach(t, m...)
	w.in(m[0].host, CleanUp)
	if got := m[0].kernel(); len(got) > 0 {
		t.Errorf("after the clean-up: %q", got)
	}
	w.in(m[0].host, func() error {
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, foreign, netlink.RT_FILTER_DST)
		if err == nil && len(routes) != 1 {
			err = fmt.Errorf("the foreign route is gone")
		}
		return err
	})
}

// A strict check of sources does not stop packets that come over another link
// than the answers leave by: of two machines in the same two networks one is
// known by its address in the first, the other by that in the second.
func TestStrictSourcesAreLoosened(t *testing.T) {
	w := newWire(t, "10.9.1.254/24", "10.9.2.254/24")
	a := w.machine(1, 0, "10.9.1.1/24", "10.9.1.254", 1450)
	b := w.machine(2, 1, "10.9.2.2/24", "10.9.2.254", 1450)
	w.plug(w.router, "lan1", a.host, "eth1", "10.9.2.1/24", "10.9.2.254", 1500)
	w.plug(w.router, "lan0", b.host, "eth1", "10.9.1.2/24", "10.9.1.254", 1500)
	for _, n := range []testenv.Net{a.host, b.host} {
		w.in(n, func() error {
			return errors.Join(change("/proc/sys/net/ipv4/conf/all/rp_filter", "1"), change("/proc/sys/net/ipv4/conf/eth0/rp_filter", "1"))
		})
	}
	setAll(a, b)
	reach(t, a, b)
	if got := a.kernel(); !slices.Equal(got, []string{"10.64.2.0/24 via 10.9.2.2 over link 0"}) {
		t.Errorf("n1 has %q", got)
	}
}

// Two machines on one wire whose links have networks of different sizes: the one
// takes the other to be within its network, the other does not. Once they know
// that of each other they meet, in the tunnel.
func TestNetworksOfDifferentSizes(t *testing.T) {
	w := newWire(t, "10.9.1.254/24")
	w.in(w.router, func() error {
		lan, err := netlink.LinkByName("lan0")
		if err != nil {
			return err
		}
		return giveAddress(lan, "10.9.2.254/24")
	})
	a := w.machine(1, 0, "10.9.1.1/16", "10.9.1.254", 1450)
	b := w.machine(2, 0, "10.9.2.2/24", "10.9.2.254", 1450)
	setAll(a, b)
	reach(t, a, b)
	if got := a.kernel(); !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "tunnel") }) {
		t.Errorf("n1 has %q", got)
	}
}

func TestPodsGetTheMTUOfTheUplink(t *testing.T) {
	n, _ := newNetwork(t)
	up := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0", MTU: 1400}, PeerName: "up1"}
	if err := netlink.LinkAdd(up); err != nil {
		t.Fatal(err)
	}
	defer netlink.LinkDel(up) //nolint:errcheck // the namespace goes too
	if err := giveAddress(up, "10.9.1.1/24"); err != nil {
		t.Fatal(err)
	}
	for i, mtu := range []int{1400, 9000} { // pods of one bridge do not differ
		if err := netlink.LinkSetMTU(up, mtu); err != nil {
			t.Fatal(err)
		}
		again, err := New(n.cfg)
		if err != nil {
			t.Fatal(err)
		}
		s := Sandbox{Instance: fmt.Sprint("i", i), Namespace: "default", Pod: "p", Hostname: "box"}
		id, err := again.Prepare(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.Connect(t.Context(), s, id); err != nil {
			t.Fatal(err)
		}
		err = testenv.Net{Path: n.pin(s.Instance, "net")}.Do(func() error {
			link, err := netlink.LinkByName("eth0")
			if err == nil && link.Attrs().MTU != 1350 {
				err = fmt.Errorf("the pod has an MTU of %d, want 1350", link.Attrs().MTU)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat("/sys/class/net/" + TunnelName); err == nil {
		t.Error("a tunnel that nobody needs was made")
	}
}

func BenchmarkSet(b *testing.B) {
	host := testenv.Netns(b)
	err := host.Do(func() error {
		if err := addBridge("eth0", "10.9.1.1/24"); err != nil {
			return err
		}
		f, err := NewFabric(Peer{Node: "n0", PodCIDR: prefix("10.64.0.0/24")}, "")
		if err != nil {
			return err
		}
		defer f.Close()
		var peers []Peer
		for i := 1; i < 300; i++ { // most of them behind the tunnel
			address := netip.AddrFrom4([4]byte{10, 9, byte(1 + i/200), byte(1 + i%200)})
			peers = append(peers, Peer{Node: fmt.Sprint("n", i), Address: address, PodCIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64 + byte(i>>8), byte(i), 0}), 24)})
		}
		if _, err := f.Set(b.Context(), peers); err != nil {
			return err
		}
		for b.Loop() {
			if _, err := f.Set(b.Context(), peers); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
