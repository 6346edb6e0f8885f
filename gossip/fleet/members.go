package fleet

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/members"
)

// openMembers makes this node's part in the gossip; none when there is no
// address for it.
func (f *Fleet) openMembers() {
	c := f.cfg.Gossip
	if c.Bind == "" {
		return
	}
	c.Node, c.Fleet, c.Dir, c.Say = f.cfg.Node, f.ledger.Fleet.ID, f.cfg.Dir, f.cfg.Say
	c.Member = func(id string) (ed25519.PublicKey, error) {
		if err := f.member(id); err != nil {
			return nil, err
		}
		return f.keyOf(id), nil
	}
	c.Keys = func() [][]byte {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.ledger.UnderstoodKeys(time.Now())
	}
	c.Roster = func() map[string][]string {
		f.mu.Lock()
		defer f.mu.Unlock()
		out := map[string][]string{}
		for _, m := range f.ledger.Living() {
			out[m.ID] = slices.Concat(f.hints[m.ID], m.Addresses)
		}
		return out
	}
	f.members = members.New(c)
}

// gossip runs it.
func (f *Fleet) gossip(ctx context.Context) error {
	if f.members == nil {
		return nil
	}
	return f.members.Run(ctx)
}

// Present returns the names of the nodes that the gossip takes to be there,
// sorted. It is a second opinion: leases say who is alive.
func (f *Fleet) Present() []string {
	if f.members == nil {
		return nil
	}
	alive := f.members.Alive()
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, id := range alive {
		out = append(out, f.ledger.Members[id].Name)
	}
	slices.Sort(out)
	return out
}

// addresses returns where a node may be found: what it has signed last, then what
// its record said, then what the ledger remembers.
func (f *Fleet) addresses(id string) []string {
	var out []string
	if f.members != nil {
		out = f.members.Addresses(id) // which asks for f.mu
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, address := range slices.Concat(f.hints[id], f.ledger.Members[id].Addresses) {
		if !slices.Contains(out, address) {
			out = append(out, address)
		}
	}
	return out
}

// rotateEvery is how often a new gossip key is proposed at most.
const rotateEvery = time.Minute

// rotate proposes a new gossip key when one is due. Only the leader of the
// consensus does.
func (f *Fleet) rotate(ctx context.Context) {
	if !f.log.State().Leads || !f.rotated.IsZero() && time.Since(f.rotated) < rotateEvery {
		return
	}
	generation, due := f.log.Ledger().GossipKeyDue(time.Now())
	if !due {
		return
	}
	f.rotated = time.Now()
	key := make([]byte, 32)
	_, _ = rand.Read(key) // crypto/rand documents that it never fails
	if err := f.Propose(ctx, gossip.Command{RotateGossipKey: &gossip.RotateGossipKey{Generation: generation, Key: key}}); err != nil {
		f.cfg.Say(fmt.Sprintf("give the fleet a new gossip key: %v", err))
	}
}
