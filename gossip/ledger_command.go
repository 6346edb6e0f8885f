package gossip

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// Command is one change of the ledger. Exactly one of its pointers is set.
type Command struct {
	// Now is the proposer's time. All nodes judge by it, and by no clock of
	// their own.
	Now time.Time `json:"now"`

	AddMember       *AddMember       `json:"addMember,omitempty"`
	RemoveMember    *RemoveMember    `json:"removeMember,omitempty"`
	UpdateMember    *UpdateMember    `json:"updateMember,omitempty"`
	Rejoin          *Rejoin          `json:"rejoin,omitempty"`
	Handover        *Handover        `json:"handover,omitempty"`
	AddToken        *AddToken        `json:"addToken,omitempty"`
	Claim           *Claim           `json:"claim,omitempty"`
	ReleaseClaims   *ReleaseClaims   `json:"releaseClaims,omitempty"`
	SetAddresses    *SetAddresses    `json:"setAddresses,omitempty"`
	RotateGossipKey *RotateGossipKey `json:"rotateGossipKey,omitempty"`
}

// AddMember brings a node in. It uses the token up. To add a member that is
// already there, with the same name and key, changes nothing: whoever got no
// answer asks again.
type AddMember struct {
	Name      string            `json:"name"`
	Key       ed25519.PublicKey `json:"key"`
	Token     string            `json:"token"` // a key of Ledger.Tokens
	Zone      string            `json:"zone,omitempty"`
	Addresses []string          `json:"addresses,omitempty"`
}

// RemoveMember makes a member a tombstone, for ever. Its claims are held by its
// FormerName from then on, which no other member can have: it may run what it
// claimed until its lease has run out, see Core.Released.
type RemoveMember struct {
	ID string `json:"id"`
}

