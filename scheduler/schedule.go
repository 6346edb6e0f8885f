package scheduler

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"

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
	settings  api.FleetSpec
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
	ending  map[api.Identity]map[string]int
	casts   map[castKey]*cast            // of revisions in use
	spaces  map[string]map[string]string // labels of namespaces
	quotas  map[string][]*quota          // by namespace
	excess  map[*quota]*excess           // of the quotas that hold pods back
	usage   map[string]*api.Usage        // by node; nil until somebody asks
	guards  guards
	tainted map[string]time.Time // of facts, as of now
	// fallback are the revisions that workloads had before their rollouts.
	fallback []api.Pod
	// balances says that pods move to nodes with more room, balance is the memory of
	// it as of now, and moving the pod that does. Where nothing more than the next
	// decisions is foreseen, no move begins.
	balances, foreseen bool
	balance            api.Balance
	moving             *pod
	// hindered are the pods that stay on nodes that are drained, by instance.
	hindered map[string]api.Hindrance
	// changed says that the pods that have nodes are not those of the decision
	// before, beyond what is started and stopped now.
	changed bool
	// claims are the PersistentVolumeClaims in Git, by the name of their identity,
	// owners its StatefulSets, and sets those that make claims, see wanted.
	claims map[string]*corev1.PersistentVolumeClaim
	owners map[api.Identity]bool
	sets   []*workload
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
	in.tainted = tainted(facts.Tainted, in.nodes, now)
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
	in.settings = snapshot.Settings()
	in.spaces, in.quotas = namespaces(snapshot), quotas(snapshot)
	pods, removals := existing(in)
	r := round{in: in, next: facts}
	r.next.Rollouts, r.next.Jobs, r.next.CronJobs = map[string]api.Rollout{}, map[string]api.JobRun{}, map[string]api.CronRuns{}
	workloads := expand(snapshot, in.nodes)
	r.next.Autoscalers, r.calendar = in.autoscale(snapshot, workloads, pods)
	in.applyScale(workloads, r.next.Autoscalers)
	in.share(workloads, pods)
	in.followMove(workloads, pods)
	in.readClaims(snapshot, workloads)
	in.setGuards(snapshot, workloads, pods)
	for i := range workloads {
		w := &workloads[i]
		r.decide(w, r.evict(w, pods[w.id]))
		delete(pods, w.id)
	}
	r.grant()
	for _, id := range slices.SortedFunc(maps.Keys(pods), api.Identity.Compare) {
		r.end(pods[id])
	}

	d := Decision{Set: board.Assigned, Facts: r.next}
	authority.stamp(&d.Set)
	d.Set.BasedOn = basedOn(board.Pods)
	d.Set.Remove = in.remove(removals, r.stops)
	placed := assignPods(in, r.kept, d.Set.Remove, r.starts)
	d.Set.Remove = in.remove(d.Set.Remove, placed.evicted)
	r.rebalance(&d, placed, workloads)
	d.Set.Pods, d.Set.Pending, d.Claims = r.assigned(placed), placed.pending, placed.claims
	d.Set.Molds = in.molds(&d.Set)
	d.Release = spentClaims(&d, in)
	in.keepVolumes(&d)
	d.Facts.Created = created(snapshot, board.Nodes, facts.Created, now)
	d.Facts.Away, d.Facts.Hindered, d.Facts.Tainted = in.away, in.hindered, in.tainted
	d.Facts.Replaced = placed.brake.remember(facts.Replaced, now)
	if !sameFacts(facts, d.Facts) {
		d.Facts.Seq++
	}
	r.wakeAt(placed.brake.wake(placed.pending, now))
	d.Wake, d.settles = earliest(r.wake, r.calendar), r.wake
	return d
}

// assigned lists the pods that have nodes, in their order: those that run, and
// those that have ended, which occupy nothing and are nowhere in the way. Where
// nothing changed it is the former list.
func (r *round) assigned(placed *placer) []api.Assignment {
	former := r.in.board.Assigned.Pods
	if former != nil && !r.in.changed && len(placed.placed) == 0 && len(placed.evicted) == 0 && len(r.kept)+len(r.over) == len(former) {
		return former
	}
	for _, e := range placed.evicted {
		e.pod.stopped = true
	}
	out := make([]api.Assignment, 0, len(r.kept)+len(r.over)+len(placed.placed))
	for _, pods := range [][]*pod{r.kept, placed.placed, r.over} {
		for _, p := range pods {
			if !p.stopped {
				out = append(out, p.assignment())
			}
		}
	}
	slices.SortFunc(out, func(a, b api.Assignment) int { return a.Pod.Compare(b.Pod) })
	return out
}

// A round collects what is decided about all workloads.
type round struct {
	in     *input
	next   api.Facts
	stops  []stop
	asked  []stop // that budgets may refuse
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
	for _, s := range c.stops {
		s.pod.stopped = true
		if voluntary(s.reason) && !s.pod.granted && len(r.in.guardsOf(s.pod)) > 0 {
			s.pod.cast = r.in.castOf(w, s.pod.Revision)
			r.asked = append(r.asked, s)
			continue
		}
		r.in.charge(s.pod)
		r.stops = append(r.stops, s)
	}
	var last *cast
	for _, p := range pods {
		switch {
		case p.stopped:
		case p.ended() && p.node != "":
			r.in.changed = r.in.changed || p.over != p.phase()
			p.over = p.phase()
			r.over = append(r.over, p)
		case p.node == "":
			r.starts = append(r.starts, r.in.placement(w, p))
		default:
			if last == nil || last.revision != p.Revision {
				last = r.in.castOf(w, p.Revision)
			}
			p.cast = last
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
		if before := c.rollout.Current; before != c.rollout.Revision && before != "" {
			r.in.fallback = append(r.in.fallback, api.Pod{Identity: w.id, Revision: before})
		}
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
		rollout.Held = rollout.Held || w.id.Kind == "Deployment" && !rollout.Complete
		c.rollout = &rollout
	}
	if job, known := in.facts.Jobs[w.id.String()]; known {
		c.job = &job
	}
	if cron, known := in.facts.CronJobs[w.id.String()]; known {
		c.cron = &cron
	}
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
				x.Complete == y.Complete && x.Current == y.Current && x.Failed == y.Failed && x.Back == y.Back && x.Held == y.Held && x.Mark == y.Mark && slices.Equal(x.History, y.History)
		}) && maps.EqualFunc(a.Volumes, b.Volumes, api.Volume.Equal) && slices.EqualFunc(a.Discards, b.Discards, api.Discard.Equal) &&
		maps.EqualFunc(a.Jobs, b.Jobs, api.JobRun.Equal) && maps.EqualFunc(a.CronJobs, b.CronJobs, api.CronRuns.Equal) &&
		a.Balance.Equal(b.Balance) && maps.Equal(a.Hindered, b.Hindered) && sameTimes(a.Tainted, b.Tainted) &&
		maps.EqualFunc(a.Autoscalers, b.Autoscalers, api.Autoscaling.Equal)
}
