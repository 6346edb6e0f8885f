package scheduler

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// A crew is the pods of one workload, sorted by what may be done with them.
type crew struct {
	here []*pod // on nodes that are there, or without a node yet
	// lost are on nodes that are gone, while another node can take their place.
	// They count as gone and are not told to go: what is only unknown kills
	// nothing. When their node returns they are surplus.
	lost []*pod
	// waiting are on nodes that are gone, and no other node is for them: by
	// name, selector, affinity or a volume. They hold their slots, unless these were
	// filled before.
	waiting []*pod
	want    int // without those that wait
}

// muster sorts the pods of a workload.
func (in *input) muster(w *workload, pods []*pod) crew {
	out := crew{want: w.want}
	if !slices.ContainsFunc(pods, func(p *pod) bool { return p.lost }) {
		out.here = pods
		return out
	}
	filled := map[string]bool{}
	for _, p := range pods {
		if !p.lost {
			out.here = append(out.here, p)
			filled[p.Slot] = true
		}
	}
	elsewhere := in.forSomeNode(w)
	for _, p := range pods {
		switch {
		case !p.lost:
		case elsewhere && !in.bound(w, p) || filled[p.Slot]:
			out.lost = append(out.lost, p)
		default:
			out.waiting = append(out.waiting, p)
			filled[p.Slot] = true
			out.want = max(0, out.want-1)
		}
	}
	return out
}

// elsewhere reports whether a pod could be on any node that is there.
func (in *input) elsewhere(w *workload, p *pod) bool { return !in.bound(w, p) && in.forSomeNode(w) }

// forSomeNode reports whether the template is for any node that is there. How full
// the nodes are does not matter, nor what keeps new pods away for now.
func (in *input) forSomeNode(w *workload) bool {
	f := newFilter(in.rulesOf(w, w.target.revision))
	return slices.ContainsFunc(in.nodes, func(n node) bool {
		return !n.gone() && f.selects(&n)
	})
}

// elsewhereNow is elsewhere with the taints of the nodes: the pod, whose node is
// drained, could really move now, were there room. Where it could not, the reason
// is noted.
func (in *input) elsewhereNow(w *workload, p *pod) bool {
	if in.bound(w, p) {
		in.hinder(p, reasonOwnVolume)
		return false
	}
	f := newFilter(in.rulesOf(w, w.target.revision))
	count := map[string]int{}
	for i := range in.nodes {
		n := &in.nodes[i]
		reason := n.unusable()
		if reason == "" {
			reason = f.refuse(n)
		}
		if reason == "" {
			return true
		}
		if n.info.Name != p.node {
			count[reason]++
		}
	}
	in.hinder(p, noOtherNode(count))
	return false
}

// noOtherNode says why a pod could be on none of the other nodes, of which so many
// have each reason.
func noOtherNode(count map[string]int) string {
	parts := make([]string, 0, len(count))
	for _, reason := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, strconv.Itoa(count[reason])+" "+reason)
	}
	if len(parts) == 0 {
		return "there is no other node"
	}
	return "no other node may have it: " + strings.Join(parts, ", ")
}

// reasonOf says why a pod is started in the i-th free slot.
func (c *change) reasonOf(slot string, i int, lost []*pod, otherwise string) string {
	switch {
	case slices.ContainsFunc(lost, func(p *pod) bool { return p.Slot == slot }):
		return reasonLost
	case i < c.ended:
		return reasonReplace
	}
	return otherwise
}

// A level is how many pods of a workload must stay available while some of them
// are moved or given up.
type level struct {
	available int
	floor     int
	moves     int // pods that may be on their way to another node at a time
	minReady  time.Duration
}

// oneEach leaves one pod in each slot and returns these. A slot has several
// when its node was away and came back, when two leaders filled it, and while a
// pod moves away from a node that is drained. Of those the one that has been
// ready for longest stays; the others go once all their nodes have stayed for a
// while, and as far as the level allows.
func (c *change) oneEach(w *workload, pods []*pod, l *level, t template, in *input) []*pod {
	slots := map[string][]*pod{}
	var out []*pod
	for _, p := range mostWanted(pods) {
		if len(slots[p.Slot]) == 0 {
			out = append(out, p)
		}
		slots[p.Slot] = append(slots[p.Slot], p)
	}
	slices.SortFunc(out, func(a, b *pod) int { return a.Compare(b.Pod) })
	for _, keep := range out {
		group := slots[keep.Slot]
		if slices.ContainsFunc(group, func(p *pod) bool { return p.leaving }) {
			c.moveAway(w, group, l, t, in)
			continue
		}
		for _, p := range group[1:] {
			c.giveUpDouble(p, group, l, in)
		}
	}
	return out
}

// giveUpDouble stops a pod whose slot another one fills.
func (c *change) giveUpDouble(p *pod, group []*pod, l *level, in *input) {
	reason := reasonDouble
	if p.reason == reasonBalance && !slices.ContainsFunc(group, func(other *pod) bool { return other.reason == reasonLost }) {
		reason = reasonUnmoved
	}
	if p.node == "" {
		c.stop(p, reason)
		return
	}
	for _, other := range group {
		if back, recent := in.away[other.node]; recent {
			c.wakeAt(back.Add(settleTime))
			return
		}
	}
	if p.ready() {
		if l.available <= l.floor {
			return
		}
		l.available--
	}
	c.stop(p, reason)
}

// moveAway moves a slot off a node that is drained: the new pod first, and the
// old one goes when the new one is available.
func (c *change) moveAway(w *workload, group []*pod, l *level, t template, in *input) {
	var old, next []*pod
	for _, p := range group {
		if p.leaving {
			old = append(old, p)
		} else {
			next = append(next, p)
		}
	}
	arrived := false
	for _, p := range next {
		ok, at := p.available(l.minReady, in.now)
		c.wakeAt(at)
		arrived = arrived || ok
	}
	switch {
	case arrived:
		for _, p := range old {
			c.stop(p, p.leaves())
		}
		for _, p := range next[1:] {
			c.giveUpDouble(p, next, l, in)
		}
	case len(next) > 0:
		l.moves--
	case l.moves > 0 && in.elsewhereNow(w, old[0]) && in.mayBeReplaced(old):
		l.moves--
		c.start(old[0].Slot, t, reasonMove)
	}
}

// leaves says why a pod leaves its node.
func (p *pod) leaves() string {
	if p.moving {
		return reasonBalanced
	}
	return reasonDrained
}

// blockedSlots are the identities of a workload whose former instance may still
// be running: it was told to go and is not known to be gone.
func (in *input) blockedSlots(id api.Identity) map[string]bool {
	out := map[string]bool{}
	for blocked := range in.blocked {
		if blocked.Workload() == id {
			out[blocked.Slot] = true
		}
	}
	return out
}
