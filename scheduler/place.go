package scheduler

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/scheduler/place"
)

// mostSteps bounds the work of one decision, as place.Fleet.Limit counts it: a
// second or two.
const mostSteps = 1 << 28

// mostEvictions bounds how many pods are made room for in one decision.
const mostEvictions = 64

// A placement is a pod that needs a node.
type placement struct {
	pod       *pod
	cast      *cast
	priority  int32
	exclusive bool
	volumes   []api.Identity // claims that it uses
	unbound   []api.Identity // those without a node, once attach has looked
}

func (in *input) placement(w *workload, p *pod) placement {
	s := placement{pod: p, cast: in.castOf(w, p.Revision), priority: priorityOf(&w.template.Spec), exclusive: w.exclusive}
	if m := s.cast.mold; m != nil && p.Revision != w.revision {
		s.priority = m.Priority // as it counts once the pod runs: else two would take turns in preempting each other
	}
	s.volumes = s.cast.claims(p.Identity)
	return s
}

func priorityOf(spec *corev1.PodSpec) int32 {
	if spec.Priority == nil {
		return 0
	}
	return *spec.Priority
}

// A placer gives pods to nodes.
type placer struct {
	in      *input
	fleet   *place.Fleet
	brake   brake
	kept    []*pod
	placed  []*pod
	pending []api.Unplaced
	going   []api.Removal
	claims  []ClaimRequest
	homes   map[api.Identity]string // nodes that were asked for volumes
	stored  map[string]int64        // bytes that volumes may take, by node; nil until somebody asks
	users   map[api.Identity]string // pods that use volumes, by claim; nil until somebody asks
	evictor evictor
	evicted []stop
}

// assignPods gives each pod the best node that it fits on: those of a higher
// priority first, then the oldest. Pods that are placed already, and those that
// are going until they are gone, keep what they occupy.
func assignPods(in *input, kept []*pod, going []api.Removal, starts []placement) *placer {
	p := &placer{in: in, kept: kept, going: going}
	if len(starts) == 0 { // nobody asks what is left
		return p
	}
	if err := p.book(going); err != nil {
		for _, s := range starts {
			p.wait(s, err.Error())
		}
		return p
	}
	slices.SortStableFunc(starts, func(a, b placement) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), a.pod.created.Compare(b.pod.created), a.pod.Compare(b.pod.Pod))
	})
	in.chargeAll(kept, going)
	starts = p.withinQuota(starts)
	p.brake = newBrake(in, kept, starts)
	p.evictor = evictor{p: p, going: going, left: mostEvictions}
	for len(starts) > 0 {
		n := 1
		for n < len(starts) && starts[n].alike(starts[0]) {
			n++
		}
		p.put(starts[:n])
		starts = starts[n:]
	}
	slices.SortFunc(p.pending, func(a, b api.Unplaced) int { return a.Pod.Compare(b.Pod) })
	slices.SortFunc(p.claims, func(a, b ClaimRequest) int { return a.Identity.Compare(b.Identity) })
	return p
}

// alike reports whether two pods can be placed as one group.
func (s placement) alike(other placement) bool {
	return s.cast == other.cast && len(s.volumes) == 0 && !s.exclusive && !other.exclusive && s.pod.nominated == "" && other.pod.nominated == "" &&
		(s.pod.reason == reasonLost) == (other.pod.reason == reasonLost)
}

// book makes the fleet that pods are placed on, with all that occupies it. What is
// on nodes that are gone counts as gone, too: it draws nobody there by affinity, and
// keeps nobody from what is left of its zone.
func (p *placer) book(going []api.Removal) error {
	nodes := make([]place.Node, len(p.in.nodes))
	for i := range p.in.nodes {
		nodes[i] = p.in.nodes[i].placeable()
	}
	var err error
	if p.fleet, err = place.NewFleet(nodes, p.in.spaces); err != nil {
		return err
	}
	p.fleet.Limit(mostSteps)
	add := func(c *cast, node string) {
		if t := c.booked(); t != nil {
			p.fleet.Book(t, node, 1)
		}
	}
	for _, k := range p.kept {
		if !k.lost {
			add(k.cast, k.node)
		}
	}
	for i := range going {
		if p.in.health[going[i].Assignment.Node].Gone() {
			continue
		}
		add(p.in.castKnown(going[i].Assignment.Pod), going[i].Assignment.Node)
	}
	return nil
}

