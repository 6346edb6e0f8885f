package network

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func peer(node, address, cidr string) Peer {
	p := Peer{Node: node, PodCIDR: prefix(cidr)}
	if address != "" {
		p.Address = netip.MustParseAddr(address)
	}
	return p
}

// describe writes paths for people, a line each.
func (p Paths) describe() []string {
	var out []string
	for _, r := range p.Routes {
		over := fmt.Sprintf("link %d", r.Link)
		if r.Tunnel {
			over = "tunnel"
		}
		out = append(out, fmt.Sprintf("%s via %s over %s", r.To, r.Via, over))
	}
	if t := p.Tunnel; t != nil {
		out = append(out, fmt.Sprintf("tunnel %s mtu %d", t.Address, t.MTU))
		for _, e := range t.Ends {
			out = append(out, fmt.Sprintf("end %s at %s", e.Address, e.Underlay))
		}
	}
	for _, k := range p.Kept {
		out = append(out, fmt.Sprintf("%s as it is", k))
	}
	for _, s := range p.Skipped {
		out = append(out, s.String())
	}
	return out
}

func TestPlan(t *testing.T) {
	self := peer("n1", "", "10.64.1.0/24")
	eth0 := Link{Name: "eth0", Index: 2, MTU: 1500, Addrs: []netip.Prefix{prefix("10.9.1.1/24")}, Default: true}
	eth1 := Link{Name: "eth1", Index: 3, MTU: 9000, Addrs: []netip.Prefix{prefix("10.9.0.1/16"), prefix("172.30.0.1/32")}}
	for _, c := range []struct {
		name  string
		peers []Peer
		links []Link
		want  []string
	}{
		{"nobody", nil, []Link{eth0}, nil},
		{"one network", []Peer{self, peer("n3", "10.9.1.3", "10.64.3.0/24"), peer("n2", "10.9.1.2", "10.64.2.0/24")}, []Link{eth0}, []string{
			"10.64.2.0/24 via 10.9.1.2 over link 2", "10.64.3.0/24 via 10.9.1.3 over link 2",
		}},
		{"behind a router", []Peer{peer("n2", "10.9.1.2", "10.64.2.0/24"), peer("n3", "10.8.1.3", "10.64.3.0/24")}, []Link{eth0}, []string{
			"10.64.2.0/24 via 10.9.1.2 over link 2", "10.64.3.0/24 via 10.64.3.0 over tunnel",
			"tunnel 10.64.1.0 mtu 1450", "end 10.64.3.0 at 10.8.1.3",
		}},
		{"the longest prefix", []Peer{peer("n2", "10.9.1.2", "10.64.2.0/24"), peer("n3", "10.9.7.3", "10.64.3.0/24"), peer("n4", "172.30.0.2", "10.64.4.0/24")}, []Link{eth0, eth1}, []string{
			"10.64.2.0/24 via 10.9.1.2 over link 2", "10.64.3.0/24 via 10.9.7.3 over link 3", "10.64.4.0/24 via 10.64.4.0 over tunnel",
			"tunnel 10.64.1.0 mtu 1450", "end 10.64.4.0 at 172.30.0.2",
		}},
		{"an address nobody knows", []Peer{peer("n2", "", "10.64.2.0/24")}, []Link{eth0}, []string{"10.64.2.0/24 as it is"}},
		{"what cannot be", []Peer{
			peer("n2", "10.9.1.2", "10.64.1.128/25"), peer("n3", "10.9.1.1", "10.64.3.0/24"), peer("n4", "127.0.0.1", "10.64.4.0/24"),
			peer("n5", "10.9.1.5", "10.64.5.0/24"), peer("n6", "10.9.1.6", "10.64.5.0/24"),
			{Node: "n7"},
			peer("n8", "10.64.8.1", "10.64.8.0/24"), peer("n9", "10.8.1.9", "10.9.0.0/16"),
		}, []Link{eth0}, []string{
			"10.64.5.0/24 via 10.9.1.5 over link 2",
			"node n2: its pod range 10.64.1.128/25 overlaps with 10.64.1.0/24 of node n1",
			"node n3: its address 10.9.1.1 is one of our own",
			"node n4: its address 127.0.0.1 cannot be routed to",
			"node n6: its pod range 10.64.5.0/24 overlaps with 10.64.5.0/24 of node n5",
			"node n7: it has no IPv4 pod range",
			"node n8: its address 10.64.8.1 lies in its own pod range",
			"node n9: our own address 10.9.1.1 lies in its pod range",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Plan(self, c.peers, c.links).describe()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPodMTU(t *testing.T) {
	for _, c := range []struct {
		links []Link
		want  int
	}{
		{nil, 0},
		{[]Link{{MTU: 1500}}, 1450},
		{[]Link{{MTU: 9000, Default: true}, {MTU: 1400}}, 8950},
		{[]Link{{MTU: 9000, Default: true}, {MTU: 1400, Default: true}}, 1350},
		{[]Link{{MTU: 9000}, {MTU: 1500}}, 1450},
		{[]Link{{MTU: 600}}, 576},
	} {
		if got := PodMTU(c.links); got != c.want {
			t.Errorf("%+v: %d, want %d", c.links, got, c.want)
		}
	}
}

// A peer whose address is forgotten is reached as before; one that is gone is
// not.
func TestForgottenAddressesKeepTheirPaths(t *testing.T) {
	self := peer("n1", "", "10.64.1.0/24")
	links := []Link{{Name: "eth0", Index: 2, MTU: 1500, Addrs: []netip.Prefix{prefix("10.9.1.1/24")}}}
	have := Plan(self, []Peer{
		peer("n2", "10.9.1.2", "10.64.2.0/24"), peer("n3", "10.8.1.3", "10.64.3.0/24"), peer("n4", "10.8.1.4", "10.64.4.0/24"),
	}, links)
	got := Plan(self, []Peer{peer("n2", "", "10.64.2.0/24"), peer("n3", "", "10.64.3.0/24")}, links).with(have, self, links)
	want := []string{
		"10.64.2.0/24 via 10.9.1.2 over link 2", "10.64.3.0/24 via 10.64.3.0 over tunnel",
		"tunnel 10.64.1.0 mtu 1450", "end 10.64.3.0 at 10.8.1.3", "10.64.2.0/24 as it is", "10.64.3.0/24 as it is",
	}
	if diff := cmp.Diff(want, got.describe()); diff != "" {
		t.Error(diff)
	}
}

func randomPeers(t *rapid.T) []Peer {
	var out []Peer
	for i := range rapid.IntRange(0, 12).Draw(t, "peers") {
		p := Peer{Node: fmt.Sprint("n", rapid.IntRange(1, 12).Draw(t, "name"))}
		p.PodCIDR = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64, byte(rapid.IntRange(1, 14).Draw(t, "range")), 0}), 24)
		if rapid.IntRange(0, 4).Draw(t, "known") > 0 {
			p.Address = netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(8, 9).Draw(t, "site")), byte(rapid.IntRange(1, 3).Draw(t, "net")), byte(i + 10)})
		}
		out = append(out, p)
	}
	return out
}

