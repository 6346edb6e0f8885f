package runtimetest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/network"
)

// Network is a pod network in memory. The zero value is ready.
type Network struct {
	PodCIDR netip.Prefix // a /24; zero means 10.64.0.0/24
	// Answer talks to whoever connects to a port of a pod, and closes conn; nil:
	// nobody listens.
	Answer func(instance string, port uint16, conn net.Conn)

	mu        sync.Mutex
	sandboxes map[string]network.Info
	made      int
}

// Namespaces returns paths of nothing.
func (n *Network) Namespaces(s network.Sandbox) runtime.Namespaces {
	return runtime.Namespaces{Net: "memory/" + s.Instance, HostNetwork: s.HostNetwork}
}

// Prepare begins a sandbox.
func (n *Network) Prepare(s network.Sandbox) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.made++
	if n.sandboxes == nil {
		n.sandboxes = map[string]network.Info{}
	}
	n.sandboxes[s.Instance] = network.Info{Instance: s.Instance, ID: fmt.Sprint("s", n.made)}
	return fmt.Sprint("s", n.made), nil
}

// Connect completes it.
func (n *Network) Connect(_ context.Context, s network.Sandbox, id string) (network.Info, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	info := network.Info{Instance: s.Instance, ID: id, Complete: true}
	if !s.HostNetwork {
		info.IPs = []string{n.address()}
	}
	n.sandboxes[s.Instance] = info
	return info, nil
}

// address returns an address that no sandbox has. n.mu is held.
func (n *Network) address() string {
	first := netip.AddrFrom4([4]byte{10, 64})
	if n.PodCIDR.IsValid() {
		first = n.PodCIDR.Addr()
	}
	taken := map[string]bool{}
	for _, s := range n.sandboxes {
		for _, ip := range s.IPs {
			taken[ip] = true
		}
	}
	bytes := first.As4()
	for range 253 {
		bytes[3] = byte(n.made%253 + 2)
		if ip := netip.AddrFrom4(bytes).String(); !taken[ip] {
			return ip
		}
		n.made++
	}
	return ""
}

// Reboot forgets everything.
func (n *Network) Reboot() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.sandboxes)
}

// Remove removes a sandbox.
func (n *Network) Remove(_ context.Context, instance string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.sandboxes, instance)
	return nil
}

// Get returns a sandbox.
func (n *Network) Get(instance string) (network.Info, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	info, found := n.sandboxes[instance]
	return info, found
}

// Dial connects to what Answer is.
func (n *Network) Dial(_ context.Context, instance string, port uint16) (net.Conn, error) {
	if _, found := n.Get(instance); !found || n.Answer == nil {
		return nil, fmt.Errorf("dial port %d of pod %s: connection refused", port, instance)
	}
	near, far := net.Pipe()
	go n.Answer(instance, port, far)
	return near, nil
}

// List returns every sandbox, sorted by instance.
func (n *Network) List() ([]network.Info, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []network.Info
	for _, info := range n.sandboxes {
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b network.Info) int { return strings.Compare(a.Instance, b.Instance) })
	return out, nil
}

// Sweep removes what keep does not name.
func (n *Network) Sweep(ctx context.Context, keep func(string) bool) ([]string, error) {
	all, err := n.List()
	var out []string
	for _, info := range all {
		if !keep(info.Instance) {
			out = append(out, info.Instance)
			err = n.Remove(ctx, info.Instance)
		}
	}
	return out, err
}

// Warnings returns nothing.
func (n *Network) Warnings() []string { return nil }

// Logs notes what is open. The zero value is ready.
type Logs struct {
	mu   sync.Mutex
	open map[string]bool
}

// Open opens a log.
func (l *Logs) Open(_ context.Context, id, _ string) (stdout, stderr string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[string]bool{}
	}
	l.open[id] = true
	return "", "", nil
}

// Tee returns nothing: containers in memory write nothing.
func (l *Logs) Tee(context.Context, string) (stdout, stderr io.ReadCloser, err error) {
	return io.NopCloser(strings.NewReader("")), io.NopCloser(strings.NewReader("")), nil
}

// Close closes a log.
func (l *Logs) Close(_ context.Context, id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, id)
	return nil
}

// CloseAll closes all logs with a prefix.
func (l *Logs) CloseAll(_ context.Context, prefix string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.open {
		if strings.HasPrefix(id, prefix) {
			delete(l.open, id)
		}
	}
	return nil
}

// Held returns what is open, sorted.
func (l *Logs) Held(context.Context) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for id := range l.open {
		out = append(out, id)
	}
	slices.Sort(out)
	return out, nil
}

// Reboot closes everything.
func (l *Logs) Reboot() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.open)
}

// Run waits for the end of ctx.
func (l *Logs) Run(ctx context.Context, _ func(error)) { <-ctx.Done() }
