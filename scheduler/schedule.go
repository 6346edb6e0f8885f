package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/shoal-dev/shoal/api"
)

// forgetRemoval is how long the removal of an instance that no node reports is
// kept: longer than any node takes to report an instance it was given.
const forgetRemoval = time.Minute

// input is what the decisions about all workloads share.
type input struct {
	board     api.Board
	facts     api.Facts
	now       time.Time
	nodes     []node
	going     map[api.Identity]int // pods told to stop and not gone, by workload
	goingSlot map[api.Identity]int // the same by full identity
}

// knows reports whether the board has a record of this node.
func (in *input) knows(name string) bool {
	return slices.ContainsFunc(in.nodes, func(n node) bool { return n.info.Name == name })
}

// Schedule decides which pods exist and where, from what Git says, what the
// machines report, what was decided before (board.Assigned) and what the
// scheduler remembers. It returns the whole new decision, the new memory, and
// the time at which to decide again though nothing changed (zero: no need).
//
// While the snapshot is not known the former decision is returned unchanged.
// Leader, term and authority of the set are the caller's to fill in.
func Schedule(snapshot api.Snapshot, board api.Board, facts api.Facts, now time.Time) (api.AssignmentSet, api.Facts, time.Time) {
	if !snapshot.Known() {
		return board.Assigned, facts, time.Time{}
	}
	in := &input{
		board: board, facts: facts, now: now, nodes: newNodes(board.Nodes),
		going: map[api.Identity]int{}, goingSlot: map[api.Identity]int{},
	}
	pods, removals := existing(in)

	next := facts
	next.Rollouts = map[string]api.Rollout{}
	var stops []stop
	var starts []placement
	var kept []*pod
	var wake change
	for _, w := range expand(snapshot, in.nodes) {
		mine := pods[w.id]
		delete(pods, w.id)
		c := w.decide(&w, mine, in)
		wake.wakeAt(c.wake)
		if c.rollout != nil {
			next.Rollouts[w.id.String()] = *c.rollout
		}
		stopped := make(map[*pod]bool, len(c.stops))
		for _, s := range c.stops {
			stopped[s.pod] = true
		}
		stops = append(stops, c.stops...)
		shape := lazyShape(w.template)
		for _, p := range mine {
			switch {
			case stopped[p]:
			case p.node == "":
				starts = append(starts, placement{pod: p, shape: shape()})
			default:
				if p.reason == reasonAdopted {
					p.requests, p.hostPorts = shape().requests, shape().hostPorts
				}
				kept = append(kept, p)
			}
		}
		for _, s := range c.starts {
			next.Minted++
			starts = append(starts, placement{pod: in.mint(&w, s, next.Minted), shape: shape()})
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(pods), api.Identity.Compare) {
		for _, p := range pods[id] {
			stops = append(stops, stop{p, reasonGone})
		}
	}

	set := board.Assigned
	set.BasedOn = basedOn(board.Pods)
	set.Remove = in.remove(removals, stops)
	set.Pods, set.Pending = place(in.nodes, kept, set.Remove, starts)
	next.Created = created(snapshot, board.Nodes, facts.Created, now)
	if !sameFacts(facts, next) {
		next.Seq++
	}
	return set, next, wake.wake
}

// existing lists the pods that exist, by workload, in the order of their
// identities, and the removals that are still under way.
func existing(in *input) (map[api.Identity][]*pod, []api.Removal) {
	observed := map[string]*api.PodState{}
	reporting := map[string]bool{}
	where := map[string]string{}
	for i := range in.board.Pods {
		record := &in.board.Pods[i]
		reporting[record.Node] = true
		for j := range record.Pods {
			state := &record.Pods[j]
			observed[state.Pod.Instance] = state
			where[state.Pod.Instance] = record.Node
		}
	}
	pods := map[api.Identity][]*pod{}
	add := func(p *pod) { pods[p.Workload()] = append(pods[p.Workload()], p) }

	var removals []api.Removal
	for _, r := range in.board.Assigned.Remove {
		a := r.Assignment
		_, there := observed[a.Pod.Instance]
		delete(observed, a.Pod.Instance)
		if !there && reporting[a.Node] && (r.Seen || in.now.Sub(r.At) >= forgetRemoval) {
			continue
		}
		r.Seen = r.Seen || there
		removals = append(removals, r)
		if there {
			in.going[a.Pod.Workload()]++
			in.goingSlot[a.Pod.Identity]++
		}
	}
	for _, a := range in.board.Assigned.Pods {
		add(&pod{
			Pod: a.Pod, node: a.Node, unit: a.Unit, commit: a.Commit, claim: a.Claim, created: a.Created, reason: a.Reason,
			requests: a.Requests, hostPorts: a.HostPorts, state: observed[a.Pod.Instance],
		})
		delete(observed, a.Pod.Instance)
	}
	for _, u := range in.board.Assigned.Pending {
		add(&pod{Pod: u.Pod, unit: u.Unit, commit: u.Commit, created: u.Created, reason: u.Why})
	}
	for _, instance := range slices.Sorted(maps.Keys(observed)) {
		state := observed[instance]
		p := &pod{
			Pod: state.Pod, node: where[instance], unit: state.Unit, commit: state.Commit,
			created: cmp.Or(state.Started, in.now), reason: reasonAdopted, claim: state.Claim, state: state,
		}
		if !state.Stopping {
			add(p)
			continue
		}
		// Removed by a decision that nobody remembers. It must not be adopted:
		// once gone it would be started again.
		removals = append(removals, api.Removal{Assignment: p.assignment(), At: in.now, Seen: true, Reason: reasonAdopted})
		in.going[p.Workload()]++
		in.goingSlot[p.Identity]++
	}
	for _, list := range pods {
		slices.SortFunc(list, func(a, b *pod) int { return a.Compare(b.Pod) })
	}
	return pods, removals
}

// mint makes the pod of a start. Its instance is a UUID that depends on what it
// is, when it was decided and a number that only grows: equal inputs give equal
// results, and neither a clock that stands still nor a lost memory makes the
// same instance twice.
func (in *input) mint(w *workload, s start, number uint64) *pod {
	id := w.id.At(s.slot)
	name := id.String() + "|" + s.template.revision + "|" + strconv.FormatInt(in.now.UnixNano(), 36) + "|" + strconv.FormatUint(number, 36)
	return &pod{
		Pod: api.Pod{
			Identity: id,
			Revision: s.template.revision,
			Instance: uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)).String(),
		},
		unit: s.template.unit, commit: s.template.commit, created: in.now, reason: s.reason,
	}
}

