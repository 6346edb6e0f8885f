package members

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/shoal-dev/shoal/gossip/identity"
)

// Port is where nodes gossip when nothing else is said.
const Port = 7946

// Times of this room. memberlist's own are its defaults for local networks: with
// faster ones a node that stalls for a second is taken for dead (measured: 156
// times in ten minutes).
const (
	glance      = time.Second     // how often keys and addresses are looked at
	rejoinEvery = 5 * time.Second // how often those that are missing are looked for
	streamLimit = 4 * time.Second // of one attempt to join
	leaveLimit  = time.Second     // of saying goodbye
)

// Transport is what memberlist talks through.
type Transport = memberlist.Transport

// Config says which node this is and whom it belongs to. The functions may be
// called concurrently, and must not call Members.
type Config struct {
	Node  identity.Node
	Fleet string // the fleet's ID
	Dir   string // of the file of addresses
	// Bind is the host:port to gossip on, with TCP and UDP. The host may be
	// empty, and the port 0.
	Bind string
	// Advertise returns the host:port at which peers reach this node's
	// streams. The host is also where it gossips. When it changes, the node is
	// found at the new address.
	Advertise func() string
	// Keys returns the keys that gossip is encrypted with, newest last, of 16,
	// 24 or 32 bytes. All are understood; a new one is used when the others
	// have it too.
	Keys func() [][]byte
	// Member returns the key of a member, or why a node is none.
	Member func(id string) (ed25519.PublicKey, error)
	// Roster returns the members and the peer addresses that are known of
	// them besides.
	Roster func() map[string][]string
	// Seeds returns addresses to look for the fleet at: host or host:port of
	// gossip. May be nil.
	Seeds func() []string
	// Transport opens what memberlist talks through; nil is the network of
	// this machine, on Bind.
	Transport func() (Transport, error)
	// Say is told what people may want to know. It must not wait.
	Say func(text string)
}

// Members knows where the nodes of the fleet are. Its methods may be called
// concurrently.
type Members struct {
	cfg     Config
	table   *table
	file    file
	changed chan struct{}
	urgent  chan struct{} // somebody is not there any more

	mu   sync.Mutex
	said map[string]time.Time
	busy map[string]bool // who is being looked for
}

// New returns a Members that knows what it knew before, and talks to nobody
// before Run.
func New(cfg Config) *Members {
	m := &Members{
		cfg: cfg, table: newTable(cfg.Node, cfg.Fleet, cfg.Member), file: file{filepath.Join(cfg.Dir, "members")},
		changed: make(chan struct{}, 1), urgent: make(chan struct{}, 1), said: map[string]time.Time{}, busy: map[string]bool{},
	}
	cards, err := m.file.load()
	if err != nil {
		m.say("file", err.Error())
	}
	m.table.restore(cards)
	return m
}

// Addresses returns the peer addresses by which a member has last called itself;
// none when it is not known, or is no member.
func (m *Members) Addresses(id string) []string {
	if _, err := m.cfg.Member(id); err != nil {
		return nil
	}
	if c, known := m.table.card(id); known {
		return []string{c.peer}
	}
	return nil
}

// Alive returns the IDs of the members that memberlist takes to be there, this
// node included, sorted. It learns of a death after some seconds.
func (m *Members) Alive() []string { return m.table.alive() }

// Changed is poked when Alive or Addresses may be others. One reader only.
func (m *Members) Changed() <-chan struct{} { return m.changed }

// Run gossips until ctx ends, then says goodbye. It returns an error when it
// cannot listen at the start.
func (m *Members) Run(ctx context.Context) error {
	for first := true; ; first = false {
		err := m.session(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case first && errors.Is(err, errListen):
			return err
		case err == nil:
			continue // at another address
		}
		m.say("session", err.Error())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rejoinEvery):
		}
	}
}

// errListen is the error of an address that cannot be listened on.
var errListen = errors.New("listen for gossip")

