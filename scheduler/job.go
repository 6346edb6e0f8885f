package scheduler

import (
	"math"

	batchv1 "k8s.io/api/batch/v1"

	"github.com/shoal-dev/shoal/api"
)

// expandJob makes a workload of a Job. Its pods do pieces of work, numbered from
// 0, and each piece is a slot: a pod that takes the place of another has the
// same. That is so in NonIndexed Jobs, too, where the number is not told to the
// pod: what was done twice, because a node was lost and came back, counts once.
func expandJob(value *batchv1.Job, object api.Object) workload {
	w := newWorkload(object, &value.Spec.Template)
	spec := jobDefaults(value.Spec)
	w.want = piecesAtATime(&spec)
	w.exclusive = w.annotated()
	w.decide = func(w *workload, pods []*pod, in *input) change { return decideJob(w, spec, pods, in) }
	return w
}

// jobDefaults fills in what the template of a CronJob leaves open: an API server
// does it when the Job is made. Source: the defaults of batch/v1 Job.
func jobDefaults(spec batchv1.JobSpec) batchv1.JobSpec {
	if spec.Completions == nil && spec.Parallelism == nil {
		spec.Completions = new(int32(1))
	}
	limit, replace := int32(6), batchv1.TerminatingOrFailed
	if spec.BackoffLimitPerIndex != nil {
		limit = math.MaxInt32
	}
	if spec.PodFailurePolicy != nil {
		replace = batchv1.Failed
	}
	spec.Parallelism = new(valueOr(spec.Parallelism, 1))
	spec.BackoffLimit = new(valueOr(spec.BackoffLimit, limit))
	spec.CompletionMode = new(valueOr(spec.CompletionMode, batchv1.NonIndexedCompletion))
	spec.Suspend = new(valueOr(spec.Suspend, false))
	spec.ManualSelector = new(valueOr(spec.ManualSelector, false))
	spec.PodReplacementPolicy = new(valueOr(spec.PodReplacementPolicy, replace))
	return spec
}

// valueOr returns what p points to, or the other value when it points to nothing.
func valueOr[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// piecesAtATime is how many pods a Job that has done nothing yet runs.
func piecesAtATime(spec *batchv1.JobSpec) int {
	n := *spec.Parallelism
	if spec.Completions != nil {
		n = min(n, *spec.Completions)
	}
	return int(n)
}

func isIndexed(spec *batchv1.JobSpec) bool {
	return valueOr(spec.CompletionMode, "") == batchv1.IndexedCompletion
}

// decideJob decides about a Job. Another revision of it is another run, which
// begins with nothing, once the pods of the former one are gone: Kubernetes
// forbids such a change, and one would have to delete the Job first.
func decideJob(w *workload, spec batchv1.JobSpec, pods []*pod, in *input) change {
	var c change
	var mine []*pod
	for _, p := range pods {
		if p.Revision == w.revision {
			mine = append(mine, p)
		} else {
			c.stopIfHere(p, reasonJobChanged)
		}
	}
	run, known := in.facts.Jobs[w.id.String()]
	if !known || run.Revision != w.revision {
		run = begin(w.current(), mine, in)
	}
	r := newRunner(w, spec, run, in, &c)
	r.held = run.Started.IsZero() && run.Switched.IsZero() && (r.leftovers() || len(in.ending[w.id]) > 0)
	r.decide(mine)
	c.job = &r.run
	return c
}

// begin returns a run of which nothing is remembered. Pods of it that are there
// have been running for as long as they have.
func begin(t template, pods []*pod, in *input) api.JobRun {
	run := api.JobRun{Revision: t.revision, Unit: t.unit, Commit: t.commit, Began: in.calendar}
	for i, p := range pods {
		if i == 0 || p.created.Before(run.Began) {
			run.Began, run.Started = p.created, p.created
		}
	}
	return run
}

// stopIfHere stops a pod of a Job, unless its node is gone: what such a pod does
// is decided when it is heard of again.
func (c *change) stopIfHere(p *pod, reason string) {
	if !p.lost {
		c.stop(p, reason)
	}
}

// leftovers reports whether pods that were told to go, by this decision or by an
// earlier one, may still be running.
func (r *runner) leftovers() bool {
	for _, s := range r.c.stops {
		if s.pod.node != "" && !s.pod.ended() {
			return true
		}
	}
	return len(r.ending) > 0
}
