package gossip

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// health is what a leader believes of a node.
type health struct {
	status    api.NodeStatus
	since     time.Time
	lostAt    time.Duration // by this leader's own judgement
	probed    time.Duration // when peers were last asked
	penalty   float64       // for coming and going
	penaltyAt time.Duration
	unstable  bool
}

// Flap damping, after that of BGP routes (RFC 2439): every loss that was none
// adds a penalty, which halves every five minutes. Above one bound a node gets
// nothing new, until it is below the other.
const (
	flapPenalty  = 1000
	flapSuppress = 2000
	flapReuse    = 750
	flapHalfLife = 5 * time.Minute
)

func (h *health) decayed(now time.Duration) float64 {
	return h.penalty * math.Exp2(-float64(now-h.penaltyAt)/float64(flapHalfLife))
}

// watch goes over the followers: who is silent is suspect, then lost.
func (c *Core) watch() {
	for _, p := range c.others() {
		f := c.follower(p.ID)
		silence := c.now - f.heard
		if f.unstable && f.decayed(c.now) < flapReuse {
			f.unstable = false
			c.revision++
		}
		switch {
		case f.status == api.NodeLeft || f.status == api.NodeLost:
		case silence >= c.patience() || silence >= SuspectAfter && c.cfg.planted == PlantedHastyLoss:
			f.lostAt, c.lead.doubted = c.now, c.now
			c.become(p, f, api.NodeLost)
		case silence >= SuspectAfter:
			if f.status != api.NodeSuspect {
				c.become(p, f, api.NodeSuspect)
			}
			if c.now-f.probed >= RenewEvery {
				c.askPeers(p.ID, f)
			}
		}
	}
	c.checkConnectivity()
	c.watchReleases()
	for id, f := range c.lead.followers {
		if !c.knows(id) {
			c.lead.departed[id] = departed{f.renewed, f.handover}
			delete(c.lead.followers, id)
			c.revision++
		}
	}
}

// patience is for how long a node is silent until it is lost. Where nobody has a
// quorum it is more likely that the network is split than that so many machines
// died at once, and a split that ends within 5 s should have moved nothing. In a
// fleet of two it is one machine in either case.
func (c *Core) patience() time.Duration {
	if c.lead.authority.Quorate || len(c.others()) < 2 {
		return LostAfter
	}
	return ActingLostAfter
}

// checkConnectivity asks those that were just lost once more, by this node itself:
// when none has answered after a second, it is they who are gone and not this
// node, as far as can be told.
func (c *Core) checkConnectivity() {
	l := c.lead
	if l.doubted == 0 {
		return
	}
	if c.now-l.doubted >= AnswerWithin || c.cfg.planted == PlantedNoSecondLook {
		l.doubted, l.checked = 0, c.wall
		c.revision++
		return
	}
	for _, p := range c.others() {
		if f := l.followers[p.ID]; f.status == api.NodeLost && c.now-f.probed >= RenewEvery/2 {
			f.probed = c.now
			c.send(Message{To: p.ID, Ping: &Ping{}})
		}
	}
}

// inherit takes over what a quorate leader has last said of a node that this one
// has not heard since: a machine that is dead does not come back to life because
// somebody else leads. One that lives after all renews soon.
func (c *Core) inherit(p Peer, f *follower) {
	if !c.healthQuorate {
		return
	}
	i := slices.IndexFunc(c.health, func(h api.NodeHealth) bool { return h.Node == p.Name })
	if i < 0 {
		return
	}
	h := c.health[i]
	if heard, ever := c.heard[p.ID]; h.Gone() && (!ever || c.now-heard >= SuspectAfter) {
		f.status, f.since = h.Status, h.Since
	}
	if h.Unstable {
		f.unstable, f.penalty, f.penaltyAt = true, flapSuppress, c.now
	}
}

func (c *Core) become(p Peer, f *follower, status api.NodeStatus) {
	f.status, f.since = status, c.wall
	c.revision++
	if status != api.NodeSuspect {
		c.say("node %s is %s", p.Name, strings.ToLower(string(status)))
	}
}

// askPeers asks three peers, others each time, whether they reach a node.
func (c *Core) askPeers(target string, f *follower) {
	f.probed = c.now
	c.send(Message{To: target, Ping: &Ping{}})
	for i, via := range c.relays(target) {
		if i == 3 {
			break
		}
		c.send(Message{To: via, Probe: &Probe{Target: target}})
	}
}

// probe answers whether this node reaches another, or takes in the answer.
func (c *Core) probe(from string, p *Probe) {
	switch {
	case p.Reached:
		c.alive(p.Target)
	case c.knows(p.Target):
		c.probes[p.Target] = append(c.probes[p.Target], from)
		c.send(Message{To: p.Target, Ping: &Ping{}})
	}
}

// reached is called when a node answered a Ping.
func (c *Core) reached(id string) {
	c.alive(id)
	for _, asker := range c.probes[id] {
		c.send(Message{To: asker, Probe: &Probe{Target: id, Reached: true}})
	}
	delete(c.probes, id)
}

// alive notes that a node that sends no renewals lives: it is not lost.
func (c *Core) alive(id string) {
	if c.lead == nil {
		return
	}
	if f, known := c.lead.followers[id]; known && f.status != api.NodeLost && f.status != api.NodeLeft {
		f.heard = c.now
		if f.status == api.NodeSuspect {
			f.status, f.since = api.NodeAlive, c.wall
			c.revision++
		}
	}
}

// revive takes in that a node renews.
func (c *Core) revive(id string, f *follower, leaving bool) {
	p := c.roster[id]
	switch {
	case leaving:
		if f.status != api.NodeLeft {
			c.become(p, f, api.NodeLeft)
		}
	case f.status == api.NodeLost:
		f.penalty, f.penaltyAt = f.decayed(c.now)+flapPenalty, c.now
		if f.penalty >= flapSuppress && c.cfg.planted != PlantedNoDamping {
			f.unstable = true
			c.say("node %s comes and goes: it gets no new pods for a while", p.Name)
		}
		c.become(p, f, api.NodeAlive)
	case f.status != api.NodeAlive:
		f.status, f.since = api.NodeAlive, c.wall
		c.revision++
	}
}

// unwell returns what there is to say of the followers, by name; nothing of
// those that are well.
func (l *lead) unwell(c *Core) []api.NodeHealth {
	var out []api.NodeHealth
	for id, f := range l.followers {
		if f.status != api.NodeAlive || f.unstable {
			out = append(out, api.NodeHealth{Node: c.roster[id].Name, Status: f.status, Since: f.since, Unstable: f.unstable})
		}
	}
	slices.SortFunc(out, func(a, b api.NodeHealth) int { return strings.Compare(a.Node, b.Node) })
	return out
}
