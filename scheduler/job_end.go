package scheduler

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// endedByFence is the reason of a container that was ended because its node
// could not renew its lease. The work has not failed; it was interrupted.
const endedByFence = "Fenced"

// count takes in the pods that have ended since the last decision.
func (r *runner) count() {
	for _, p := range r.ended {
		if r.counted(p) {
			continue
		}
		i, mine := r.piece(p.Identity)
		switch {
		case !mine:
		case p.phase() == corev1.PodSucceeded:
			r.run.Row, r.run.Latest = 0, time.Time{}
			if i < r.limit() && !r.givenUp.has(i) {
				r.done = r.done.add(i)
				r.forget(i)
			}
		case fenced(p):
			r.fail(p, r.onDisruption(p, batchv1.PodFailurePolicyActionIgnore), r.in.calendar)
		case p.wasEvicted():
			r.fail(p, r.onDisruption(p, batchv1.PodFailurePolicyActionCount), r.endOf(p))
		default:
			r.fail(p, r.onExit(p), r.endOf(p))
		}
		r.setCounted(p)
	}
}

func (r *runner) counted(p *pod) bool {
	_, found := slices.BinarySearch(r.run.Counted, p.Instance)
	return found
}

func (r *runner) setCounted(p *pod) {
	if i, found := slices.BinarySearch(r.run.Counted, p.Instance); !found {
		r.run.Counted = slices.Insert(slices.Clone(r.run.Counted), i, p.Instance)
	}
}

func fenced(p *pod) bool {
	return p.state != nil && slices.ContainsFunc(p.state.Containers, func(c api.ContainerState) bool {
		return c.Ended != nil && c.Ended.Reason == endedByFence
	})
}

// disruptions takes in the pods that are on lost nodes, or are about to be moved,
// where the policy has a rule for it. Without one they are not failures here,
// other than in Kubernetes: it was not the Job that failed.
func (r *runner) disruptions() {
	if r.spec.PodFailurePolicy == nil {
		return
	}
	for _, p := range r.lost {
		if !r.counted(p) {
			if rule := r.onDisruption(p, batchv1.PodFailurePolicyActionIgnore); rule.action != batchv1.PodFailurePolicyActionIgnore {
				r.fail(p, rule, r.in.calendar)
				r.setCounted(p)
			}
		}
	}
	for _, p := range r.activePods() {
		if r.moves(p) {
			r.fail(p, r.onDisruption(p, batchv1.PodFailurePolicyActionIgnore), r.in.calendar)
		}
	}
}

// A rule says what to do about a pod that failed.
type rule struct {
	action  batchv1.PodFailurePolicyAction
	message string // of the Job's failure
}

// onExit finds the rule for a pod whose containers have ended.
// Source: KEP-3329, "Retriable and non-retriable Pod failures for Jobs".
func (r *runner) onExit(p *pod) rule {
	if r.spec.PodFailurePolicy != nil {
		for i, candidate := range r.spec.PodFailurePolicy.Rules {
			if candidate.OnExitCodes == nil {
				continue
			}
			if c, matches := exited(p, candidate.OnExitCodes); matches {
				return rule{candidate.Action, fmt.Sprintf("Container %s for pod %s/%s failed with exit code %d matching %s rule at index %d",
					c.Name, p.Namespace, p.Name(), c.Ended.ExitCode, candidate.Action, i)}
			}
		}
	}
	return rule{action: batchv1.PodFailurePolicyActionCount}
}

// onDisruption finds the rule for a pod that is ended by the fleet and not by
// itself. Nobody sets other conditions that a rule could ask for.
func (r *runner) onDisruption(p *pod, otherwise batchv1.PodFailurePolicyAction) rule {
	if r.spec.PodFailurePolicy != nil {
		for i, candidate := range r.spec.PodFailurePolicy.Rules {
			if slices.ContainsFunc(candidate.OnPodConditions, func(c batchv1.PodFailurePolicyOnPodConditionsPattern) bool {
				return c.Type == corev1.DisruptionTarget && (c.Status == corev1.ConditionTrue || c.Status == "")
			}) {
				return rule{candidate.Action, fmt.Sprintf("Pod %s/%s has condition %s matching %s rule at index %d",
					p.Namespace, p.Name(), corev1.DisruptionTarget, candidate.Action, i)}
			}
		}
	}
	return rule{action: otherwise}
}

