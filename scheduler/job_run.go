package scheduler

import (
	"cmp"
	"math"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

const (
	// keepEnded is how many pods of one Job that have ended are kept for their
	// logs. Kubernetes keeps all of them, up to 12,500 in a cluster.
	keepEnded = 100
	// waitingPods is how many pods of one Job may wait for a node: more would
	// only be in the way. The Kubernetes Job controller makes at most as many
	// at a time.
	waitingPods = 500
)

// A runner decides about one run: of a Job, or of a CronJob for one time. What
// the run points to is replaced, never written to.
// Source: Kubernetes, "Jobs", and KEP-2214, KEP-3329, KEP-3850, KEP-3939,
// KEP-3998.
type runner struct {
	w      *workload
	in     *input
	c      *change
	spec   batchv1.JobSpec // with all defaults
	target template
	run    api.JobRun
	minute int64 // of a CronJob's run, see api.JobSlot
	held   bool  // nothing may start yet

	done, givenUp indexes
	active        map[int]*pod   // one per piece of work: to run, or running
	lost          []*pod         // on nodes that are gone; others may take their places
	ended         []*pod         // the newest end last
	failed        map[int]bool   // pieces of which a pod failed
	moved         map[int]bool   // pieces whose pod leaves a node that is drained
	ending        map[string]int // pods told to go that may still run, by slot
}

func newRunner(w *workload, spec batchv1.JobSpec, run api.JobRun, in *input, c *change) *runner {
	r := &runner{
		w: w, in: in, c: c, spec: spec, run: run, target: template{revision: run.Revision, unit: run.Unit, commit: run.Commit},
		active: map[int]*pod{}, failed: map[int]bool{}, moved: map[int]bool{}, ending: map[string]int{},
	}
	if !run.Time.IsZero() {
		r.minute = run.Minute()
	}
	if r.run.Latest.After(in.calendar) { // the clock went back; nothing waits longer for that
		r.run.Latest = in.calendar
	}
	r.done, r.givenUp = parseIndexes(run.Done, r.limit()), parseIndexes(run.GivenUp, r.limit())
	for slot, n := range in.ending[w.id] {
		if parsed, ok := api.ParseJobSlot(slot); ok && parsed.Minute == r.minute {
			r.ending[slot] += n
		}
	}
	return r
}

// limit is how many pieces of work there are. A queue of work has no number: its
// pods find out for themselves when there is nothing left to do.
func (r *runner) limit() int { return int(valueOr(r.spec.Completions, math.MaxInt32)) }

func (r *runner) queue() bool { return r.spec.Completions == nil }

// piece returns the number of the piece of work that a pod of this run does.
func (r *runner) piece(id api.Identity) (int, bool) {
	slot, ok := api.ParseJobSlot(id.Slot)
	return slot.Index, ok && id.Workload() == r.w.id && slot.Minute == r.minute && slot.Indexed == isIndexed(&r.spec)
}

func (r *runner) slot(piece int) string {
	return api.JobSlot{Minute: r.minute, Index: piece, Indexed: isIndexed(&r.spec)}.String()
}

// decide decides about the pods of the run, and leaves what is known of it after
// that in r.run.
func (r *runner) decide(pods []*pod) {
	r.sort(pods)
	if !r.run.Finished() {
		r.count()
		r.disruptions()
		r.judge()
		switch {
		case r.run.Target.Type != "":
			r.finish()
		case *r.spec.Suspend:
			r.suspend()
		default:
			r.work()
		}
		if !r.run.Finished() && r.run.Target.Type == "" {
			// The last pod of a work queue may have just been stopped.
			if r.allDone(); r.run.Target.Type != "" {
				r.finish()
			}
		}
	}
	if r.run.Finished() {
		r.rest()
	}
	r.dropEnded(keepEnded, reasonKept)
	r.remember()
}

// sort tells what there is of the run.
func (r *runner) sort(pods []*pod) {
	elsewhere := !slices.ContainsFunc(pods, func(p *pod) bool { return p.lost }) || r.in.forSomeNode(r.w)
	held := map[int][]*pod{}
	for _, p := range pods {
		i, mine := r.piece(p.Identity)
		holder, granted := r.in.board.Claims[p.Identity.String()]
		switch {
		case p.ended():
			r.ended = append(r.ended, p)
			r.failed[i] = r.failed[i] || p.phase() == corev1.PodFailed
		case !mine:
			r.c.stopIfHere(p, reasonJobChanged)
		case p.lost && elsewhere && !r.in.bound(r.w, p) && (!r.w.exclusive || granted && (holder.Released || holder.Node != p.node)):
			r.lost = append(r.lost, p)
		case p.node != "" && !p.lost && granted && holder.Node != p.node && p.claim.Less(holder.Claim):
			r.c.stop(p, reasonOutclaimed)
		default:
			held[i] = append(held[i], p)
		}
	}
	slices.SortFunc(r.ended, func(a, b *pod) int {
		return cmp.Or(r.endOf(a).Compare(r.endOf(b)), a.Compare(b.Pod))
	})
	for i, group := range held {
		r.active[i] = group[0]
		if len(group) == 1 {
			continue
		}
		slices.SortFunc(group, longestRunning)
		r.active[i] = group[0]
		for _, p := range group[1:] {
			if !p.lost {
				r.c.giveUpDouble(p, group, &level{available: len(group)}, r.in)
			}
		}
	}
}

// longestRunning orders pods that do the same piece of work: who has done most of
// it is kept.
func longestRunning(a, b *pod) int {
	return cmp.Or(
		before(a.node != "", b.node != ""),
		before(!a.lost, !b.lost),
		before(!a.leaving, !b.leaving),
		before(a.state != nil, b.state != nil),
		a.created.Compare(b.created),
		a.Compare(b.Pod),
	)
}

// endOf returns when a pod ended: when its last container did.
func (r *runner) endOf(p *pod) time.Time {
	var at time.Time
	if p.state != nil {
		for _, c := range p.state.Containers {
			if c.Ended != nil && c.Ended.Finished.After(at) {
				at = c.Ended.Finished
			}
		}
	}
	switch {
	case at.IsZero() && p.over != "": // seen before, and forgotten by its node
		return p.created
	case at.IsZero() || at.After(r.in.calendar): // the clock of its node is not ours
		return r.in.calendar
	}
	return at
}

// work lets as many pods run as there should be.
func (r *runner) work() {
	if r.run.Suspended {
		r.run.Suspended, r.run.Switched = false, r.in.calendar
	}
	if r.held {
		return
	}
	if r.run.Started.IsZero() {
		r.run.Started = r.in.calendar
	}
	r.giveUpPieces()
	r.moveAway()
	want := r.want()
	if surplus := len(r.active) - want; surplus > 0 {
		for _, p := range leastWanted(r.activePods())[:surplus] {
			r.drop(p, reasonSurplus)
		}
	}
	r.start(want - len(r.active))
}

// want is how many pods should run. Once a pod of a work queue has succeeded
// there is nothing left to begin, and the others finish what they do.
func (r *runner) want() int {
	if r.queue() {
		if r.done.count() > 0 {
			return len(r.active)
		}
		return int(*r.spec.Parallelism)
	}
	return max(0, min(r.limit()-r.done.count()-r.givenUp.count(), int(*r.spec.Parallelism)))
}

// activePods lists the pods that run or are to run, by their pieces of work.
func (r *runner) activePods() []*pod {
	out := make([]*pod, 0, len(r.active))
	for _, p := range r.active {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *pod) int { return a.Compare(b.Pod) })
	return out
}