// UpdateMember changes what a member may change of itself. All fields are the
// new values.
type UpdateMember struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Zone      string   `json:"zone,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
}

// Rejoin gives a member a new raft ID, because its log was lost or damaged: with
// the old one it could break promises that it does not remember.
type Rejoin struct {
	ID string `json:"id"`
	// Old is the raft ID that is given up; a second command for the same one
	// changes nothing.
	Old uint64 `json:"old"`
}

// Handover notes that a member's lease may be a long one from now on, or not any
// more.
type Handover struct {
	ID string `json:"id"`
	On bool   `json:"on"`
}

// AddToken makes a join token known.
type AddToken struct {
	Hash    string    `json:"hash"` // SHA-256 of the secret, in hexadecimal
	Expires time.Time `json:"expires"`
	Role    string    `json:"role,omitempty"`
}

// Claim grants an exclusive identity to a node. The grant's number is
// (Ledger.Epoch, index of the command).
type Claim struct {
	Identity string `json:"identity"` // Identity.String()
	Node     string `json:"node"`     // name
	// Previous is the claim that was in force when this was decided; zero when
	// there was none. With any other the command is refused.
	Previous api.Claim `json:"previous,omitzero"`
}

// ReleaseClaims drops the claims of identities that should not exist any more.
type ReleaseClaims struct {
	// Claims are the claims that were in force when this was decided, by
	// identity; one that changed since is kept.
	Claims map[string]api.Claim `json:"claims"`
}

// SetAddresses changes what Services were given.
type SetAddresses struct {
	Set    map[string]api.ServiceAddress `json:"set,omitempty"`
	Remove []string                      `json:"remove,omitempty"` // happens first
}

// RotateGossipKey adds a generation.
type RotateGossipKey struct {
	Generation uint64 `json:"generation"` // the next one
	Key        []byte `json:"key"`        // 32 bytes
}

// gossipGenerations is how many gossip keys are kept: the one in use, and those
// of nodes that have not heard of it yet.
const gossipGenerations = 3

// cidrRest is how long the pod range of a removed node is not given to another:
// routes and connections to its pods are gone by then.
const cidrRest = time.Hour

// Refusal is the error of a command that was applied and changed nothing, or
// for SetAddresses not everything. Every node refuses the same commands.
type Refusal struct{ Reasons []string }

// Error lists the reasons.
func (r *Refusal) Error() string { return "refused: " + strings.Join(r.Reasons, "; ") }

func refuse(format string, args ...any) error {
	return &Refusal{Reasons: []string{fmt.Sprintf(format, args...)}}
}

// Encode writes a command the way DecodeCommand reads it.
func (c Command) Encode() ([]byte, error) {
	c.Now = c.Now.UTC().Round(0)
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode a command: %w", err)
	}
	if len(raw) > MaxCommand {
		return nil, fmt.Errorf("encode a command: %d bytes: %d are the most", len(raw), MaxCommand)
	}
	return raw, c.valid()
}

// DecodeCommand reads a command from the log. It is strict: a node that does not
// understand a command must stop there, or its ledger would fork.
func DecodeCommand(raw []byte) (Command, error) {
	var c Command
	if err := strict(raw, MaxCommand, &c); err != nil {
		return Command{}, fmt.Errorf("decode a command: %w", err)
	}
	return c, c.valid()
}

// change is what every command can do.
type change interface {
	apply(l Ledger, now time.Time) (Ledger, error)
}

// change returns the one change that the command holds; nil when it holds none
// or more.
func (c Command) change() change {
	var found change
	count := 0
	for _, one := range []change{
		c.AddMember, c.RemoveMember, c.UpdateMember, c.Rejoin, c.Handover, c.AddToken,
		c.Claim, c.ReleaseClaims, c.SetAddresses, c.RotateGossipKey,
	} {
		if !reflect.ValueOf(one).IsNil() {
			found = one
			count++
		}
	}
	if count != 1 {
		return nil
	}
	return found
}

func (c Command) valid() error {
	if c.change() == nil {
		return errors.New("a command must say exactly one thing")
	}
	return nil
}

// Apply returns the ledger after the command at this index of the log. An error
// is a *Refusal: the command is part of history all the same, so Index and Hash
// of the result count it. The ledger it was called on stays as it was.
func (l Ledger) Apply(index uint64, c Command) (Ledger, error) {
	raw, err := c.Encode()
	l = l.Follow(index, raw, nil)
	if err != nil {
		return l, &Refusal{Reasons: []string{err.Error()}}
	}
	return c.change().apply(l, c.Now.UTC())
}

func (c *AddMember) apply(l Ledger, now time.Time) (Ledger, error) {
	if c.Name == "" || len(c.Key) != ed25519.PublicKeySize {
		return l, refuse("a member needs a name and a key of %d bytes", ed25519.PublicKeySize)
	}
	id := MemberID(c.Key)
	if old, found := l.Members[id]; found {
		switch {
		case old.Removed:
			return l, refuse("the key of %s was removed from the fleet and cannot come back; give the node a new one", c.Name)
		case old.Name != c.Name:
			return l, refuse("the node %s is a member by the name of %s", c.Name, old.Name)
		}
		return l, nil
	}
	if _, found := l.Member(c.Name); found {
		return l, refuse("a node named %s with another key is a member; remove that one first", c.Name)
	}
	token, found := l.Tokens[c.Token]
	if !found || c.Token == "" {
		return l, refuse("the token is not known, or was used already")
	}
	if now.After(token.Expires) {
		return l, refuse("the token expired at %s", token.Expires.UTC().Format(time.RFC3339))
	}
	cidr, err := freeCIDR(l, now)
	if err != nil {
		return l, refuse("%s", err)
	}
	l.Tokens = without(l.Tokens, func(hash string, t Token) bool { return hash == c.Token || now.After(t.Expires) })
	l.Members = changed(l.Members, id, Member{
		ID: id, Name: c.Name, Key: slices.Clone(c.Key), RaftID: l.NextRaftID, PodCIDR: cidr,
		Zone: c.Zone, Witness: token.Role == RoleWitness, Addresses: slices.Clone(c.Addresses), Joined: now,
	})
	l.NextRaftID++
	return l, nil
}

// freeCIDR returns the lowest /24 of the fleet's range that no member has.
func freeCIDR(l Ledger, now time.Time) (string, error) {
	all, err := netip.ParsePrefix(l.Fleet.ClusterCIDR)
	if err != nil || !all.Addr().Is4() || all.Bits() > 24 {
		return "", fmt.Errorf("the fleet's pod range %q holds no /24 of IPv4", l.Fleet.ClusterCIDR)
	}
	taken := map[netip.Addr]bool{}
	for _, m := range l.Members {
		if m.Removed && now.Sub(m.RemovedAt) > cidrRest {
			continue
		}
		if p, err := netip.ParsePrefix(m.PodCIDR); err == nil {
			taken[p.Masked().Addr()] = true
		}
	}
	for a := all.Masked().Addr(); all.Contains(a); {
		if !taken[a] {
			return netip.PrefixFrom(a, 24).String(), nil
		}
		b := a.As4()
		for i := 2; i >= 0; i-- {
			if b[i]++; b[i] != 0 {
				break
			}
		}
		next := netip.AddrFrom4(b)
		if !a.Less(next) {
			break // past 255.255.255.0
		}
		a = next
	}
	return "", fmt.Errorf("the fleet's pod range %s is full", l.Fleet.ClusterCIDR)
}

// living returns the member, or why it cannot be spoken of.
func living(l Ledger, id string) (Member, error) {
	m, found := l.Members[id]
	switch {
	case !found:
		return Member{}, refuse("no member has the ID %.12s", id)
	case m.Removed:
		return Member{}, refuse("the node %s was removed from the fleet", m.Name)
	}
	return m, nil
}

func (c *RemoveMember) apply(l Ledger, now time.Time) (Ledger, error) {
	m, err := living(l, c.ID)
	if err != nil {
		return l, err
	}
	if slices.Equal(l.VoterIDs, []uint64{m.RaftID}) {
		return l, refuse("the node %s is the only voter; let another node join first", m.Name)
	}
	m.Removed, m.RemovedAt = true, now
	l.Members = changed(l.Members, c.ID, m)
	claims := maps.Clone(l.Claims)
	for identity, h := range claims {
		if h.Node == m.Name {
			h.Node = FormerName(m.Name, m.ID)
			claims[identity] = h
		}
	}
	l.Claims = claims
	return l, nil
}

func (c *UpdateMember) apply(l Ledger, _ time.Time) (Ledger, error) {
	m, err := living(l, c.ID)
	if err != nil {
		return l, err
	}
	if c.Name == "" {
		return l, refuse("the node %s needs a name", m.Name)
	}
	if c.Name != m.Name {
		if _, found := l.Member(c.Name); found {
			return l, refuse("a node named %s is a member already", c.Name)
		}
		for _, h := range l.Claims {
			if h.Node == m.Name {
				return l, refuse("the node %s holds claims by this name", m.Name)
			}
		}
	}
	m.Name, m.Zone, m.Addresses = c.Name, c.Zone, slices.Clone(c.Addresses)
	l.Members = changed(l.Members, c.ID, m)
	return l, nil
}

func (c *Rejoin) apply(l Ledger, _ time.Time) (Ledger, error) {
	m, err := living(l, c.ID)
	if err != nil {
		return l, err
	}
	if m.RaftID != c.Old {
		return l, nil
	}
	if slices.Equal(l.VoterIDs, []uint64{m.RaftID}) {
		return l, refuse("the node %s is the only voter: nobody has what it lost", m.Name)
	}
	m.RaftID = l.NextRaftID
	l.NextRaftID++
	l.Members = changed(l.Members, c.ID, m)
	return l, nil
}

func (c *Handover) apply(l Ledger, _ time.Time) (Ledger, error) {
	m, err := living(l, c.ID)
	if err != nil || m.Handover == c.On {
		return l, err
	}
	m.Handover = c.On
	l.Members = changed(l.Members, c.ID, m)
	return l, nil
}

func (c *AddToken) apply(l Ledger, now time.Time) (Ledger, error) {
	if len(c.Hash) != 64 {
		return l, refuse("a token is known by its SHA-256 in hexadecimal")
	}
	if now.After(c.Expires) {
		return l, refuse("the token expired before it was made known")
	}
	if c.Role != "" && c.Role != RoleWitness {
		return l, refuse("no role is named %q", c.Role)
	}
	l.Tokens = without(l.Tokens, func(_ string, t Token) bool { return now.After(t.Expires) })
	l.Tokens = changed(l.Tokens, c.Hash, Token{Expires: c.Expires.UTC(), Role: c.Role})
	return l, nil
}

func (c *Claim) apply(l Ledger, _ time.Time) (Ledger, error) {
	if c.Identity == "" {
		return l, refuse("a claim needs an identity")
	}
	if _, found := l.Member(c.Node); !found {
		return l, refuse("%s cannot be given to %s: no member has this name", c.Identity, c.Node)
	}
	if old := l.Claims[c.Identity]; old.Claim != c.Previous {
		return l, refuse("%s is claimed by %s since (%d, %d), not (%d, %d)", c.Identity, old.Node,
			old.Claim.Epoch, old.Claim.Index, c.Previous.Epoch, c.Previous.Index)
	}
	l.Claims = changed(l.Claims, c.Identity, api.ClaimHolder{Claim: api.Claim{Epoch: l.Epoch, Index: l.Index}, Node: c.Node})
	return l, nil
}

func (c *ReleaseClaims) apply(l Ledger, _ time.Time) (Ledger, error) {
	l.Claims = without(l.Claims, func(identity string, h api.ClaimHolder) bool {
		claim, named := c.Claims[identity]
		return named && claim == h.Claim
	})
	return l, nil
}

// apply gives every Service what it asks for, unless another one has it: that
// is refused, and the others are not.
func (c *SetAddresses) apply(l Ledger, _ time.Time) (Ledger, error) {
	all := maps.Clone(l.Addresses)
	if all == nil {
		all = map[string]api.ServiceAddress{}
	}
	for _, name := range c.Remove {
		delete(all, name)
	}
	owner := map[string]string{} // of each address and port
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, a := range parts(all[name]) {
			owner[a] = name
		}
	}
	var reasons []string
	for _, name := range slices.Sorted(maps.Keys(c.Set)) {
		clash := ""
		for _, a := range parts(c.Set[name]) {
			if other, taken := owner[a]; taken && other != name {
				clash = fmt.Sprintf("Service %s cannot have %s: Service %s has it", name, a, other)
			}
		}
		if clash != "" {
			reasons = append(reasons, clash)
			continue
		}
		for _, a := range parts(all[name]) {
			delete(owner, a)
		}
		value := c.Set[name]
		value.NodePorts = maps.Clone(value.NodePorts)
		all[name] = value
		for _, a := range parts(value) {
			owner[a] = name
		}
	}
	l.Addresses = all
	if len(reasons) > 0 {
		return l, &Refusal{Reasons: reasons}
	}
	return l, nil
}

// parts returns what no other Service may have: "10.96.0.10", "TCP node port 30080".
func parts(a api.ServiceAddress) []string {
	var out []string
	if a.ClusterIP != "" && a.ClusterIP != "None" {
		out = append(out, a.ClusterIP)
	}
	for _, key := range slices.Sorted(maps.Keys(a.NodePorts)) {
		protocol, _, _ := strings.Cut(key, "/")
		out = append(out, fmt.Sprintf("%s node port %d", protocol, a.NodePorts[key]))
	}
	return out
}

func (c *RotateGossipKey) apply(l Ledger, now time.Time) (Ledger, error) {
	last := uint64(0)
	if n := len(l.GossipKeys); n > 0 {
		last = l.GossipKeys[n-1].Generation
	}
	if len(c.Key) != 32 {
		return l, refuse("a gossip key has 32 bytes, not %d", len(c.Key))
	}
	if c.Generation != last+1 {
		return l, refuse("the next gossip key is of generation %d, not %d", last+1, c.Generation)
	}
	keys := append(slices.Clone(l.GossipKeys), KeyGeneration{Generation: c.Generation, Key: slices.Clone(c.Key), Since: now})
	l.GossipKeys = keys[max(0, len(keys)-gossipGenerations):]
	return l, nil
}
