package fleet

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/consensus"
	"github.com/shoal-dev/shoal/gossip/identity"
	"github.com/shoal-dev/shoal/gossip/peer"
)

// ErrNone is returned where no fleet was founded or joined yet.
var ErrNone = consensus.ErrNone

// Found makes a fleet whose only member is this node. It does nothing when there
// is one already.
func Found(dir string, node identity.Node, name string, fleet gossip.Fleet, addresses []string, podCIDR string, gossipKey []byte) error {
	disk, err := folder(dir)
	if err != nil {
		return err
	}
	defer disk.Close() //nolint:errcheck // what matters was synced
	if _, err := (keeper{filepath.Join(dir, "ledger")}).load(); err == nil {
		return nil // it is in a fleet; if its log is gone, Open deals with that
	}
	if store, err := consensus.OpenStore(disk, consensus.DefaultSegment); !errors.Is(err, consensus.ErrNone) {
		if _, damaged := errors.AsType[*consensus.Damaged](err); damaged {
			return nil // likewise
		}
		if err == nil {
			err = store.Close()
		}
		return err
	}
	founder := gossip.Member{Name: name, Key: node.Public, Addresses: addresses, PodCIDR: podCIDR}
	ledger, err := gossip.NewLedger(fleet, founder, gossipKey, time.Now())
	if err != nil {
		return err
	}
	if err := consensus.Bootstrap(disk, ledger); err != nil {
		return fmt.Errorf("found a fleet: %w", err)
	}
	return nil
}

func folder(dir string) (*consensus.Folder, error) {
	path := filepath.Join(dir, "raft")
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the consensus folder: %w", err)
	}
	disk, err := consensus.OpenFolder(path)
	if err != nil {
		return nil, fmt.Errorf("open the consensus folder: %w", err)
	}
	return disk, nil
}

// The kinds of questions that this room answers.
const (
	kindJoin      = "join"      // of a stranger with a token
	kindAdmit     = "admit"     // of a voter, on behalf of a stranger
	kindPropose   = "propose"   // of a voter
	kindAuthority = "authority" // of a voter that lacks the API's key
	kindSign      = "sign"      // of a member: the API server's certificate
	kindClient    = "client"    // of a member: a user's certificate, for whoever is root there
	kindRejoin    = "rejoin"    // of a member whose log was lost
)

// joinQuestion is what a node says that wants to join.
type joinQuestion struct {
	Secret  []byte            `json:"secret"`
	Name    string            `json:"name"`
	Zone    string            `json:"zone,omitempty"`
	Port    string            `json:"port"`    // at which it will listen for peers
	Request []byte            `json:"request"` // for a server certificate of the API, as DER
	Key     ed25519.PublicKey `json:"key,omitempty"`
	Remote  string            `json:"remote,omitempty"`
}

// joinAnswer is what it gets.
type joinAnswer struct {
	Ledger      []byte         `json:"ledger"`
	Pinned      identity.Fleet `json:"pinned"`
	CA          []byte         `json:"ca"`
	Certificate []byte         `json:"certificate"`
}

// Joined is what a node knows once it is in.
type Joined struct {
	Ledger      gossip.Ledger
	Pinned      identity.Fleet
	CA          []byte // PEM
	Certificate []byte // PEM, for the request
}

// Invitation is what a node joins with.
type Invitation struct {
	Address string // of any node that the token names
	Token   identity.Token
	Name    string
	Zone    string
	Port    string
	Request []byte // for a server certificate of the API, as DER
	Dial    func(ctx context.Context, address string) (net.Conn, error)
}

// Join brings this node into a fleet and makes its files in dir.
func Join(ctx context.Context, dir string, node identity.Node, in Invitation) (Joined, error) {
	disk, err := folder(dir)
	if err != nil {
		return Joined{}, err
	}
	defer disk.Close() //nolint:errcheck // what matters was synced
	if store, err := consensus.OpenStore(disk, consensus.DefaultSegment); !errors.Is(err, consensus.ErrNone) {
		if err == nil {
			_ = store.Close() // it was only looked at
		}
		return Joined{}, fmt.Errorf("this node is in a fleet already (%s): run shoal reset to leave it for good, then join", dir)
	}
	question, err := json.Marshal(joinQuestion{Secret: in.Token.Secret, Name: in.Name, Zone: in.Zone, Port: in.Port, Request: in.Request})
	if err != nil {
		return Joined{}, err
	}
	raw, err := peer.AskStranger(ctx, node, peer.Config{Dial: in.Dial}, in.Address, in.Token.Nodes, kindJoin, question)
	if err != nil {
		return Joined{}, fmt.Errorf("join at %s: %w", in.Address, err)
	}
	var answer joinAnswer
	if err := json.Unmarshal(raw, &answer); err != nil {
		return Joined{}, fmt.Errorf("join at %s: %w", in.Address, err)
	}
	ledger, err := gossip.DecodeLedger(answer.Ledger)
	if err != nil {
		return Joined{}, fmt.Errorf("join at %s: %w", in.Address, err)
	}
	self, member := ledger.Members[node.ID]
	if !member || ledger.Fleet.ID != in.Token.Fleet {
		return Joined{}, fmt.Errorf("join at %s: the answer is of another fleet than the token", in.Address)
	}
	if err := (keeper{filepath.Join(dir, "ledger")}).write(ledger); err != nil {
		return Joined{}, err
	}
	if err := consensus.Join(disk, self.RaftID, ledger.Epoch); err != nil {
		return Joined{}, fmt.Errorf("join the consensus: %w", err)
	}
	return Joined{Ledger: ledger, Pinned: answer.Pinned, CA: answer.CA, Certificate: answer.Certificate}, nil
}

