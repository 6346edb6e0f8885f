package scheduler

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/scheduler/place"
)

// A balancer finds the next pod to be moved to another node. Every move makes the
// fleet strictly better by one measure, so that there is an end to them and nothing
// goes back and forth: fewer pods of one workload on one node, by the sum of the
// squares of their numbers; else nodes that are more evenly full, by the sum of the
// squares of how full they are, without a change of the former. How full a node is
// by requests is counted in whole hundredths of a percent, of processor time or
// memory, whichever is more.
type balancer struct {
	in     *input
	book   func() *place.Fleet // called once, when it is needed: nil when it cannot be made
	fleet  *place.Fleet
	nodes  []fullness // as the nodes of in
	order  []int32    // nodes that pods may be placed on, the emptiest first
	movers []mover
	where  []int32 // of all pods, their nodes; -1 for none
	count  []int   // by node: pods of the mover that was counted last
	steps  int
}

const (
	wholeNode     = 10_000
	leastGap      = wholeNode / 5 // by which a node must be fuller than where its pods go
	fullest       = 100 * wholeNode
	mostMoveSteps = 1 << 21 // of one pass
)

// Amounts are processor time in thousandths, and bytes of memory.
type amounts [2]int64

// most is the largest amount that is told from larger ones.
const most = 1 << 49

func (a amounts) negative() amounts { return amounts{-a[0], -a[1]} }

// sizeOf is what counts of a pod: what it requests, with something for containers
// that request nothing, as in scores.
func sizeOf(m *api.Mold) amounts {
	return amounts{min(max(m.Weighed[corev1.ResourceCPU], 0), most), min(max(m.Weighed[corev1.ResourceMemory], 0), most)}
}

// A fullness is what a node has, and what of it is requested.
type fullness struct{ all, taken amounts }

func newFullness(list corev1.ResourceList) fullness {
	return fullness{all: amounts{min(max(list.Cpu().MilliValue(), 0), most), min(max(list.Memory().Value(), 0), most)}}
}

// share is how full the node would be with more on it.
func (n *fullness) share(more amounts) int64 {
	out := int64(0)
	for r := range more {
		taken := n.taken[r] + more[r]
		switch {
		case taken <= 0:
		case taken/(fullest/wholeNode) >= n.all[r]:
			out = fullest
		default:
			high, low := bits.Mul64(uint64(taken), wholeNode)
			share, _ := bits.Div64(high, low, uint64(n.all[r])) // less than fullest
			out = max(out, int64(share))
		}
	}
	return out
}

// A mover is a workload of which pods may be moved.
type mover struct {
	w     *workload
	pods  []*pod
	where []int32 // by pod
	size  amounts // of one pod
}

// A found move is a pod with the node that it is to have.
type foundMove struct {
	w    *workload
	pod  *pod
	node string
}

func newBalancer(in *input, kept []*pod, workloads []workload, book func() *place.Fleet) *balancer {
	b := &balancer{in: in, book: book, nodes: make([]fullness, len(in.nodes)), count: make([]int, len(in.nodes)), where: make([]int32, len(kept))}
	for i := range in.nodes {
		b.nodes[i] = newFullness(in.nodes[i].info.Allocatable)
		if in.nodes[i].unusable() == "" {
			b.order = append(b.order, int32(i))
		}
	}
	byID := make(map[api.Identity]*workload, len(workloads))
	for i := range workloads {
		byID[workloads[i].id] = &workloads[i]
	}
	for from := 0; from < len(kept); {
		to := from + 1
		for to < len(kept) && kept[to].Owner == kept[from].Owner && kept[to].Kind == kept[from].Kind && kept[to].Namespace == kept[from].Namespace {
			to++
		}
		b.add(byID[kept[from].Workload()], kept[from:to], b.where[from:to])
		from = to
	}
	slices.SortStableFunc(b.order, func(i, j int32) int { return cmp.Compare(b.full(i), b.full(j)) })
	return b
}

// full is how full a node is.
func (b *balancer) full(i int32) int64 { return b.nodes[i].share(amounts{}) }

// add counts pods of a workload, and notes whether they may be moved.
func (b *balancer) add(w *workload, pods []*pod, where []int32) {
	m := mover{w: w, pods: pods, where: where}
	var last *cast
	for k, p := range pods {
		if p.cast != last {
			if last = p.cast; last.booked() != nil {
				m.size = sizeOf(last.mold)
			}
		}
		where[k] = -1
		if i, known := b.in.index[p.node]; known && last.booked() != nil {
			b.nodes[i].taken[0] += m.size[0]
			b.nodes[i].taken[1] += m.size[1]
			where[k] = int32(i)
		}
	}
	if w != nil && b.movable(w, pods) {
		b.movers = append(b.movers, m)
	}
}

// tally counts the pods of a mover by node, until clear.
func (b *balancer) tally(m *mover) (most int) {
	for _, i := range m.where {
		if i >= 0 {
			b.count[i]++
			most = max(most, b.count[i])
		}
	}
	return most
}

func (b *balancer) clear(m *mover) {
	for _, i := range m.where {
		if i >= 0 {
			b.count[i] = 0
		}
	}
}

