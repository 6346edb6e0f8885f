package gossip

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// network is a fleet of cores in virtual time, without goroutines: the same
// seed gives the same run. The consensus is played by the test.
type network struct {
	t       testing.TB
	random  *rand.Rand
	now     time.Duration
	nodes   []*station
	transit []parcel
	delay   time.Duration
	loss    float64
	bytes   map[string]int // sent by each node
	// cut tells whether a message from one node to another is lost.
	cut func(from, to int) bool
	// strangers says that somebody was removed: what it sends is refused.
	strangers bool
}

type station struct {
	*Core
	index   int
	peer    Peer
	private ed25519.PrivateKey
	down    bool
	stalled time.Duration // until when it does nothing
	inbox   []Message     // while it is stalled
}

type parcel struct {
	at       time.Duration
	from, to int
	raw      []byte
}

const tick = 50 * time.Millisecond

func newNetwork(t testing.TB, n int, seed uint64) *network {
	w := &network{
		t: t, random: rand.New(rand.NewPCG(seed, 7)), delay: time.Millisecond, bytes: map[string]int{},
		cut: func(int, int) bool { return false }, now: time.Hour,
	}
	for i := range n {
		raw := make([]byte, ed25519.SeedSize)
		raw[0], raw[1] = byte(i), byte(i>>8)
		private := ed25519.NewKeyFromSeed(raw)
		w.nodes = append(w.nodes, &station{
			index: i, private: private,
			peer: Peer{ID: fmt.Sprintf("id%03d", i), Name: fmt.Sprintf("n%d", i), Key: private.Public().(ed25519.PublicKey), Voter: i < 3},
		})
	}
	for _, s := range w.nodes {
		w.boot(s)
	}
	return w
}

func (w *network) peers() []Peer {
	out := make([]Peer, len(w.nodes))
	for i, s := range w.nodes {
		out[i] = s.peer
	}
	return out
}

// boot starts a node's daemon, with an empty memory.
func (w *network) boot(s *station) {
	s.Core = NewCore(CoreConfig{Fleet: "f", Self: s.peer, Key: s.private, Boot: int64(w.now)})
	s.SetRoster(w.peers())
	s.down = false
	s.Tick(w.now, wall(w.now))
	if err := s.SetOwn(w.now, Info, api.NodeInfo{Name: s.peer.Name, PodCIDR: "10.64.0.0/24"}); err != nil {
		w.t.Fatal(err)
	}
}

func wall(now time.Duration) time.Time { return time.Unix(1700000000, 0).Add(now) }

// raft lets a node lead the consensus, and all others that it reaches know it.
func (w *network) raft(leader int, term uint64) {
	a := Authority{Leader: w.nodes[leader].peer.ID, Quorate: true, Epoch: 1, Term: term}
	for _, s := range w.nodes {
		switch {
		case s.down || !s.peer.Voter:
		case s.index == leader || !w.cut(leader, s.index):
			s.SetRaft(w.now, a)
		default:
			s.SetRaft(w.now, Authority{})
		}
	}
}

// run lets time pass.
func (w *network) run(d time.Duration) {
	for end := w.now + d; w.now < end; w.now += tick {
		w.deliver()
		for _, s := range w.nodes {
			if s.down || w.now < s.stalled {
				continue
			}
			for _, m := range s.inbox {
				w.take(s, m)
			}
			s.inbox = nil
			s.Tick(w.now, wall(w.now))
			w.collect(s)
			for _, event := range s.Events() {
				w.t.Logf("%8s %s %s", w.now-time.Hour, s.peer.Name, event)
			}
		}
		w.deliver()
	}
}

func (w *network) collect(s *station) {
	for _, m := range s.Ready() {
		raw, err := json.Marshal(m)
		if err != nil {
			w.t.Fatal(err)
		}
		w.bytes[s.peer.ID] += len(raw)
		to := slices.IndexFunc(w.nodes, func(o *station) bool { return o.peer.ID == m.To })
		if to < 0 {
			w.t.Fatalf("a message to %q", m.To)
		}
		if w.cut(s.index, to) || w.random.Float64() < w.loss {
			continue
		}
		w.transit = append(w.transit, parcel{w.now + w.delay, s.index, to, raw})
	}
}

// deliver hands over what has arrived, in order, and what that leads to.
func (w *network) deliver() {
	late := w.transit[:0:0]
	for i := 0; i < len(w.transit); i++ { // it grows meanwhile
		p := w.transit[i]
		if p.at > w.now {
			late = append(late, p)
			continue
		}
		s := w.nodes[p.to]
		if s.down || w.cut(p.from, p.to) {
			continue
		}
		var m Message
		if err := Decode(p.raw, &m); err != nil {
			w.t.Fatalf("%v: %s", err, p.raw)
		}
		if w.now < s.stalled {
			s.inbox = append(s.inbox, m)
			continue
		}
		w.take(s, m)
		w.collect(s)
	}
	w.transit = late
}

func (w *network) take(s *station, m Message) {
	if err := s.Step(w.now, m); err != nil && !w.strangers {
		w.t.Fatalf("%s: %v", s.peer.Name, err)
	}
}

// until runs until a condition holds, and returns how long that took.
func (w *network) until(limit time.Duration, what string, ok func() bool) time.Duration {
	w.t.Helper()
	begin := w.now
	for !ok() {
		if w.now-begin > limit {
			w.t.Fatalf("not within %s: %s\n%s", limit, what, w)
		}
		w.run(tick)
	}
	return w.now - begin
}

// String shows what each node believes.
func (w *network) String() string {
	out := ""
	for _, s := range w.nodes {
		if s.down {
			out += s.peer.Name + " is down\n"
			continue
		}
		a, age := s.Authority()
		out += fmt.Sprintf("%s follows %s, heard %s ago; leads %v; %d nodes known; unwell %v\n", s.peer.Name, s.named(a), age, s.Leads(), len(s.Board().Nodes), s.Board().Health)
	}
	return out
}

// follow waits until all nodes that are up follow one.
func (w *network) follow(limit time.Duration, leader int, among ...int) time.Duration {
	w.t.Helper()
	return w.until(limit, fmt.Sprintf("all follow n%d", leader), func() bool {
		for _, s := range w.nodes {
			if s.down || len(among) > 0 && !slices.Contains(among, s.index) {
				continue
			}
			if a, age := s.Authority(); a.Leader != w.nodes[leader].peer.ID || age > 2*RenewEvery {
				return false
			}
		}
		return true
	})
}

func (s *station) status(name string) api.NodeStatus {
	return s.Board().HealthOf(name).Status
}

// split cuts the network into parts.
func split(parts ...[]int) func(from, to int) bool {
	return func(from, to int) bool {
		for _, part := range parts {
			if slices.Contains(part, from) {
				return !slices.Contains(part, to)
			}
		}
		return from != to
	}
}

// agree waits until all nodes that are up know the same.
func (w *network) agree(limit time.Duration) time.Duration {
	w.t.Helper()
	return w.until(limit, "all know the same", func() bool {
		var sum *Hash
		for _, s := range w.nodes {
			if s.down {
				continue
			}
			hash := s.records.Hash(false)
			if sum != nil && *sum != hash {
				return false
			}
			sum = &hash
		}
		return true
	})
}
