package simnet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Network connects endpoints. Its methods may be called concurrently. Hosts are
// named by their addresses.
type Network struct {
	mu        sync.Mutex
	endpoints map[string]*Endpoint // by address
	part      map[string]int       // of the network, by host
	oneWay    map[[2]string]bool   // cut from one host to another
	stalled   map[string]bool
	off       map[string]bool // hosts that crashed
	changed   chan struct{}   // closed when any of this changes
	conns     map[*conn]bool
	delay     time.Duration
	loss      float64
	random    *rand.Rand
	bytes     uint64
}

// New returns a network without faults. The seed decides which packets are lost.
func New(seed uint64) *Network {
	return &Network{
		endpoints: map[string]*Endpoint{}, part: map[string]int{}, oneWay: map[[2]string]bool{}, stalled: map[string]bool{}, off: map[string]bool{},
		changed: make(chan struct{}), conns: map[*conn]bool{},
		random: rand.New(rand.NewPCG(seed, 1)), //nolint:gosec // it must be the same each time
	}
}

// change changes what connects hosts, and wakes all who wait for that.
func (n *Network) change(what func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	what()
	close(n.changed)
	n.changed = make(chan struct{})
}

// SetDelay makes every packet, and every write to a stream, that late.
func (n *Network) SetDelay(d time.Duration) { n.change(func() { n.delay = d }) }

// SetLoss makes a share of the packets get lost, of 0 to 1. Streams lose nothing.
func (n *Network) SetLoss(share float64) { n.change(func() { n.loss = share }) }

// Split cuts the network into parts of hosts that do not hear of each other.
// Hosts that are not named stay together.
func (n *Network) Split(parts ...[]string) {
	n.change(func() {
		clear(n.part)
		for i, hosts := range parts {
			for _, host := range hosts {
				n.part[host] = i + 1
			}
		}
	})
}

// Cut loses what a host sends to another. The other direction works.
func (n *Network) Cut(from, to string) { n.change(func() { n.oneWay[[2]string{from, to}] = true }) }

// Heal makes it one network again.
func (n *Network) Heal() { n.change(func() { clear(n.part); clear(n.oneWay) }) }

// Stall holds back everything from and to a host until Resume.
func (n *Network) Stall(host string) { n.change(func() { n.stalled[host] = true }) }

// Resume lets a host go on, with all that was held back.
func (n *Network) Resume(host string) { n.change(func() { delete(n.stalled, host) }) }

// Crash ends a machine at once: what is sent to it is lost, and what it does from
// now on is not heard of. Its addresses are free again.
func (n *Network) Crash(host string) {
	n.change(func() {
		for c := range n.conns {
			if c.from.Addr().String() == host {
				c.dead = true
				delete(n.conns, c)
			}
		}
		n.off[host] = true
		n.free(host)
	})
}

// Kill ends the processes of a machine: its kernel tells who is connected.
func (n *Network) Kill(host string) {
	var mine []*conn
	n.mu.Lock()
	for c := range n.conns {
		if c.from.Addr().String() == host {
			mine = append(mine, c)
		}
	}
	n.mu.Unlock()
	for _, c := range mine {
		_ = c.Close()
	}
	n.change(func() { n.free(host) })
}

// free takes the endpoints of a host away. n.mu is held.
func (n *Network) free(host string) {
	for at, e := range n.endpoints {
		if e.at.Addr().String() == host {
			delete(n.endpoints, at)
			e.end()
		}
	}
}

// Bytes returns how much was sent in all.
func (n *Network) Bytes() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.bytes
}

// path is how it goes from one host to another.
type path int

const (
	open path = iota
	held      // until one of the two goes on
	cut
)

// path returns how packets fare. n.mu is held.
func (n *Network) path(from, to string) path {
	switch {
	case from == to:
		return open
	case n.part[from] != n.part[to] || n.oneWay[[2]string{from, to}]:
		return cut
	case n.stalled[from] || n.stalled[to]:
		return held
	}
	return open
}

// both returns how streams fare, which need both directions. n.mu is held.
func (n *Network) both(a, b string) path { return max(n.path(a, b), n.path(b, a)) }

// queueLength is how many packets or streams wait for a node; more are lost.
const queueLength = 1024

// Endpoint is an address of the network, until its Shutdown.
type Endpoint struct {
	network *Network
	at      netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	closed  chan struct{}
	end     func()
}

var _ memberlist.NodeAwareTransport = (*Endpoint)(nil)