// remove adds new stops to the removals under way. A pod without a node is
// simply forgotten.
func (in *input) remove(removals []api.Removal, stops []stop) []api.Removal {
	for _, s := range stops {
		if s.pod.node != "" {
			removals = append(removals, api.Removal{
				Assignment: s.pod.assignment(), At: in.now, Seen: s.pod.state != nil, Reason: s.reason,
			})
		}
	}
	slices.SortFunc(removals, func(a, b api.Removal) int {
		return strings.Compare(a.Assignment.Pod.Instance, b.Assignment.Pod.Instance)
	})
	return removals
}

func (p *pod) assignment() api.Assignment {
	return api.Assignment{
		Pod: p.Pod, Node: p.node, Unit: p.unit, Commit: p.commit, Claim: p.claim, Created: p.created,
		Reason: p.reason, Requests: p.requests, HostPorts: p.hostPorts,
	}
}

func basedOn(records []api.PodStates) map[string]api.Seq {
	out := make(map[string]api.Seq, len(records))
	for _, r := range records {
		out[r.Node] = r.Seq
	}
	return out
}

// created keeps the time at which each object and node was first seen, and
// forgets those that are gone.
func created(snapshot api.Snapshot, nodes []api.NodeInfo, known map[string]time.Time, now time.Time) map[string]time.Time {
	out := make(map[string]time.Time, snapshot.Len()+len(nodes))
	see := func(key string) {
		out[key] = now
		if t, found := known[key]; found {
			out[key] = t
		}
	}
	for object := range snapshot.Objects() {
		see(object.Key().String())
	}
	for _, n := range nodes {
		see(api.Key{Kind: "Node", Name: n.Name}.String())
	}
	return out
}

func sameFacts(a, b api.Facts) bool {
	return a.Minted == b.Minted && maps.EqualFunc(a.Created, b.Created, time.Time.Equal) &&
		maps.EqualFunc(a.Rollouts, b.Rollouts, func(x, y api.Rollout) bool {
			return x.Revision == y.Revision && x.Started.Equal(y.Started) && x.Progressed.Equal(y.Progressed) &&
				x.Complete == y.Complete && x.Failed == y.Failed && x.Mark == y.Mark && slices.Equal(x.History, y.History)
		})
}
