//go:build e2e

package fleet

import (
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// bridge makes a switch of the network when it is not there.
func (w *world) bridge(name string) netlink.Link {
	w.t.Helper()
	if !w.switches[name] {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}); err != nil {
			w.t.Fatalf("make the switch %s: %v", name, err)
		}
		w.switches[name] = true
	}
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err == nil && name == "sw0" {
		addr, _ := netlink.ParseAddr("192.0.2.1/24")
		if have, _ := netlink.AddrList(link, netlink.FAMILY_V4); len(have) == 0 {
			err = netlink.AddrAdd(link, addr)
		}
	}
	if err != nil {
		w.t.Fatalf("set up the switch %s: %v", name, err)
	}
	return link
}

// plug gives a machine a network interface, with a cable to the switch.
func (w *world) plug(n *node) {
	w.t.Helper()
	sw := w.bridge("sw0")
	far, err := netns.GetFromPath(n.net.Path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer far.Close()
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: n.port}, PeerName: "eth0", PeerNamespace: netlink.NsFd(far)}
	if err := netlink.LinkAdd(cable); err != nil {
		w.t.Fatal(err)
	}
	near, err := netlink.LinkByName(n.port)
	if err == nil {
		err = netlink.LinkSetMaster(near, sw)
	}
	if err == nil {
		err = netlink.LinkSetUp(near)
	}
	if err == nil {
		err = n.net.Do(func() error {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			addr, _ := netlink.ParseAddr(n.address + "/24")
			if err := netlink.AddrAdd(link, addr); err != nil {
				return err
			}
			if err := netlink.LinkSetUp(link); err != nil {
				return err
			}
			return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: []byte{192, 0, 2, 1}})
		})
	}
	if err != nil {
		w.t.Fatalf("plug in %s: %v", n.name, err)
	}
}

// cable connects the machine to a switch, or to none.
func (n *node) cable(sw string) {
	n.w.t.Helper()
	link, err := netlink.LinkByName(n.port)
	if err == nil && sw == "" {
		err = netlink.LinkSetDown(link)
	} else if err == nil {
		if err = netlink.LinkSetMaster(link, n.w.bridge(sw)); err == nil {
			err = netlink.LinkSetUp(link)
		}
	}
	if err != nil {
		n.w.t.Fatalf("%s: %v", n.name, err)
	}
}