func TestEveryPeerHasExactlyOneWay(t *testing.T) {
	self := peer("n1", "", "10.64.1.0/24")
	rapid.Check(t, func(t *rapid.T) {
		peers := randomPeers(t)
		var links []Link
		for i := range rapid.IntRange(0, 3).Draw(t, "links") {
			links = append(links, Link{Name: fmt.Sprint("eth", i), Index: i + 2, MTU: 1500, Addrs: []netip.Prefix{
				netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(i + 1), 1}), rapid.SampledFrom([]int{16, 24, 32}).Draw(t, "bits")),
			}})
		}
		got := Plan(self, peers, links)
		ways := map[string]int{}
		for _, s := range got.Skipped {
			ways[s.Node]++
		}
		ends := map[netip.Addr]netip.Addr{}
		if got.Tunnel != nil {
			for _, e := range got.Tunnel.Ends {
				ends[e.Address] = e.Underlay
			}
		}
		tunneled := 0
		for _, p := range peers {
			for _, r := range got.Routes {
				if r.To.Overlaps(self.PodCIDR) {
					t.Fatalf("our own range is routed: %+v", r)
				}
				at := r.Via
				if r.Tunnel {
					at = ends[r.Via]
				}
				if r.To == p.PodCIDR && at == p.Address {
					ways[p.Node]++
					_, direct := sharedLink(p, links)
					if direct == r.Tunnel {
						t.Fatalf("peer %+v shares a link: %v, and is tunneled: %v", p, direct, r.Tunnel)
					}
				}
			}
			if slices.Contains(got.Kept, p.PodCIDR) && !p.Address.IsValid() {
				ways[p.Node]++
			}
		}
		for _, r := range got.Routes {
			if r.Tunnel {
				tunneled++
			}
		}
		if tunneled != len(ends) || (got.Tunnel != nil) != (tunneled > 0) {
			t.Fatalf("%d routes into a tunnel with the ends %v", tunneled, ends)
		}
		for _, p := range peers {
			if p.Node != self.Node && ways[p.Node] == 0 {
				t.Fatalf("nothing is said of %+v:\n%q", p, got.describe())
			}
		}
		seen := map[netip.Prefix]bool{}
		for _, r := range got.Routes {
			if seen[r.To] {
				t.Fatalf("two routes to %s", r.To)
			}
			seen[r.To] = true
		}
		slices.Reverse(peers)
		if again := Plan(self, peers, links); !reflect.DeepEqual(got, again) {
			t.Fatalf("another order of peers gives\n%q\nnot\n%q", again.describe(), got.describe())
		}
	})
}