// exited returns the first container whose end a rule is about, containers
// before init containers.
func exited(p *pod, want *batchv1.PodFailurePolicyOnExitCodesRequirement) (api.ContainerState, bool) {
	if p.state == nil {
		return api.ContainerState{}, false
	}
	for _, init := range []bool{false, true} {
		for _, c := range p.state.Containers {
			if c.Init != init || c.Ended == nil || c.Ended.ExitCode == 0 || want.ContainerName != nil && *want.ContainerName != c.Name {
				continue
			}
			if slices.Contains(want.Values, c.Ended.ExitCode) == (want.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
				return c, true
			}
		}
	}
	return api.ContainerState{}, false
}

// fail counts a failure as the rule says.
func (r *runner) fail(p *pod, rule rule, at time.Time) {
	if rule.action == batchv1.PodFailurePolicyActionIgnore {
		return
	}
	i, _ := r.piece(p.Identity)
	r.run.Failed++
	r.failed[i] = true
	perIndex := r.spec.BackoffLimitPerIndex != nil
	switch {
	case rule.action == batchv1.PodFailurePolicyActionFailJob:
		r.aim(batchv1.JobFailed, batchv1.JobReasonPodFailurePolicy, rule.message)
	case rule.action == batchv1.PodFailurePolicyActionFailIndex && perIndex:
		r.giveUp(i)
	case perIndex:
		failures := r.run.Indexes[i]
		if failures.Failed++; failures.Failed > *r.spec.BackoffLimitPerIndex {
			r.giveUp(i)
			return
		}
		failures.Latest = at
		next := maps.Clone(r.run.Indexes)
		if next == nil {
			next = map[int]api.IndexFailures{}
		}
		next[i] = failures
		r.run.Indexes = next
	default:
		r.run.Row++
		r.run.Latest = at
	}
}

// giveUp notes that a piece of work has failed for good.
func (r *runner) giveUp(i int) {
	if !r.done.has(i) {
		r.givenUp = r.givenUp.add(i)
	}
	r.forget(i)
}

// forget drops the failures of a piece of work that is over.
func (r *runner) forget(i int) {
	if _, known := r.run.Indexes[i]; known {
		r.run.Indexes = maps.Clone(r.run.Indexes)
		delete(r.run.Indexes, i)
	}
}

// waits reports whether the next pod must wait after failures in a row, and
// arranges for a decision when it need not any more. Source: Kubernetes, "Jobs:
// Pod backoff failure policy"; the Job controller's limits.
func (r *runner) waits(failures int32, latest time.Time) bool {
	const first, most = 10 * time.Second, 10 * time.Minute
	if failures <= 0 {
		return false
	}
	delay := first
	for n := failures; n > 1 && delay < most; n-- {
		delay = min(2*delay, most)
	}
	due := latest.Add(delay)
	if !r.in.calendar.Before(due) {
		return false
	}
	r.c.calendarAt(due)
	return true
}

// aim decides how the run ends. The first word holds.
func (r *runner) aim(kind batchv1.JobConditionType, reason, message string) {
	if r.run.Target.Type == "" {
		r.run.Target = api.JobEnd{Type: kind, Reason: reason, Message: message, At: r.in.calendar}
	}
}

