package gossip

import (
	"cmp"
	"slices"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// How patient WantedVoters is.
const (
	VoterLostAfter   = 60 * time.Second // a lost voter is replaced
	VoterStableAfter = 10 * time.Second // a node is well for so long before it may vote
)

// WantedVoters returns the raft IDs of the members that should vote, sorted: one
// of a fleet of 1 or 2, three of 3 to 6, five of 7 and more. They are spread over
// zones and sticky: whoever votes goes on voting, but for members that were
// removed and those lost for VoterLostAfter, and of the latter one is replaced
// at a time. While a majority of the voters is not healthy nothing changes,
// because nothing could.
//
// The health is by member ID; a member without an entry is alive since it
// joined. A witness counts as any other member.
func WantedVoters(l Ledger, health map[string]api.NodeHealth, now time.Time) []uint64 {
	e := electorate{now: now, health: health}
	for _, m := range l.Living() {
		if l.Votes(m.RaftID) {
			e.voters = append(e.voters, m)
		} else {
			e.others = append(e.others, m)
		}
	}
	healthy := 0
	for _, m := range e.voters {
		if !e.gone(m) {
			healthy++
		}
	}
	if 2*healthy <= len(l.VoterIDs) || len(e.voters) == 0 {
		return l.VoterIDs
	}
	target := votersFor(len(e.voters) + len(e.others))
	e.drop(target)
	e.fill(target)
	if len(e.voters) == len(l.VoterIDs) {
		e.spread()
	}
	ids := make([]uint64, 0, len(e.voters))
	for _, m := range e.voters {
		ids = append(ids, m.RaftID)
	}
	slices.Sort(ids)
	return ids
}

// votersFor returns how many of n members vote.
func votersFor(n int) int {
	switch {
	case n >= 7:
		return 5
	case n >= 3:
		return 3
	}
	return 1
}

// electorate is what WantedVoters works on.
type electorate struct {
	now            time.Time
	health         map[string]api.NodeHealth
	voters, others []Member
}

func (e *electorate) gone(m Member) bool { return e.health[m.ID].Gone() }

// lost reports whether the member has been gone for long.
func (e *electorate) lost(m Member) bool {
	h := e.health[m.ID]
	return h.Gone() && e.now.Sub(h.Since) >= VoterLostAfter
}

// stable reports whether the member may begin to vote.
func (e *electorate) stable(m Member) bool {
	since := m.Joined
	if h, judged := e.health[m.ID]; judged {
		if h.Status != api.NodeAlive || h.Unstable {
			return false
		}
		since = h.Since
	}
	return e.now.Sub(since) >= VoterStableAfter
}

// drop takes away voters that are too many, and one that is lost when another
// member can take its place. It never takes so many that those who stay are
// fewer than an odd number they could be.
func (e *electorate) drop(target int) {
	for len(e.voters) > target {
		e.voters = slices.Delete(e.voters, e.worst(), e.worst()+1)
	}
	if i := e.worst(); len(e.voters) > 1 && e.lost(e.voters[i]) && e.best() >= 0 {
		e.voters = slices.Delete(e.voters, i, i+1)
	}
}

// fill adds voters up to the target, but never leaves an even number where an
// odd one is possible: an even one tolerates no more losses.
func (e *electorate) fill(target int) {
	before := len(e.voters)
	for len(e.voters) < target {
		i := e.best()
		if i < 0 {
			break
		}
		e.voters = append(e.voters, e.others[i])
		e.others = slices.Delete(e.others, i, i+1)
	}
	if len(e.voters)%2 == 0 && len(e.voters) > before {
		e.voters = e.voters[:len(e.voters)-1]
	}
}

// spread swaps one voter for a member of a zone that has none, when all voters
// are well and the voter's zone keeps another.
func (e *electorate) spread() {
	zones := e.zones()
	if slices.ContainsFunc(e.voters, e.gone) {
		return
	}
	i := e.best()
	if i < 0 || zones[e.others[i].Zone] > 0 {
		return
	}
	j := e.worst()
	if zones[e.voters[j].Zone] > 1 {
		e.voters[j] = e.others[i]
	}
}

// zones counts the voters of each zone.
func (e *electorate) zones() map[string]int {
	zones := map[string]int{}
	for _, m := range e.voters {
		zones[m.Zone]++
	}
	return zones
}

// worst returns the voter that would be missed least: one that is gone, then
// one of the most crowded zone, then the youngest.
func (e *electorate) worst() int {
	zones := e.zones()
	return e.first(e.voters, func(a, b Member) int {
		return cmp.Or(
			-compareBool(e.gone(a), e.gone(b)),
			-cmp.Compare(zones[a.Zone], zones[b.Zone]),
			-cmp.Compare(a.RaftID, b.RaftID),
		)
	})
}

// best returns the stable member that would help most: one of the zone with the
// fewest voters, then the oldest. It returns -1 when there is none.
func (e *electorate) best() int {
	zones := e.zones()
	i := e.first(e.others, func(a, b Member) int {
		return cmp.Or(
			-compareBool(e.stable(a), e.stable(b)),
			cmp.Compare(zones[a.Zone], zones[b.Zone]),
			cmp.Compare(a.RaftID, b.RaftID),
		)
	})
	if i >= 0 && !e.stable(e.others[i]) {
		return -1
	}
	return i
}

// first returns the index of the smallest member, -1 of none.
func (e *electorate) first(all []Member, compare func(a, b Member) int) int {
	found := -1
	for i := range all {
		if found < 0 || compare(all[i], all[found]) < 0 {
			found = i
		}
	}
	return found
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
