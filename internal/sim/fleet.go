package sim

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/daemon"
	"github.com/shoal-dev/shoal/internal/simnet"
	"github.com/shoal-dev/shoal/policy/policytest"
	"github.com/shoal-dev/shoal/runtime/fence"
	"github.com/shoal-dev/shoal/runtime/runtimetest"
)

// image is what all pods run.
const image = "example.com/app:1"

// Fleet is a fleet in memory. Its methods are for one goroutine, the test's.
type Fleet struct {
	t       testing.TB
	net     *simnet.Network
	git     *origin
	nodes   []*node
	files   map[string]string // in the newest commit
	referee *referee
	journal *journal
	begin   time.Time
	over    chan struct{}

	mu    sync.Mutex
	story bytes.Buffer
}

// node is one machine.
type node struct {
	fleet *Fleet
	name  string
	host  string
	dir   string
	disks int // how often the state folder was copied

	mirror  *mirror
	engine  *runtimetest.Memory
	network *runtimetest.Network
	logs    *runtimetest.Logs
	rules   *policytest.Memory
	fencer  *fencer

	labels, taints []string           // of its configuration
	changes        chan daemon.Config // to its daemon
	apart          bool               // from the others, by a fault of the network
	joined         time.Time          // when it was last started, or not apart any more
	removed        bool               // from the fleet
	down           bool               // the machine is
	boots          int                // how often it was started
	killed         time.Time          // when its daemon ended last
	stalled        time.Time          // since when; zero when it is not

	life   *life // of its daemon; nil while none runs
	cancel context.CancelFunc
	done   chan struct{}  // closed when it has ended
	dying  sync.WaitGroup // daemons that were killed, and have not noticed yet
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// New founds a fleet of n nodes, n1 to nN, and waits until all are in it. It must
// be called in a bubble of testing/synctest, and ended with End.
func New(t testing.TB, n int, seed uint64, folder string) *Fleet {
	t.Helper()
	f := &Fleet{t: t, net: simnet.New(seed), git: &origin{}, files: map[string]string{}, begin: time.Now(), over: make(chan struct{})}
	f.net.SetDelay(time.Millisecond)
	f.referee, f.journal = newReferee(f), newJournal(f.git)
	for i := range n {
		f.nodes = append(f.nodes, newNode(f, i+1, folder))
	}
	go f.fence()
	first := f.nodes[0]
	first.start()
	for _, other := range f.nodes[1:] {
		f.join(first, other)
		other.start()
	}
	f.within(30*time.Second, "all are in the fleet", f.whole)
	return f
}

func newNode(f *Fleet, number int, folder string) *node {
	n := &node{
		fleet: f, name: fmt.Sprint("n", number), host: fmt.Sprint("10.1.0.", number), rules: &policytest.Memory{},
		logs: &runtimetest.Logs{}, engine: runtimetest.NewMemory(image),
	}
	n.dir = filepath.Join(folder, n.name)
	n.network = &runtimetest.Network{PodCIDR: netip.MustParsePrefix(fmt.Sprintf("10.64.%d.0/24", number-1))}
	n.mirror = &mirror{origin: f.git, host: n.host, accepted: map[api.Commit]bool{}}
	n.fencer = &fencer{engine: n.engine, boot: f.boot, pods: map[string]fence.Pod{}}
	n.engine.Observe = func(c runtimetest.Change) { f.referee.saw(n, c) }
	return n
}

// fence does the work of all fencers, until the fleet ends.
func (f *Fleet) fence() {
	for {
		select {
		case <-f.over:
			return
		case <-time.After(50 * time.Millisecond):
		}
		for _, n := range f.nodes {
			n.fencer.tick()
		}
	}
}

// boot is the clock of all machines.
func (f *Fleet) boot() time.Duration { return time.Since(f.begin) + time.Hour }

// note writes a line into the story of the fleet.
func (f *Fleet) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tell(fmt.Appendf(nil, "%8.3f %s\n", time.Since(f.begin).Seconds(), fmt.Sprintf(format, args...)))
}

// diary takes a daemon's log into the story, for as long as the daemon lives.
type diary struct {
	f    *Fleet
	life *life
}

