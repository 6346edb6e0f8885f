package network

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/shoal-dev/shoal/internal/testenv"
)

// A machine is a node on paper made real: a namespace with an uplink, a bridge
// and one pod.
type machine struct {
	t      *testing.T
	name   string
	uplink string // address with its prefix
	host   testenv.Net
	pod    testenv.Net
	cidr   netip.Prefix
	fabric *Fabric
}

// A wire joins machines: a router with one bridge for each network.
type wire struct {
	t      *testing.T
	router testenv.Net
}

func newWire(t *testing.T, networks ...string) *wire {
	t.Helper()
	w := &wire{t: t, router: testenv.Netns(t)}
	w.in(w.router, func() error {
		for i, network := range networks {
			if err := addBridge(fmt.Sprint("lan", i), network); err != nil {
				return err
			}
		}
		return change("/proc/sys/net/ipv4/ip_forward", "1")
	})
	return w
}

func (w *wire) in(n testenv.Net, f func() error) {
	w.t.Helper()
	if err := n.Do(f); err != nil {
		w.t.Fatal(err)
	}
}

func addBridge(name, address string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(bridge); err != nil {
		return err
	}
	return giveAddress(bridge, address)
}

// giveAddress gives a link an address and brings it up.
func giveAddress(link netlink.Link, address string) error {
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// plug joins two namespaces: a veth pair whose near end becomes a port of a
// bridge, and whose far end gets a name, an address and a default route.
func (w *wire) plug(near testenv.Net, bridge string, far testenv.Net, name, address, gateway string, mtu int) {
	w.t.Helper()
	ip, _, _ := strings.Cut(address, "/")
	port := "p" + strings.ReplaceAll(ip, ".", "")
	target, err := netns.GetFromPath(far.Path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer target.Close()
	w.in(near, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = port, mtu
		pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "x" + port, PeerNamespace: netlink.NsFd(target)}
		if err := netlink.LinkAdd(pair); err != nil {
			return err
		}
		master, err := netlink.LinkByName(bridge)
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetMaster(pair, master), netlink.LinkSetUp(pair))
	})
	w.in(far, func() error {
		link, err := netlink.LinkByName("x" + port)
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetName(link, name), netlink.LinkSetMTU(link, mtu), giveAddress(link, address)); err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(gateway)})
	})
}

// machine adds the n-th node to a network, with one pod of an MTU.
func (w *wire) machine(n, lan int, uplink, gateway string, podMTU int) *machine {
	w.t.Helper()
	m := &machine{
		t: w.t, name: fmt.Sprint("n", n), uplink: uplink, host: testenv.Netns(w.t), pod: testenv.Netns(w.t),
		cidr: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64, byte(n), 0}), 24),
	}
	w.plug(w.router, fmt.Sprint("lan", lan), m.host, "eth0", uplink, gateway, 1500)
	own := fmt.Sprintf("10.64.%d.1", n)
	w.in(m.host, func() error { return addBridge(defaultBridge, own+"/24") })
	w.plug(m.host, defaultBridge, m.pod, "eth0", m.podIP()+"/24", own, podMTU)
	w.in(m.host, func() (err error) {
		m.fabric, err = NewFabric(Peer{Node: m.name, PodCIDR: m.cidr}, "")
		return err
	})
	w.t.Cleanup(m.fabric.Close)
	return m
}

func (m *machine) podIP() string { return m.cidr.Addr().Next().Next().String() }

func (m *machine) peer() Peer {
	uplink := netip.MustParsePrefix(m.uplink)
	return Peer{Node: m.name, Address: uplink.Addr(), Network: uplink.Masked(), PodCIDR: m.cidr}
}

func (m *machine) set(peers ...Peer) Paths {
	m.t.Helper()
	var paths Paths
	err := m.host.Do(func() (err error) {
		paths, err = m.fabric.Set(m.t.Context(), append([]Peer{}, peers...))
		return err
	})
	if err != nil {
		m.t.Fatalf("%s: %v", m.name, err)
	}
	return paths
}

func setAll(machines ...*machine) {
	var peers []Peer
	for _, m := range machines {
		peers = append(peers, m.peer())
	}
	for _, m := range machines {
		m.set(peers...)
	}
}

// talk sends a lot over TCP from the pod of one machine to that of another, and
// says which address the other one saw.
func (m *machine) talk(to *machine) (seen string, err error) {
	var listener net.Listener
	if err := to.pod.Do(func() (err error) {
		listener, err = net.Listen("tcp4", to.podIP()+":0")
		return err
	}); err != nil {
		return "", err
	}
	defer listener.Close()
	answer := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			answer <- err.Error()
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		n, err := io.Copy(conn, conn)
		if err != nil || n != 1<<18 {
			answer <- fmt.Sprintf("%d bytes, %v", n, err)
			return
		}
		answer <- conn.RemoteAddr().(*net.TCPAddr).IP.String()
	}()
	var conn net.Conn
	if err := m.pod.Do(func() (err error) {
		conn, err = (&net.Dialer{Timeout: 2 * time.Second}).Dial("tcp4", listener.Addr().String())
		return err
	}); err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	go func() {
		_, _ = conn.Write(make([]byte, 1<<18)) // a short answer shows what was lost
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, conn); err != nil || n != 1<<18 {
		return "", fmt.Errorf("%d bytes came back: %w", n, err)
	}
	return <-answer, nil
}

func reach(t *testing.T, machines ...*machine) {
	t.Helper()
	for _, from := range machines {
		for _, to := range machines {
			if from == to {
				continue
			}
			if seen, err := from.talk(to); err != nil || seen != from.podIP() {
				t.Errorf("%s to %s: seen as %q, want %s, %v", from.name, to.name, seen, from.podIP(), err)
			}
		}
	}
}

// unsplit sends one datagram that must not be fragmented and returns whether it
// arrived whole.
func (m *machine) unsplit(to *machine, size int) error {
	var server net.PacketConn
	if err := to.pod.Do(func() (err error) {
		server, err = net.ListenPacket("udp4", to.podIP()+":0")
		return err
	}); err != nil {
		return err
	}
	defer server.Close() //nolint:errcheck // nothing is written
	return m.pod.Do(func() error {
		client, err := net.Dial("udp4", server.LocalAddr().String())
		if err != nil {
			return err
		}
		defer client.Close()
		raw, err := client.(*net.UDPConn).SyscallConn()
		if err != nil {
			return err
		}
		var option error
		if err := raw.Control(func(fd uintptr) {
			option = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		}); err != nil || option != nil {
			return errors.Join(err, option)
		}
		if _, err := client.Write(make([]byte, size)); err != nil {
			return err
		}
		_ = server.SetReadDeadline(time.Now().Add(time.Second))
		n, _, err := server.ReadFrom(make([]byte, 65536))
		if err == nil && n != size {
			err = fmt.Errorf("%d bytes of %d arrived", n, size)
		}
		return err
	})
}

// twoSites makes two machines in one network and a third behind a router.
func twoSites(t *testing.T, podMTU int) (*wire, []*machine) {
	t.Helper()
	w := newWire(t, "10.9.1.254/24", "10.9.2.254/24")
	return w, []*machine{
		w.machine(1, 0, "10.9.1.1/24", "10.9.1.254", podMTU),
		w.machine(2, 0, "10.9.1.2/24", "10.9.1.254", podMTU),
		w.machine(3, 1, "10.9.2.3/24", "10.9.2.254", podMTU),
	}
}
