package fleet

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/consensus"
	"github.com/shoal-dev/shoal/gossip/identity"
	"github.com/shoal-dev/shoal/gossip/members"
	"github.com/shoal-dev/shoal/gossip/peer"
)

// Config says which node this is and what it has at hand. The functions may be
// called concurrently.
type Config struct {
	Dir  string // of the files of this room
	Node identity.Node
	Name string
	// Listener takes the connections of peers. Run closes it.
	Listener net.Listener
	// Dial connects to an address.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Boot is a clock that never steps and that counts while the machine sleeps.
	Boot func() time.Duration
	// Answer answers questions of members that are not this room's own.
	Answer func(ctx context.Context, from, kind string, question []byte) ([]byte, error)
	// Serve serves an opaque stream that a member has opened.
	Serve func(ctx context.Context, from, kind string, stream peer.Stream) error
	// Authority returns the API's authority with its key, to be given to
	// voters and to sign for nodes that join.
	Authority Authority
	// Gossip says where to gossip: its Bind, Advertise, Seeds and Transport.
	// Without a Bind this node knows others by the ledger and their records only.
	Gossip members.Config
	// Say is told what people may want to know. It must not wait.
	Say func(text string)
}

// Authority signs certificates for the API. A node that does not vote has no key
// for it.
type Authority interface {
	// Sign signs a request for a server certificate; an error when there is no
	// key.
	Sign(request []byte) (certificate []byte, err error)
	// SignClient does the same for a user's certificate.
	SignClient(request []byte) (certificate []byte, err error)
	// Export returns the authority's certificate, and its key, nil when there
	// is none.
	Export() (certificate, key []byte)
	// Import takes over the key.
	Import(certificate, key []byte) error
	// Pinned returns what a node that joins must know of the fleet besides.
	Pinned() identity.Fleet
}

// Fleet is this node's part in its fleet. Its methods may be called concurrently.
type Fleet struct {
	cfg     Config
	log     *replica
	peers   *peer.Peers
	members *members.Members // nil when this node does not gossip
	keeper  keeper
	guard   guard
	ticks   chan int
	turns   chan struct{} // of tend, every turnEvery
	changed chan struct{}
	voters  []uint64      // that were asked for last; belongs to tend, as do the next ones
	saved   gossip.Ledger // that is on disk
	opened  time.Time     // when the daemon started
	laid    time.Time     // when a recovery was found; belongs to tend
	signs   bool          // this node has the key of the API's authority
	rounds  int
	rotated time.Time // when a gossip key was proposed last; likewise

	mu     sync.Mutex
	core   *gossip.Core
	ledger gossip.Ledger
	byRaft map[uint64]string // IDs of members
	mark   gossip.Mark
	hints  map[string][]string // addresses by ID, from what nodes say of themselves
}

// Open reads this node's part in its fleet. The error is ErrNone where none was
// founded or joined.
func Open(cfg Config) (*Fleet, error) {
	f := &Fleet{
		cfg: cfg, keeper: keeper{filepath.Join(cfg.Dir, "ledger")}, ticks: make(chan int, 1), turns: make(chan struct{}, 1), changed: make(chan struct{}, 1),
		hints: map[string][]string{}, opened: time.Now(),
	}
	disk, err := consensus.OpenFolder(filepath.Join(cfg.Dir, "raft"))
	if err != nil {
		return nil, fmt.Errorf("open the consensus: %w", err)
	}
	kept, _ := f.keeper.load() // without it the log must do
	f.log, err = openReplica(disk, consensus.Config{Ticks: f.ticks, Send: f.sendRaft}, kept, cfg.Node)
	if err != nil {
		return nil, errors.Join(err, disk.Close())
	}
	f.ledger = f.log.Ledger()
	if newer(kept, f.ledger) {
		f.ledger = kept
	}
	self, member := f.ledger.Members[cfg.Node.ID]
	if !member {
		return nil, fmt.Errorf("this node (%.12s) is not in the fleet's roster: its state folder is from somewhere else", cfg.Node.ID)
	}
	boot := time.Now().UnixNano()
	f.core = gossip.NewCore(gossip.CoreConfig{
		Fleet: f.ledger.Fleet.ID, Key: cfg.Node.Private, Boot: boot,
		Self: gossip.Peer{ID: cfg.Node.ID, Name: self.Name, Key: cfg.Node.Public},
	})
	f.openMembers()
	f.peers, err = peer.New(peer.Config{
		Node: cfg.Node, Boot: boot, Listener: cfg.Listener, Dial: cfg.Dial, Addresses: f.addresses, Member: f.member,
		Receive: f.receive, Closed: f.closed, Refused: func(why string) { f.do(func() { f.core.SetRefused(why) }) }, Answer: f.answer, Serve: cfg.Serve,
	})
	if err != nil {
		return nil, err
	}
	f.follow()
	return f, nil
}