// drop stops a pod that was to run, as far as it can be told.
func (r *runner) drop(p *pod, reason string) {
	i, _ := r.piece(p.Identity)
	delete(r.active, i)
	r.c.stopIfHere(p, reason)
	if p.node != "" && !p.lost {
		r.ending[p.Slot]++
	}
}

// giveUpPieces stops pods whose work is done, or cannot be, or is not asked for
// any more.
func (r *runner) giveUpPieces() {
	for _, p := range r.activePods() {
		if i, _ := r.piece(p.Identity); r.done.has(i) || r.givenUp.has(i) || i >= r.limit() {
			r.drop(p, reasonPieceDone)
		}
	}
}

// moveAway stops pods on nodes that are drained or tainted. What they did is lost, as in
// Kubernetes.
func (r *runner) moveAway() {
	for _, p := range r.activePods() {
		if r.moves(p) {
			i, _ := r.piece(p.Identity)
			r.moved[i] = !p.evicted
			r.drop(p, r.whyMoves(p))
		}
	}
}

func (r *runner) whyMoves(p *pod) string {
	if p.evicted {
		return reasonTainted
	}
	return reasonDrained
}

// moves reports whether a pod goes because its node is drained, or has a taint.
func (r *runner) moves(p *pod) bool {
	return p.evicted || p.leaving && !p.lost && r.in.elsewhereNow(r.w, p) && r.in.mayLeave(p)
}

// start starts pods for the first n pieces of work that nobody does.
func (r *runner) start(n int) {
	blocked := r.blocked()
	n = min(n-len(blocked), r.w.queue-r.waiting())
	if n <= 0 || r.waits(r.run.Row, r.run.Latest) {
		return
	}
	for i := r.undone(0); n > 0 && i < r.limit(); i = r.undone(i + 1) {
		if _, busy := r.active[i]; busy || blocked[i] {
			continue
		}
		if failures := r.run.Indexes[i]; r.waits(failures.Failed, failures.Latest) {
			continue
		}
		r.c.start(r.slot(i), r.target, r.why(i))
		n--
	}
}

// blocked are the pieces of work whose former pod must be gone before another is
// started: where that is asked for, and where two must never run.
func (r *runner) blocked() map[int]bool {
	out := map[int]bool{}
	note := func(slot string) {
		if i, mine := r.piece(r.w.id.At(slot)); mine {
			out[i] = true
		}
	}
	if r.w.exclusive || *r.spec.PodReplacementPolicy == batchv1.Failed {
		for slot := range r.ending {
			note(slot)
		}
	}
	if r.w.exclusive {
		for slot := range r.in.blockedSlots(r.w.id) {
			note(slot)
		}
	}
	return out
}

// waiting counts the pods that have no node yet.
func (r *runner) waiting() int {
	n := 0
	for _, p := range r.active {
		if p.node == "" {
			n++
		}
	}
	return n
}

// undone returns i, or the first number after it that is left to do.
func (r *runner) undone(i int) int {
	for r.done.has(i) || r.givenUp.has(i) {
		i = r.givenUp.after(r.done.after(i))
	}
	return i
}

// why says why a pod is started for a piece of work.
func (r *runner) why(i int) string {
	switch {
	case slices.ContainsFunc(r.lost, func(p *pod) bool { return p.Slot == r.slot(i) }):
		return reasonLost
	case r.moved[i]:
		return reasonMove
	case r.failed[i]:
		return reasonRetry
	}
	return reasonMissing
}
