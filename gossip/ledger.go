package gossip

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// Limits of what is read. A ledger of 1,000 nodes and 10,000 claims takes about
// 3 MiB, the largest command (the addresses of 5,000 Services) 700 KiB.
const (
	MaxLedger  = 32 << 20
	MaxCommand = 1 << 20
)

// Ledger is what the fleet agreed on and what must never fork: who belongs to
// it, who may run which exclusive identity, and which addresses are given away.
// It changes by Commands only, in the order of the raft log, and the same
// commands make the same ledger on every node: Hash says so.
//
// A Ledger is a value. Apply copies what it changes, so a ledger that was handed
// out stays as it is; its maps must not be written to.
type Ledger struct {
	Index uint64 `json:"index"` // of the last entry of the raft log that was applied
	// Hash is chained over every entry. Two nodes with the same Index and
	// another Hash have forked.
	Hash  Hash   `json:"hash"`
	Fleet Fleet  `json:"fleet"`
	Epoch uint64 `json:"epoch"` // grows when the fleet is recovered from the loss of its voters
	// Members are the nodes of the fleet and the tombstones of those that were
	// removed, by ID.
	Members map[string]Member `json:"members"`
	// Claims are who may run each exclusive identity, by Identity.String().
	Claims map[string]api.ClaimHolder `json:"claims,omitempty"`
	// Addresses are what Services were given, by namespace/name.
	Addresses map[string]api.ServiceAddress `json:"addresses,omitempty"`
	// Tokens are the join tokens that were not used yet, by the SHA-256 of
	// their secret in hexadecimal.
	Tokens map[string]Token `json:"tokens,omitempty"`
	// GossipKeys are the newest generations, oldest first; the last one is to
	// be used, the others are to be understood.
	GossipKeys []KeyGeneration `json:"gossipKeys,omitempty"`
	VoterIDs   []uint64        `json:"voterIDs"`   // raft IDs, sorted
	NextRaftID uint64          `json:"nextRaftID"` // of the next member; those before it were given away
	// Recoveries are by what right the last epochs began, oldest first.
	Recoveries []Recovery `json:"recoveries,omitempty"`
}

// Fleet is what is fixed when a fleet is made.
type Fleet struct {
	ID          string `json:"id"`          // a UUID
	ClusterCIDR string `json:"clusterCIDR"` // of all pods; every node gets a /24 of it
	ServiceCIDR string `json:"serviceCIDR"`
	Domain      string `json:"domain"`
}

// Member is one node of the fleet.
type Member struct {
	ID   string            `json:"id"` // MemberID of Key
	Name string            `json:"name"`
	Key  ed25519.PublicKey `json:"key"`
	// RaftID names the node in the raft log. It is never used again: a node
	// whose log was lost gets a new one.
	RaftID    uint64    `json:"raftID"`
	PodCIDR   string    `json:"podCIDR"`
	Zone      string    `json:"zone,omitempty"`
	Witness   bool      `json:"witness,omitempty"`   // votes and runs no pods
	Addresses []string  `json:"addresses,omitempty"` // host:port at which its peers may find it; hints
	Joined    time.Time `json:"joined"`
	// Handover says that the node's lease may be a long one, because its daemon
	// is being restarted: a leader that has not heard of it yet waits as long.
	Handover bool `json:"handover,omitempty"`
	// Removed marks a tombstone: this key never belongs to the fleet again.
	Removed   bool      `json:"removed,omitempty"`
	RemovedAt time.Time `json:"removedAt,omitzero"`
}

// Token lets one node join.
type Token struct {
	Expires time.Time `json:"expires"`
	Role    string    `json:"role,omitempty"` // "" or RoleWitness
}

// RoleWitness is the role of a node that votes and runs no pods.
const RoleWitness = "witness"

// KeyGeneration is one generation of the key that gossip is encrypted with.
type KeyGeneration struct {
	Generation uint64    `json:"generation"`
	Key        []byte    `json:"key"` // 32 bytes
	Since      time.Time `json:"since"`
}

// MemberID returns the ID of the node with this key: the SHA-256 of the key, in
// hexadecimal.
func MemberID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:])
}

// NewLedger returns the ledger of a fleet of one. The founder's ID, RaftID and
// Joined are filled in; its PodCIDR is the first of the fleet's when it has none.
func NewLedger(fleet Fleet, founder Member, gossipKey []byte, now time.Time) (Ledger, error) {
	now = now.UTC().Round(0)
	l := Ledger{
		Fleet: fleet, Epoch: 1, VoterIDs: []uint64{1}, NextRaftID: 2,
		GossipKeys: []KeyGeneration{{Generation: 1, Key: gossipKey, Since: now}},
	}
	if len(founder.Key) != ed25519.PublicKeySize {
		return Ledger{}, fmt.Errorf("found a fleet: the node's key has %d bytes, not %d", len(founder.Key), ed25519.PublicKeySize)
	}
	founder.ID, founder.RaftID, founder.Joined = MemberID(founder.Key), 1, now
	if founder.PodCIDR == "" {
		cidr, err := freeCIDR(l, now)
		if err != nil {
			return Ledger{}, fmt.Errorf("found a fleet: %w", err)
		}
		founder.PodCIDR = cidr
	}
	l.Members = map[string]Member{founder.ID: founder}
	return l, nil
}