func newer(a, b gossip.Ledger) bool {
	return a.Epoch > b.Epoch || a.Epoch == b.Epoch && a.Index > b.Index
}

// Run takes part until ctx ends.
func (f *Fleet) Run(ctx context.Context) error {
	defer f.log.disk.Close() //nolint:errcheck // what matters was synced
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.peers.Run(ctx) })
	g.Go(func() error { return f.log.Run(ctx) })
	g.Go(func() error { return f.tick(ctx) })
	g.Go(func() error { return f.tend(ctx) })
	g.Go(func() error { return f.gossip(ctx) })
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-f.log.Changed():
				f.follow()
			}
		}
	})
	return g.Wait()
}

// tend does what is not urgent: quorum rounds for leases, voters, the ledger's
// copy on disk.
func (f *Fleet) tend(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.turns:
		}
		f.noteHandovers(ctx)
		var round uint64
		if f.rounds++; f.rounds%2 == 0 { // once for every time that nodes renew
			f.do(func() { round = f.core.Round() })
		}
		if round != 0 {
			attempt, cancel := context.WithTimeout(ctx, gossip.RenewEvery)
			if f.log.Verify(attempt) == nil {
				f.follow() // what was agreed on before the round counts in it
				f.do(func() { f.core.Verified(round) })
			}
			cancel()
		}
		f.elect(ctx)
		f.rejoin(ctx)
		f.takeLedger(ctx)
		if f.rounds%4 == 0 { // whoever laid a recovery down waits for a second
			f.recover(ctx)
		}
		f.fetchAuthority(ctx)
		f.rotate(ctx)
	}
}

// elect sees to it that the right nodes vote.
func (f *Fleet) elect(ctx context.Context) {
	if !f.log.State().Leads {
		f.voters = nil
		return
	}
	f.mu.Lock()
	health := map[string]api.NodeHealth{}
	for _, h := range f.core.Health() {
		if m, known := f.ledger.Member(h.Node); known {
			health[m.ID] = h
		}
	}
	f.mu.Unlock()
	wanted := gossip.WantedVoters(f.log.Ledger(), health, time.Now())
	if slices.Equal(wanted, f.voters) {
		return
	}
	if f.log.SetVoters(ctx, wanted) == nil {
		f.voters = wanted
	}
}

// takeLedger takes in the ledger that a leader has sent, for nodes that have no
// part in the consensus, and keeps it on disk.
func (f *Fleet) takeLedger(ctx context.Context) {
	var raw []byte
	f.do(func() { raw = f.core.TakeLedger() })
	if raw != nil {
		l, err := gossip.DecodeLedger(raw)
		if err == nil {
			err = l.Succeeds(f.log.Ledger())
		}
		if err == nil {
			err = f.log.Inform(ctx, l)
		}
		if err != nil {
			f.cfg.Say(fmt.Sprintf("the leader's ledger: %v", err))
		} else {
			f.follow()
		}
	}
	f.mu.Lock()
	l := f.ledger
	f.mu.Unlock()
	if l.Index != f.saved.Index || l.Epoch != f.saved.Epoch {
		f.keeper.save(l)
		f.saved = l
	}
}

