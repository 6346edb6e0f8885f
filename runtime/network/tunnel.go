package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ensureDevice makes the VXLAN device or corrects it. One that cannot be
// corrected is made anew; fresh says so.
func (f *Fabric) ensureDevice(t *Tunnel) (device netlink.Link, fresh bool, err error) {
	if device, err = f.device(); err != nil {
		return nil, false, err
	}
	if device == nil || !sameDevice(device, t) {
		if err := dropDevice(f.handle); err != nil {
			return nil, false, err
		}
		if device, err = f.makeDevice(t); err != nil {
			return nil, false, err
		}
		fresh = true
	}
	if t.MTU > 0 && device.Attrs().MTU != t.MTU {
		if err := f.handle.LinkSetMTU(device, t.MTU); err != nil {
			return nil, false, err
		}
	}
	if err := f.ensureAddress(device, t); err != nil {
		return nil, false, err
	}
	if device.Attrs().Flags&net.FlagUp == 0 {
		if err := f.handle.LinkSetUp(device); err != nil {
			return nil, false, err
		}
	}
	return device, fresh, nil
}

func (f *Fabric) makeDevice(t *Tunnel) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = TunnelName, t.MTU, t.MAC
	// Without a source address the kernel takes the one that the route to the
	// peer says: nothing is to be done when ours changes.
	if err := f.handle.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: TunnelVNI, Port: TunnelPort}); err != nil {
		return nil, err
	}
	// No IPv6: its announcements would only be dropped. Where it cannot be
	// turned off they are.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+TunnelName+"/disable_ipv6", []byte("1"), 0)
	return f.handle.LinkByName(TunnelName)
}

func sameDevice(device netlink.Link, t *Tunnel) bool {
	v, ok := device.(*netlink.Vxlan)
	return ok && v.VxlanId == TunnelVNI && v.Port == TunnelPort && !v.Learning && v.SrcAddr == nil && bytes.Equal(v.HardwareAddr, t.MAC)
}

// ensureAddress gives the device its address, and takes others away. It is the
// source of what this machine itself sends to pods behind the tunnel: their
// answers come back the same way.
func (f *Fabric) ensureAddress(device netlink.Link, t *Tunnel) error {
	want := &netlink.Addr{IPNet: &net.IPNet{IP: t.Address.AsSlice(), Mask: net.CIDRMask(32, 32)}}
	addrs, err := f.handle.AddrList(device, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	found := false
	for _, a := range addrs {
		if a.IPNet.String() == want.IPNet.String() {
			found = true
			continue
		}
		if err := f.handle.AddrDel(device, &a); err != nil {
			return err
		}
	}
	if found {
		return nil
	}
	return f.handle.AddrAdd(device, want)
}

// applyEnds makes the far ends of the tunnel what they should be: for each node
// the hardware address of its device, and where packets to that go.
func (f *Fabric) applyEnds(index int, want, have []End) error {
	var errs []error
	for _, e := range want {
		if slices.ContainsFunc(have, e.equal) {
			continue
		}
		for _, n := range e.entries(index) {
			if err := f.handle.NeighSet(n); err != nil {
				errs = append(errs, fmt.Errorf("tunnel to %s: %w", e.Underlay, err))
			}
		}
	}
	return errors.Join(append(errs, f.sweepEnds(index, want))...)
}

// sweepEnds removes every entry of the device that no wanted end needs, also
// those that are only half there.
func (f *Fabric) sweepEnds(index int, want []End) error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_BRIDGE} {
		entries, err := f.handle.NeighList(index, family)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, n := range entries {
			if slices.ContainsFunc(want, func(e End) bool { return e.needs(n, family) }) || family == unix.AF_INET && n.State&unix.NUD_PERMANENT == 0 {
				continue
			}
			if n.Family = family; family == unix.AF_BRIDGE {
				n.Flags = unix.NTF_SELF
			}
			if err := f.handle.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("remove %s %s from the tunnel: %w", n.IP, n.HardwareAddr, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (e End) equal(other End) bool {
	return e.Address == other.Address && e.Underlay == other.Underlay && bytes.Equal(e.MAC, other.MAC)
}

func (e End) entries(index int) []*netlink.Neigh {
	return []*netlink.Neigh{
		{
			LinkIndex: index, Family: unix.AF_BRIDGE, State: unix.NUD_PERMANENT, Flags: unix.NTF_SELF,
			IP: e.Underlay.AsSlice(), HardwareAddr: e.MAC,
		},
		{LinkIndex: index, Family: unix.AF_INET, State: unix.NUD_PERMANENT, IP: e.Address.AsSlice(), HardwareAddr: e.MAC},
	}
}

func (e End) needs(n netlink.Neigh, family int) bool {
	ip := e.Address
	if family == unix.AF_BRIDGE {
		ip = e.Underlay
	}
	return bytes.Equal(n.HardwareAddr, e.MAC) && n.IP.Equal(ip.AsSlice())
}

// CleanUp removes all routes of ours and the tunnel from this machine, whoever
// made them. It needs no Fabric.
func CleanUp() error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer handle.Close()
	routes, err := ourRoutes(handle)
	errs := []error{err}
	for _, r := range routes {
		if err := handle.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove the route to %s: %w", r.Dst, err))
		}
	}
	return errors.Join(append(errs, dropDevice(handle))...)
}

func dropDevice(handle *netlink.Handle) error {
	link, err := handle.LinkByName(TunnelName)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil
	}
	if err == nil {
		err = handle.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("remove the tunnel %s: %w", TunnelName, err)
	}
	return nil
}
