package place

// A topology divides the nodes by the value of one of their labels.
type topology struct {
	of     []int32 // the domain of each node; -1 for a node without the label
	starts []int32 // of the domains in members
	member []int32 // all nodes with the label, by domain
}

// domains returns how many there are.
func (t *topology) domains() int { return len(t.starts) - 1 }

// members lists the nodes of a domain, in their order.
func (t *topology) members(domain int32) []int32 {
	return t.member[t.starts[domain]:t.starts[domain+1]]
}

// topology returns how a label divides the nodes. Domains are numbered in the
// order of their first nodes.
func (f *Fleet) topology(key string) *topology {
	if t := f.topologies[key]; t != nil {
		return t
	}
	t := &topology{of: make([]int32, len(f.nodes))}
	domains := map[string]int32{}
	var sizes []int32
	for i := range f.nodes {
		value, has := f.nodes[i].object.Labels[key]
		if !has {
			t.of[i] = -1
			continue
		}
		d, known := domains[value]
		if !known {
			d = int32(len(sizes))
			domains[value] = d
			sizes = append(sizes, 0)
		}
		t.of[i] = d
		sizes[d]++
	}
	t.starts = make([]int32, len(sizes)+1)
	for d, size := range sizes {
		t.starts[d+1] = t.starts[d] + size
	}
	t.member = make([]int32, t.starts[len(sizes)])
	next := append([]int32(nil), t.starts...)
	for i, d := range t.of {
		if d >= 0 {
			t.member[next[d]] = int32(i)
			next[d]++
		}
	}
	f.topologies[key] = t
	return t
}

// A counter counts pods by the domains of a topology.
type counter struct {
	topo *topology
	n    []int32
}

func (f *Fleet) newCounter(key string) counter {
	topo := f.topology(key)
	return counter{topo: topo, n: make([]int32, topo.domains())}
}

// add counts pods of a group that run.
func (c *counter) add(g *group, times int32) {
	for _, s := range g.slots {
		if d := c.topo.of[s.node]; d >= 0 {
			c.n[d] += s.count * times
		}
	}
}

// at returns what is counted in the domain of a node, 0 when it is in none.
func (c *counter) at(i int32) int32 {
	if d := c.topo.of[i]; d >= 0 {
		return c.n[d]
	}
	return 0
}
