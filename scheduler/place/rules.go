package place

import "slices"

// rules are what the pods that run, and those that are placed meanwhile, say
// about where a pod may go: inter-pod affinity, anti-affinity and topology
// spread. They count by domain, so that a placement changes a few numbers.
type rules struct {
	together []counter // pods that every required affinity term selects, one counter for each term's topology
	joined   int64     // how many such pods there are
	founds   bool      // the pod is selected by its own affinity: the first may go anywhere
	apart    []counter // pods that an anti-affinity term selects
	shunned  []counter // terms of pods that run which keep this one away
	hard     []hardSpread
	own      stake
}

// A hardSpread is a topology spread constraint that must be kept.
type hardSpread struct {
	counter
	*constraint
	self     int32  // 1 when the constraint counts the pod itself
	eligible []bool // nodes whose pods and domains count
	exists   []bool // domains with an eligible node
	domains  int32
	min      int32 // the fewest in a domain
	atMin    int32 // how many domains have so few
}

// A stake is what one pod of a group adds to each counter of another's rules.
type stake struct {
	together             int32
	apart, shunned, hard []int32
}

func (r *run) newRules() {
	f, t, u := r.f, r.t, &r.rules
	r.newTogether()
	for k := range t.apart {
		c := f.newCounter(t.apart[k].key)
		f.selected(&t.apart[k], func(g *group) { c.add(g, 1) })
		u.apart = append(u.apart, c)
	}
	r.newShunned()
	for k := range t.hard {
		u.hard = append(u.hard, r.newHardSpread(&t.hard[k]))
	}
	u.own = r.stakeOf(t)
	u.founds = u.own.together > 0
	for k := range u.hard {
		if t.hard[k].selects(f, t) {
			u.hard[k].self = 1
		}
	}
}

func (r *run) newTogether() {
	f, t, u := r.f, r.t, &r.rules
	if len(t.together) == 0 {
		return
	}
	for k := range t.together {
		u.together = append(u.together, f.newCounter(t.together[k].key))
	}
	f.selected(&t.together[0], func(g *group) {
		if !r.joins(g.t) {
			return
		}
		for _, s := range g.slots {
			r.rules.join(s.node, s.count)
		}
	})
}

// joins reports whether every affinity term of the pod selects another.
func (r *run) joins(other *Template) bool {
	for k := range r.t.together {
		if !r.t.together[k].selects(r.f, other) {
			return false
		}
	}
	return len(r.t.together) > 0
}

// join counts pods that the affinity asks for.
func (u *rules) join(i, n int32) {
	inside := false
	for k := range u.together {
		c := &u.together[k]
		if d := c.topo.of[i]; d >= 0 {
			c.n[d] += n
			inside = true
		}
	}
	if inside {
		u.joined += int64(n)
	}
}

// newShunned counts the anti-affinity of pods that run, and makes room for that
// of the pod itself.
func (r *run) newShunned() {
	f, u := r.f, &r.rules
	at := func(key string) *counter {
		topo := f.topology(key)
		for k := range u.shunned {
			if u.shunned[k].topo == topo {
				return &u.shunned[k]
			}
		}
		u.shunned = append(u.shunned, f.newCounter(key))
		return &u.shunned[len(u.shunned)-1]
	}
	f.selecting(r.t, func(by groupTerm) {
		if by.apart {
			at(by.term.key).add(by.group, 1)
		}
	})
	for k := range r.t.apart {
		if r.t.apart[k].selects(f, r.t) {
			at(r.t.apart[k].key)
		}
	}
}

// eligible reports whether the pods of a node count for a constraint: it has
// the labels of all constraints, and passes what the constraint's policies
// honor. Source: KEP-3094, "Take taints/tolerations into consideration when
// calculating PodTopologySpread skew".
func (r *run) eligible(c *constraint, all []constraint, i int32) bool {
	for k := range all {
		if r.f.topology(all[k].key).of[i] < 0 {
			return false
		}
	}
	if r.f.nodes[i].gone || c.honorsAffinity && r.g.required != nil && r.g.required.of(r.f, i) == 0 {
		return false
	}
	return !c.honorsTaints || r.g.tolerated[r.f.nodes[i].taints].refused < 0
}

func (r *run) newHardSpread(c *constraint) hardSpread {
	h := hardSpread{counter: r.f.newCounter(c.key), constraint: c, eligible: make([]bool, len(r.f.nodes))}
	h.exists = make([]bool, len(h.n))
	for i := range r.f.nodes {
		if r.eligible(c, r.t.hard, int32(i)) {
			h.eligible[i] = true
			h.exists[h.topo.of[i]] = true
		}
	}
	r.steps += int64(len(r.f.nodes))
	if c.counts {
		r.f.selected(&c.term, func(g *group) {
			for _, s := range g.slots {
				if h.eligible[s.node] {
					h.n[h.topo.of[s.node]] += s.count
				}
			}
		})
	}
	for _, exists := range h.exists {
		if exists {
			h.domains++
		}
	}
	h.findMin()
	return h
}