// Listen takes an address.
func (n *Network) Listen(address string) (*Endpoint, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.endpoints[at.String()] != nil {
		return nil, fmt.Errorf("the address %s is in use", address)
	}
	e := &Endpoint{
		network: n, at: at, packets: make(chan *memberlist.Packet, queueLength), streams: make(chan net.Conn, queueLength), closed: make(chan struct{}),
	}
	e.end = sync.OnceFunc(func() { close(e.closed) })
	n.endpoints[at.String()] = e
	delete(n.off, at.Addr().String())
	return e, nil
}

// Shutdown gives the address back. Streams go on.
func (e *Endpoint) Shutdown() error {
	e.network.mu.Lock()
	defer e.network.mu.Unlock()
	if e.network.endpoints[e.at.String()] == e {
		delete(e.network.endpoints, e.at.String())
	}
	e.end()
	return nil
}

// FinalAdvertiseAddr returns what is asked for, or where the endpoint is.
func (e *Endpoint) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	if ip == "" {
		return e.at.Addr().AsSlice(), int(e.at.Port()), nil
	}
	a, err := netip.ParseAddr(ip)
	return a.AsSlice(), port, err
}

// PacketCh and StreamCh are where packets and streams arrive.
func (e *Endpoint) PacketCh() <-chan *memberlist.Packet { return e.packets }

// StreamCh is described at PacketCh.
func (e *Endpoint) StreamCh() <-chan net.Conn { return e.streams }

// WriteTo sends a packet.
func (e *Endpoint) WriteTo(b []byte, address string) (time.Time, error) {
	n, now := e.network, time.Now()
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return now, err
	}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(e.at)}
	n.mu.Lock()
	lost := n.random.Float64() < n.loss || n.endpoints[e.at.String()] != e || n.path(e.at.Addr().String(), to.Addr().String()) == cut
	n.bytes += uint64(len(b))
	delay := n.delay
	n.mu.Unlock()
	if !lost {
		time.AfterFunc(delay, func() { n.deliver(p, e.at.Addr().String(), to) })
	}
	return now, nil
}

// WriteToAddress sends a packet.
func (e *Endpoint) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	return e.WriteTo(b, to.Addr)
}

// deliver hands a packet over once neither end is stalled.
func (n *Network) deliver(p *memberlist.Packet, from string, to netip.AddrPort) {
	for {
		n.mu.Lock()
		path, changed, e := n.path(from, to.Addr().String()), n.changed, n.endpoints[to.String()]
		if path == open && e != nil {
			p.Timestamp = time.Now()
			select {
			case e.packets <- p:
			default: // nobody reads them
			}
		}
		n.mu.Unlock()
		if path != held {
			return
		}
		<-changed
	}
}

var errRefused = errors.New("nobody listens there")

// DialTimeout opens a stream. A host that cannot be reached does not answer; one
// on which nobody listens refuses.
func (e *Endpoint) DialTimeout(address string, limit time.Duration) (net.Conn, error) {
	n := e.network
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	late := time.NewTimer(limit)
	defer late.Stop()
	from := e.at.Addr().String()
	for {
		n.mu.Lock()
		path, changed, delay := n.both(from, to.Addr().String()), n.changed, n.delay
		gone, there := n.endpoints[e.at.String()] != e, !n.off[to.Addr().String()]
		n.mu.Unlock()
		if gone {
			return nil, errRefused
		}
		if path == open && there {
			time.Sleep(2 * delay)
			return n.connect(e.at, to)
		}
		select {
		case <-changed:
		case <-late.C:
			return nil, fmt.Errorf("open a stream to %s: no answer within %s", address, limit)
		}
	}
}

// DialLocal opens a stream to an address from its own host, which no fault of the
// network keeps from arriving.
func (n *Network) DialLocal(address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	return n.connect(netip.AddrPortFrom(to.Addr(), 9), to)
}

func (n *Network) connect(from, to netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	other := n.endpoints[to.String()]
	if other == nil {
		return nil, errRefused
	}
	near, far := newStream(n, from, to)
	select {
	case other.streams <- far:
	default:
		return nil, errRefused
	}
	n.conns[near], n.conns[far] = true, true
	return near, nil
}

// DialAddressTimeout opens a stream.
func (e *Endpoint) DialAddressTimeout(to memberlist.Address, limit time.Duration) (net.Conn, error) {
	return e.DialTimeout(to.Addr, limit)
}

// Listener takes the endpoint's streams.
func (e *Endpoint) Listener() net.Listener { return listener{e} }

type listener struct{ e *Endpoint }

func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.e.streams:
		return c, nil
	case <-l.e.closed:
		return nil, net.ErrClosed
	}
}

func (l listener) Close() error   { return l.e.Shutdown() }
func (l listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.e.at) }
