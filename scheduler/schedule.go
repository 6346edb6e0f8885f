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

// waitForReport is how long a leader without a memory waits for the nodes it
// knows to say what they run.
const waitForReport = 30 * time.Second

// input is what the decisions about all workloads share.
type input struct {
	board     api.Board
	facts     api.Facts
	authority Authority
	now       time.Time
	// calendar is the time by which Jobs begin and end of themselves. It is
	// now, but stands still when nothing more than the next decisions is foreseen.
	calendar  time.Time
	nodes     []node // sorted by name
	index     map[string]int
	health    map[string]api.NodeHealth
	away      map[string]time.Time // of facts, as of now
	going     map[api.Identity]int // pods told to stop and not gone, by workload
	goingSlot map[api.Identity]int // the same by full identity
	// blocked are identities of which an instance was told to stop and may
	// still be running, also on a node that is lost.
	blocked map[api.Identity]bool
	// ending counts the pods that were told to stop and may still be running, by
	// workload and slot, but for those on nodes that are gone.
	ending map[api.Identity]map[string]int
	casts  map[castKey]*cast            // of revisions in use
	spaces map[string]map[string]string // labels of namespaces
}

func newInput(board api.Board, facts api.Facts, authority Authority, now time.Time) *input {
	in := &input{
		board: board, facts: facts, authority: authority, now: now, calendar: now, nodes: newNodes(board), index: map[string]int{},
		health: healthByName(board), going: map[api.Identity]int{}, goingSlot: map[api.Identity]int{}, blocked: map[api.Identity]bool{}, casts: map[castKey]*cast{},
		ending: map[api.Identity]map[string]int{},
	}
	for i := range in.nodes {
		in.index[in.nodes[i].info.Name] = i
	}
	in.away = away(facts.Away, in.health, now)
	return in
}

// node returns a node of the board, nil when there is no record of it.
func (in *input) node(name string) *node {
	if i, known := in.index[name]; known {
		return &in.nodes[i]
	}
	return nil
}

// forgotten reports whether a node has left for good: it said so, and there is
// no record of it any more. What was on it is nobody's business.
func (in *input) forgotten(name string) bool {
	return in.health[name].Status == api.NodeLeft && in.node(name) == nil
}

// blind reports whether nothing is known of what was decided before, and a node
// has yet to say what it runs: pods that seem to be missing may be there. A node
// that is there and keeps silent is waited for only so long; until is then the
// end of the wait.
func (in *input) blind() (until time.Time, blind bool) {
	if in.board.Assigned.Known() {
		return time.Time{}, false
	}
	for i := range in.nodes {
		n := &in.nodes[i]
		if n.reported || n.gone() {
			continue
		}
		seen, known := in.facts.Created[api.Key{Kind: "Node", Name: n.info.Name}.String()]
		if !known {
			seen = in.now
		}
		if end := seen.Add(waitForReport); in.now.Before(end) && (!blind || end.Before(until)) {
			until, blind = end, true
		}
	}
	return until, blind
}

// Schedule decides which pods exist and where, from what Git says, what the
// machines report, what was decided before (board.Assigned) and what the
// scheduler remembers, as far as the authority of the leader goes. It returns
// the whole new decision, the new memory, the claims it needs, and the time at
// which to decide again though nothing changed.
//
// While the snapshot is not known, or a leader without a memory has not heard
// from all nodes what they run, the former decision is returned unchanged.
func Schedule(snapshot api.Snapshot, board api.Board, facts api.Facts, authority Authority, now time.Time) Decision {
	return schedule(snapshot, newInput(board, facts, authority, now))
}

