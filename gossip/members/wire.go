package members

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

// wire is the network of this machine. Other than memberlist's own transport it
// ends the streams that it has opened when it is shut down.
type wire struct {
	*memberlist.NetTransport
	ctx    context.Context
	cancel context.CancelFunc
}

var _ memberlist.NodeAwareTransport = (*wire)(nil)

// newWire listens with TCP and UDP; on a free port when it is 0.
func newWire(host string, port int) (*wire, error) {
	if host == "" {
		host = "0.0.0.0"
		if probe, err := net.Listen("tcp", "[::]:0"); err == nil {
			host = "::" // takes IPv4 too
			_ = probe.Close()
		}
	} else if _, err := netip.ParseAddr(host); err != nil {
		return nil, fmt.Errorf("%q is no IP address of this machine", host)
	}
	inner, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{host}, BindPort: port, Logger: log.New(io.Discard, "", 0),
	})
	if err != nil {
		return nil, err
	}
	w := &wire{NetTransport: inner}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w, nil
}

// DialTimeout opens a stream.
func (w *wire) DialTimeout(address string, limit time.Duration) (net.Conn, error) {
	return w.DialAddressTimeout(memberlist.Address{Addr: address}, limit)
}

// DialAddressTimeout opens a stream, which ends with Shutdown.
func (w *wire) DialAddressTimeout(address memberlist.Address, limit time.Duration) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: limit}).DialContext(w.ctx, "tcp", address.Addr)
	if err != nil {
		return nil, err
	}
	return &stream{conn, context.AfterFunc(w.ctx, func() { _ = conn.Close() })}, nil
}

// Shutdown ends everything.
func (w *wire) Shutdown() error {
	w.cancel()
	return w.NetTransport.Shutdown()
}

// stream forgets its end with its own.
type stream struct {
	net.Conn
	forget func() bool
}

// Close closes the connection.
func (s *stream) Close() error {
	s.forget()
	return s.Conn.Close()
}