// follow takes in what the consensus says.
func (f *Fleet) follow() {
	state, ledger := f.log.State(), f.log.Ledger()
	f.do(func() {
		if newer(ledger, f.ledger) || f.byRaft == nil {
			f.adopt(ledger)
		}
		a := gossip.Authority{Quorate: true, Epoch: state.Epoch, Term: state.Term}
		if state.Failed == nil && state.Leader != 0 {
			a.Leader = f.byRaft[state.Leader]
		}
		if a.Leader == "" || a.Leader == f.cfg.Node.ID && !state.Leads {
			a = gossip.Authority{}
		}
		f.core.SetRaft(f.cfg.Boot(), a)
	})
}

// adopt makes a ledger the one that is in force. f.mu is held.
func (f *Fleet) adopt(l gossip.Ledger) {
	if newer(l, f.ledger) {
		f.ledger = l
	}
	f.byRaft = map[uint64]string{}
	var peers []gossip.Peer
	for id, m := range f.ledger.Members {
		if !m.Removed {
			f.byRaft[m.RaftID] = id
		}
		peers = append(peers, gossip.Peer{ID: id, Name: m.Name, Key: m.Key, Voter: f.ledger.Votes(m.RaftID), Removed: m.Removed, Handover: m.Handover})
	}
	f.core.SetRoster(peers)
	if raw, err := f.ledger.Encode(); err == nil {
		f.core.SetLedger(f.ledger.Epoch, f.ledger.Index, raw)
	}
}

// do does something with the core, then sends what comes of it.
func (f *Fleet) do(what func()) {
	f.mu.Lock()
	what()
	messages, events := f.core.Ready(), f.core.Events()
	mark := f.core.Mark()
	news := mark != f.mark
	f.mark = mark
	f.mu.Unlock()
	for _, m := range messages {
		if err := f.peers.Send(m); err != nil {
			f.cfg.Say(err.Error())
		}
	}
	for _, e := range events {
		f.cfg.Say(e)
	}
	if news {
		select {
		case f.changed <- struct{}{}:
		default:
		}
	}
}

// receive takes a message from a peer.
func (f *Fleet) receive(m gossip.Message) {
	if m.Raft != nil {
		f.mu.Lock()
		from := f.ledger.Members[m.From].RaftID
		f.mu.Unlock()
		if err := f.log.Receive(from, m.Raft); err != nil {
			f.cfg.Say(fmt.Sprintf("node %.12s: %v", m.From, err))
		}
		return
	}
	f.do(func() {
		if err := f.core.Step(f.cfg.Boot(), m); err != nil {
			f.guard.say(f.cfg.Say, m.From, err)
		}
	})
}

// sendRaft sends a message of the consensus. It is called from within its loop.
func (f *Fleet) sendRaft(to uint64, raw []byte) {
	f.mu.Lock()
	id, known := f.byRaft[to]
	f.mu.Unlock()
	if known && f.peers != nil {
		_ = f.peers.Send(gossip.Message{From: f.cfg.Node.ID, To: id, Raft: raw}) // it may be lost
	}
}

func (f *Fleet) closed(id string) { f.do(func() { f.core.Closed(id) }) }

// member judges whether a node belongs to the fleet.
func (f *Fleet) member(id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, known := f.ledger.Members[id]
	switch {
	case !known:
		return fmt.Errorf("node %.12s is not in the roster of this fleet: let it join with a token", id)
	case m.Removed:
		return fmt.Errorf("node %s was removed from this fleet for good: reset it and let it join with a new token", m.Name)
	}
	return nil
}

// errNotLeader is returned for what only the leader can do.
var errNotLeader = errors.New("this node does not lead the consensus")

// keyOf returns the key of a member.
func (f *Fleet) keyOf(id string) ed25519.PublicKey {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ledger.Members[id].Key
}