// answer answers a question.
func (f *Fleet) answer(ctx context.Context, from peer.Asker, kind string, question []byte) ([]byte, error) {
	if kind == kindJoin {
		return f.answerJoin(ctx, from, question)
	}
	if err := f.member(from.ID); err != nil {
		return nil, err
	}
	switch kind {
	case kindAdmit, kindPropose, kindAuthority:
		if !f.votes(from.ID) {
			return nil, errors.New("only a voter may ask for this")
		}
	}
	switch kind {
	case kindAdmit:
		var q joinQuestion
		if err := json.Unmarshal(question, &q); err != nil {
			return nil, fmt.Errorf("read the question: %w", err)
		}
		return f.admit(ctx, q)
	case kindPropose:
		command, err := gossip.DecodeCommand(question)
		if err != nil {
			return nil, err
		}
		return nil, f.Propose(ctx, command)
	case kindAuthority:
		certificate, key := f.cfg.Authority.Export()
		if key == nil {
			return nil, errors.New("this node has no key of the API's authority itself")
		}
		return json.Marshal([2][]byte{certificate, key})
	case kindRejoin:
		return f.answerRejoin(ctx, from.ID)
	case kindSign:
		return f.cfg.Authority.Sign(question)
	case kindClient:
		return f.cfg.Authority.SignClient(question)
	}
	return f.cfg.Answer(ctx, from.ID, kind, question)
}

func (f *Fleet) votes(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ledger.Votes(f.ledger.Members[id].RaftID)
}

// answerJoin answers a stranger with a token. The leader admits it; any voter
// may be asked.
func (f *Fleet) answerJoin(ctx context.Context, from peer.Asker, question []byte) ([]byte, error) {
	host, _, err := net.SplitHostPort(from.Remote)
	if err != nil {
		host = from.Remote
	}
	if !f.guard.admit(host, time.Now()) {
		return nil, fmt.Errorf("more than %d nodes tried to join from %s within a minute: wait, then try again", joinTries, host)
	}
	var q joinQuestion
	if err := json.Unmarshal(question, &q); err != nil {
		return nil, fmt.Errorf("read the question: %w", err)
	}
	q.Key, q.Remote = from.Key, host // proven, whatever the question says
	certificate, err := f.cfg.Authority.Sign(q.Request)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	if f.log.State().Leads {
		raw, err = f.admit(ctx, q)
	} else {
		raw, err = f.askLeader(ctx, kindAdmit, raw)
	}
	if err != nil {
		return nil, err
	}
	ca, _ := f.cfg.Authority.Export()
	return json.Marshal(joinAnswer{Ledger: raw, Pinned: f.cfg.Authority.Pinned(), CA: ca, Certificate: certificate})
}

// admit makes a node a member, and returns the ledger in which it is.
func (f *Fleet) admit(ctx context.Context, q joinQuestion) ([]byte, error) {
	sum := sha256.Sum256(q.Secret)
	command := gossip.Command{AddMember: &gossip.AddMember{
		Name: q.Name, Key: q.Key, Token: hex.EncodeToString(sum[:]), Zone: q.Zone, Addresses: []string{net.JoinHostPort(q.Remote, q.Port)},
	}}
	if err := f.Propose(ctx, command); err != nil {
		return nil, err
	}
	return f.log.Ledger().Encode()
}

// askLeader asks the leader of the consensus.
func (f *Fleet) askLeader(ctx context.Context, kind string, question []byte) ([]byte, error) {
	f.mu.Lock()
	leader := f.byRaft[f.log.State().Leader]
	if a, _ := f.core.Authority(); leader == "" && a.Quorate {
		leader = a.Leader // this node does not vote
	}
	f.mu.Unlock()
	if leader == "" {
		return nil, errors.New("the fleet has no leader with a quorum now: it takes in nobody and changes no roster until it has")
	}
	return f.peers.Ask(ctx, leader, kind, question)
}

// Command changes the ledger, by way of the leader when this node is not it. This
// node must be a voter.
func (f *Fleet) Command(ctx context.Context, command gossip.Command) error {
	if f.log.State().Leads {
		return f.Propose(ctx, command)
	}
	if !f.votes(f.cfg.Node.ID) {
		return fmt.Errorf("this node does not vote: run the command on one of %v", f.Voters())
	}
	command.Now = time.Now()
	raw, err := command.Encode()
	if err != nil {
		return err
	}
	_, err = f.askLeader(ctx, kindPropose, raw)
	return err
}

