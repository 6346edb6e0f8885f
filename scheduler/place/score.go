package place

import (
	"math"

	corev1 "k8s.io/api/core/v1"
)

// Weights of kube-scheduler's default plugins.
// Source: Kubernetes, "Scheduler Configuration", default plugins.
const (
	taintWeight  = 3
	nodeWeight   = 2 // preferred node affinity
	podWeight    = 2 // preferred inter-pod affinity
	spreadWeight = 2
	// Resources, balance and images weigh 1 each.
	mostScore = 100 // of each plugin
)

// What replaces kube-scheduler's default constraints for pods without
// constraints of their own, see the package comment. What is left of the score,
// resources and images, is at most 300.
const (
	perZone    = 301          // each pod of the workload in the zone
	perNode    = 20 * perZone // each one on the node
	preference = 90           // each point that the pod's author gives or takes
)

// usage scores what a node would be used like with one more pod.
func (k *ranking) usage(i int32) int32 {
	l := &k.f.loads[i]
	score := k.left(l) + k.balanced(l)
	if k.images != nil {
		score += int64(k.images[i])
	}
	return int32(score)
}

// left scores how much of the CPU and the memory of a node would be left.
// Source: kube-scheduler's NodeResourcesFit with LeastAllocated.
func (k *ranking) left(l *load) int64 {
	score, resources := int64(0), int64(0)
	for _, r := range [...]int{cpu, memory} {
		if all := l.all[r]; all > 0 {
			resources++
			score += max(all-l.weighed[r]-k.t.weighed[r], 0) * mostScore / all
		}
	}
	if resources > 1 {
		score /= resources
	}
	return score
}

// balanced scores how much better CPU and memory of a node would be balanced.
// A pod that requests neither is not scored: it changes nothing.
// Source: kube-scheduler's NodeResourcesBalancedAllocation, which as of
// Kubernetes 1.37 compares before and after.
func (k *ranking) balanced(l *load) int64 {
	if k.asked[cpu] == 0 && k.asked[memory] == 0 {
		return 0
	}
	return mostScore/2 + (mostScore/2+balance(l, k.asked[cpu], k.asked[memory])-balance(l, 0, 0))/2
}

// balance is high where the same share of CPU and memory is taken. The
// conversions keep the compiler from fusing operations: every processor gets the
// same result.
func balance(l *load, moreCPU, moreMemory int64) int64 {
	if l.all[cpu] == 0 || l.all[memory] == 0 {
		return mostScore
	}
	c := min(float64(l.taken[cpu]+moreCPU)/float64(l.all[cpu]), 1)
	m := min(float64(l.taken[memory]+moreMemory)/float64(l.all[memory]), 1)
	deviation := float64(math.Abs(float64(c-m)) / 2)
	return int64(float64(1-deviation) * mostScore)
}

const (
	mebibyte     = 1 << 20
	leastImages  = 23 * mebibyte
	mostPerImage = 1000 * mebibyte
)

// imageScores scores what nodes have of the pod's images; nil when no node has
// any. An image that many nodes have counts for more, so that a few nodes with a
// rare one do not attract all pods.
// Source: kube-scheduler's ImageLocality.
func (k *ranking) imageScores() []int32 {
	var sums []int64
	for _, name := range k.t.mold.Nodes.Images {
		holders := k.f.images[name]
		for _, h := range holders {
			if sums == nil {
				sums = make([]int64, len(k.f.nodes))
			}
			sums[h.node] += int64(float64(h.size) * float64(float64(len(holders))/float64(len(k.f.nodes))))
		}
	}
	if sums == nil {
		return nil
	}
	scores := make([]int32, len(sums))
	highest := mostPerImage * int64(len(k.t.mold.Nodes.Images))
	for i, sum := range sums {
		scores[i] = int32(mostScore * (min(max(sum, leastImages), highest) - leastImages) / (highest - leastImages))
	}
	return scores
}

// A pull is how strongly pods that run attract a pod to the domains of a
// topology, or below zero repel it.
type pull struct {
	topo *topology
	by   []int64 // by domain
	self int64   // what each of the pod's own replicas adds
}

// pulls gathers the preferences of the pod for those that run, and theirs for
// it. Source: Kubernetes, "Assigning Pods to Nodes", inter-pod affinity.
func (r *run) pulls() []pull {
	f, t := r.f, r.t
	var pulls []pull
	at := func(key string) *pull {
		topo := f.topology(key)
		for k := range pulls {
			if pulls[k].topo == topo {
				return &pulls[k]
			}
		}
		pulls = append(pulls, pull{topo: topo, by: make([]int64, topo.domains())})
		return &pulls[len(pulls)-1]
	}
	add := func(key string, g *group, weight int64) {
		p := at(key)
		for _, s := range g.slots {
			if d := p.topo.of[s.node]; d >= 0 {
				p.by[d] += weight * int64(s.count)
			}
		}
	}
	for k := range t.preferred {
		term := &t.preferred[k]
		f.selected(term, func(g *group) { add(term.key, g, term.weight) })
		if term.selects(f, t) { // the replica prefers those that run, and they prefer it
			at(term.key).self += 2 * term.weight
		}
	}
	f.selecting(t, func(by groupTerm) {
		if !by.apart {
			add(by.term.key, by.group, by.weight)
		}
	})
	for k := range t.together {
		if term := &t.together[k]; term.selects(f, t) {
			at(term.key).self += attraction
		}
	}
	return pulls
}

