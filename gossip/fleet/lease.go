package fleet

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gossip"
)

// Lease says how far this node's lease goes, on the clock of Config.Boot: sent is
// when the newest renewal was sent that a quorum confirmed, long the same for
// those that asked for a long lease and got it. They are zero when there was none.
func (f *Fleet) Lease() (sent, long time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.core.Lease(), f.core.LongLease()
}

// Alone reports whether the fleet has no other node. A node that was removed is
// not alone: others may run what it ran.
func (f *Fleet) Alone() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	living := f.ledger.Living()
	return len(living) == 1 && living[0].ID == f.cfg.Node.ID
}

// Claims returns who may run each exclusive identity, and what the leader knows
// of whether it does. The value is shared: it must not be changed.
func (f *Fleet) Claims() map[string]api.ClaimHolder {
	f.mu.Lock()
	defer f.mu.Unlock()
	return claims(f.ledger.Claims, f.core.Released())
}

// errNoHandover is returned when the leader did not answer in time.
var errNoHandover = errors.New("no leader with a quorum has granted a long lease in time")

// HandOver asks the leader for a long lease, because this daemon is about to be
// restarted, and waits until it was granted. From then on this node says nothing
// that would shorten it; the daemon must end.
func (f *Fleet) HandOver(ctx context.Context) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	begin := f.cfg.Boot()
	f.do(func() { f.core.HandOver(begin) })
	for {
		if _, long := f.Lease(); long >= begin {
			return nil
		}
		select {
		case <-ctx.Done():
			return errNoHandover
		case <-ticker.C:
		}
	}
}

// noteHandovers has the ledger note which leases are long, so that the next
// leader knows it too. Only the leader of the consensus can.
func (f *Fleet) noteHandovers(ctx context.Context) {
	f.mu.Lock()
	wanted := f.core.Handovers()
	f.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		attempt, cancel := context.WithTimeout(ctx, gossip.RenewEvery)
		_ = f.Propose(attempt, gossip.Command{Handover: &gossip.Handover{ID: id, On: wanted[id]}}) // the next turn tries again
		cancel()
	}
}

// claims returns the claims with what the leader knows of their holders.
func claims(granted map[string]api.ClaimHolder, released []string) map[string]api.ClaimHolder {
	if len(released) == 0 {
		return granted
	}
	out := maps.Clone(granted)
	for id, holder := range out {
		if _, found := slices.BinarySearch(released, holder.Node); found {
			holder.Released = true
			out[id] = holder
		}
	}
	return out
}
