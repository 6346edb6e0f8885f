package memberstest

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// conn is one end of a stream. What is written while the ends are cut off from
// each other is lost, and everything after it.
type conn struct {
	net.Conn
	from *Endpoint
	to   netip.AddrPort

	mu       sync.Mutex
	deadline time.Time
	broken   bool
	done     chan struct{}
	once     sync.Once
}

// ends closes the stream with the endpoint that it belongs to.
func (c *conn) ends(closed chan struct{}) {
	c.done = make(chan struct{})
	go func() {
		select {
		case <-closed:
			_ = c.Conn.Close()
		case <-c.done:
		}
	}()
}

func (c *conn) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}

func (c *conn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.from.at) }
func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.to) }

func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.mu.Unlock()
	return c.Conn.SetDeadline(t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.mu.Unlock()
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) Write(b []byte) (int, error) {
	n, from, to := c.from.network, c.from.at.Addr().String(), c.to.Addr().String()
	c.mu.Lock()
	deadline := c.deadline
	c.mu.Unlock()
	for wait := n.wait(from, to); wait != nil; wait = n.wait(from, to) {
		var late <-chan time.Time
		if !deadline.IsZero() {
			timer := time.NewTimer(time.Until(deadline))
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-wait:
		case <-c.done:
			return 0, net.ErrClosed
		case <-late:
			return 0, os.ErrDeadlineExceeded
		}
	}
	n.mu.Lock()
	delay := n.delay
	n.bytes += uint64(len(b))
	cut := n.cut(from, to) || n.endpoints[c.from.at.String()] != c.from
	n.mu.Unlock()
	c.mu.Lock()
	c.broken = c.broken || cut
	broken := c.broken
	c.mu.Unlock()
	if broken {
		return len(b), nil // the kernel takes it, and nobody gets it
	}
	if delay > 0 {
		time.Sleep(delay)
	}
	return c.Conn.Write(b)
}