// A softSpread is a topology spread constraint that is kept where possible.
type softSpread struct {
	counter
	*constraint
	byLabel  *topology // by the constraint's label
	self     int32
	eligible []bool
	seen     []int32 // by domain: the round in which a node of it could be had
	weight   int64   // in millionths
}

func (r *run) softSpreads() []softSpread {
	var spreads []softSpread
	for k := range r.t.soft {
		c := &r.t.soft[k]
		s := softSpread{counter: r.f.newCounter(c.key), constraint: c, byLabel: r.f.topology(c.key), eligible: make([]bool, len(r.f.nodes))}
		if c.onNodes { // counted on each node, whatever its label says
			s.counter = counter{topo: r.f.each(), n: make([]int32, len(r.f.nodes))}
		}
		s.seen = make([]int32, len(s.n))
		for i := range r.f.nodes {
			s.eligible[i] = c.onNodes || r.eligible(c, r.t.soft, int32(i))
		}
		r.steps += int64(len(r.f.nodes))
		if c.counts {
			r.f.selected(&c.term, func(g *group) {
				for _, slot := range g.slots {
					if s.eligible[slot.node] {
						s.n[s.topo.of[slot.node]] += slot.count
					}
				}
			})
			if c.selects(r.f, r.t) {
				s.self = 1
			}
		}
		spreads = append(spreads, s)
	}
	return spreads
}

// unspread reports whether a node lacks the label of a soft constraint. It gets
// no points for spreading then.
func (k *ranking) unspread(i int32) bool {
	for c := range k.soft {
		if k.soft[c].byLabel.of[i] < 0 {
			return true
		}
	}
	return false
}

// million is the unit of weights. They are rounded to it, because logarithms
// differ in the last bit from processor to processor.
const million = 1_000_000

// scoreSpread works out, for the nodes that can be had, how many pods soft
// constraints count there, and the extremes of that.
// Source: Kubernetes, "Pod Topology Spread Constraints", and
// kube-scheduler's PodTopologySpread: a domain weighs more the more there are.
//
// While the same nodes can be had, a replica changes only what is counted in its
// own domains.
func (k *ranking) scoreSpread() {
	switch {
	case k.changed:
		k.weighDomains()
		for i := range k.crowd {
			k.crowdAt(int32(i))
		}
	case k.taken >= 0:
		for c := range k.soft {
			s := &k.soft[c]
			if d := s.topo.of[k.taken]; d >= 0 && s.self > 0 {
				for _, i := range s.topo.members(d) {
					k.crowdAt(i)
				}
			}
		}
	}
	k.taken = -1
	k.steps += int64(len(k.had))
	lowest, highest := int64(math.MaxInt64), int64(0)
	for i, crowd := range k.crowd {
		if k.had[i] && !k.off[i] {
			lowest, highest = min(lowest, crowd), max(highest, crowd)
		}
	}
	k.leastCrowd, k.mostCrowd = lowest, highest
}

// crowdAt works out how many pods soft constraints count on a node.
func (k *ranking) crowdAt(i int32) {
	k.steps++
	if !k.had[i] || k.off[i] {
		return
	}
	sum := int64(million / 2)
	for c := range k.soft {
		s := &k.soft[c]
		sum += int64(s.n[s.topo.of[i]])*s.weight + int64(s.maxSkew-1)*million
	}
	k.crowd[i] = sum / million
}

// weighDomains gives each soft constraint the weight that follows from how many
// domains can be had.
func (k *ranking) weighDomains() {
	k.round++
	k.steps += int64(len(k.had))
	for c := range k.soft {
		s := &k.soft[c]
		domains := 0
		for i, had := range k.had {
			if !had || k.off[i] {
				continue
			}
			if d := s.topo.of[i]; s.seen[d] != k.round {
				s.seen[d] = k.round
				domains++
			}
		}
		s.weight = int64(math.Round(math.Log(float64(domains+2)) * million))
	}
}

// evenness scores how evenly the counted pods would be spread.
func (k *ranking) evenness(i int32) int64 {
	switch {
	case k.off[i]:
		return 0
	case k.mostCrowd == 0:
		return mostScore
	}
	return mostScore * (k.mostCrowd + k.leastCrowd - k.crowd[i]) / k.mostCrowd
}

// each is the topology in which every node is a domain, whatever its labels.
func (f *Fleet) each() *topology {
	const key = "\x00" // no label has this name
	if t := f.topologies[key]; t != nil {
		return t
	}
	t := &topology{of: make([]int32, len(f.nodes)), starts: make([]int32, len(f.nodes)+1), member: make([]int32, len(f.nodes))}
	for i := range t.of {
		t.of[i], t.member[i], t.starts[i+1] = int32(i), int32(i), int32(i+1)
	}
	f.topologies[key] = t
	return t
}

// zones is the topology that replicas are spread over by default, after nodes.
func (f *Fleet) zones() *topology { return f.topology(corev1.LabelTopologyZone) }
