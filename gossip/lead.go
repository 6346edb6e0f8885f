package gossip

import (
	"maps"
	"slices"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// lead is what a leader remembers of those that follow it.
type lead struct {
	authority Authority
	since     time.Duration // it came to have this authority
	followers map[string]*follower
	// departed are the followers that were removed, by ID; released those of all
	// that were removed whose claims may be given to others.
	departed map[string]departed
	released map[string]bool
	// changes are the records that were replaced since the last push, with
	// the version before.
	changes map[key]Record
	// doubted is when nodes were lost last: whether it is not this node that is
	// cut off is being found out; zero when it is known. checked is since when.
	doubted time.Duration
	checked time.Time
	// round is the last quorum round that was asked for.
	round uint64
	// floor is the ledger that this leader had when a quorum first confirmed it:
	// what leaders before it took from anybody is in there.
	floor  ledgerVersion
	rooted bool // floor is known
}

// follower is what a leader knows of one node.
type follower struct {
	health
	heard   time.Duration // when it was last known to live
	renewed time.Duration // when its last renewal came; zero when none came to this leader
	boot    int64         // of its daemon
	rival   int64         // another boot under the same key that wants in
	n       uint64        // of its newest renewal
	sent    time.Duration // of its newest renewal, by its own clock
	via     string        // the relay by which one came last
	viaAt   time.Duration // and when
	owed    bool          // it waits for an answer
	told    time.Duration // when the last grant was sent
	lease   time.Duration // see Grant.Lease
	long    time.Duration // see Grant.Long
	pending time.Duration // will be the lease once the round is confirmed
	lasting bool          // and a long one
	round   uint64
	// has is the ledger that it says it has, and needs the one without which it
	// gets no lease: a claim may have been taken from it since. back is when it
	// came back after its claims had been released; zero when needs is known.
	has, needs ledgerVersion
	back       time.Duration
	// handover says that its newest renewal asked for a long lease, asked when
	// the last one came that did.
	handover bool
	asked    time.Duration
	released bool // its claims may be given to others

	// What it has, as far as is known: what was sent counts.
	set, facts     copied
	ledger         ledgerVersion
	ledgerAt       time.Duration
	records        map[key]Version
	recordsAt      time.Duration
	synced         bool // only changes need to be looked at
	wantDigest     bool
	healthRevision uint64
}

// copied is a document that a follower has or is about to have.
type copied struct {
	document Document
	at       time.Duration // when it was sent
}

// confirm takes in which version the follower says it has.
func (s *copied) confirm(hash Hash, now time.Duration) {
	if hash != s.document.Hash() && now-s.at >= resendAfter {
		s.document = Document{} // lost on the way, or never had
	}
}

// next returns what leads the follower to the newest version, nil when it has it.
func (s *copied) next(newest Document, now time.Duration) *Delta {
	if !newest.Known() || s.document.Known() && s.document.Hash() == newest.Hash() {
		return nil
	}
	delta := Diff(s.document, newest)
	s.document, s.at = newest, now
	return &delta
}

// takeLead makes this node the leader.
func (c *Core) takeLead(a Authority) {
	if c.lead != nil {
		if c.lead.authority != a {
			c.say("leads: %s", c.named(a))
			if a.Quorate && !c.lead.authority.Quorate {
				c.hearAnew()
			}
			c.lead.authority, c.authority, c.lead.since = a, a, c.now
			c.greet()
		}
		return
	}
	if a.Quorate {
		c.refused = ""
	}
	former := c.authority.Leader
	c.say("leads: %s", c.named(a))
	c.lead = &lead{authority: a, since: c.now, followers: map[string]*follower{}, departed: map[string]departed{}, released: map[string]bool{}, changes: map[key]Record{}}
	c.authority, c.granted = a, c.now
	for _, p := range c.others() {
		f := c.follower(p.ID)
		// Whoever this node has not talked to gets the full time; the silence
		// of the former leader began when it fell silent.
		if heard, ever := c.heard[p.ID]; p.ID == former && ever && c.patience() == LostAfter {
			f.heard = heard
		}
		c.inherit(p, f)
	}
	c.greet()
}

// hearAnew gives every node that is not lost the full time from now on: this
// leader was one of those that only acted, and has just come to reach more nodes
// than it did.
func (c *Core) hearAnew() {
	for _, p := range c.others() {
		if f := c.follower(p.ID); f.status != api.NodeLost && f.status != api.NodeLeft {
			f.heard = c.now
		}
	}
}

// greet makes every node hear of this leader at once.
func (c *Core) greet() {
	for _, p := range c.others() {
		c.follower(p.ID).owed = true
	}
}

// layDown makes this node a follower again.
func (c *Core) layDown(why string) {
	c.say("leads no more: %s", why)
	c.health, c.healthQuorate = c.lead.unwell(c), c.lead.authority.Quorate
	c.lead, c.authority = nil, Authority{Epoch: c.authority.Epoch, Term: c.authority.Term}
	clear(c.sent)
	c.pinged = 0
}

func (c *Core) follower(id string) *follower {
	f := c.lead.followers[id]
	if f == nil {
		f = &follower{heard: c.now, records: map[key]Version{}}
		f.status, f.since = api.NodeAlive, c.wall
		c.lead.followers[id] = f
	}
	return f
}

// renewal takes in a node's renewal. Who does not lead says who does.
func (c *Core) renewal(from, via string, r *Renewal) error {
	if c.lead == nil {
		if r.Known.Quorate && r.Known.Leader != c.cfg.Self.ID && r.Known.Beats(c.authority) && c.now-c.granted >= OrphanAfter && c.knows(r.Known.Leader) && !c.deposed(r.Known) {
			c.follow(r.Known) // and find out whether it can be reached
		}
		c.reply(from, via, &Grant{Not: true, Authority: c.authority})
		return nil
	}
	f := c.follower(from)
	if !c.admits(f, r) {
		c.reply(from, via, &Grant{Authority: c.lead.authority, Refused: cloned})
		return nil
	}
	if c.releases(c.roster[from], f) { // as it was before it came back
		f.back = c.now
	}
	if r.N > f.n || r.Boot != f.boot {
		f.n, f.sent, f.handover = r.N, r.Sent, r.Handover
	}
	if via != "" {
		f.via, f.viaAt = via, c.now
	}
	if r.Boot != f.boot && c.cfg.planted != PlantedForeignBoot {
		f.lease, f.long, f.round = 0, 0, 0
	}
	if r.Handover {
		f.asked = c.now
	}
	f.has = ledgerVersion{r.LedgerEpoch, r.Ledger}
	f.boot, f.heard, f.owed, f.renewed = r.Boot, c.now, true, c.now
	c.revive(from, f, r.Leaving)
	if r.Known.Quorate && r.Known.Beats(c.lead.authority) && r.Known.Leader != c.cfg.Self.ID && !c.lead.authority.Quorate {
		// The node has just come from a quorate leader.
		c.layDown("a node follows " + c.named(r.Known))
		c.follow(r.Known)
		c.reply(from, via, &Grant{Not: true, Authority: c.authority})
		return nil
	}
	f.set.confirm(r.Set, c.now)
	f.facts.confirm(r.Facts, c.now)
	if has := (ledgerVersion{r.LedgerEpoch, r.Ledger}); !has.less(f.ledger) || c.now-f.ledgerAt >= resendAfter {
		f.ledger = has
	}
	first := c.learn(r.Updates)
	switch {
	case r.Digest != nil:
		f.records, f.wantDigest, f.synced = map[key]Version{}, false, false
		for node, versions := range r.Digest {
			for kind, v := range versions {
				f.records[key{node, kind}] = v
			}
		}
		if _, lacking := c.records.Newer(r.Digest); lacking {
			c.send(Message{To: from, Digest: &Compare{Digest: c.records.Digest(), Final: true}})
		}
	case r.Records != c.records.Hash(false) && c.now-f.recordsAt >= resendAfter:
		f.wantDigest = true
	}
	return first
}

// reply answers by the way on which the question came.
func (c *Core) reply(to, via string, g *Grant) {
	m := Message{To: to, Grant: g}
	if via == "" {
		c.send(m)
		return
	}
	c.sendVia(via, m)
}

const cloned = "another daemon runs with this node's key: a state folder was copied; give one of them a folder of its own and let it join"

// admits reports whether a renewal comes from the daemon that holds the lease. A
// daemon with another boot is a restart when the old one keeps silent, and a
// copy of the node when it does not. Other signs of life may be of either.
func (c *Core) admits(f *follower, r *Renewal) bool {
	switch {
	case f.boot == 0 || f.boot == r.Boot || c.now-f.renewed >= SuspectAfter:
		f.rival = 0
		return true
	case f.rival == 0 || f.rival == r.Boot:
		f.rival = r.Boot
	}
	return false
}

// Closed tells that the stream from a node has ended: a daemon that comes with
// the same key is its successor, not its copy.
func (c *Core) Closed(node string) {
	if c.lead == nil {
		return
	}
	if f, known := c.lead.followers[node]; known {
		f.boot = 0
	}
}

// push sends each follower what it lacks, and the answers that are owed.
func (c *Core) push() {
	changes := c.lead.changes
	c.lead.changes = map[key]Record{}
	unwell := c.lead.unwell(c)
	for _, p := range c.others() {
		f := c.follower(p.ID)
		g := Grant{Authority: c.lead.authority}
		if f.boot == 0 {
			// It does not follow this leader, or is not there: tell it who leads.
			if f.owed || c.now-f.told >= RenewEvery {
				f.told, f.owed = c.now, false
				c.send(Message{To: p.ID, Grant: &g})
			}
			continue
		}
		g.Set, g.Facts = f.set.next(c.set, c.now), f.facts.next(c.facts, c.now)
		if f.ledger.less(c.ledger.ledgerVersion) {
			g.Ledger, f.ledger, f.ledgerAt = c.ledger.raw, c.ledger.ledgerVersion, c.now
		}
		g.Updates = c.updatesFor(p.ID, f, changes)
		news := g.Set != nil || g.Facts != nil || g.Ledger != nil || len(g.Updates) > 0 || f.healthRevision != c.revision
		if !news && !f.owed {
			continue
		}
		f.healthRevision = c.revision
		g.Health = unwell
		g.Boot = f.boot
		if c.cfg.planted == PlantedUnverifiedLease {
			f.lease = f.sent
		}
		g.N, g.Sent, g.Lease, g.Long, g.WantDigest = f.n, f.sent, f.lease, f.long, f.wantDigest
		g.Acked = map[Kind]api.Seq{}
		for _, kind := range kinds {
			if r := c.records.Get(p.ID, kind); r.Body.Known() {
				g.Acked[kind] = r.Seq
			}
		}
		f.owed, f.told = false, c.now
		c.send(Message{To: p.ID, Grant: &g})
		if f.via != "" && c.now-f.viaAt < 2*time.Second {
			// Its way to this leader is cut; perhaps the way back as well.
			c.sendVia(f.via, Message{To: p.ID, Grant: &g})
		}
	}
}

// updatesFor returns the records that a follower lacks: changes of those that it
// has, others as a whole.
func (c *Core) updatesFor(id string, f *follower, changes map[key]Record) []Update {
	var out []Update
	keys := slices.Collect(maps.Keys(changes))
	if !f.synced {
		keys, f.synced = c.records.keys(), true
	}
	for _, k := range keys {
		if k.node == id || k.kind == Usage {
			continue
		}
		record, current := c.records.all[k]
		if !current {
			continue
		}
		has, known := f.records[k]
		if known && !has.Seq.Less(record.Seq) {
			continue
		}
		from := Document{}
		if before, changed := changes[k]; changed && known && before.Seq == has.Seq {
			from = before.Body
		}
		out = append(out, Update{record.Header, Diff(from, record.Body)})
		f.records[k], f.recordsAt = Version{record.Seq, record.Hash}, c.now
	}
	return out
}
