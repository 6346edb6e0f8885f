package network

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Dial connects to a TCP port of a pod from inside of its network, over its
// loopback interface: no rule of the machine is on the way, and what listens on
// the loopback only is reached, too.
func (n *Network) Dial(ctx context.Context, instance string, port uint16) (net.Conn, error) {
	path := n.pin(instance, "net")
	if !pinned(path) {
		return nil, fmt.Errorf("the network of pod %s is not there", instance)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go spare(func() {
		conn, err := dialIn(ctx, path, port)
		done <- result{conn, err}
	})
	r := <-done
	return r.conn, r.err
}

// dialIn connects on a thread that is not used again. The socket stays in the
// namespace that it was made in.
func dialIn(ctx context.Context, path string, port uint16) (net.Conn, error) {
	namespace, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer namespace.Close() //nolint:errcheck // only a handle
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter %s: %w", path, err)
	}
	// An address that is no name is dialed on this very thread. As in Kubernetes
	// IPv4 comes first.
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err == nil {
		return conn, nil
	}
	if six, other := d.DialContext(ctx, "tcp6", net.JoinHostPort("::1", strconv.Itoa(int(port)))); other == nil {
		return six, nil
	}
	return nil, err
}
