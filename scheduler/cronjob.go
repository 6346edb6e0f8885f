package scheduler

import (
	"fmt"
	"math"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// expandCronJob makes a workload of a CronJob. It owns the pods of all its runs.
// They are exclusive: what runs for one time must not run for it twice.
func expandCronJob(value *batchv1.CronJob, object api.Object) workload {
	w := newWorkload(object, &value.Spec.JobTemplate.Spec.Template)
	w.exclusive = true
	w.decide = func(w *workload, pods []*pod, in *input) change {
		d := cronJob{w: w, value: value, in: in}
		d.decide(pods)
		return d.c
	}
	return w
}

// A cronJob decides about one CronJob. Source: Kubernetes, "CronJob", and the
// CronJob controller for what that page leaves open.
type cronJob struct {
	w       *workload
	value   *batchv1.CronJob
	in      *input
	c       change
	cron    api.CronRuns
	changes []change // of cron.Runs, one each
}

func (d *cronJob) decide(pods []*pod) {
	known, remembered := d.in.facts.CronJobs[d.w.id.String()]
	d.cron = known
	if !remembered {
		d.cron = api.CronRuns{Since: d.in.calendar}
		if t, seen := d.in.facts.Created[d.w.object.Key().String()]; seen {
			d.cron.Since = t
		}
	}
	d.cron.Runs = slices.Clone(known.Runs)
	byRun := d.recall(pods)
	d.changes = make([]change, len(d.cron.Runs))
	for i, run := range d.cron.Runs {
		d.run(i, byRun[run.Minute()])
	}
	if !valueOr(d.value.Spec.Suspend, false) {
		d.fire()
	}
	d.forget(byRun)
	for _, c := range d.changes {
		d.c.starts, d.c.stops = append(d.c.starts, c.starts...), append(d.c.stops, c.stops...)
		d.c.wakeAt(c.wake)
		d.c.calendarAt(c.calendar)
	}
	if len(d.cron.Runs) == 0 {
		d.cron.Runs = nil
	}
	d.c.cron = &d.cron
}

// recall sorts the pods by runs, and takes in runs that only their pods tell of:
// the memory of them was lost, or is older than they are.
func (d *cronJob) recall(pods []*pod) map[int64][]*pod {
	byRun := map[int64][]*pod{}
	for _, p := range pods {
		slot, ok := api.ParseJobSlot(p.Slot)
		if !ok || slot.Minute == 0 {
			d.c.stopIfHere(p, reasonJobChanged)
			continue
		}
		if _, found := d.cron.Run(slot.Minute); !found {
			at := time.Unix(slot.Minute*60, 0).UTC()
			if !d.cron.Last.Before(at) && !d.cron.Last.IsZero() {
				d.c.stopIfHere(p, reasonHistory)
				continue
			}
			run := begin(template{revision: p.Revision, unit: p.unit, commit: p.commit}, []*pod{p}, d.in)
			run.Time, run.Spec = at, d.spec()
			d.cron.Runs = append(d.cron.Runs, run)
		}
		byRun[slot.Minute] = append(byRun[slot.Minute], p)
	}
	slices.SortStableFunc(d.cron.Runs, func(a, b api.JobRun) int { return a.Time.Compare(b.Time) })
	if n := len(d.cron.Runs); n > 0 && d.cron.Last.Before(d.cron.Runs[n-1].Time) {
		d.cron.Last = d.cron.Runs[n-1].Time
	}
	return byRun
}

// spec is what a run begins with and keeps, whatever becomes of the CronJob.
// Its template is found by its revision.
func (d *cronJob) spec() *batchv1.JobSpec {
	spec := jobDefaults(d.value.Spec.JobTemplate.Spec)
	spec.Template = corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: spec.Template.Spec.RestartPolicy}}
	return &spec
}

// run decides about the pods of one run.
func (d *cronJob) run(i int, pods []*pod) {
	run := d.cron.Runs[i]
	if run.Spec == nil {
		run.Spec = d.spec()
	}
	before := run.Finished()
	c := &d.changes[i]
	r := newRunner(d.w, *run.Spec, run, d.in, c)
	r.decide(pods)
	d.cron.Runs[i] = r.run
	if end := r.run.End; !before && end.Type == batchv1.JobComplete && end.At.After(d.cron.Succeeded) {
		d.cron.Succeeded = end.At
	}
}