// placeable is the node as the placement sees it.
func (n *node) placeable() place.Node {
	out := place.Node{
		Name: n.info.Name, Labels: n.info.Labels, Taints: n.taints, Allocatable: n.info.Allocatable, Closed: n.unusable(),
		Gone: n.status == api.NodeLost || n.status == api.NodeLeft,
	}
	for _, image := range n.info.Images {
		out.Images = append(out.Images, place.Image{Names: image.Names, Size: image.SizeBytes})
	}
	return out
}

// put places pods that are alike.
func (p *placer) put(group []placement) {
	first := group[0]
	replaces := first.pod.reason == reasonLost
	if replaces {
		may := p.brake.may(len(group))
		for _, s := range group[may:] {
			p.wait(s, p.brake.refusal())
		}
		if group = group[:may]; may == 0 {
			return
		}
	}
	template, err := first.cast.ready()
	if err != nil {
		for _, s := range group {
			p.wait(s, err.Error())
		}
		return
	}
	d := place.Demand{Template: template, Careful: replaces && p.brake.careful}
	if reason := p.attach(&group[0], &d); reason != "" {
		p.wait(first, reason)
		return
	}
	first = group[0]
	switch {
	case first.exclusive:
		p.claimed(first, d)
	case first.pod.Kind == "DaemonSet":
		p.bound(group, d)
	case first.pod.nominated != "" && p.evictor.resume(first, d):
	default:
		placed := p.fleet.Place(d, len(group))
		for i, name := range placed.Nodes {
			p.take(group[i], name)
		}
		p.evictor.makeRoom(group[len(placed.Nodes):], d, placed.Reason)
	}
}

// take gives a pod a node, which has been booked, unless it has to wait for its
// volumes first.
func (p *placer) take(s placement, name string) {
	if len(s.unbound) > 0 {
		p.bind(s, name)
		p.wait(s, waitsForVolume)
		return
	}
	s.pod.node, s.pod.cast, s.pod.nominated = name, s.cast, ""
	p.placed = append(p.placed, s.pod)
	if p.users != nil {
		p.use(s.cast, s.pod.Pod)
	}
	if s.pod.reason == reasonLost {
		p.brake.started++
	}
}

// wait leaves a pod without a node, with the reason.
func (p *placer) wait(s placement, reason string) {
	p.pending = append(p.pending, api.Unplaced{
		Pod: s.pod.Pod, Unit: s.pod.unit, Commit: s.pod.commit, Created: s.pod.created, Why: s.pod.reason, Reason: reason, Nominated: s.pod.nominated,
	})
}

// bound gives the pods of a DaemonSet the nodes that they are for, once they fit.
func (p *placer) bound(group []placement, d place.Demand) {
	names := make([]string, len(group))
	for i, s := range group {
		names[i] = s.pod.Slot
	}
	for i, reason := range p.fleet.PlaceEach(d, names) {
		if reason != "" {
			p.wait(group[i], reason)
			continue
		}
		p.take(group[i], names[i])
	}
}

// claimed gives an exclusive pod its node once the claim of its identity names
// it. Until then the pod waits, and where nobody else can be running it the claim
// is asked for.
func (p *placer) claimed(s placement, d place.Demand) {
	if !p.in.authority.Quorate {
		p.wait(s, waitsForQuorum)
		return
	}
	holder, granted := p.in.board.Claims[s.pod.Identity.String()]
	if granted && !holder.Released {
		n := p.in.node(holder.Node)
		if n == nil || n.unusable() != "" {
			p.wait(s, waitsForRelease)
			return
		}
		if p.fleet.PlaceEach(d, []string{holder.Node})[0] == "" {
			if len(s.unbound) == 0 {
				s.pod.claim = holder.Claim
			}
			p.take(s, holder.Node)
			return
		}
	}
	if s.pod.nominated != "" && p.evictor.holds(s, d) {
		return
	}
	// Nobody else gets what is booked now while the claim is asked for.
	placed := p.fleet.Place(d, 1)
	if len(placed.Nodes) == 0 {
		p.evictor.makeRoom([]placement{s}, d, placed.Reason)
		return
	}
	s.pod.nominated = ""
	p.bind(s, placed.Nodes[0])
	p.claims = append(p.claims, ClaimRequest{Identity: s.pod.Identity, Node: placed.Nodes[0], Expect: holder.Claim})
	p.wait(s, waitsForClaim)
}
