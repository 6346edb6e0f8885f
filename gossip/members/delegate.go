package members

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls. Most of it is called with memberlist's lock
// held, so nothing here calls memberlist.
type delegate struct{ *session }

var _ interface {
	memberlist.Delegate
	memberlist.EventDelegate
	memberlist.AliveDelegate
	memberlist.MergeDelegate
	memberlist.ConflictDelegate
} = (*delegate)(nil)

// NodeMeta returns this node's card.
func (d *delegate) NodeMeta(int) []byte {
	c, _ := d.table.card(d.cfg.Node.ID)
	return []byte(c.raw)
}

// NotifyAlive judges what is said of a node. memberlist passes over what is
// refused here.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	if n.Name == d.cfg.Node.ID {
		// memberlist contradicts what is wrong. It cannot do without itself,
		// also where this node is no member any more.
		_, _ = d.table.offer(n.Name, n.Meta)
		return nil
	}
	if err := d.take(n.Name, n.Meta); err != nil {
		return err
	}
	c, _ := d.table.card(n.Name)
	ip, _ := netip.AddrFromSlice(n.Addr)
	if at := netip.AddrPortFrom(ip.Unmap(), n.Port); at != c.gossip {
		return d.refused(n.Name, fmt.Errorf("it is said to gossip at %s and has signed %s", at, c.gossip))
	}
	return nil
}

// take takes in a card from the network.
func (d *delegate) take(id string, raw []byte) error {
	news, err := d.table.offer(id, raw)
	if err != nil && !errors.Is(err, errOld) {
		return d.refused(id, err)
	}
	if news {
		poke(d.changed)
	}
	return err
}

func (d *delegate) refused(id string, err error) error {
	d.say(id, fmt.Sprintf("gossip about node %.12s is refused: %v", id, err))
	return err
}

// NotifyMerge judges somebody who joins by those whom it knows. One of them may
// have been removed since; somebody who knows no member is of another fleet.
func (d *delegate) NotifyMerge(peers []*memberlist.Node) error {
	for _, n := range peers {
		if _, err := d.cfg.Member(n.Name); err == nil {
			return nil
		}
	}
	return errors.New("it knows no node of this fleet")
}

// NotifyConflict tells of a node that comes up at another address before it was
// given up at the old one. memberlist keeps to that and tells nobody; the card
// says where the node is now.
func (d *delegate) NotifyConflict(_, other *memberlist.Node) { d.spread(other.Name) }

// NotifyJoin, NotifyLeave and NotifyUpdate follow who is there.
func (d *delegate) NotifyJoin(n *memberlist.Node) {
	d.table.arrive(n.Name, n.Meta)
	poke(d.changed)
}

// NotifyUpdate is described at NotifyJoin.
func (d *delegate) NotifyUpdate(n *memberlist.Node) {
	d.table.arrive(n.Name, n.Meta)
	poke(d.changed)
}

// NotifyLeave is described at NotifyJoin. It may have been a mistake: the node is
// looked for at once.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	d.table.depart(n.Name)
	poke(d.urgent)
	poke(d.changed)
}

// NotifyMsg takes a card that travels by itself, and passes it on.
func (d *delegate) NotifyMsg(raw []byte) {
	cards, err := unbundle(raw)
	if err == nil {
		d.merge(cards)
	}
}

// GetBroadcasts returns the cards that travel by themselves.
func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.queue.GetBroadcasts(overhead, limit)
}

// LocalState returns the cards that memberlist does not carry.
func (d *delegate) LocalState(bool) []byte { return bundle(d.table.loose()) }

// MergeRemoteState takes them.
func (d *delegate) MergeRemoteState(raw []byte, _ bool) {
	cards, err := unbundle(raw)
	if err != nil {
		d.say("state", err.Error())
		return
	}
	d.merge(cards)
}

func (d *delegate) merge(cards []named) {
	for _, c := range cards {
		news, err := d.table.offer(c.id, []byte(c.card.raw))
		switch {
		case err != nil && (errors.Is(err, errForge) || errors.Is(err, errTwice)):
			_ = d.refused(c.id, err) // whoever passed it on is not to blame
		case news:
			d.spread(c.id)
			poke(d.changed)
		}
	}
}

// spread lets a node's card travel.
func (d *delegate) spread(id string) {
	if c, known := d.table.card(id); known {
		d.queue.QueueBroadcast(&letter{id: id, raw: bundle([]named{{id, c}})})
	}
}

// newQueue returns the queue of cards that travel.
func (m *Members) newQueue() *memberlist.TransmitLimitedQueue {
	return &memberlist.TransmitLimitedQueue{NumNodes: m.table.size, RetransmitMult: memberlist.DefaultLANConfig().RetransmitMult}
}

// letter is a card that travels. A newer one of the same node takes its place.
type letter struct {
	id  string
	raw []byte
}

var _ memberlist.NamedBroadcast = (*letter)(nil)

// Name returns whose card it is.
func (l *letter) Name() string { return l.id }

// Message returns the card.
func (l *letter) Message() []byte { return l.raw }

// Finished does nothing.
func (l *letter) Finished() {}

// Invalidates reports whether the other one is of the same node.
func (l *letter) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(*letter)
	return ok && o.id == l.id
}
