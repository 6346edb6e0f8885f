package gossip

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// A Message goes from one node to another on an authenticated stream. Exactly
// one of the pointers is set. Messages may be lost, and those between two nodes
// arrive in their order.
type Message struct {
	From string `json:"from"` // IDs of nodes
	To   string `json:"to"`

	Renewal *Renewal `json:"renewal,omitempty"`
	Grant   *Grant   `json:"grant,omitempty"`
	Ping    *Ping    `json:"ping,omitempty"`
	Probe   *Probe   `json:"probe,omitempty"`
	Digest  *Compare `json:"digest,omitempty"`
	Updates *Updates `json:"updates,omitempty"`
	Relay   *Relay   `json:"relay,omitempty"`
	Raft    []byte   `json:"raft,omitempty"` // for the consensus, as it is
}

// A Renewal is what a node tells its leader every half second: that it lives,
// what it has, and what is new of itself.
type Renewal struct {
	Boot int64         `json:"boot"` // of the daemon, see api.Seq
	N    uint64        `json:"n"`    // grows with every renewal of this boot
	Sent time.Duration `json:"sent"` // by the node's own clock; comes back in the Grant
	// Known is the authority that the node believes in, to tell a leader that
	// was deposed.
	Known Authority `json:"known"`
	// What the node has, so that the leader sends what it lacks.
	Set    Hash   `json:"set"`
	Facts  Hash   `json:"facts"`
	Ledger uint64 `json:"ledger"` // its index, and its epoch
	// LedgerEpoch comes first when ledgers are compared.
	LedgerEpoch uint64   `json:"ledgerEpoch"`
	Records     Hash     `json:"records"`          // of the Digest
	Digest      Digest   `json:"digest,omitempty"` // when the leader asked for it
	Updates     []Update `json:"updates,omitempty"`
	Leaving     bool     `json:"leaving,omitempty"` // the daemon ends on purpose and will not be back soon
	// Handover asks for a long lease: the daemon ends on purpose and will be
	// back soon.
	Handover bool `json:"handover,omitempty"`
}

// A Grant is a leader's answer to a Renewal, and is also sent without one when
// something is new.
type Grant struct {
	Authority
	// N and Sent are those of the newest Renewal received; zero when the grant
	// answers none.
	N    uint64        `json:"n,omitempty"`
	Sent time.Duration `json:"sent,omitempty"`
	// Boot is that of the Renewals that Lease and Long speak of: the clock of a
	// machine begins anew when it boots.
	Boot int64 `json:"boot,omitempty"`
	// Lease is the Sent of the newest Renewal after which a quorum confirmed
	// this leader; zero when none did.
	Lease time.Duration `json:"lease,omitempty"`
	// Long is the same for renewals that asked for a long lease, once the ledger
	// says so: no leader releases the node's claims before it is over.
	Long time.Duration `json:"long,omitempty"`
	// Acked tells how far the node's own records have arrived.
	Acked map[Kind]api.Seq `json:"acked,omitempty"`

	Set     *Delta           `json:"set,omitempty"`
	Facts   *Delta           `json:"facts,omitempty"`
	Ledger  []byte           `json:"ledger,omitempty"`
	Updates []Update         `json:"updates,omitempty"`
	Health  []api.NodeHealth `json:"health,omitempty"` // of nodes that are not well
	// WantDigest asks for the Digest in the next Renewal.
	WantDigest bool `json:"wantDigest,omitempty"`
	// Not says that the sender does not lead; the Authority is the one that it
	// believes in.
	Not bool `json:"not,omitempty"`
	// Refused says why the node may not take part.
	Refused string `json:"refused,omitempty"`
}

// An Authority says who leads, and with what right. A quorate authority beats
// an acting one, then the higher (Epoch, Term) wins; of two acting ones the
// lower ID.
type Authority struct {
	Leader  string `json:"leader"` // ID; "" when there is none
	Quorate bool   `json:"quorate"`
	Epoch   uint64 `json:"epoch"`
	Term    uint64 `json:"term"`
}

// Known reports whether anybody leads.
func (a Authority) Known() bool { return a.Leader != "" }

// Beats reports whether a is to be followed rather than b.
func (a Authority) Beats(b Authority) bool {
	switch {
	case a.Known() != b.Known():
		return a.Known()
	case a.Quorate != b.Quorate:
		return a.Quorate
	case a.Epoch != b.Epoch:
		return a.Epoch > b.Epoch
	case a.Quorate:
		return a.Term > b.Term
	}
	return a.Leader < b.Leader
}

// String returns "n1 (quorate, epoch 1, term 4)".
func (a Authority) String() string {
	if !a.Known() {
		return "nobody"
	}
	right := "acting"
	if a.Quorate {
		right = "quorate"
	}
	return fmt.Sprintf("%s (%s, epoch %d, term %d)", a.Leader, right, a.Epoch, a.Term)
}

// A Ping asks for a sign of life, and is it when Pong is set.
type Ping struct {
	N    uint64 `json:"n"`
	Pong bool   `json:"pong,omitempty"`
}

// A Probe asks a peer whether it reaches a node, and is the answer when Reached
// is set. A peer that does not reach it does not answer.
type Probe struct {
	Target  string `json:"target"`
	Reached bool   `json:"reached,omitempty"`
}

// Compare begins an exchange of records between any two nodes: first hashes,
// then, when they differ, digests.
type Compare struct {
	Hash   Hash   `json:"hash"`
	Digest Digest `json:"digest,omitempty"`
	// Final is set in the answer to a Digest, so that an exchange ends.
	Final bool `json:"final,omitempty"`
}

// Updates brings records in an exchange.
type Updates struct {
	Updates []Update `json:"updates"`
}

// A Relay is a Message that goes through a third node, because the direct way
// is cut. It is signed, because the stream it arrives on is not its origin's.
type Relay struct {
	Origin  string `json:"origin"`
	Target  string `json:"target"`
	Payload []byte `json:"payload"` // a Message, as JSON
	Sig     []byte `json:"sig"`     // of the origin, over the payload
}

func relaySigned(fleet string, payload []byte) []byte {
	return append(fmt.Appendf(nil, "shoal relay 1\n%s\n", fleet), payload...)
}

// wrap puts a message into a relay.
func wrap(fleet string, m Message, key ed25519.PrivateKey) (*Relay, error) {
	payload, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return &Relay{Origin: m.From, Target: m.To, Payload: payload, Sig: ed25519.Sign(key, relaySigned(fleet, payload))}, nil
}

// unwrap takes a message out of a relay that reached its target.
func unwrap(fleet string, r *Relay, key ed25519.PublicKey) (Message, error) {
	var m Message
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, relaySigned(fleet, r.Payload), r.Sig) {
		return m, fmt.Errorf("a relayed message of node %s: the signature is not its own", r.Origin)
	}
	if err := Decode(r.Payload, &m); err != nil {
		return m, fmt.Errorf("a relayed message of node %s: %w", r.Origin, err)
	}
	if m.From != r.Origin || m.To != r.Target || m.Relay != nil {
		return m, fmt.Errorf("a relayed message of node %s: the envelope does not belong to it", r.Origin)
	}
	return m, nil
}
