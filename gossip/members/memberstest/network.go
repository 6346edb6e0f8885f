package memberstest

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

// Network connects endpoints. Its methods may be called concurrently.
type Network struct {
	mu        sync.Mutex
	endpoints map[string]*Endpoint // by address
	part      map[string]int       // of the network, by host
	stalled   map[string]chan struct{}
	delay     time.Duration
	loss      float64
	random    *rand.Rand
	bytes     uint64
}

// New returns a network without faults. The seed decides which packets are lost.
func New(seed uint64) *Network {
	return &Network{
		endpoints: map[string]*Endpoint{}, part: map[string]int{}, stalled: map[string]chan struct{}{},
		random: rand.New(rand.NewPCG(seed, 1)), //nolint:gosec // it must be the same each time
	}
}

// SetDelay makes every packet, and every write to a stream, that late.
func (n *Network) SetDelay(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
}

// SetLoss makes a share of the packets get lost, of 0 to 1. Streams lose nothing.
func (n *Network) SetLoss(share float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = share
}

// Split cuts the network into parts of hosts that do not hear of each other.
// Hosts that are not named stay together.
func (n *Network) Split(parts ...[]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.part)
	for i, hosts := range parts {
		for _, host := range hosts {
			n.part[host] = i + 1
		}
	}
}

// Heal makes it one network again.
func (n *Network) Heal() { n.Split() }

// Stall holds back everything from and to a host until Resume.
func (n *Network) Stall(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stalled[host] == nil {
		n.stalled[host] = make(chan struct{})
	}
}

// Resume lets a host go on, with all that was held back.
func (n *Network) Resume(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.stalled[host]; c != nil {
		close(c)
		delete(n.stalled, host)
	}
}

// Bytes returns how much was sent in all.
func (n *Network) Bytes() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.bytes
}

// cut reports whether two hosts do not hear of each other.
func (n *Network) cut(a, b string) bool { return n.part[a] != n.part[b] }

// wait returns what to wait for before anything passes between two hosts; nil for
// nothing.
func (n *Network) wait(a, b string) chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.stalled[a]; c != nil {
		return c
	}
	return n.stalled[b]
}

// queueLength is how many packets wait for a node; more are lost.
const queueLength = 1024

// Endpoint is one node's end of the network, until its Shutdown.
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
	if n.endpoints[address] != nil {
		return nil, fmt.Errorf("the address %s is in use", address)
	}
	e := &Endpoint{
		network: n, at: at, packets: make(chan *memberlist.Packet, queueLength), streams: make(chan net.Conn, queueLength), closed: make(chan struct{}),
	}
	e.end = sync.OnceFunc(func() { close(e.closed) })
	n.endpoints[address] = e
	return e, nil
}

// Crash takes the address away at once: what is sent to it is lost, and what the
// node does from now on is not heard of.
func (n *Network) Crash(address string) {
	n.mu.Lock()
	e := n.endpoints[address]
	delete(n.endpoints, address)
	n.mu.Unlock()
	if e != nil {
		e.end()
	}
}

// Shutdown leaves the network.
func (e *Endpoint) Shutdown() error {
	e.network.mu.Lock()
	if e.network.endpoints[e.at.String()] == e {
		delete(e.network.endpoints, e.at.String())
	}
	e.network.mu.Unlock()
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
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(e.at), Timestamp: now}
	n.mu.Lock()
	lost := n.random.Float64() < n.loss || n.endpoints[e.at.String()] != e || n.cut(e.at.Addr().String(), to.Addr().String())
	n.bytes += uint64(len(b))
	delay := n.delay
	n.mu.Unlock()
	if !lost {
		time.AfterFunc(delay, func() { n.deliver(p, e.at.Addr().String(), to) })
	}
	return now, nil
}

// deliver hands a packet over once neither end is stalled.
func (n *Network) deliver(p *memberlist.Packet, from string, to netip.AddrPort) {
	for c := n.wait(from, to.Addr().String()); c != nil; c = n.wait(from, to.Addr().String()) {
		<-c
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.endpoints[to.String()]
	if e == nil || n.cut(from, to.Addr().String()) {
		return
	}
	p.Timestamp = time.Now()
	select {
	case e.packets <- p:
	default: // nobody reads them
	}
}

// WriteToAddress sends a packet.
func (e *Endpoint) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	return e.WriteTo(b, to.Addr)
}

var errRefused = errors.New("nobody listens there")

// DialTimeout opens a stream.
func (e *Endpoint) DialTimeout(address string, limit time.Duration) (net.Conn, error) {
	n := e.network
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	late := time.NewTimer(limit)
	defer late.Stop()
	n.mu.Lock()
	silent := n.cut(e.at.Addr().String(), to.Addr().String()) || n.endpoints[e.at.String()] != e
	other, delay := n.endpoints[address], n.delay
	n.mu.Unlock()
	wait := n.wait(e.at.Addr().String(), to.Addr().String())
	if silent || other == nil {
		wait = make(chan struct{}) // a machine that is gone does not even refuse
	} else if wait == nil {
		wait = make(chan struct{})
		time.AfterFunc(2*delay, func() { close(wait) })
	}
	select {
	case <-wait:
	case <-late.C:
		return nil, fmt.Errorf("open a stream to %s: no answer within %s", address, limit)
	case <-e.closed:
		return nil, errRefused
	}
	near, far := net.Pipe()
	a, b := &conn{Conn: near, from: e, to: to}, &conn{Conn: far, from: other, to: e.at}
	a.ends(e.closed)
	b.ends(other.closed)
	select {
	case other.streams <- b:
		return a, nil
	default:
		return nil, errRefused
	}
}

// DialAddressTimeout opens a stream.
func (e *Endpoint) DialAddressTimeout(to memberlist.Address, limit time.Duration) (net.Conn, error) {
	return e.DialTimeout(to.Addr, limit)
}
