package gossip

import (
	"slices"
	"time"
)

// How long claims wait for their holders.
const (
	// ReleaseAfter is how long after the last renewal of a node the leader gives
	// its claims to others: its fencer ends what it runs ten seconds after the
	// renewal was sent; 5 % for clocks that run apart, two seconds for the
	// killing, and some more.
	ReleaseAfter = 15 * time.Second
	// HandoverLease is how long the lease of a node lasts, from the sending of
	// its last renewal, when its daemon is about to be restarted. Its claims are
	// released as much later.
	HandoverLease = 60 * time.Second
	// claimsSettle is how long a node that comes back after its claims were
	// released waits for a lease: by then they are given to others, or are not.
	claimsSettle = 2 * time.Second
	// handoverEnds is when such a lease has ended by the clock of any node, and
	// releaseHandover is ReleaseAfter for it.
	handoverEnds    = HandoverLease + HandoverLease/20
	releaseHandover = handoverEnds + ReleaseAfter - 10*time.Second
)

// Lease returns until when exclusive pods may run here, counted from the
// sending of the renewal that a quorum confirmed; zero when none ever was.
func (c *Core) Lease() time.Duration { return c.lease }

// LongLease is Lease for a lease of HandoverLease; zero when none was granted.
func (c *Core) LongLease() time.Duration { return c.long }

// HandOver asks for a long lease, because the daemon is about to be restarted:
// LongLease tells when it was granted. Nothing may be renewed after that.
func (c *Core) HandOver(now time.Duration) {
	c.now, c.handover = now, true
	c.renew()
}

// Round begins a quorum round: once Verified is called with its number, every
// renewal that arrived before is confirmed. 0 when this node does not lead with
// a quorum.
func (c *Core) Round() uint64 {
	if c.lead == nil || !c.lead.authority.Quorate {
		return 0
	}
	c.lead.round++
	for id, f := range c.lead.followers {
		f.pending, f.round, f.lasting = f.sent, c.lead.round, f.handover && c.noted(id)
	}
	c.pendingOwn, c.lastingOwn = c.now, c.handover && c.noted(c.cfg.Self.ID)
	return c.lead.round
}

// noted reports whether the ledger says that a node's lease may be a long one.
func (c *Core) noted(id string) bool {
	return c.roster[id].Handover || c.cfg.planted == PlantedUnnotedHandover
}

// Verified tells that a quorum has confirmed this leader since Round.
func (c *Core) Verified(round uint64) {
	if c.lead == nil || round != c.lead.round {
		return
	}
	if !c.lead.rooted {
		c.lead.floor, c.lead.rooted = c.ledger.ledgerVersion, true
	}
	for _, f := range c.lead.followers {
		if f.round != round || !c.informed(f) {
			continue
		}
		f.lease = max(f.lease, f.pending)
		if f.lasting && f.pending > f.long {
			f.long, f.owed = f.pending, true
		}
	}
	c.lease = max(c.lease, c.pendingOwn)
	if c.lastingOwn {
		c.long = max(c.long, c.pendingOwn)
	}
}

// informed reports whether a follower knows what was taken from it, so that a
// lease cannot make it run that. Of one that came back after its claims had been
// released that is known once what was decided before is in the ledger, or never
// will be.
func (c *Core) informed(f *follower) bool {
	if c.cfg.planted == PlantedUninformed {
		return true
	}
	if f.back > 0 {
		if c.now-f.back < claimsSettle {
			return false
		}
		f.needs, f.back = c.ledger.ledgerVersion, 0
	}
	return !f.has.less(f.needs) && !f.has.less(c.lead.floor)
}

// Handovers returns what the ledger has to note before long leases are granted,
// and after them: by ID, whether the node's lease may be a long one. A long lease
// runs until it ends or the node's fencer hears of a newer one, and that is not
// to be known here: it may be cut off after its daemon is back and before it got
// any. Nothing when this node does not lead with a quorum.
func (c *Core) Handovers() map[string]bool {
	if c.lead == nil || !c.lead.authority.Quorate {
		return nil
	}
	out := map[string]bool{}
	note := func(id string, wanted bool, asked time.Duration) {
		ended := c.now-max(asked, c.lead.since) >= handoverEnds
		if noted := c.roster[id].Handover; wanted && !noted || !wanted && noted && ended {
			out[id] = wanted
		}
	}
	note(c.cfg.Self.ID, c.handover, c.born)
	for id, f := range c.lead.followers {
		if f.renewed > 0 && c.knows(id) {
			note(id, f.handover, f.asked)
		}
	}
	return out
}

// Released returns the names of the nodes that cannot be running exclusive pods
// any more, sorted: this leader has heard no renewal of theirs for so long that
// their fencers have done their work, and has led for as long, because they may
// have renewed with the leader before. Nodes that were removed are among them by
// their FormerName, under the same rule: nobody takes their renewals any more, but
// they may still run. Nothing when this node does not lead with a quorum.
func (c *Core) Released() []string {
	if c.lead == nil || !c.lead.authority.Quorate && c.cfg.planted != PlantedActingRelease {
		return nil
	}
	var out []string
	for id, p := range c.roster {
		switch {
		case p.Removed && c.releasesRemoved(p):
			out = append(out, FormerName(p.Name, id))
		case !p.Removed && id != c.cfg.Self.ID && c.releases(p, c.follower(id)):
			out = append(out, p.Name)
		}
	}
	slices.Sort(out)
	return out
}

// departed is what a leader remembers of a node that was removed.
type departed struct {
	renewed  time.Duration // see follower
	handover bool
}

// releasesRemoved is releases for a node that was removed. It was a follower
// until then, if this node led.
func (c *Core) releasesRemoved(p Peer) bool {
	last := c.lead.departed[p.ID]
	if f, followed := c.lead.followers[p.ID]; followed {
		last = departed{f.renewed, f.handover}
	}
	wait := ReleaseAfter
	if last.handover || p.Handover {
		wait = releaseHandover
	}
	return c.now-max(last.renewed, c.lead.since) >= wait
}

// releases reports whether the claims of a follower may be given to others.
func (c *Core) releases(p Peer, f *follower) bool {
	since := c.lead.since
	if c.cfg.planted == PlantedHastyRelease {
		since = 0
	}
	long := (f.handover || p.Handover) && c.cfg.planted != PlantedForgottenHandover
	if long && c.now-max(f.asked, since) < releaseHandover {
		return false
	}
	return c.now-max(f.renewed, since) >= ReleaseAfter
}

// watchReleases notes when claims are released, so that the leader decides anew.
func (c *Core) watchReleases() {
	for _, p := range c.others() {
		f := c.follower(p.ID)
		c.noteRelease(p, &f.released, c.releases(p, f))
	}
	for id, p := range c.roster {
		if !p.Removed {
			continue
		}
		released := c.lead.released[id]
		c.noteRelease(p, &released, c.releasesRemoved(p))
		c.lead.released[id] = released
	}
}

func (c *Core) noteRelease(p Peer, was *bool, is bool) {
	is = is && c.lead.authority.Quorate
	if *was == is {
		return
	}
	*was = is
	c.revision++
	if is && !p.Removed {
		c.say("node %s cannot be running exclusive pods any more", p.Name)
	}
}
