package gossip

import (
	"fmt"
	"time"
)

// follow begins to follow another authority.
func (c *Core) follow(a Authority) {
	if a.Leader != c.authority.Leader {
		clear(c.sent)
		c.say("follows %s instead of %s", c.named(a), c.named(c.authority))
	}
	c.authority, c.granted = a, c.now
	c.renew()
}

// named returns an authority with the leader's name for its ID.
func (c *Core) named(a Authority) string {
	if p, known := c.roster[a.Leader]; known {
		a.Leader = p.Name
	}
	return a.String()
}

// renew tells the leader that this node lives, and what is new of it. Without
// an answer for a while it tries to get through by up to three others; without
// a leader it asks one peer after another.
func (c *Core) renew() {
	c.renewed = c.now
	if c.lead != nil {
		return
	}
	target := c.authority.Leader
	if target == "" || target == c.cfg.Self.ID || !c.knows(target) {
		others := c.others()
		if len(others) == 0 {
			return
		}
		c.asked++
		target = others[c.asked%len(others)].ID
		c.send(Message{To: target, Renewal: c.newRenewal(true)})
		return
	}
	c.send(Message{To: target, Renewal: c.newRenewal(false)})
	if c.now-c.granted < 2*RenewEvery {
		return
	}
	for i, via := range c.relays(target) {
		if i == 3 {
			break
		}
		c.sendVia(via, Message{To: target, Renewal: c.newRenewal(true)})
	}
}

// relays returns the peers through which another one may be reached: those
// heard of last come first in turn, so that not all nodes take the same.
func (c *Core) relays(target string) []string {
	var out []string
	others := c.others()
	for i := range others {
		p := others[(i+int(c.renewals))%len(others)]
		heard, ever := c.heard[p.ID]
		if p.ID != target && ever && c.now-heard < 5*time.Second {
			out = append(out, p.ID)
		}
	}
	return out
}

// newRenewal makes a renewal. One that stands alone may be lost or arrive at
// somebody who has not got the one before: it brings no changes.
func (c *Core) newRenewal(alone bool) *Renewal {
	c.renewals++
	r := &Renewal{
		Boot: c.cfg.Boot, N: c.renewals, Sent: c.now, Known: c.authority, Set: c.set.Hash(), Facts: c.facts.Hash(),
		Ledger: c.ledger.index, LedgerEpoch: c.ledger.epoch, Leaving: c.leaving, Handover: c.handover,
	}
	r.Records = c.records.Hash(false)
	if c.wantAll && !alone {
		r.Digest, c.wantAll = c.records.Digest(), false
	}
	for _, kind := range kinds {
		record := c.records.Get(c.cfg.Self.ID, kind)
		if !record.Body.Known() {
			continue
		}
		version := Version{record.Seq, record.Hash}
		sent := c.sent[kind]
		if sent.version == version && c.now-sent.at < resendAfter || sent.at < 0 && sent.version == version {
			continue
		}
		r.Updates = append(r.Updates, Update{record.Header, Diff(Document{}, record.Body)})
		if !alone {
			c.sent[kind] = outgoing{version, c.now}
		}
	}
	return r
}