// Voters returns the names of the nodes that vote, sorted.
func (f *Fleet) Voters() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, m := range f.ledger.Living() {
		if f.ledger.Votes(m.RaftID) {
			out = append(out, m.Name)
		}
	}
	slices.Sort(out)
	return out
}

// Yield lets another node lead the consensus, by name. It returns when that has
// begun; the View shows when it is done. Only the leader can, and only to a voter
// that it hears of.
func (f *Fleet) Yield(ctx context.Context, name string) error {
	f.mu.Lock()
	m, known := f.ledger.Member(name)
	f.mu.Unlock()
	if !known {
		return errors.New("no node of the fleet has the name " + name)
	}
	if err := f.log.Transfer(ctx, m.RaftID); err != nil {
		return fmt.Errorf("let node %s lead: %w", name, err)
	}
	return nil
}

// NewToken lets one node join within a time.
func (f *Fleet) NewToken(ctx context.Context, ca string, life time.Duration, role string) (identity.Token, error) {
	f.mu.Lock()
	var nodes []string
	for _, m := range f.ledger.Living() {
		if f.ledger.Votes(m.RaftID) {
			nodes = append(nodes, m.ID)
		}
	}
	fleet := f.ledger.Fleet.ID
	f.mu.Unlock()
	token := identity.NewToken(fleet, ca, nodes, time.Now().Add(life))
	err := f.Command(ctx, gossip.Command{AddToken: &gossip.AddToken{Hash: token.Hash(), Expires: token.Expires, Role: role}})
	return token, err
}

// fetchAuthority gets the key of the API's authority when this node votes and
// has none.
func (f *Fleet) fetchAuthority(ctx context.Context) {
	if f.signs || !f.votes(f.cfg.Node.ID) {
		return
	}
	if _, key := f.cfg.Authority.Export(); key != nil {
		f.signs = true
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	raw, err := f.askLeader(ctx, kindAuthority, nil)
	if err != nil {
		return // the next turn asks again
	}
	var pair [2][]byte
	if err = json.Unmarshal(raw, &pair); err == nil {
		err = f.cfg.Authority.Import(pair[0], pair[1])
	}
	if err != nil {
		f.cfg.Say(fmt.Sprintf("take over the API's authority: %v", err))
	}
}

// Sign has a request for the API server's certificate signed: here, where there
// is the authority's key, else by a voter. SignClient does the same for users.
func (f *Fleet) Sign(ctx context.Context, request []byte) ([]byte, error) {
	return f.signed(ctx, kindSign, request, f.cfg.Authority.Sign)
}

// SignClient is described at Sign.
func (f *Fleet) SignClient(ctx context.Context, request []byte) ([]byte, error) {
	return f.signed(ctx, kindClient, request, f.cfg.Authority.SignClient)
}

// signed asks one voter after another.
func (f *Fleet) signed(ctx context.Context, kind string, request []byte, here func([]byte) ([]byte, error)) ([]byte, error) {
	if _, key := f.cfg.Authority.Export(); key != nil {
		return here(request)
	}
	errs := []error{errors.New("this node has no key of the API's authority, and no voter has signed for it")}
	for _, name := range f.Voters() {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		certificate, err := f.Ask(attempt, name, kind, request)
		cancel()
		if err == nil {
			return certificate, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", name, err))
	}
	return nil, errors.Join(errs...)
}

// answerRejoin gives a member that lost its log a new raft ID.
func (f *Fleet) answerRejoin(ctx context.Context, id string) ([]byte, error) {
	f.mu.Lock()
	old := f.ledger.Members[id].RaftID
	f.mu.Unlock()
	if err := f.Propose(ctx, gossip.Command{Rejoin: &gossip.Rejoin{ID: id, Old: old}}); err != nil {
		return nil, err
	}
	return f.log.Ledger().Encode()
}

// rejoin asks for a new raft ID where the log is missing, and begins a new one.
func (f *Fleet) rejoin(ctx context.Context) {
	why := f.log.Absent()
	if why == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	raw, err := f.askLeader(ctx, kindRejoin, nil)
	if err != nil {
		return // the next turn asks again; shoal status says that the log is missing
	}
	ledger, err := gossip.DecodeLedger(raw)
	if err == nil {
		err = ledger.Succeeds(f.log.Ledger())
	}
	if err == nil {
		err = f.keeper.write(ledger)
	}
	if err == nil {
		err = f.log.rejoin(ledger.Members[f.cfg.Node.ID].RaftID, ledger.Epoch)
	}
	if err != nil {
		f.cfg.Say(fmt.Sprintf("begin a new log in place of the one that is lost (%v): %v", why, err))
		return
	}
	f.cfg.Say(fmt.Sprintf("began a new log in place of the one that is lost: %v", why))
	f.follow()
}