func schedule(snapshot api.Snapshot, in *input) Decision {
	board, facts, authority, now := in.board, in.facts, in.authority, in.now
	if !snapshot.Known() {
		return Decision{Set: board.Assigned, Facts: facts}
	}
	if until, blind := in.blind(); blind {
		facts.Created = created(snapshot, board.Nodes, facts.Created, now)
		return Decision{Set: board.Assigned, Facts: facts, Wake: until, settles: until}
	}
	in.spaces = namespaces(snapshot)
	pods, removals := existing(in)
	r := round{in: in, next: facts}
	r.next.Rollouts, r.next.Jobs, r.next.CronJobs = map[string]api.Rollout{}, map[string]api.JobRun{}, map[string]api.CronRuns{}
	for _, w := range expand(snapshot, in.nodes) {
		r.decide(&w, pods[w.id])
		delete(pods, w.id)
	}
	for _, id := range slices.SortedFunc(maps.Keys(pods), api.Identity.Compare) {
		r.end(pods[id])
	}

	d := Decision{Set: board.Assigned, Facts: r.next}
	authority.stamp(&d.Set)
	d.Set.BasedOn = basedOn(board.Pods)
	d.Set.Remove = in.remove(removals, r.stops)
	placed := assignPods(in, r.kept, d.Set.Remove, r.starts)
	d.Set.Remove = in.remove(d.Set.Remove, placed.evicted)
	d.Set.Pods, d.Set.Pending, d.Claims = withEnded(placed.assigned(), r.over), placed.pending, placed.claims
	d.Set.Molds = in.molds(&d.Set)
	d.Release = spentClaims(&d, in)
	d.Facts.Created = created(snapshot, board.Nodes, facts.Created, now)
	d.Facts.Away = in.away
	d.Facts.Replaced = placed.brake.remember(facts.Replaced, now)
	if !sameFacts(facts, d.Facts) {
		d.Facts.Seq++
	}
	r.wakeAt(placed.brake.wake(placed.pending, now))
	d.Wake, d.settles = earliest(r.wake, r.calendar), r.wake
	return d
}

// withEnded adds the pods that have ended to those that run, which are sorted:
// they occupy nothing and are nowhere in the way.
func withEnded(assigned []api.Assignment, over []*pod) []api.Assignment {
	if len(over) == 0 {
		return assigned
	}
	slices.SortFunc(over, func(a, b *pod) int { return a.Compare(b.Pod) })
	out := make([]api.Assignment, 0, len(assigned)+len(over))
	for _, p := range over {
		for len(assigned) > 0 && assigned[0].Pod.Compare(p.Pod) < 0 {
			out, assigned = append(out, assigned[0]), assigned[1:]
		}
		out = append(out, p.assignment())
	}
	return append(out, assigned...)
}

// A round collects what is decided about all workloads.
type round struct {
	in     *input
	next   api.Facts
	stops  []stop
	starts []placement
	kept   []*pod // on their nodes, and to stay there
	over   []*pod // the same, of pods that have ended
	wake   time.Time
	// calendar is when something begins or ends of itself, see input.calendar.
	calendar time.Time
}

func (r *round) wakeAt(t time.Time) { r.wake = earliest(r.wake, t) }

// decide decides about one workload.
func (r *round) decide(w *workload, pods []*pod) {
	var c change
	if w.exclusive && !r.in.authority.Quorate {
		c.hold(w, r.in)
	} else {
		c = w.decide(w, pods, r.in)
	}
	r.wakeAt(c.wake)
	r.calendar = earliest(r.calendar, c.calendar)
	r.remember(w, &c)
	stopped := make(map[*pod]bool, len(c.stops))
	for _, s := range c.stops {
		stopped[s.pod] = true
	}
	r.stops = append(r.stops, c.stops...)
	for _, p := range pods {
		switch {
		case stopped[p]:
		case p.ended() && p.node != "":
			p.over = p.phase()
			r.over = append(r.over, p)
		case p.node == "":
			r.starts = append(r.starts, r.in.placement(w, p))
		default:
			p.cast = r.in.castOf(w, p.Revision)
			r.kept = append(r.kept, p)
		}
	}
	for _, s := range c.starts {
		r.next.Minted++
		r.starts = append(r.starts, r.in.placement(w, r.in.mint(w, s, r.next.Minted)))
	}
}

// remember keeps what a workload is to be remembered by.
func (r *round) remember(w *workload, c *change) {
	if c.rollout != nil {
		r.next.Rollouts[w.id.String()] = *c.rollout
	}
	if c.job != nil {
		r.next.Jobs[w.id.String()] = *c.job
	}
	if c.cron != nil {
		r.next.CronJobs[w.id.String()] = *c.cron
	}
}

