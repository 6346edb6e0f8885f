package place

// mostSteps bounds the work of one call: about half a second.
const mostSteps = 1 << 27

// Placed is what became of a demand.
type Placed struct {
	Nodes  []string // of the replicas that were placed, in the order in which they were
	Reason string   // why the others were not; "" when all were
}

// Place gives nodes to replicas of a template, one after the other, each the best
// one at that moment, and books them. Calling it for two replicas is the same as
// calling it for one twice.
func (f *Fleet) Place(d Demand, replicas int) Placed {
	var p Placed
	if replicas <= 0 {
		return p
	}
	if p.Reason = f.refuse(d); p.Reason != "" {
		return p
	}
	k := f.start(d).rank()
	defer f.spend(k.run)
	p.Nodes = make([]string, 0, min(replicas, 1<<10))
	for len(p.Nodes) < replicas {
		if k.spent() {
			p.Reason = noWorkLeft
			return p
		}
		i := k.next()
		if i < 0 {
			p.Reason = k.explain(f.all())
			return p
		}
		k.take(i)
		p.Nodes = append(p.Nodes, f.nodes[i].object.Name)
	}
	return p
}

// PlaceEach gives each of some nodes one replica, in their order, and books it.
// It returns, for each, why the node cannot have one; "" for those that got it.
// It does less work than Place when the nodes are few.
func (f *Fleet) PlaceEach(d Demand, nodes []string) []string {
	reasons := make([]string, len(nodes))
	if reason := f.refuse(d); reason != "" {
		for k := range reasons {
			reasons[k] = reason
		}
		return reasons
	}
	r := f.start(d)
	defer f.spend(r)
	for k, name := range nodes {
		i, known := f.index[name]
		switch {
		case !known:
			reasons[k] = noNodes
		case r.spent():
			reasons[k] = noWorkLeft
		case r.still(i) != fits || r.moving(i) != fits:
			reasons[k] = r.explain([]int32{i})
		default:
			f.book(r.g, i, 1)
			r.rules.add(&r.rules.own, i, 1, nil)
		}
		r.steps++
	}
	return reasons
}

// refuse says why nothing is done about a demand at all.
func (f *Fleet) refuse(d Demand) string {
	switch {
	case d.Template == nil:
		return unknownPod
	case f.limited && f.left <= 0:
		return noWorkLeft
	case len(f.nodes) == 0:
		return noNodes
	}
	return ""
}

func (f *Fleet) spend(r *run) {
	if f.limited {
		f.left -= r.steps
	}
}

func (r *run) spent() bool {
	return r.steps > mostSteps || r.f.limited && r.steps > r.f.left
}

func (f *Fleet) all() []int32 {
	all := make([]int32, len(f.nodes))
	for i := range all {
		all[i] = int32(i)
	}
	return all
}
