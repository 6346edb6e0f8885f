package daemon

import (
	"context"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gitsync"
	"github.com/shoal-dev/shoal/gossip/members"
	"github.com/shoal-dev/shoal/policy"
	"github.com/shoal-dev/shoal/policy/dns"
	"github.com/shoal-dev/shoal/policy/iptables"
	"github.com/shoal-dev/shoal/runtime/agent"
	"github.com/shoal-dev/shoal/runtime/network"
	"github.com/shoal-dev/shoal/runtime/usage"
	"github.com/shoal-dev/shoal/scheduler"
)

// Machine is everything outside of its process and its folders that a daemon
// works with. Local is the machine that the process runs on; the simulation
// makes others. The functions may be called concurrently.
type Machine struct {
	// Listen and Dial are its network, with sockets for root only; Transport is what gossip goes through,
	// nil for the same network.
	Listen    func(ctx context.Context, network, address string) (net.Listener, error)
	Dial      func(ctx context.Context, address string) (net.Conn, error)
	Transport func() (members.Transport, error)
	// Address is where others find it.
	Address func() netip.Addr
	// Network is the range of the link that has one of its addresses; the zero
	// Prefix when none has. nil where all machines share one network.
	Network func(netip.Addr) netip.Prefix
	// Boot is a clock that never steps and that counts while the machine sleeps.
	Boot func() time.Duration

	Repository func(Config) (Repository, error)
	Rules      func() (Rules, error)
	Names      func(Config) Names
	Fabric     func(self network.Peer) (Fabric, error)
	// Containers fills in what takes the place of containerd, CNI, the keeper
	// and the fencer.
	Containers func(*agent.Config)
	// Usage reads what the machine and its pods, given by their cgroups, have
	// used at a time; nil where there is nothing to read.
	Usage func(groups map[string]string, at time.Duration) (usage.Counters, error)
	// ContainerUsage reads the same of the containers of some pods; nil where
	// there is nothing to read.
	ContainerUsage func(groups map[string]string) map[string]map[string]usage.Counter
	// Space reads what is left of the disk of a folder.
	Space func(folder string) (Space, error)
	// Changes brings configurations that take the place of the one that the daemon
	// was started with, as far as they may: the labels and taints of the node. nil
	// where none come.
	Changes <-chan Config
	// Decided is told of every decision of this node, before anybody acts on
	// it. It must not change what it is told.
	Decided func(Turn)
}

// Turn is one decision with all that it was made from: the same inputs give the
// same decision, always.
type Turn struct {
	Snapshot  api.Snapshot
	Board     api.Board
	Facts     api.Facts
	Authority scheduler.Authority
	Now       time.Time
	Decision  scheduler.Decision
}

// Repository is what a daemon needs of the Git repository that it follows. See
// gitsync.Repo.
type Repository interface {
	Run(ctx context.Context) error
	Changed() <-chan struct{}
	Poke()
	Latest() api.Snapshot
	Previous() api.Commit
	Status() []api.UnitStatus
	At(commit api.Commit) (api.Snapshot, error)
	Has(commit api.Commit) bool
	Keep(commits []api.Commit) error
	// Serve gives its objects to another node, and Follow takes theirs while it
	// does not reach what it follows.
	Serve(ctx context.Context, stream io.ReadWriter) error
	Follow(peers func(unit string) []gitsync.Peer)
}

// Rules is what routes traffic. See iptables.Applier.
type Rules interface {
	Set(ctx context.Context, rules policy.RuleSet) error
	Verify() (intact bool, err error)
}

// Names answers DNS. See dns.Server.
type Names interface {
	Set(policy.Zone)
	Run(ctx context.Context) error
}

// Fabric leads to the pods of other nodes. See network.Fabric.
type Fabric interface {
	Set(ctx context.Context, peers []network.Peer) (network.Paths, error)
	Watch(ctx context.Context, changed func()) error
}

// Local is the machine that this process runs on.
func Local() Machine {
	return Machine{
		Listen: func(ctx context.Context, network, address string) (net.Listener, error) {
			if network == "unix" {
				return listenSocket(ctx, address)
			}
			return (&net.ListenConfig{}).Listen(ctx, network, address)
		},
		Dial:       dialPeer,
		Address:    nodeAddress,
		Network:    linkRange,
		Boot:       bootTime,
		Repository: func(cfg Config) (Repository, error) { return openRepository(cfg) },
		Rules:      func() (Rules, error) { return iptables.New() },
		Names: func(cfg Config) Names {
			return dns.New(dns.Config{Address: netip.AddrPortFrom(cfg.ranges().dns, 53), ResolvConf: cfg.Network.ResolvConf})
		},
		Fabric:         func(self network.Peer) (Fabric, error) { return network.NewFabric(self, "") },
		Containers:     func(*agent.Config) {},
		Usage:          usage.Kernel().Read,
		ContainerUsage: usage.Kernel().Containers,
		Space:          diskSpace,
		Decided:        func(Turn) {},
	}
}

// linkRange is the range of the link that has an address.
func linkRange(address netip.Addr) netip.Prefix {
	addrs, _ := net.InterfaceAddrs() // without any nothing is known
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == address {
			return prefix.Masked()
		}
	}
	return netip.Prefix{}
}

// bootTime is a clock that never steps and that counts while the machine sleeps.
func bootTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // Linux has had this clock since 2.6.39
	return time.Duration(t.Nano())
}

// sourceAddress is the address that packets to another one would bear. It is asked
// for every second, so it is no connection of package net, which costs far more.
func sourceAddress(to [4]byte) (netip.Addr, bool) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.Addr{}, false
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was sent
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to, Port: 9}); err != nil {
		return netip.Addr{}, false
	}
	local, err := unix.Getsockname(fd)
	own, ok := local.(*unix.SockaddrInet4)
	if err != nil || !ok {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4(own.Addr), true
}

// nodeAddress is the address from which this machine would reach the world, or
// the first one it has, or that of the loopback interface. Nothing is sent.
func nodeAddress() netip.Addr {
	if addr, ok := sourceAddress([4]byte{192, 0, 2, 1}); ok {
		return addr
	}
	addrs, _ := net.InterfaceAddrs() // without any there is still the loopback
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is4() && prefix.Addr().IsGlobalUnicast() {
			return prefix.Addr()
		}
	}
	return netip.MustParseAddr("127.0.0.1")
}