// end stops the pods of a workload that is no longer wanted, as far as the
// leader may.
func (r *round) end(pods []*pod) {
	for _, p := range pods {
		if p.node != "" && p.claim != (api.Claim{}) && !r.in.authority.Quorate {
			p.cast = r.in.castKnown(p.Pod)
			r.kept = append(r.kept, p)
			continue
		}
		r.stops = append(r.stops, stop{p, reasonGone})
	}
}

// hold leaves a workload as it is.
func (c *change) hold(w *workload, in *input) {
	if rollout, known := in.facts.Rollouts[w.id.String()]; known {
		c.rollout = &rollout
	}
	if job, known := in.facts.Jobs[w.id.String()]; known {
		c.job = &job
	}
	if cron, known := in.facts.CronJobs[w.id.String()]; known {
		c.cron = &cron
	}
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
		if in.forgotten(record.Node) {
			continue
		}
		for j := range record.Pods {
			state := &record.Pods[j]
			observed[state.Pod.Instance] = state
			where[state.Pod.Instance] = record.Node
		}
	}
	pods := map[api.Identity][]*pod{}
	add := func(p *pod) {
		in.placeOf(p)
		pods[p.Workload()] = append(pods[p.Workload()], p)
	}
	removals := in.removalsUnderWay(observed, reporting)
	for _, a := range in.board.Assigned.Pods {
		state := observed[a.Pod.Instance]
		delete(observed, a.Pod.Instance)
		if in.forgotten(a.Node) {
			continue
		}
		add(&pod{
			Pod: a.Pod, node: a.Node, unit: a.Unit, commit: a.Commit, claim: a.Claim, created: a.Created, reason: a.Reason,
			state: state, over: a.Ended,
		})
	}
	for _, u := range in.board.Assigned.Pending {
		add(&pod{Pod: u.Pod, unit: u.Unit, commit: u.Commit, created: u.Created, reason: u.Why, nominated: u.Nominated})
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
		r := api.Removal{Assignment: p.assignment(), At: in.now, Seen: true, Reason: reasonAdopted}
		in.count(r, true)
		removals = append(removals, r)
	}
	for _, list := range pods {
		slices.SortFunc(list, func(a, b *pod) int { return a.Compare(b.Pod) })
	}
	return pods, removals
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
func (in *input) removalsUnderWay(observed map[string]*api.PodState, reporting map[string]bool) []api.Removal {
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

// count notes that a pod was told to go and may still be there. On a node that
// is gone only an exclusive one matters, and only until its claim is released.
func (in *input) count(r api.Removal, there bool) {
	id := r.Assignment.Pod.Identity
	if in.health[r.Assignment.Node].Gone() {
		holder, granted := in.board.Claims[id.String()]
		if !granted || !holder.Released && holder.Node == r.Assignment.Node {
			in.blocked[id] = true
		}
		return
	}
	in.blocked[id] = true
	if r.Assignment.Ended == "" {
		if in.ending[id.Workload()] == nil {
			in.ending[id.Workload()] = map[string]int{}
		}
		in.ending[id.Workload()][id.Slot]++
	}
	if there {
		in.going[id.Workload()]++
		in.goingSlot[id]++
	}
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
		Reason: p.reason, Ended: p.over,
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
		maps.EqualFunc(a.Away, b.Away, time.Time.Equal) &&
		slices.EqualFunc(a.Replaced, b.Replaced, func(x, y api.Replacement) bool { return x.Pods == y.Pods && x.At.Equal(y.At) }) &&
		maps.EqualFunc(a.Rollouts, b.Rollouts, func(x, y api.Rollout) bool {
			return x.Revision == y.Revision && x.Started.Equal(y.Started) && x.Progressed.Equal(y.Progressed) &&
				x.Complete == y.Complete && x.Failed == y.Failed && x.Mark == y.Mark && slices.Equal(x.History, y.History)
		}) && maps.EqualFunc(a.Jobs, b.Jobs, api.JobRun.Equal) && maps.EqualFunc(a.CronJobs, b.CronJobs, api.CronRuns.Equal)
}
