package place

import "math"

// A ranking is the order in which a run would take the nodes, and what it
// follows from. Taking one changes only what depends on it.
type ranking struct {
	*run
	room []bool // nodes that are for the pod and have what it takes
	had  []bool // of those, the ones that no rule keeps it from

	asked    [2]int64 // CPU and memory that the pod requests
	images   []int32  // by node; nil when no node has any
	used     []int32  // by node: the score of its usage
	disliked []int32  // by node: taints to be avoided; nil when there are none
	wanted   []int32  // by node: weights of preferred node affinity; nil for none
	pulls    []pull
	pulled   []int64 // by node; nil for none
	repelled bool    // its replicas attract or repel each other
	high     ranges
	changed  bool // some nodes can be had that could not, or the other way round

	spreads bool    // by default, over nodes and zones
	mates   []int32 // by node: pods of the workload
	soft    []softSpread
	off     []bool  // by node: it lacks the label of a soft constraint
	crowd   []int64 // by node: how many pods soft constraints count, weighed
	round   int32
	taken   int32 // the node that was taken since crowd was worked out; -1 for none

	leastCrowd, mostCrowd int64 // of the nodes that can be had

	shifting bool // every placement changes the scores of many nodes
	queue    queue
}

// ranges are what scores are measured against: the extremes of the nodes that
// can be had.
type ranges struct {
	disliked, wanted    int32
	leastPull, mostPull int64
}

func (r *run) rank() *ranking {
	n := len(r.f.nodes)
	k := &ranking{run: r, room: make([]bool, n), had: make([]bool, n), changed: true, used: make([]int32, n)}
	for _, q := range r.t.requests {
		switch q.name {
		case fixedResources[cpu]:
			k.asked[cpu] = q.amount
		case fixedResources[memory]:
			k.asked[memory] = q.amount
		}
	}
	k.images = k.imageScores()
	k.rankSpread()
	k.rankPulls()
	k.rankNodes()
	k.high = k.measure()
	k.rekey()
	return k
}

// rankSpread prepares what spreads the pods: soft constraints, or what stands in
// for them.
func (k *ranking) rankSpread() {
	k.spreads = len(k.t.mold.Nodes.Spread) == 0 && k.t.mold.Workload.Owner != ""
	var lanes *topology
	if k.spreads {
		lanes = k.f.zones()
	}
	k.queue = newQueue(k.f.layout(lanes), len(k.f.nodes))
	if k.spreads {
		k.mates = make([]int32, len(k.f.nodes))
		for _, g := range k.f.byWorkload[k.t.mold.Workload] {
			for _, s := range g.slots {
				k.mates[s.node] += s.count
				k.queue.sink[k.queue.lane[s.node]] += perZone * int64(s.count)
			}
		}
	}
	k.soft = k.softSpreads()
	if len(k.soft) == 0 {
		return
	}
	k.shifting = true
	k.off, k.crowd = make([]bool, len(k.f.nodes)), make([]int64, len(k.f.nodes))
	for i := range k.off {
		k.off[i] = k.unspread(int32(i))
	}
}

func (k *ranking) rankPulls() {
	k.pulls = k.run.pulls()
	for p := range k.pulls {
		k.repelled = k.repelled || k.pulls[p].self != 0
	}
	k.shifting = k.shifting || k.repelled
	if len(k.pulls) == 0 {
		return
	}
	k.pulled = make([]int64, len(k.f.nodes))
	for p := range k.pulls {
		for i, d := range k.pulls[p].topo.of {
			if d >= 0 {
				k.pulled[i] += k.pulls[p].by[d]
			}
		}
	}
}

// rankNodes looks at every node once.
func (k *ranking) rankNodes() {
	f := k.f
	for _, t := range k.g.tolerated {
		if t.disliked > 0 {
			k.disliked = make([]int32, len(f.nodes))
			break
		}
	}
	if k.g.wanted != nil {
		k.wanted = make([]int32, len(f.nodes))
	}
	for n := range f.nodes {
		i := int32(n)
		if k.still(i) != fits {
			continue
		}
		if k.disliked != nil {
			k.disliked[i] = k.g.tolerated[f.nodes[i].taints].disliked
		}
		if k.wanted != nil {
			k.wanted[i] = k.g.wanted.of(f, i)
		}
		if k.room[i] = k.lack(i) == fits; k.room[i] {
			k.had[i] = k.rules.refuse(i) == fits
			k.used[i] = k.usage(i)
		}
	}
	k.steps += 4 * int64(len(f.nodes))
}

