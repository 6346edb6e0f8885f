package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	goruntime "runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// nsfs is the file system type of a pinned namespace.
const nsfs = 0x6e736673

// pinNamespaces makes the namespaces in a thread of their own and pins them.
// The thread is not used again: it ends with the goroutine.
func (n *Network) pinNamespaces(s Sandbox) error {
	done := make(chan error, 1)
	go spare(func() { done <- n.makeNamespaces(s) })
	return <-done
}

// spare runs f on a thread that ends with it. It is never the process's first
// thread, which cannot end, and whose namespaces are what /proc/self/ns shows.
// It must be called as a goroutine of its own.
func spare(f func()) {
	goruntime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f() // never unlocked, so the thread ends
		return
	}
	done := make(chan struct{})
	go func() { // on another thread: this one is held
		defer close(done)
		goruntime.LockOSThread()
		f()
	}()
	<-done
	goruntime.UnlockOSThread()
}

func (n *Network) makeNamespaces(s Sandbox) error {
	self := fmt.Sprintf("/proc/self/task/%d/ns/", unix.Gettid())
	if s.HostNetwork { // pinned before anything is unshared
		if err := bind(self+"net", n.pin(s.Instance, "net")); err != nil {
			return err
		}
	}
	flags := 0
	if !s.HostNetwork {
		flags |= unix.CLONE_NEWNET | unix.CLONE_NEWUTS
	}
	if !s.HostIPC {
		flags |= unix.CLONE_NEWIPC
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if !s.HostNetwork {
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return fmt.Errorf("set the host name: %w", err)
		}
		if err := loopback(); err != nil {
			return fmt.Errorf("bring up lo: %w", err)
		}
		// As containerd 2 and Docker do: unprivileged processes may listen on
		// low ports and ping within their pod.
		_ = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
		_ = os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0)
		if err := bind(self+"net", n.pin(s.Instance, "net")); err != nil {
			return err
		}
	}
	if err := bind(self+"uts", n.pin(s.Instance, "uts")); err != nil {
		return err
	}
	return bind(self+"ipc", n.pin(s.Instance, "ipc"))
}

func loopback() error {
	link, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// bind pins a namespace at a path.
func bind(namespace, path string) error {
	if err := unpin(path); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o400)
	if err != nil {
		return err
	}
	file.Close() //nolint:errcheck // only a handle
	if err := unix.Mount(namespace, path, "none", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin %s: %w", path, err)
	}
	return nil
}

// unpin removes a pinned namespace, mounted or not.
func unpin(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH)
		if err == nil {
			continue // pins may be stacked by an interrupted attempt
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func pinned(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == nsfs
}

// isHost reports whether a pin is the network namespace of this process.
func isHost(path string) bool {
	pin, err := os.Stat(path)
	if err != nil {
		return false
	}
	own, err := os.Stat("/proc/self/ns/net")
	return err == nil && os.SameFile(pin, own)
}

// settle makes the settings of the host that a pod network needs. What cannot
// be set is remembered as a warning.
func (n *Network) settle() {
	for _, s := range []struct{ path, value, why string }{
		{"/proc/sys/net/ipv4/ip_forward", "1", "pods reach other machines"},
		{"/proc/sys/net/bridge/bridge-nf-call-iptables", "1", "Services work between pods of one node"},
		{"/proc/sys/net/ipv4/conf/all/route_localnet", "1", "NodePorts and hostPorts answer on loopback"},
	} {
		current, err := os.ReadFile(s.path)
		if err == nil && len(current) > 0 && string(current[:1]) == s.value {
			continue
		}
		if err := os.WriteFile(s.path, []byte(s.value), 0); err != nil {
			n.warn = append(n.warn, fmt.Sprintf("set %s to %s, so that %s: %v", s.path, s.value, s.why, err))
		}
	}
}
