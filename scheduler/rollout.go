package scheduler

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/shoal-dev/shoal/api"
)

// A template is what new pods are made from: a revision and a commit that
// holds it.
type template struct {
	revision, unit string
	commit         api.Commit
	back           bool // it takes the place of a newer one whose rollout has failed
}

// starts is why a pod of the template is started in the place of one of another.
func (t template) starts() string {
	if t.back {
		return reasonBack
	}
	return reasonRollout
}

// ousts is why a pod of another template goes for one of this.
func (t template) ousts() string {
	if t.back {
		return reasonFailed
	}
	return reasonSuperseded
}

// current is the template of the workload in Git now.
func (w *workload) current() template {
	return template{revision: w.revision, unit: w.object.Source.Unit, commit: w.object.Source.Commit}
}

// A change is what may happen to one workload now.
type change struct {
	starts  []start
	stops   []stop
	ended   int       // pods stopped because they had ended
	wake    time.Time // when to decide again though nothing changed; zero: no need
	rollout *api.Rollout
	job     *api.JobRun
	cron    *api.CronRuns
	// calendar is like wake, for what begins or ends of itself at a time.
	calendar time.Time
}

type start struct {
	slot     string
	template template
	reason   string
}

type stop struct {
	pod    *pod
	reason string
}

func (c *change) start(slot string, t template, reason string) {
	c.starts = append(c.starts, start{slot, t, reason})
}

func (c *change) stop(p *pod, reason string) { c.stops = append(c.stops, stop{p, reason}) }

func (c *change) stopAll(pods []*pod, reason string) {
	for _, p := range pods {
		c.stop(p, reason)
	}
}

// wakeAt asks for a decision at t; the earliest of all wins.
func (c *change) wakeAt(t time.Time) { c.wake = earliest(c.wake, t) }

// calendarAt asks for a decision at t, when something begins or ends of itself.
func (c *change) calendarAt(t time.Time) { c.calendar = earliest(c.calendar, t) }

// earliest returns the earlier of two times; a zero one does not count.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// leastWanted returns the pods in the order in which they are given up:
// without a node before placed, not ready before ready, on a node that is
// drained before elsewhere, ready for a short time before ready for long, restarted often before seldom, young before old.
// Source: Kubernetes, "ReplicaSet: Scaling a ReplicaSet".
func leastWanted(pods []*pod) []*pod {
	out := slices.Clone(pods)
	slices.SortFunc(out, func(a, b *pod) int {
		return cmp.Or(
			before(a.node == "", b.node == ""),
			before(a.state == nil, b.state == nil),
			before(!a.ready(), !b.ready()),
			before(a.leaving, b.leaving),
			-cmpTime(readySince(a), readySince(b)),
			-cmp.Compare(restarts(a), restarts(b)),
			-cmpTime(a.created, b.created),
			-a.Compare(b.Pod),
		)
	})
	return out
}

// mostWanted returns the pods in the order in which they are kept: those that
// are seen running come before those that nobody has heard of.
func mostWanted(pods []*pod) []*pod {
	out := leastWanted(pods)
	slices.Reverse(out)
	return out
}

func readySince(p *pod) time.Time {
	if !p.ready() {
		return time.Time{}
	}
	return p.state.ReadyAt
}

func restarts(p *pod) int32 {
	if p.state == nil {
		return 0
	}
	return p.state.Restarts
}

// before orders true before false.
func before(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func cmpTime(a, b time.Time) int { return a.Compare(b) }

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

// progress brings the history of a Deployment up to date and judges its
// rollout. Source: Deployment.spec.progressDeadlineSeconds.
func (c *change) progress(w *workload, value *appsv1.Deployment, live []*pod, known api.Rollout, in *input) *api.Rollout {
	r, target, minReady := known, w.target, seconds(value.Spec.MinReadySeconds)
	if r.Back = target.back; r.Back {
		return &r // judged already
	}
	if r.Revision != target.revision {
		r = newRollout(known, target, value.Spec.RevisionHistoryLimit, in.now)
	}
	updated, available, old := int32(0), int32(0), 0
	for _, p := range live {
		if p.Revision != target.revision {
			old++
			continue
		}
		updated++
		ok, at := p.available(minReady, in.now)
		c.wakeAt(at)
		if ok {
			available++
		}
	}
	if mark := [2]int32{updated - int32(old), available}; mark != r.Mark {
		if mark[0] > r.Mark[0] || mark[1] > r.Mark[1] {
			r.Progressed, r.Failed = in.now, false
		}
		r.Mark = mark
	}
	complete := old == 0 && int(updated) == w.want && int(available) == w.want
	if complete {
		r.Complete, r.Failed = true, false
		if w.want > 0 { // without a pod nothing shows that it works
			r.Current = r.Revision
		}
	}
	switch {
	case value.Spec.Paused:
		r.Held = true
	case r.Held, !r.Complete && !r.Failed && in.begins():
		r.Held, r.Progressed = false, in.now
	}
	if !r.Complete && !r.Failed && !r.Held && !in.foreseen && value.Spec.ProgressDeadlineSeconds != nil {
		deadline := r.Progressed.Add(seconds(*value.Spec.ProgressDeadlineSeconds))
		if !in.now.Before(deadline) {
			r.Failed = true
		} else {
			c.wakeAt(deadline)
		}
	}
	return &r
}

// newRollout begins the rollout of a template. The history keeps the last one that
// worked, whatever its limit.
func newRollout(known api.Rollout, t template, limit *int32, now time.Time) api.Rollout {
	r := api.Rollout{Revision: t.revision, Started: now, Progressed: now, Current: known.Current}
	r.History = recordRevision(known.History, t, limit, now)
	worked := func(r api.Revision) bool { return r.Revision == known.Current }
	if i := slices.IndexFunc(known.History, worked); i >= 0 && !slices.ContainsFunc(r.History, worked) {
		r.History = slices.Insert(r.History, 0, known.History[i])
	}
	return r
}

// recordRevision moves a revision to the end of the history, with the next
// number, and drops the oldest beyond the limit.
func recordRevision(history []api.Revision, t template, limit *int32, now time.Time) []api.Revision {
	number := int64(1)
	out := make([]api.Revision, 0, len(history)+1)
	for _, r := range history {
		number = max(number, r.Number+1)
		if r.Revision != t.revision {
			out = append(out, r)
		}
	}
	out = append(out, api.Revision{Revision: t.revision, Number: number, Unit: t.unit, Commit: t.commit, Since: now})
	keep := 10
	if limit != nil {
		keep = int(*limit)
	}
	if surplus := len(out) - 1 - keep; surplus > 0 {
		out = out[surplus:]
	}
	return out
}
