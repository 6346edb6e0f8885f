package gossip

import (
	"slices"
	"time"
)

// Gossip keys. A key that a removed node knows is understood for a while only:
// whoever was not reached when the next one came gets that one by its lease.
const (
	gossipKeyLife  = 7 * 24 * time.Hour
	gossipKeyGrace = 5 * time.Minute
)

// GossipKeyDue reports whether a new gossip key is wanted, and of which
// generation: every week, and when a node was removed that knows the newest one.
func (l Ledger) GossipKeyDue(now time.Time) (generation uint64, due bool) {
	n := len(l.GossipKeys)
	if n == 0 {
		return 1, l.Known()
	}
	newest := l.GossipKeys[n-1]
	return newest.Generation + 1, now.Sub(newest.Since) >= gossipKeyLife || l.betrayed(newest)
}

// betrayed reports whether a removed node may know a key.
func (l Ledger) betrayed(key KeyGeneration) bool {
	for _, m := range l.Members {
		if m.Removed && !m.RemovedAt.Before(key.Since) {
			return true
		}
	}
	return false
}

// UnderstoodKeys returns the gossip keys to understand, the newest last, which is
// the one to use. Those that a removed node knows are left out some minutes after
// there is one that it does not know. By a clock that is behind the fleet's all
// are understood.
func (l Ledger) UnderstoodKeys(now time.Time) [][]byte {
	safe := slices.ContainsFunc(l.GossipKeys, func(k KeyGeneration) bool {
		return now.Sub(k.Since) >= gossipKeyGrace && !l.betrayed(k)
	})
	var out [][]byte
	for i, k := range l.GossipKeys {
		if i == len(l.GossipKeys)-1 || !safe || !l.betrayed(k) {
			out = append(out, slices.Clone(k.Key))
		}
	}
	return out
}