// session gossips at one address, until that changes or ctx ends.
func (m *Members) session(ctx context.Context) error {
	transport, port, err := m.listen()
	if err != nil {
		return fmt.Errorf("%w on %s: %w (is another daemon running, or set gossip.listen)", errListen, m.cfg.Bind, err)
	}
	advertised := m.cfg.Advertise()
	at, err := m.place(ctx, advertised, port)
	if err == nil {
		err = m.table.own(card{peer: advertised, gossip: at}, uint64(time.Now().UnixNano())) //nolint:gosec // the clock is later than 1970
	}
	var keys *ring
	if err == nil {
		keys, err = newRing(m.cfg.Keys())
	}
	if err != nil {
		return errors.Join(err, transport.Shutdown())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &session{Members: m, ring: keys, at: at, queue: m.newQueue()}
	if s.list, err = memberlist.Create(s.config(transport)); err != nil {
		return errors.Join(fmt.Errorf("start gossip at %s: %w", at, err), transport.Shutdown())
	}
	s.tend(ctx, advertised)
	_ = s.list.Leave(leaveLimit) // who does not hear of it finds out
	err = s.list.Shutdown()
	cancel()
	s.wg.Wait()
	m.table.nobody()
	m.keep()
	return err
}

// listen opens the transport. The port is the one to tell others.
func (m *Members) listen() (memberlist.Transport, int, error) {
	host, service, err := net.SplitHostPort(m.cfg.Bind)
	if err != nil {
		return nil, 0, err
	}
	port, err := strconv.Atoi(service)
	if err != nil {
		return nil, 0, fmt.Errorf("the port %q is no number", service)
	}
	if m.cfg.Transport != nil {
		transport, err := m.cfg.Transport()
		return transport, port, err
	}
	w, err := newWire(host, port)
	if err != nil {
		return nil, 0, err
	}
	return w, w.GetAutoBindPort(), nil
}

// place returns where this node gossips, as others see it.
func (m *Members) place(ctx context.Context, advertised string, port int) (netip.AddrPort, error) {
	host, _, err := net.SplitHostPort(advertised)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("this node's address for peers: %w", err)
	}
	found, err := resolve(ctx, net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("this node's address for peers: %w", err)
	}
	return found[0], nil
}

// resolve returns the addresses of a host and port; Port when there is none.
func resolve(ctx context.Context, address string) ([]netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		host, service = address, strconv.Itoa(Port)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("the port of %q is no number", address)
	}
	ips := make([]netip.Addr, 1)
	if ips[0], err = netip.ParseAddr(host); err != nil {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if ips, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
			return nil, err
		}
	}
	var out []netip.AddrPort
	for _, ip := range ips {
		out = append(out, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
	}
	return out, nil
}

// keep writes the addresses to disk when there are new ones.
func (m *Members) keep() {
	cards, dirty := m.table.take()
	if !dirty {
		return
	}
	if err := m.file.save(cards); err != nil {
		m.say("file", err.Error())
		m.table.spoil()
	}
}

// poke tells that something may have changed.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// say says something, about each subject once a minute.
func (m *Members) say(about, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if last, said := m.said[about]; said && now.Sub(last) < time.Minute {
		return
	}
	if len(m.said) > 1000 {
		clear(m.said)
	}
	m.said[about] = now
	m.cfg.Say(text)
}

// config is memberlist's, at its defaults for local networks but for what is
// said here.
func (s *session) config(transport memberlist.Transport) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = s.cfg.Node.ID
	c.Label = s.cfg.Fleet
	c.Transport = transport
	c.BindPort = int(s.at.Port())
	c.AdvertiseAddr, c.AdvertisePort = s.at.Addr().String(), int(s.at.Port())
	c.Keyring = s.ring.Keyring
	c.EnableCompression = false // it costs more than it saves on small packets
	c.DeadNodeReclaimTime = 1   // who is dead may come back elsewhere at once: cards say who it is
	c.TCPTimeout = streamLimit  // so that a heal is noticed soon
	c.LogOutput = io.Discard    // what matters is said here
	d := &delegate{s}
	c.Delegate, c.Events, c.Alive, c.Merge, c.Conflict = d, d, d, d, d
	return c
}