// grant takes in a leader's word.
func (c *Core) grant(from string, g *Grant) error {
	if g.Refused != "" {
		c.refused, c.refusedAt = g.Refused, c.now
		return nil
	}
	if g.Not {
		// Whoever was asked follows somebody else.
		if g.Known() && g.Leader != c.cfg.Self.ID && g.Authority.Beats(c.authority) && c.knows(g.Leader) && !c.deposed(g.Authority) {
			c.follow(g.Authority)
		} else if from == c.authority.Leader {
			c.authority = Authority{Epoch: c.authority.Epoch, Term: c.authority.Term}
		}
		return nil
	}
	if g.Leader != from {
		return fmt.Errorf("%s grants in the name of %s", from, g.Leader)
	}
	if c.lead != nil {
		if !g.Authority.Beats(c.lead.authority) || c.cfg.planted == PlantedStubbornLeader {
			if c.knows(from) {
				c.follower(from).owed = true // it is to hear of the better one
			}
			return nil
		}
		c.layDown("a better authority is there: " + c.named(g.Authority))
	}
	stale := c.now-c.granted >= LostAfter
	if g.Leader != c.authority.Leader && c.authority.Known() && !g.Authority.Beats(c.authority) && !stale && c.cfg.planted != PlantedObeyDeposed {
		return nil
	}
	if c.deposed(g.Authority) {
		return nil // and does not know it
	}
	if g.Authority != c.authority {
		c.follow(g.Authority)
	}
	c.granted, c.refused, c.pinged = c.now, "", 0
	if g.Quorate {
		c.quorate = c.now
	}
	if g.Boot == c.cfg.Boot || c.cfg.planted == PlantedForeignBoot {
		c.lease, c.long = max(c.lease, g.Lease), max(c.long, g.Long)
	}
	for kind, seq := range g.Acked {
		if sent, found := c.sent[kind]; found && sent.version.Seq == seq {
			c.sent[kind] = outgoing{sent.version, -1} // arrived
		}
	}
	c.health, c.healthQuorate = g.Health, g.Quorate
	c.wantAll = c.wantAll || g.WantDigest
	return c.accept(g)
}

// deposed reports whether this node has heard of a later epoch or term than a
// quorate authority's. What acts has those of the last quorate one.
func (c *Core) deposed(a Authority) bool {
	late := c.authority.Epoch > a.Epoch || c.authority.Epoch == a.Epoch && c.authority.Term > a.Term
	return a.Quorate && late && c.cfg.planted != PlantedObeyDeposed
}

// Heard returns how long ago another node was last heard of directly; false when
// it never was.
func (c *Core) Heard(id string) (time.Duration, bool) {
	at, ever := c.heard[id]
	return c.now - at, ever
}

// accept takes in what a grant brings. What does not fit what this node has is
// not an error: the next renewal says what it has, and it is sent again.
func (c *Core) accept(g *Grant) error {
	if g.Set != nil {
		if next, err := c.set.Patch(*g.Set); err == nil {
			if _, err := DecodeSet(next); err != nil {
				return err
			}
			c.set = next
		}
	}
	if g.Facts != nil {
		if next, err := c.facts.Patch(*g.Facts); err == nil {
			c.facts = next
		}
	}
	if g.Ledger != nil {
		c.fresh = g.Ledger
	}
	return c.learn(g.Updates)
}

// orphan looks for somebody to act when no quorate leader is to be heard of.
func (c *Core) orphan() {
	if c.unwanted() {
		return // who is not wanted leads nobody, not even itself
	}
	if c.now-max(c.quorate, c.born) < OrphanAfter {
		return
	}
	if c.authority.Known() && !c.authority.Quorate && c.now-c.granted < LostAfter {
		return // an acting leader is there
	}
	if c.pinged == 0 {
		c.pinged = c.now
		for _, p := range c.lower() {
			c.send(Message{To: p.ID, Ping: &Ping{N: c.renewals}})
		}
		if len(c.lower()) > 0 {
			return
		}
	}
	for _, p := range c.lower() {
		if heard, ever := c.heard[p.ID]; ever && heard >= c.pinged {
			// It lives, and will act by itself, for as long as it answers.
			if c.now-heard >= AnswerWithin {
				c.pinged = 0
			}
			return
		}
	}
	if len(c.lower()) > 0 && c.now-c.pinged < AnswerWithin {
		return
	}
	c.act()
}

// lower returns the peers that come before this node as acting leaders.
func (c *Core) lower() []Peer {
	others := c.others()
	for i, p := range others {
		if p.ID > c.cfg.Self.ID {
			return others[:i]
		}
	}
	return others
}

// act makes this node the acting leader of those that it reaches.
func (c *Core) act() {
	c.pinged = 0
	c.takeLead(Authority{Leader: c.cfg.Self.ID, Epoch: c.authority.Epoch, Term: c.authority.Term})
}
