package scheduler

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/scheduler/place"
)

// attach keeps a pod to the node that has its volumes, and notes which of them
// have none yet: they get the pod's. It says why the pod has to wait instead, ""
// when it has not.
func (p *placer) attach(s *placement, d *place.Demand) string {
	if len(s.volumes) == 0 {
		return ""
	}
	home, known, bytes := "", "", int64(0)
	for _, id := range s.volumes {
		claim, found := p.in.wanted(id)
		if !found {
			return fmt.Sprintf("persistentvolumeclaim %q not found", id.Owner)
		}
		if claim.mode() == corev1.ReadWriteOncePod {
			if user := p.userOf(id); user != "" {
				return fmt.Sprintf("waits: persistentvolumeclaim %q is for one pod at a time, and %s uses it", id.Owner, user)
			}
		}
		node, bound := p.homeOf(id)
		switch {
		case node == "":
			if reason := p.unbindable(id, claim); reason != "" {
				return reason
			}
			bytes += claim.bytes()
		case home != "" && home != node:
			return fmt.Sprintf("its volumes are on different nodes: %s on %s, %s on %s", known, home, id.Owner, node)
		default:
			home, known = node, id.Owner
		}
		if !bound {
			s.unbound = append(s.unbound, id)
		}
	}
	if home != "" {
		d.Within = []string{home}
		if reason := p.in.absent(home, known); reason != "" {
			return reason
		}
	}
	if len(s.unbound) > 0 {
		return p.roomFor(d, bytes)
	}
	return ""
}

// homeOf returns the node that has a volume, or that was asked for it in this
// decision and is not bound yet; "" when there is none.
func (p *placer) homeOf(id api.Identity) (node string, bound bool) {
	if holder, bound := p.in.board.Claims[id.String()]; bound {
		return holder.Node, true
	}
	return p.homes[id], false
}

// unbindable says why a claim gets no node now, "" when it may have one.
func (p *placer) unbindable(id api.Identity, claim wantedClaim) string {
	if reason := claim.unprovided(); reason != "" {
		return fmt.Sprintf("persistentvolumeclaim %q is not bound: %s", id.Owner, reason)
	}
	if !p.in.authority.Quorate {
		return waitsForVolumeQuorum
	}
	// A fleet that had to be recovered may have lost what it had agreed on. An
	// empty volume in the place of a full one would be the worst answer.
	if v, known := p.in.facts.Volumes[id.String()]; known && !p.in.facts.Discarded(id.String(), v.Claim) {
		return fmt.Sprintf("persistentvolumeclaim %q had its volume on %s, and the fleet's log does not say so any more", id.Owner, v.Node)
	}
	return ""
}

// absent says why nothing can be started on the node that has a volume, "" when
// something can.
func (in *input) absent(home, claim string) string {
	subject := fmt.Sprintf("waits for node %s, which has its volume %s: ", home, claim)
	n := in.node(home)
	switch {
	case n == nil && strings.Contains(home, " "):
		return fmt.Sprintf("its volume %s is on %s and out of reach for good", claim, home)
	case n == nil:
		return subject + "nothing is known of it"
	case n.status == api.NodeLost:
		return subject + "it is lost"
	case n.status == api.NodeLeft:
		return subject + "it has left"
	case n.status == api.NodeSuspect:
		return subject + "it is not heard of"
	case !n.reported:
		return subject + "it has not reported its pods yet"
	}
	return ""
}

// roomFor keeps a pod to nodes whose disks have room for more volumes.
func (p *placer) roomFor(d *place.Demand, bytes int64) string {
	p.countStored()
	within := []string{}
	for i := range p.in.nodes {
		n := &p.in.nodes[i]
		if d.Within != nil && d.Within[0] != n.info.Name {
			continue
		}
		disk, said := n.info.Allocatable[corev1.ResourceEphemeralStorage]
		if !said || bytes <= disk.Value()-p.stored[n.info.Name] {
			within = append(within, n.info.Name)
		}
	}
	if len(within) == 0 {
		return fmt.Sprintf("0/%d nodes are available: %d node(s) did not have enough free storage.", len(p.in.nodes), len(p.in.nodes))
	}
	if d.Within != nil || len(within) < len(p.in.nodes) {
		d.Within = within
	}
	return ""
}

// countStored adds up what the volumes of each node may take.
func (p *placer) countStored() {
	if p.stored != nil {
		return
	}
	p.stored = map[string]int64{}
	for name, holder := range p.in.board.Claims {
		id, ok := api.ParseVolumeClaim(name)
		if !ok {
			continue
		}
		bytes := p.in.facts.Volumes[name].Bytes
		if claim, found := p.in.wanted(id); found {
			bytes = claim.bytes()
		}
		p.stored[holder.Node] += bytes
	}
}

// bind asks for the claims of volumes that have no node yet.
func (p *placer) bind(s placement, node string) {
	for _, id := range s.unbound {
		if _, asked := p.homes[id]; asked {
			continue
		}
		if p.homes == nil {
			p.homes = map[api.Identity]string{}
		}
		p.homes[id] = node
		if claim, found := p.in.wanted(id); found {
			p.stored[node] += claim.bytes()
		}
		p.claims = append(p.claims, ClaimRequest{Identity: id, Node: node})
	}
}

// userOf returns the pod that uses a volume, as far as that is known.
func (p *placer) userOf(id api.Identity) string {
	if p.users == nil {
		p.users = map[api.Identity]string{}
		for _, k := range p.kept {
			p.use(k.cast, k.Pod)
		}
		for i := range p.going {
			if a := &p.going[i].Assignment; a.Ended == "" {
				p.use(p.in.castKnown(a.Pod), a.Pod)
			}
		}
		for _, k := range p.placed {
			p.use(k.cast, k.Pod)
		}
	}
	return p.users[id]
}

// use notes that a pod uses its volumes.
func (p *placer) use(c *cast, pod api.Pod) {
	for _, id := range c.claims(pod.Identity) {
		p.users[id] = pod.Name()
	}
}