// fire begins a run when one is due, and notes why it does not otherwise.
func (d *cronJob) fire() {
	now := d.in.calendar
	zone, line := valueOr(d.value.Spec.TimeZone, ""), d.value.Spec.Schedule
	key := zone + " " + line
	if d.cron.Line == key && now.Before(d.cron.Next) {
		d.noteClock(now)
		d.c.calendarAt(d.cron.Next)
		return
	}
	if d.cron.Line == key && d.cron.Next.IsZero() {
		return // what the note says, until the line is changed
	}
	d.cron.Line, d.cron.Next = key, time.Time{}
	t, reason, message := parseTimetable(line, zone)
	if reason != "" {
		d.cron.Note = api.CronNote{Reason: reason, Message: message}
		return
	}
	earliest := d.cron.Since
	if !d.cron.Last.IsZero() {
		earliest = d.cron.Last
	}
	d.cron.Next = t.next(earliest)
	if d.cron.Next.IsZero() {
		d.cron.Note = api.CronNote{Reason: noteNever, Message: fmt.Sprintf("invalid schedule: %s: no such time comes within five years", line)}
		return
	}
	if d.cron.Note.At.IsZero() {
		d.cron.Note = api.CronNote{} // what was wrong is not any more
	}
	if now.Before(d.cron.Next) {
		d.noteClock(now)
		d.c.calendarAt(d.cron.Next)
		return
	}
	d.due(t, earliest, now)
}

// noteClock says that nothing runs because the clock is before the last run: a
// run for a time that was served is never repeated.
func (d *cronJob) noteClock(now time.Time) {
	switch {
	case now.Before(d.cron.Last):
		d.cron.Note = api.CronNote{Reason: noteClockBack, Message: fmt.Sprintf(
			"the clock went back: the run for %s has been, and no time before it is served", d.cron.Last.UTC().Format(time.RFC3339))}
	case d.cron.Note.Reason == noteClockBack:
		d.cron.Note = api.CronNote{}
	}
}

// due begins the run for the last time that has passed, when the deadline for
// it and the runs that are under way allow it.
func (d *cronJob) due(t timetable, earliest, now time.Time) {
	latest, many := t.latest(earliest, now)
	if limit := d.value.Spec.StartingDeadlineSeconds; limit != nil {
		deadline := now.Add(-time.Duration(min(*limit, math.MaxInt64/int64(time.Second))) * time.Second)
		if !latest.After(deadline) {
			d.cron.Note = api.CronNote{
				Reason: noteMissed, Message: "Missed scheduled time to start a job: " + latest.UTC().Format(time.RFC1123Z), At: latest,
			}
			d.cron.Next = t.next(latest)
			d.c.calendarAt(d.cron.Next)
			return
		}
		_, many = t.latest(laterOf(earliest, deadline), now)
	}
	active := 0
	for _, run := range d.cron.Runs {
		if !run.Finished() {
			active++
		}
	}
	switch {
	case active > 0 && d.value.Spec.ConcurrencyPolicy == batchv1.ForbidConcurrent:
		d.cron.Note = api.CronNote{Reason: noteActive, Message: "Not starting job because prior execution is running and concurrency policy is Forbid", At: latest}
		d.c.calendarAt(t.next(latest))
		return
	case active > 0 && d.value.Spec.ConcurrencyPolicy == batchv1.ReplaceConcurrent:
		d.replace()
	}
	d.cron.Note = api.CronNote{}
	if many {
		d.cron.Note = api.CronNote{Reason: noteMany, Message: "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew", At: latest}
	}
	d.begin(latest)
	d.cron.Next = t.next(latest)
	d.c.calendarAt(d.cron.Next)
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// begin begins the run for a time. Two times within one minute have one name,
// and so one run, as in Kubernetes.
func (d *cronJob) begin(at time.Time) {
	d.cron.Last = at
	if _, found := d.cron.Run(at.Unix() / 60); found {
		return
	}
	run := begin(d.w.current(), nil, d.in)
	run.Time, run.Spec = at, d.spec()
	d.cron.Runs, d.changes = append(d.cron.Runs, run), append(d.changes, change{})
	d.run(len(d.cron.Runs)-1, nil)
}

// replace ends the runs that are under way, without a trace.
func (d *cronJob) replace() {
	for i := range d.cron.Runs {
		if !d.cron.Runs[i].Finished() {
			d.cron.Runs[i].Expired = true // forget does the rest
		}
	}
}

// forget drops runs: those that were replaced, those whose time to be kept has
// passed, and the oldest beyond what the history holds. Their pods go.
func (d *cronJob) forget(byRun map[int64][]*pod) {
	keep := map[batchv1.JobConditionType]int{
		batchv1.JobComplete: int(valueOr(d.value.Spec.SuccessfulJobsHistoryLimit, 3)),
		batchv1.JobFailed:   int(valueOr(d.value.Spec.FailedJobsHistoryLimit, 1)),
	}
	var runs []api.JobRun
	for i, run := range slices.Backward(d.cron.Runs) {
		reason := reasonHistory
		switch {
		case run.Expired && run.Finished():
			reason = reasonExpired
		case run.Expired:
			reason = reasonReplacedRun
		case !run.Finished():
			runs = append(runs, run)
			continue
		default:
			if keep[run.End.Type]--; keep[run.End.Type] >= 0 {
				runs = append(runs, run)
				continue
			}
		}
		d.changes[i] = change{}
		for _, p := range byRun[run.Minute()] {
			d.changes[i].stopIfHere(p, reason)
		}
	}
	slices.Reverse(runs)
	d.cron.Runs = runs
}