func (d diary) Write(b []byte) (int, error) {
	f := d.f
	if !d.life.alive() {
		return len(b), nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tell(append(fmt.Appendf(nil, "%8.3f   ", time.Since(f.begin).Seconds()), b...))
	return len(b), nil
}

// Live is where stories are told while they happen; nil for nowhere.
var Live io.Writer

// tell adds to the story. f.mu is held.
func (f *Fleet) tell(b []byte) {
	f.story.Write(b)
	if Live != nil {
		_, _ = Live.Write(b) // for somebody who watches
	}
}

func (n *node) config() daemon.Config {
	cfg := daemon.Default()
	cfg.Node, cfg.Repository.URL = n.name, "sim://repository"
	cfg.State, cfg.Run = filepath.Join(n.dir, fmt.Sprint("state", n.disks)), filepath.Join(n.dir, "run")
	cfg.NodeLabels, cfg.NodeTaints = n.labels, n.taints
	if n.name != "n1" {
		cfg.Gossip.Seeds = []string{"10.1.0.1"}
	}
	return cfg
}

// join lets a node into the fleet of another one.
func (f *Fleet) join(member, other *node) {
	f.t.Helper()
	var token string
	f.within(10*time.Second, member.name+" makes a token", func() error {
		var err error
		token, err = member.client().Command(f.t.Context(), "/token", map[string]string{"ttl": "1h"})
		return err
	})
	life := &life{}
	m := other.machine(life)
	_, err := m.Join(f.t.Context(), other.config(), member.host, token)
	if err != nil {
		f.t.Fatalf("%s joins: %v", other.name, err)
	}
	f.net.Kill(other.host)
}

// client asks the node's daemon, past all faults of the network.
func (n *node) client() *daemon.Client {
	return daemon.NewClientOn(func(ctx context.Context) (net.Conn, error) { return n.fleet.net.DialLocal(n.host + ":10") })
}

// start runs the node's daemon.
func (n *node) start() {
	n.dying.Wait()
	n.life = &life{}
	log := slog.New(slog.NewTextHandler(diary{n.fleet, n.life}, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})).With("at", n.name)
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.done = cancel, make(chan struct{})
	m, cfg, done, life := n.machine(n.life), n.config(), n.done, n.life
	n.changes = make(chan daemon.Config, 8)
	m.Changes = n.changes
	go func() {
		err := m.Run(ctx, cfg, "sim", log)
		if err != nil && life.alive() {
			n.fleet.referee.accuse("the daemon of %s ended: %v", n.name, err)
		}
		close(done)
	}()
}

// kill ends the daemon as SIGKILL does. Its containers and the fencer run on.
func (n *node) kill() { n.fell(n.fleet.net.Kill) }

// crash ends the whole machine without a word.
func (n *node) crash() {
	n.fell(n.fleet.net.Crash)
	n.boots++
	n.fencer.clear()
	n.engine.Reboot()
	n.network.Reboot()
	n.rules.Flush()
	n.logs.Reboot()
	_ = os.RemoveAll(n.config().Run)
}

// fell ends the daemon at once: what it does from now on, nobody sees.
func (n *node) fell(silence func(host string)) {
	if n.life == nil {
		return
	}
	n.life.end()
	silence(n.host)
	synctest.Wait() // what was being written is written
	old := n.config().State
	n.disks++
	if err := os.CopyFS(n.config().State, os.DirFS(old)); err != nil {
		n.fleet.t.Fatalf("copy the disk of %s: %v", n.name, err)
	}
	cancel, done := n.cancel, n.done
	n.life = nil
	cancel()
	n.dying.Go(func() {
		<-done
		_ = os.RemoveAll(old) // or with the test's folder
	})
}

// stop ends the daemon as systemd does.
func (n *node) stop() {
	if n.life == nil {
		return
	}
	n.cancel()
	<-n.done
	n.life.end()
	n.life = nil
	n.fleet.net.Kill(n.host)
}

// End ends the fleet and reports what the referee has seen.
func (f *Fleet) End() {
	for _, n := range f.nodes {
		n.fell(f.net.Crash)
	}
	for _, n := range f.nodes {
		n.dying.Wait()
	}
	close(f.over)
	time.Sleep(10 * time.Minute) // memberlist's goroutines end some time after it
	if accusations := f.referee.verdict(); len(accusations) > 0 {
		f.t.Errorf("the referee saw:\n%s\n%s\nstory:\n%s", bytes.Join(accusations, []byte("\n")), f.journal.keep(), f.tale())
	}
}

// tale returns the story, its end when it is long.
func (f *Fleet) tale() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	story := f.story.Bytes()
	if most := 60_000; len(story) > most {
		story = story[len(story)-most:]
	}
	return bytes.Clone(story)
}

// pass lets time pass, under the referee's eyes.
func (f *Fleet) pass(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(min(glance, time.Until(end)))
		f.referee.look()
	}
}

// glance is how often the referee looks at what no event tells of.
const glance = 250 * time.Millisecond

// within waits until something holds, and returns how long that took. It fails
// the test when it does not within the limit.
func (f *Fleet) within(limit time.Duration, what string, holds func() error) time.Duration {
	f.t.Helper()
	begin := time.Now()
	for {
		err := holds()
		if err == nil {
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			f.referee.accuse("not within %s: %s: %v", limit, what, err)
			return time.Since(begin)
		}
		f.pass(glance)
	}
}