func (h *hardSpread) findMin() {
	h.min, h.atMin = 0, 0
	for d, n := range h.n {
		switch {
		case !h.exists[d]:
		case h.atMin == 0 || n < h.min:
			h.min, h.atMin = n, 1
		case n == h.min:
			h.atMin++
		}
	}
}

// least is what the skew is measured from: nothing while there are fewer
// domains than the constraint asks for.
func (h *hardSpread) least() int32 {
	if h.domains < h.minDomains {
		return 0
	}
	return h.min
}

// full reports whether one more pod in a domain would be one too many.
func (h *hardSpread) full(domain, least int32) bool {
	return int64(h.n[domain])+int64(h.self)-int64(least) > int64(h.maxSkew)
}

// add counts pods on a node. It calls touch for domains that may or may not be
// full now, and were not or were before.
func (h *hardSpread) add(i, n int32, touch func(*topology, int32)) {
	if n == 0 || !h.eligible[i] {
		return
	}
	d, before := h.topo.of[i], h.least()
	was := h.n[d]
	now := was + n
	h.n[d] = now
	switch {
	case now < h.min:
		h.min, h.atMin = now, 1
	case was == h.min:
		if h.atMin--; h.atMin == 0 {
			h.findMin()
		}
	case now == h.min:
		h.atMin++
	}
	if touch == nil {
		return
	}
	after := h.least()
	if h.full(d, after) {
		touch(h.topo, d)
	}
	if before == after {
		return
	}
	for other := range int32(len(h.n)) {
		if other != d && h.full(other, before) != h.full(other, after) {
			touch(h.topo, other)
		}
	}
}

// stakeOf works out what one pod of another template, or of the run's own, adds
// to the counters.
func (r *run) stakeOf(other *Template) stake {
	f, t, u := r.f, r.t, &r.rules
	s := stake{apart: make([]int32, len(u.apart)), shunned: make([]int32, len(u.shunned)), hard: make([]int32, len(u.hard))}
	if r.joins(other) {
		s.together = 1
	}
	for k := range t.apart {
		if t.apart[k].selects(f, other) {
			s.apart[k] = 1
		}
	}
	for k := range other.apart {
		if !other.apart[k].selects(f, t) {
			continue
		}
		topo := f.topology(other.apart[k].key)
		if at := slices.IndexFunc(u.shunned, func(c counter) bool { return c.topo == topo }); at >= 0 {
			s.shunned[at]++
		}
	}
	for k := range t.hard {
		if t.hard[k].counts && t.hard[k].selects(f, other) {
			s.hard[k] = 1
		}
	}
	return s
}

// add counts pods on a node, or with a negative number takes them away. Unless
// it is nil, it calls touch for every domain for which a rule may say something
// else now; without a topology it means all nodes.
func (u *rules) add(s *stake, i, n int32, touch func(*topology, int32)) {
	if s.together > 0 {
		first := u.joined == 0
		u.join(i, n*s.together)
		if touch != nil && first && u.joined > 0 {
			touch(nil, 0)
		} else if touch != nil {
			for k := range u.together {
				if c := &u.together[k]; c.at(i) == n {
					touch(c.topo, c.topo.of[i])
				}
			}
		}
	}
	bump := func(c *counter, by int32) {
		d := c.topo.of[i]
		if by == 0 || d < 0 {
			return
		}
		if c.n[d] += by * n; touch != nil && c.n[d] == by*n {
			touch(c.topo, d)
		}
	}
	for k := range u.apart {
		bump(&u.apart[k], s.apart[k])
	}
	for k := range u.shunned {
		bump(&u.shunned[k], s.shunned[k])
	}
	for k := range u.hard {
		u.hard[k].add(i, n*s.hard[k], touch)
	}
}

// refuse says which rule keeps the pod from a node; fits for none.
func (u *rules) refuse(i int32) obstacle {
	for k := range u.hard {
		h := &u.hard[k]
		d := h.topo.of[i]
		if d < 0 {
			return unlabelled
		}
		if h.full(d, h.least()) {
			return skewed
		}
	}
	for k := range u.together {
		c := &u.together[k]
		d := c.topo.of[i]
		if d < 0 || c.n[d] == 0 && (u.joined > 0 || !u.founds) {
			return notTogether
		}
	}
	for k := range u.apart {
		if u.apart[k].at(i) > 0 {
			return notApart
		}
	}
	for k := range u.shunned {
		if u.shunned[k].at(i) > 0 {
			return shunned
		}
	}
	return fits
}