// Member returns the living member with this name.
func (l Ledger) Member(name string) (Member, bool) {
	for _, m := range l.Members {
		if m.Name == name && !m.Removed {
			return m, true
		}
	}
	return Member{}, false
}

// ByRaftID returns the member with this raft ID, removed or not.
func (l Ledger) ByRaftID(id uint64) (Member, bool) {
	for _, m := range l.Members {
		if m.RaftID == id {
			return m, true
		}
	}
	return Member{}, false
}

// FormerName is how a member that was removed is called as the holder of claims.
// Its name may be another's by now.
func FormerName(name, id string) string { return fmt.Sprintf("%s (removed, %.12s)", name, id) }

// Living returns the members that were not removed, sorted by ID.
func (l Ledger) Living() []Member {
	var out []Member
	for _, m := range l.Members {
		if !m.Removed {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Votes reports whether the node with this raft ID is a voter.
func (l Ledger) Votes(raftID uint64) bool {
	_, found := slices.BinarySearch(l.VoterIDs, raftID)
	return found
}

// Known reports whether there is a ledger at all: the zero Ledger is none.
func (l Ledger) Known() bool { return l.Fleet.ID != "" }

// Follow returns the ledger after an entry of the log that holds no command: a
// leader's first entry, or a change of voters. It is what Apply is for commands.
func (l Ledger) Follow(index uint64, raw []byte, voters []uint64) Ledger {
	l.Index, l.Hash = index, l.chain(index, raw)
	if voters != nil {
		l.VoterIDs = slices.Sorted(slices.Values(voters))
	}
	return l
}

// Recovered returns the ledger with which a fleet goes on after its voters were
// lost for good: a new epoch, in which every claim is higher than all before.
func (l Ledger) Recovered(epoch uint64, voters []uint64) (Ledger, error) {
	if epoch <= l.Epoch {
		return Ledger{}, fmt.Errorf("recover the ledger: epoch %d is not higher than %d", epoch, l.Epoch)
	}
	if len(voters) == 0 {
		return Ledger{}, errors.New("recover the ledger: no voters are named")
	}
	for _, id := range voters {
		if m, found := l.ByRaftID(id); !found || m.Removed {
			return Ledger{}, fmt.Errorf("recover the ledger: the voter %d is no member", id)
		}
	}
	l.Epoch = epoch
	return l.Follow(l.Index+1, fmt.Appendf(nil, "recovered %d %v", epoch, voters), voters), nil
}

func (l Ledger) chain(index uint64, raw []byte) Hash {
	h := sha256.New()
	h.Write(l.Hash[:])
	h.Write(binary.BigEndian.AppendUint64(nil, index))
	h.Write(raw)
	return Hash(h.Sum(nil))
}

// Encode writes the ledger the way DecodeLedger reads it. Equal ledgers give
// equal bytes.
func (l Ledger) Encode() ([]byte, error) {
	raw, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("encode the ledger: %w", err)
	}
	return raw, nil
}

// DecodeLedger reads a ledger from the disk or from a peer. It is strict: a
// field that is not known is an error, because whoever does not understand all
// of a ledger must not go on from it.
func DecodeLedger(raw []byte) (Ledger, error) {
	var l Ledger
	if err := strict(raw, MaxLedger, &l); err != nil {
		return Ledger{}, fmt.Errorf("decode the ledger: %w", err)
	}
	if !slices.IsSorted(l.VoterIDs) {
		return Ledger{}, errors.New("decode the ledger: its voters are not sorted")
	}
	for id, m := range l.Members {
		if m.ID != id || len(m.Key) != ed25519.PublicKeySize || MemberID(m.Key) != id {
			return Ledger{}, fmt.Errorf("decode the ledger: the member %.12q has another key", id)
		}
		if m.RaftID == 0 || m.RaftID >= l.NextRaftID {
			return Ledger{}, fmt.Errorf("decode the ledger: the member %.12s has the raft ID %d of %d", id, m.RaftID, l.NextRaftID)
		}
	}
	return l, nil
}

// strict decodes one JSON value with known fields only.
func strict(raw []byte, limit int, value any) error {
	if len(raw) > limit {
		return fmt.Errorf("%d bytes: %d are the most", len(raw), limit)
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(value); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows it")
	}
	return nil
}

// changed returns a copy of m with one key set.
func changed[V any](m map[string]V, key string, value V) map[string]V {
	out := maps.Clone(m)
	if out == nil {
		out = map[string]V{}
	}
	out[key] = value
	return out
}

// without returns a copy of m without the keys that drop names.
func without[V any](m map[string]V, drop func(key string, value V) bool) map[string]V {
	out := maps.Clone(m)
	maps.DeleteFunc(out, drop)
	return out
}