// measure finds the extremes of the nodes that can be had.
func (k *ranking) measure() ranges {
	high := ranges{leastPull: math.MaxInt64, mostPull: math.MinInt64}
	if k.disliked == nil && k.wanted == nil && k.pulled == nil {
		return high
	}
	k.steps += int64(len(k.had))
	for i, had := range k.had {
		if !had {
			continue
		}
		if k.disliked != nil {
			high.disliked = max(high.disliked, k.disliked[i])
		}
		if k.wanted != nil {
			high.wanted = max(high.wanted, k.wanted[i])
		}
		if k.pulled != nil {
			high.leastPull, high.mostPull = min(high.leastPull, k.pulled[i]), max(high.mostPull, k.pulled[i])
		}
	}
	return high
}

// key is the score of a node without that of soft constraints.
func (k *ranking) key(i int32) int64 {
	points := taintWeight*k.clean(i) + nodeWeight*k.suits(i) + podWeight*k.draws(i)
	if k.spreads {
		points = preference*points - perNode*int64(k.mates[i])
	}
	return points + int64(k.used[i])
}

// clean scores the taints that the pod had better avoid: none is best.
func (k *ranking) clean(i int32) int64 {
	if k.high.disliked == 0 {
		return mostScore
	}
	return mostScore - mostScore*int64(k.disliked[i])/int64(k.high.disliked)
}

// suits scores the preferred node affinity.
func (k *ranking) suits(i int32) int64 {
	if k.high.wanted == 0 {
		return 0
	}
	return mostScore * int64(k.wanted[i]) / int64(k.high.wanted)
}

// draws scores the preferred inter-pod affinity.
func (k *ranking) draws(i int32) int64 {
	if k.pulled == nil || k.high.mostPull <= k.high.leastPull {
		return 0
	}
	return mostScore * (k.pulled[i] - k.high.leastPull) / (k.high.mostPull - k.high.leastPull)
}

// rekey works out the keys of all nodes.
func (k *ranking) rekey() {
	k.steps += int64(len(k.had))
	for i := range k.had {
		k.enter(int32(i))
	}
}

// enter gives a node its key. While the scores of many nodes change with every
// placement, the queue keeps no order, only the keys of all nodes with room.
func (k *ranking) enter(i int32) {
	switch {
	case k.shifting && k.room[i]:
		k.queue.keys[i] = k.key(i)
	case k.had[i]:
		k.queue.set(i, k.key(i))
	default:
		k.queue.set(i, out)
	}
}

// next returns the best node now, -1 when there is none.
func (k *ranking) next() int32 {
	if k.changed || k.repelled {
		if high := k.measure(); high != k.high || k.repelled {
			k.high = high
			k.rekey()
		}
	}
	if k.crowd != nil {
		k.scoreSpread()
	}
	k.changed = false
	if k.shifting {
		return k.best()
	}
	return k.queue.top()
}

// best looks at all nodes.
func (k *ranking) best() int32 {
	k.steps += int64(len(k.had))
	found, height := int32(-1), int64(out)
	for n, had := range k.had {
		if !had {
			continue
		}
		i := int32(n)
		key := k.queue.keys[i] - k.queue.sink[k.queue.lane[i]]
		if k.crowd != nil {
			key += spreadWeight * k.evenness(i)
		}
		if key > height {
			found, height = i, key
		}
	}
	return found
}

// take books a replica on a node.
func (k *ranking) take(i int32) {
	k.f.book(k.g, i, 1)
	k.taken = i
	if k.spreads {
		k.mates[i]++
		k.queue.sink[k.queue.lane[i]] += perZone
	}
	for s := range k.soft {
		if soft := &k.soft[s]; soft.self > 0 && soft.eligible[i] {
			soft.n[soft.topo.of[i]]++
		}
	}
	for p := range k.pulls {
		if d := k.pulls[p].topo.of[i]; d >= 0 && k.pulls[p].self != 0 {
			for _, other := range k.pulls[p].topo.members(d) {
				k.pulled[other] += k.pulls[p].self
			}
		}
	}
	if k.room[i] = k.lack(i) == fits; k.room[i] {
		k.used[i] = k.usage(i)
	}
	k.rules.add(&k.rules.own, i, 1, k.touch)
	k.look(i)
	k.enter(i)
}

// touch looks at the nodes of a domain again, or without a topology at all.
func (k *ranking) touch(topo *topology, domain int32) {
	if topo != nil {
		for _, i := range topo.members(domain) {
			k.look(i)
		}
		return
	}
	for i := range k.had {
		k.look(int32(i))
	}
}

// look finds out whether the rules let a node be had now.
func (k *ranking) look(i int32) {
	k.steps++
	if had := k.room[i] && k.rules.refuse(i) == fits; had != k.had[i] {
		k.had[i], k.changed = had, true
	}
	if !k.shifting {
		k.enter(i)
	}
}
