package scheduler

import (
	"cmp"
	"maps"
	"slices"

	"github.com/shoal-dev/shoal/api"
)

// A sighting is a pod that a node has.
type sighting struct {
	state *api.PodState
	node  string
}

// A reader goes once through the record of a node, which is in the order of its
// pods.
type reader struct {
	record *api.PodStates
	next   int
}

// find returns what the node says of a pod, nil when it does not have it. It must
// be asked for pods in their order; what it passes over on the way goes to loose.
func (r *reader) find(p *api.Pod, loose map[string]sighting) *api.PodState {
	for r.next < len(r.record.Pods) {
		state := &r.record.Pods[r.next]
		if state.Pod.Instance == p.Instance {
			r.next++
			return state
		}
		if state.Pod.Compare(*p) > 0 {
			return nil
		}
		loose[state.Pod.Instance] = sighting{state, r.record.Node}
		r.next++
	}
	return nil
}

// existing lists the pods that exist, by workload, in the order of their
// identities, and the removals that are still under way.
//
// Assignments and records have the same order, so that nearly all pods are found
// without looking one up: a fleet at rest is gone through, not indexed.
func existing(in *input) (map[api.Identity][]*pod, []api.Removal) {
	reporting := make(map[string]bool, len(in.board.Pods))
	readers := make(map[string]*reader, len(in.board.Pods))
	for i := range in.board.Pods {
		record := &in.board.Pods[i]
		reporting[record.Node] = true
		if !in.forgotten(record.Node) {
			readers[record.Node] = &reader{record: record}
		}
	}
	loose := map[string]sighting{}
	var unseen []*pod
	g := grouping{in: in, pods: make(map[api.Identity][]*pod, len(in.facts.Rollouts)), slab: make([]pod, len(in.board.Assigned.Pods))}
	for i := range in.board.Assigned.Pods {
		a := &in.board.Assigned.Pods[i]
		if in.forgotten(a.Node) {
			in.changed = true
			continue
		}
		p := g.next()
		*p = pod{
			Pod: a.Pod, node: a.Node, unit: a.Unit, commit: a.Commit, claim: a.Claim, created: a.Created, reason: a.Reason, over: a.Ended,
		}
		if r := readers[a.Node]; r != nil {
			p.state = r.find(&a.Pod, loose)
		}
		if p.state == nil {
			unseen = append(unseen, p)
		}
		g.add(p)
	}
	for _, r := range readers {
		for j := r.next; j < len(r.record.Pods); j++ {
			state := &r.record.Pods[j]
			loose[state.Pod.Instance] = sighting{state, r.record.Node}
		}
	}
	removals := in.removalsUnderWay(loose, reporting)
	for _, p := range unseen { // a record that is out of order, or of another node
		if s, found := loose[p.Instance]; found {
			p.state = s.state
			delete(loose, p.Instance)
		}
	}
	for _, u := range in.board.Assigned.Pending {
		g.add(&pod{Pod: u.Pod, unit: u.Unit, commit: u.Commit, created: u.Created, reason: u.Why, nominated: u.Nominated})
	}
	removals = g.adopt(loose, removals)
	return g.sorted(), removals
}

// A grouping collects pods by workload. Pods of one workload that come one after
// the other, in their order, cost nothing but their place.
type grouping struct {
	in   *input
	pods map[api.Identity][]*pod
	slab []pod
	used int
	last api.Identity // the workload of the pod before
	prev *pod         // that pod
	run  []*pod       // its pods, not in the map yet
	// jumbled are workloads whose pods did not come in one run, or not in order.
	jumbled map[api.Identity]bool
}

func (g *grouping) next() *pod {
	g.used++
	return &g.slab[g.used-1]
}

func (g *grouping) add(p *pod) {
	g.in.placeOf(p)
	if p.Namespace != g.last.Namespace || p.Kind != g.last.Kind || p.Owner != g.last.Owner {
		g.flush()
		g.last = p.Workload()
	}
	if g.prev != nil && g.prev.Compare(p.Pod) > 0 {
		g.in.changed = true
		g.jumble(g.last)
	}
	g.prev = p
	g.run = append(g.run, p)
}

// flush puts the last run into the map.
func (g *grouping) flush() {
	if len(g.run) == 0 {
		return
	}
	if before, known := g.pods[g.last]; known {
		g.jumble(g.last)
		g.run = append(slices.Clip(before), g.run...)
	}
	g.pods[g.last] = g.run
	g.run = nil
}

func (g *grouping) jumble(id api.Identity) {
	if g.jumbled == nil {
		g.jumbled = map[api.Identity]bool{}
	}
	g.jumbled[id] = true
}

// adopt adds the pods that nobody assigned as far as is remembered. Those that
// end already are removals.
func (g *grouping) adopt(loose map[string]sighting, removals []api.Removal) []api.Removal {
	g.in.changed = g.in.changed || len(loose) > 0
	for _, instance := range slices.Sorted(maps.Keys(loose)) {
		state := loose[instance].state
		p := &pod{
			Pod: state.Pod, node: loose[instance].node, unit: state.Unit, commit: state.Commit,
			created: cmp.Or(state.Started, g.in.now), reason: reasonAdopted, claim: state.Claim, state: state,
		}
		if !state.Stopping {
			g.add(p)
			continue
		}
		// Removed by a decision that nobody remembers. It must not be adopted:
		// once gone it would be started again.
		r := api.Removal{Assignment: p.assignment(), At: g.in.now, Seen: true, Reason: reasonAdopted}
		g.in.count(r, true)
		removals = append(removals, r)
	}
	return removals
}

// sorted returns the pods of each workload in their order.
func (g *grouping) sorted() map[api.Identity][]*pod {
	g.flush()
	for id := range g.jumbled {
		slices.SortFunc(g.pods[id], func(a, b *pod) int { return a.Compare(b.Pod) })
	}
	return g.pods
}

// placeOf notes what the state of its node means for a pod.
func (in *input) placeOf(p *pod) {
	if p.node == "" {
		return
	}
	p.lost = in.health[p.node].Gone()
	if n := in.node(p.node); n != nil && !p.lost {
		p.leaving = n.info.Draining
	}
}

// removalsUnderWay returns the removals that are not known to be done, and takes
// their pods out of what was observed.
func (in *input) removalsUnderWay(observed map[string]sighting, reporting map[string]bool) []api.Removal {
	var out []api.Removal
	for _, r := range in.board.Assigned.Remove {
		a := r.Assignment
		_, there := observed[a.Pod.Instance]
		delete(observed, a.Pod.Instance)
		done := !there && reporting[a.Node] && (r.Seen || in.now.Sub(r.At) >= forgetRemoval)
		if done || in.forgotten(a.Node) {
			continue
		}
		r.Seen = r.Seen || there
		in.count(r, there)
		out = append(out, r)
	}
	return out
}