func TestTunnelMAC(t *testing.T) {
	seen := map[string]string{}
	for i := range 1000 {
		node := fmt.Sprint("n", i)
		mac := TunnelMAC(node)
		if other, taken := seen[mac.String()]; taken || mac[0]&3 != 2 {
			t.Fatalf("%s has %s, as %q", node, mac, other)
		}
		seen[mac.String()] = node
	}
}

// Whatever the prefixes of their networks: of two nodes that know them both go
// directly, or both through the tunnel, to the other's end.
func TestTwoNodesMeet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		address := func(name string, last byte) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(rapid.IntRange(0, 2).Draw(t, name)), last}),
				rapid.SampledFrom([]int{8, 16, 23, 24, 31, 32}).Draw(t, name+" bits"))
		}
		node := func(name string, a netip.Prefix, pods string) (Peer, []Link) {
			p := peer(name, a.Addr().String(), pods)
			p.Network = a.Masked()
			return p, []Link{{Name: "eth0", Index: 2, MTU: 1500, Addrs: []netip.Prefix{a}}}
		}
		a, aLinks := node("a", address("a", 1), "10.64.1.0/24")
		b, bLinks := node("b", address("b", 2), "10.64.2.0/24")
		to, back := Plan(a, []Peer{b}, aLinks), Plan(b, []Peer{a}, bLinks)
		if len(to.Routes) != 1 || len(back.Routes) != 1 || to.Routes[0].Tunnel != back.Routes[0].Tunnel {
			t.Fatalf("%v and %v: one way is\n%q\nthe other\n%q", aLinks, bLinks, to.describe(), back.describe())
		}
		if to.Routes[0].Tunnel && (to.Tunnel.Ends[0].Underlay != b.Address || back.Tunnel.Ends[0].Underlay != a.Address) {
			t.Fatalf("the tunnels end at %v and %v", to.Tunnel.Ends, back.Tunnel.Ends)
		}
		same := a.Network.Contains(b.Address) && b.Network.Contains(a.Address)
		if direct := !to.Routes[0].Tunnel; direct != (same && a.Network.Bits() < 32 && b.Network.Bits() < 32) {
			t.Fatalf("%v and %v: direct %v", aLinks, bLinks, direct)
		}
	})
}