// movable reports whether a drain would move the pods of a workload with the new
// one first, and all of them are well.
func (b *balancer) movable(w *workload, pods []*pod) bool {
	switch w.id.Kind {
	case "Deployment", "ReplicaSet", "ReplicationController":
	default:
		return false
	}
	if failed, known := b.in.balance.Failed[w.id.String()]; known && failed.Revision == w.revision {
		return false
	}
	c := b.in.castOf(w, w.revision)
	return !w.exclusive && w.template.Spec.NodeName == "" && w.rests(pods, w.minReady(), b.in.now) && c.booked() != nil && len(c.mold.Volumes) == 0
}

// find returns the next move; again says that not everything was looked at.
func (b *balancer) find() (found foundMove, again bool) {
	if len(b.order) < 2 || len(b.movers) == 0 {
		return foundMove{}, false
	}
	// Where one pass does not get round, the next begins elsewhere.
	turn := int(uint64(b.in.now.Unix()/int64(restTime/time.Second)) % uint64(len(b.movers)))
	movers := slices.Concat(b.movers[turn:], b.movers[:turn])
	for i := range movers {
		if found = b.spread(&movers[i]); found.pod != nil {
			return found, false
		}
	}
	if found = b.level(); found.pod != nil {
		return found, false
	}
	return foundMove{}, b.steps > mostMoveSteps
}

// spread moves a pod of a workload off a node that has at least two more of them
// than where it goes.
func (b *balancer) spread(m *mover) foundMove {
	most := b.tally(m)
	defer b.clear(m)
	if most < 2 {
		return foundMove{}
	}
	least := most
	for _, j := range b.order {
		least = min(least, b.count[j])
	}
	var from []int32
	for _, i := range m.where {
		if i >= 0 && b.count[i]-least >= 2 && !slices.Contains(from, i) {
			from = append(from, i)
		}
	}
	slices.SortFunc(from, func(i, j int32) int {
		return cmp.Or(cmp.Compare(b.count[j], b.count[i]), cmp.Compare(b.full(j), b.full(i)), cmp.Compare(i, j))
	})
	for _, i := range from {
		var to []string
		for _, j := range b.order {
			if b.steps++; b.steps > mostMoveSteps {
				return foundMove{}
			}
			if b.count[i]-b.count[j] >= 2 {
				to = append(to, b.in.nodes[j].info.Name)
			}
		}
		if found := b.try(m, i, to, false); found.pod != nil {
			return found
		}
	}
	return foundMove{}
}

// level moves a pod from a full node to a much emptier one.
func (b *balancer) level() foundMove {
	emptiest := b.full(b.order[0])
	if b.full(b.order[len(b.order)-1])-emptiest <= leastGap {
		return foundMove{}
	}
	on := make([][]*mover, len(b.nodes))
	for k := range b.movers {
		m := &b.movers[k]
		for _, i := range m.where {
			if i >= 0 && (len(on[i]) == 0 || on[i][len(on[i])-1] != m) {
				on[i] = append(on[i], m)
			}
		}
	}
	for _, i := range slices.Backward(b.order) {
		if b.full(i)-emptiest <= leastGap {
			break
		}
		slices.SortStableFunc(on[i], func(x, y *mover) int { // the largest first: fewer moves
			return cmp.Compare(b.nodes[i].share(x.size.negative()), b.nodes[i].share(y.size.negative()))
		})
		for _, m := range on[i] {
			if found := b.relieve(i, m); found.pod != nil {
				return found
			}
		}
	}
	return foundMove{}
}

// relieve moves a pod of a workload off a node to one that is much emptier.
func (b *balancer) relieve(i int32, m *mover) foundMove {
	b.tally(m)
	defer b.clear(m)
	var to []string
	b.steps += len(m.where)
	for _, j := range b.order {
		if b.steps++; b.steps > mostMoveSteps {
			return foundMove{}
		}
		if b.full(i)-b.full(j) <= leastGap {
			break
		}
		if b.count[i] == b.count[j]+1 && b.narrows(i, j, m.size) {
			to = append(to, b.in.nodes[j].info.Name)
		}
	}
	return b.try(m, i, to, true)
}

// narrows reports whether two nodes are more evenly full once a pod has moved.
func (b *balancer) narrows(from, to int32, size amounts) bool {
	x, y := b.full(from), b.full(to)
	u, v := b.nodes[from].share(size.negative()), b.nodes[to].share(size)
	return max(u-v, v-u) < x-y && u*u+v*v < x*x+y*y
}

// try finds a node for the pod of a workload that is least wanted on a node, if it
// may go.
func (b *balancer) try(m *mover, from int32, to []string, zones bool) foundMove {
	if len(to) == 0 {
		return foundMove{}
	}
	if b.fleet == nil {
		if b.fleet = b.book(); b.fleet == nil {
			b.steps = mostMoveSteps
			return foundMove{}
		}
	}
	name := b.in.nodes[from].info.Name
	here := slices.DeleteFunc(slices.Clone(m.pods), func(p *pod) bool { return p.node != name })
	p := leastWanted(here)[0]
	b.steps += len(to)
	if b.in.refusal(p, 1) != "" || b.in.overQuota(p) {
		return foundMove{}
	}
	node := b.fleet.Move(place.Demand{Template: p.cast.booked()}, name, to, zones)
	if node == "" {
		return foundMove{}
	}
	return foundMove{w: m.w, pod: p, node: node}
}

// overQuota reports whether a quota has no room for another pod like this one.
func (in *input) overQuota(p *pod) bool {
	return slices.ContainsFunc(in.quotas[p.Namespace], func(q *quota) bool { return q.covers(p.cast.mold) && q.refuse(p.cast.mold) != "" })
}
