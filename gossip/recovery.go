package gossip

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxRecovery is the length of the longest recovery that is read, in bytes; a
// fleet has five voters at most.
const maxRecovery = 16 << 10

// keptRecoveries is how many of the last recoveries a ledger keeps.
const keptRecoveries = 8

// A Recovery says that a fleet goes on without most of its voters, which are gone
// for good: the node that signs it holds the log alone from the next epoch on,
// until the fleet has chosen other voters. Whoever has agreed to something with
// the lost ones that this node has not heard of must not come back with it, so
// nothing of an older epoch is believed any more.
//
// It cannot be proven that a voter is gone: a person says so. Two recoveries
// that are signed on both sides of a split make two fleets.
type Recovery struct {
	Fleet string `json:"fleet"`
	Node  string `json:"node"`  // ID of the member that signs it
	From  uint64 `json:"from"`  // the epoch that ends; the next one is From+1
	Index uint64 `json:"index"` // of the ledger that it was made from, for people
	// Lost are the IDs of the voters that are gone, sorted.
	Lost []string  `json:"lost"`
	Made time.Time `json:"made"`
	Sig  []byte    `json:"sig"` // by the node's key, over all the rest
}

// signed returns what the signature is over.
func (r Recovery) signed() []byte {
	r.Sig, r.Made = nil, r.Made.UTC().Round(0)
	raw, _ := json.Marshal(r) // such values always marshal
	return append([]byte("shoal recovery 1\n"), raw...)
}

// NewRecovery makes the recovery that ends the epoch of a ledger: self, the ID of
// the node with the key, goes on without the members with these names.
func NewRecovery(l Ledger, self string, lost []string, now time.Time, key ed25519.PrivateKey) (Recovery, error) {
	r := Recovery{Fleet: l.Fleet.ID, Node: self, From: l.Epoch, Index: l.Index, Made: now.UTC().Round(0)}
	for _, name := range lost {
		m, found := l.Member(name)
		if !found {
			return Recovery{}, fmt.Errorf("recover the fleet: no member is called %q", name)
		}
		if !slices.Contains(r.Lost, m.ID) {
			r.Lost = append(r.Lost, m.ID)
		}
	}
	slices.Sort(r.Lost)
	r.Sig = ed25519.Sign(key, r.signed())
	return r, r.Check(l)
}

// Encode writes a recovery the way DecodeRecovery reads it.
func (r Recovery) Encode() ([]byte, error) {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode a recovery: %w", err)
	}
	return append(raw, '\n'), nil
}

// DecodeRecovery reads a recovery from a file. It is strict.
func DecodeRecovery(raw []byte) (Recovery, error) {
	var r Recovery
	if err := strict(raw, maxRecovery, &r); err != nil {
		return Recovery{}, fmt.Errorf("decode a recovery: %w", err)
	}
	return r, nil
}

// Check says why a ledger does not go on by this recovery: it is of another
// fleet, of an epoch that is past, not signed by a living member, or needless,
// because most voters are not among the lost.
func (r Recovery) Check(l Ledger) error {
	if err := r.genuine(l); err != nil {
		return err
	}
	switch {
	case r.From < l.Epoch:
		return fmt.Errorf("recover the fleet: the recovery ends epoch %d, and the fleet is in epoch %d: it was used already", r.From, l.Epoch)
	case r.From > l.Epoch:
		return fmt.Errorf("recover the fleet: the recovery ends epoch %d, of which this node has not heard: it knows of epoch %d", r.From, l.Epoch)
	}
	for _, id := range r.Lost {
		m, found := l.Members[id]
		switch {
		case !found:
			return fmt.Errorf("recover the fleet: the lost node %.12s is no member", id)
		case id == r.Node:
			return fmt.Errorf("recover the fleet: %s cannot go on and be lost", m.Name)
		case !l.Votes(m.RaftID):
			return fmt.Errorf("recover the fleet: %s does not vote: the fleet does not need it to go on", m.Name)
		}
	}
	return r.needed(l)
}

// genuine checks who signed the recovery.
func (r Recovery) genuine(l Ledger) error {
	signer, member := l.Members[r.Node]
	switch {
	case r.Fleet != l.Fleet.ID:
		return fmt.Errorf("recover the fleet: the recovery is of the fleet %q, this one is %s", r.Fleet, l.Fleet.ID)
	case !member:
		return fmt.Errorf("recover the fleet: the recovery is signed by %.12s, which is no member", r.Node)
	case signer.Removed:
		return fmt.Errorf("recover the fleet: the recovery is signed by %s, which was removed from the fleet", signer.Name)
	case !ed25519.Verify(signer.Key, r.signed(), r.Sig):
		return fmt.Errorf("recover the fleet: the signature is not that of %s: the recovery was changed", signer.Name)
	}
	return nil
}

// needed checks that the voters that are left cannot decide anything: without
// the lost ones there is no quorum.
func (r Recovery) needed(l Ledger) error {
	var left []string
	for _, m := range l.Living() {
		if l.Votes(m.RaftID) && !slices.Contains(r.Lost, m.ID) {
			left = append(left, m.Name)
		}
	}
	alone := len(l.VoterIDs) == 1 && l.Votes(l.Members[r.Node].RaftID)
	if 2*len(left) > len(l.VoterIDs) && !alone {
		slices.Sort(left)
		return fmt.Errorf("recover the fleet: %s are %d of %d voters and not among the lost: with them there is a quorum, and nothing to recover",
			strings.Join(left, ", "), len(left), len(l.VoterIDs))
	}
	return nil
}

// Recover returns the ledger with which the fleet goes on: that of Recovered,
// with the signer as the only voter. It keeps the recovery, so that others can
// see by what right the epoch is another one.
func (l Ledger) Recover(r Recovery) (Ledger, error) {
	if err := r.Check(l); err != nil {
		return Ledger{}, err
	}
	next, err := l.Recovered(r.From+1, []uint64{l.Members[r.Node].RaftID})
	if err != nil {
		return Ledger{}, err
	}
	next.Recoveries = append(slices.Clone(l.Recoveries), r)
	next.Recoveries = next.Recoveries[max(0, len(next.Recoveries)-keptRecoveries):]
	return next, nil
}

// Succeeds says why a ledger of a later epoch cannot follow on an older one: its
// epoch began without a recovery that a member signed whom the older ledger
// knows. Within an epoch every ledger may follow; the log sees to that.
func (l Ledger) Succeeds(old Ledger) error {
	if !old.Known() || l.Epoch <= old.Epoch {
		return nil
	}
	for _, r := range l.Recoveries {
		if r.From >= old.Epoch {
			return r.genuine(old)
		}
	}
	return errors.New("the ledger of a later epoch comes without the recovery that began it")
}
