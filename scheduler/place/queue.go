package place

import "math"

// out is the key of a node that is not to be had.
const out = math.MinInt64

// A layout is an order of nodes in blocks, each of nodes of one lane. Nodes of a
// lane rise and fall together.
type layout struct {
	order  []int32 // nodes, by lane and number
	starts []int32 // of the blocks in order
	lanes  []int32 // of the blocks
	lane   []int32 // of the nodes
	block  []int32 // of the nodes
}

const blockSize = 64

// layout returns the order of the nodes by the domains of a topology; nodes
// without its label are a lane of their own. Nil means one lane for all.
func (f *Fleet) layout(topo *topology) *layout {
	if l := f.layouts[topo]; l != nil {
		return l
	}
	n := len(f.nodes)
	l := &layout{order: make([]int32, 0, n), lane: make([]int32, n), block: make([]int32, n)}
	lane := int32(0)
	open := func(members []int32) {
		for k, i := range members {
			if k%blockSize == 0 {
				l.starts = append(l.starts, int32(len(l.order)))
				l.lanes = append(l.lanes, lane)
			}
			l.lane[i], l.block[i] = lane, int32(len(l.lanes)-1)
			l.order = append(l.order, i)
		}
		lane++
	}
	var rest []int32
	for i := range int32(n) {
		if topo == nil || topo.of[i] < 0 {
			rest = append(rest, i)
		}
	}
	if topo != nil {
		for d := range int32(topo.domains()) {
			open(topo.members(d))
		}
	}
	open(rest)
	l.starts = append(l.starts, int32(len(l.order)))
	f.layouts[topo] = l
	return l
}

// A queue finds the node with the highest key; of those the first by name.
type queue struct {
	*layout
	keys  []int64 // by node
	sink  []int64 // by lane: how much lower all its keys are
	best  []int32 // by block; -1 for none
	stale []bool  // by block: best is not known
}

func newQueue(l *layout, nodes int) queue {
	q := queue{layout: l, keys: make([]int64, nodes), best: make([]int32, len(l.lanes)), stale: make([]bool, len(l.lanes))}
	if blocks := len(l.lanes); blocks > 0 {
		q.sink = make([]int64, l.lanes[blocks-1]+1)
	}
	for b := range q.stale {
		q.stale[b] = true
	}
	return q
}

func (q *queue) set(i int32, key int64) {
	q.keys[i] = key
	q.stale[q.block[i]] = true
}

// top returns the best node, -1 when there is none.
func (q *queue) top() int32 {
	found, height := int32(-1), int64(out)
	for b := range q.best {
		if q.stale[b] {
			q.refresh(b)
		}
		i := q.best[b]
		if i < 0 {
			continue
		}
		if key := q.keys[i] - q.sink[q.lanes[b]]; found < 0 || key > height || key == height && i < found {
			found, height = i, key
		}
	}
	return found
}

func (q *queue) refresh(b int) {
	found, height := int32(-1), int64(out)
	for _, i := range q.order[q.starts[b]:q.starts[b+1]] {
		if key := q.keys[i]; key > height {
			found, height = i, key
		}
	}
	q.best[b], q.stale[b] = found, false
}
