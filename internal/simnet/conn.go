package simnet

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// patience is how long a sender waits for what it sent to arrive. Shoal sets
// TCP_USER_TIMEOUT to it.
const patience = 4 * time.Second

// window is how many bytes a stream takes that nobody has read.
const window = 1 << 20

var errReset = errors.New("connection reset by peer")

// half is one direction of a stream.
type half struct {
	mu      sync.Mutex
	chunks  []chunk
	size    int
	fin     bool          // nothing comes after the chunks
	changed chan struct{} // closed when any of this changes, or a deadline
}

type chunk struct {
	sent, due time.Time
	data      []byte
}

// wake wakes who waits. h.mu is held.
func (h *half) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// news returns what is closed at the next change.
func (h *half) news() chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

// conn is one end of a stream.
type conn struct {
	network  *Network
	from, to netip.AddrPort
	in, out  *half
	other    *conn
	dead     bool // with its machine; n.mu guards it

	mu            sync.Mutex
	read, write   time.Time // deadlines
	closed, reset bool
	watched       bool // a timer looks after what was sent
}

func newStream(n *Network, from, to netip.AddrPort) (near, far *conn) {
	up, down := &half{changed: make(chan struct{})}, &half{changed: make(chan struct{})}
	near = &conn{network: n, from: from, to: to, in: down, out: up}
	far = &conn{network: n, from: to, to: from, in: up, out: down, other: near}
	near.other = far
	return near, far
}

// err returns why this end cannot be used.
func (c *conn) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return net.ErrClosed
	case c.reset:
		return errReset
	}
	return nil
}

// way returns how it goes between the two ends.
func (c *conn) way() (path, chan struct{}) {
	n := c.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.dead || c.other.dead {
		return cut, n.changed
	}
	return n.both(c.from.Addr().String(), c.to.Addr().String()), n.changed
}

// Read reads what has arrived.
func (c *conn) Read(b []byte) (int, error) {
	for {
		changed := c.in.news() // before anything is looked at that may change
		c.mu.Lock()
		deadline := c.read
		c.mu.Unlock()
		if err := c.err(); err != nil {
			return 0, err
		}
		way, network := c.way()
		now := time.Now()
		c.in.mu.Lock()
		var next time.Time
		if len(c.in.chunks) > 0 {
			next = c.in.chunks[0].due
		}
		switch {
		case way != open:
			next = time.Time{}
		case !next.IsZero() && !now.Before(next):
			n := c.in.take(b, now)
			c.in.mu.Unlock()
			return n, nil
		case next.IsZero() && c.in.fin:
			c.in.mu.Unlock()
			return 0, io.EOF
		}
		c.in.mu.Unlock()
		if err := wait(deadline, next, changed, network); err != nil {
			return 0, err
		}
	}
}

// take moves what is due into b. h.mu is held.
func (h *half) take(b []byte, now time.Time) (n int) {
	for n < len(b) && len(h.chunks) > 0 && !now.Before(h.chunks[0].due) {
		got := copy(b[n:], h.chunks[0].data)
		n += got
		if h.chunks[0].data = h.chunks[0].data[got:]; len(h.chunks[0].data) == 0 {
			h.chunks = h.chunks[1:]
		}
	}
	h.size -= n
	h.wake()
	return n
}

// wait waits for a moment or a change, until a deadline.
func wait(deadline, next time.Time, changed, network chan struct{}) error {
	var late, due <-chan time.Time
	if !deadline.IsZero() {
		if !time.Now().Before(deadline) {
			return os.ErrDeadlineExceeded
		}
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		late = timer.C
	}
	if !next.IsZero() {
		timer := time.NewTimer(time.Until(next))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-late:
		return os.ErrDeadlineExceeded
	case <-due:
	case <-changed:
	case <-network:
	}
	return nil
}

// Write sends. It waits only while the other end has too much to read.
func (c *conn) Write(b []byte) (int, error) {
	for {
		changed := c.out.news()
		c.mu.Lock()
		deadline := c.write
		c.mu.Unlock()
		if err := c.err(); err != nil {
			return 0, err
		}
		way, network := c.way()
		if way == open && c.other.err() != nil {
			return 0, errReset
		}
		c.out.mu.Lock()
		if c.out.size < window {
			c.out.put(b, c.delay())
			c.out.mu.Unlock()
			c.watch(len(b))
			return len(b), nil
		}
		c.out.mu.Unlock()
		if err := wait(deadline, time.Time{}, changed, network); err != nil {
			return 0, err
		}
	}
}

func (c *conn) delay() time.Duration {
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	return c.network.delay
}

// put adds what was written. h.mu is held.
func (h *half) put(b []byte, delay time.Duration) {
	now := time.Now()
	h.chunks = append(h.chunks, chunk{sent: now, due: now.Add(delay), data: append([]byte(nil), b...)})
	h.size += len(b)
	h.wake()
}

// watch sees to it that somebody looks after what was sent.
func (c *conn) watch(sent int) {
	c.network.mu.Lock()
	c.network.bytes += uint64(sent) //nolint:gosec // it is a length
	c.network.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.watched {
		c.watched = true
		time.AfterFunc(patience, c.look)
	}
}

// look gives up when what was sent long ago cannot arrive.
func (c *conn) look() {
	way, _ := c.way()
	c.out.mu.Lock()
	var oldest time.Time
	if len(c.out.chunks) > 0 {
		oldest = c.out.chunks[0].sent
	}
	c.out.mu.Unlock()
	c.mu.Lock()
	if c.closed || oldest.IsZero() {
		c.watched = false
		c.mu.Unlock()
		return
	}
	age := time.Since(oldest)
	if age < patience || way != cut {
		time.AfterFunc(max(patience-age, time.Second), c.look)
		c.mu.Unlock()
		return
	}
	c.reset = true
	c.mu.Unlock()
	c.wakeBoth()
}

func (c *conn) wakeBoth() {
	for _, h := range []*half{c.in, c.out} {
		h.mu.Lock()
		h.wake()
		h.mu.Unlock()
	}
}

// Close ends the stream. The other end reads what was sent before.
func (c *conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.network.mu.Lock()
	dead := c.dead
	delete(c.network.conns, c)
	c.network.mu.Unlock()
	if !dead { // the dead do not say goodbye
		c.out.mu.Lock()
		c.out.fin = true
		c.out.mu.Unlock()
	}
	c.wakeBoth()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.from) }
func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.to) }

// SetDeadline sets both deadlines. What waits goes by the new ones.
func (c *conn) SetDeadline(t time.Time) error      { return c.set(&c.read, &c.write, t) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.set(&c.read, &c.read, t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.set(&c.write, &c.write, t) }

func (c *conn) set(a, b *time.Time, t time.Time) error {
	c.mu.Lock()
	*a, *b = t, t
	c.mu.Unlock()
	c.wakeBoth()
	return nil
}