// judge decides whether the run has come to an end. A Job that has done all its
// work is not late, however long nobody looked.
func (r *runner) judge() {
	if *r.spec.BackoffLimit < r.run.Failed || r.restartedTooOften() {
		r.aim(batchv1.JobFailed, batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
	}
	given, done := r.givenUp.count(), r.done.count()
	switch {
	case r.spec.MaxFailedIndexes != nil && given > int(*r.spec.MaxFailedIndexes):
		r.aim(batchv1.JobFailed, batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes")
	case given > 0 && given+done >= r.limit():
		r.aim(batchv1.JobFailed, batchv1.JobReasonFailedIndexes, "Job has failed indexes")
	}
	if i, met := r.successPolicy(); met {
		r.aim(batchv1.JobComplete, batchv1.JobReasonSuccessPolicy, fmt.Sprintf("Matched rules at index %d", i))
	}
	r.allDone()
	if limit := r.spec.ActiveDeadlineSeconds; limit != nil && !*r.spec.Suspend && !r.run.Started.IsZero() && r.run.Target.Type == "" {
		due := r.run.Started.Add(time.Duration(min(*limit, math.MaxInt64/int64(time.Second))) * time.Second)
		if !r.in.calendar.Before(due) {
			r.aim(batchv1.JobFailed, batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
			return
		}
		r.c.calendarAt(due)
	}
}

// allDone ends a run that has nothing left to do.
func (r *runner) allDone() {
	done := r.done.count()
	if !r.queue() && done >= r.limit() || r.queue() && done > 0 && len(r.active) == 0 {
		r.aim(batchv1.JobComplete, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods")
	}
}

// restartedTooOften counts the restarts of containers in pods that are not
// replaced when they fail.
func (r *runner) restartedTooOften() bool {
	if r.spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	restarts := int32(0)
	for _, p := range r.active {
		if p.state != nil {
			restarts += p.state.Restarts
		}
	}
	return restarts > 0 && restarts >= *r.spec.BackoffLimit
}

// successPolicy returns the first rule by which the run has succeeded, though
// not all its work is done. Source: KEP-3998, "Job success/completion policy".
func (r *runner) successPolicy() (int, bool) {
	if r.spec.SuccessPolicy == nil || r.done.count() == 0 {
		return 0, false
	}
	for i, rule := range r.spec.SuccessPolicy.Rules {
		done, all := r.done.count(), math.MaxInt
		if rule.SucceededIndexes != nil {
			named := parseIndexes(*rule.SucceededIndexes, r.limit())
			if all = named.count(); all == 0 {
				continue
			}
			done = named.common(r.done)
		}
		if done >= all || rule.SucceededCount != nil && done >= int(*rule.SucceededCount) {
			return i, true
		}
	}
	return 0, false
}

// finish ends what still runs; when nothing does any more the run is over.
func (r *runner) finish() {
	for _, p := range r.activePods() {
		r.drop(p, reasonJobOver)
	}
	if r.leftovers() {
		return
	}
	r.run.End = r.run.Target
	r.run.End.At = r.in.calendar
	r.run.Target = api.JobEnd{}
	r.run.Indexes, r.run.Row, r.run.Latest = nil, 0, time.Time{}
}

// suspend ends what runs and lets nothing start. Source: KEP-2232.
func (r *runner) suspend() {
	if !r.run.Suspended {
		r.run.Suspended, r.run.Switched = true, r.in.calendar
	}
	r.run.Started = time.Time{}
	for _, p := range r.activePods() {
		r.drop(p, reasonSuspended)
	}
}

// rest is all that happens to a run that is over: what a node brings back ends,
// and after a while the pods are not kept any more. Source: KEP-592, "TTL after
// finished".
func (r *runner) rest() {
	for _, p := range r.activePods() {
		r.drop(p, reasonJobOver)
	}
	if r.spec.TTLSecondsAfterFinished == nil {
		return
	}
	due := r.run.End.At.Add(time.Duration(*r.spec.TTLSecondsAfterFinished) * time.Second)
	if !r.run.Expired && r.in.calendar.Before(due) {
		r.c.calendarAt(due)
		return
	}
	r.run.Expired = true
	r.dropEnded(0, reasonExpired)
}

// dropEnded keeps the last pods that have ended and stops the others.
func (r *runner) dropEnded(keep int, reason string) {
	surplus := max(0, len(r.ended)-keep)
	for _, p := range r.ended[:surplus] {
		r.c.stopIfHere(p, reason)
	}
	r.ended = r.ended[surplus:]
}

// remember writes down what is known of the run now.
func (r *runner) remember() {
	r.run.Done, r.run.GivenUp = r.done.String(), r.givenUp.String()
	r.run.Counted = slices.DeleteFunc(slices.Clone(r.run.Counted), func(instance string) bool {
		return r.run.Finished() || !r.exists(instance)
	})
	if len(r.run.Counted) == 0 {
		r.run.Counted = nil
	}
}

// exists reports whether a pod with this instance is kept.
func (r *runner) exists(instance string) bool {
	is := func(p *pod) bool { return p.Instance == instance }
	stopped := slices.ContainsFunc(r.c.stops, func(s stop) bool { return is(s.pod) })
	return !stopped && (slices.ContainsFunc(r.ended, is) || slices.ContainsFunc(r.lost, is))
}
