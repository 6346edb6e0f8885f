package sim

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-dev/shoal/daemon"
	"github.com/shoal-dev/shoal/gossip/members"
	"github.com/shoal-dev/shoal/policy"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/agent"
	"github.com/shoal-dev/shoal/runtime/fence"
	"github.com/shoal-dev/shoal/runtime/network"
	"github.com/shoal-dev/shoal/runtime/runtimetest"
)

// machine returns what the node's daemon works with, for as long as life lasts.
func (n *node) machine(life *life) daemon.Machine {
	f := n.fleet
	source, err := f.net.Listen(n.host + ":1")
	if err != nil {
		panic("sim: " + err.Error()) // the last daemon has ended
	}
	return daemon.Machine{
		Listen: func(_ context.Context, kind, address string) (net.Listener, error) {
			if kind == "unix" {
				address = ":10"
			}
			e, err := f.net.Listen(n.host + address)
			if err != nil {
				return nil, err
			}
			return e.Listener(), nil
		},
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			limit := 5 * time.Second
			if deadline, set := ctx.Deadline(); set {
				limit = time.Until(deadline)
			}
			return source.DialTimeout(address, limit)
		},
		Transport:  func() (members.Transport, error) { return f.net.Listen(n.host + ":7946") },
		Address:    func() netip.Addr { return netip.MustParseAddr(n.host) },
		Boot:       func() time.Duration { return f.boot() },
		Repository: func(daemon.Config) (daemon.Repository, error) { return n.mirror.reopen(), nil },
		Rules:      func() (daemon.Rules, error) { return n.rules, nil },
		Names:      func(daemon.Config) daemon.Names { return names{} },
		Fabric:     func(network.Peer) (daemon.Fabric, error) { return fabric{}, nil },
		Containers: func(c *agent.Config) {
			c.Engine, c.Network, c.Logs = &engine{n.engine, life}, n.network, n.logs
			c.Fencer, c.Boot, c.Confined = n.fencer, f.boot, true
			n.engine.SetPeers(c.Peers)
			c.BootID = fmt.Sprint(n.name, " ", n.boots)
		},
		Space: func(string) (daemon.Space, error) {
			if n.mirror.filled() {
				return daemon.Space{}, nil
			}
			return daemon.Space{Bytes: 1 << 40, Files: -1}, nil
		},
		Decided: func(t daemon.Turn) {
			if life.alive() {
				f.referee.decided(n, life, t)
				f.journal.add(n.name, t)
			}
		},
	}
}

// life is one run of a daemon: once it is over, nothing that is left of the
// daemon has any effect.
type life struct {
	mu    sync.Mutex
	over  bool
	now   time.Time // of the last decision
	turns int       // at that time
}

// turn notes a decision, and returns how many there were at that time.
func (l *life) turn(now time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !now.Equal(l.now) {
		l.now, l.turns = now, 0
	}
	l.turns++
	return l.turns
}

func (l *life) alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.over
}

func (l *life) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
}

// engine is the node's containers as one daemon reaches them.
type engine struct {
	*runtimetest.Memory
	life *life
}

func (e *engine) check() error {
	if !e.life.alive() {
		return runtime.ErrUnavailable
	}
	return nil
}

func (e *engine) Create(ctx context.Context, s runtime.ContainerSpec) error {
	if err := e.check(); err != nil {
		return err
	}
	return e.Memory.Create(ctx, s)
}

func (e *engine) Start(ctx context.Context, id string) (int, error) {
	if err := e.check(); err != nil {
		return 0, err
	}
	return e.Memory.Start(ctx, id)
}

func (e *engine) Kill(ctx context.Context, id string, s syscall.Signal, all bool) error {
	if err := e.check(); err != nil {
		return err
	}
	return e.Memory.Kill(ctx, id, s, all)
}

func (e *engine) Remove(ctx context.Context, id string) error {
	if err := e.check(); err != nil {
		return err
	}
	return e.Memory.Remove(ctx, id)
}

func (e *engine) Record(ctx context.Context, c runtime.Container) error {
	if err := e.check(); err != nil {
		return err
	}
	return e.Memory.Record(ctx, c)
}

// targets returns the addresses that rules send traffic to, sorted.
func targets(set policy.RuleSet) []string {
	var out []string
	for _, chain := range set.NAT {
		for _, rule := range chain.Rules {
			if _, to, found := strings.Cut(rule, "--to-destination "); found {
				host, _, _ := strings.Cut(to, ":")
				out = append(out, host)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

type names struct{}

func (names) Set(policy.Zone)               {}
func (names) Run(ctx context.Context) error { <-ctx.Done(); return nil }

type fabric struct{}

func (fabric) Set(context.Context, []network.Peer) (network.Paths, error) {
	return network.Paths{}, nil
}

func (fabric) Watch(ctx context.Context, _ func()) error { <-ctx.Done(); return nil }

// fencer ends exclusive pods in memory. It is a process of its own: it goes on
// when the daemon is killed, and ends with the machine.
type fencer struct {
	engine *runtimetest.Memory
	boot   func() time.Duration

	mu    sync.Mutex
	pods  map[string]fence.Pod
	lease fence.Lease
}

func (f *fencer) Hold(_ context.Context, p fence.Pod) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pods[p.Instance] = p
	return nil
}

func (f *fencer) Release(_ context.Context, instance string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pods, instance)
	return nil
}

func (f *fencer) Renew(_ context.Context, l fence.Lease) ([]string, error) {
	fenced := f.tick()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lease = f.lease.Newer(l)
	return fenced, nil
}

func (f *fencer) Held(context.Context) ([]fence.Pod, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []fence.Pod
	for _, p := range f.pods {
		out = append(out, p)
	}
	return out, nil
}

func (f *fencer) Degraded() []string { return nil }

// tick ends what must end now.
func (f *fencer) tick() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var pods []fence.Pod
	for _, p := range f.pods {
		pods = append(pods, p)
	}
	fenced := fence.Decide(fence.State{Lease: f.lease, Pods: pods}, f.boot()).Kill
	held, _ := f.engine.List(context.Background())
	for _, c := range held {
		if c.State == runtime.ContainerRunning && slices.Contains(fenced, c.Assignment.Pod.Instance) {
			f.engine.Crash(c.ID, 137)
		}
	}
	return fenced
}

// clear forgets everything, as a reboot does.
func (f *fencer) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pods, f.lease = map[string]fence.Pod{}, fence.Lease{}
}
