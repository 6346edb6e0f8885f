package scheduler

import (
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
)

// job makes the spec of a Job from what a scenario says: completions, parallelism,
// mode, backoff, perIndex, maxFailed, active, ttl, suspend, restart, replace, and
// the rules exit=ACTION:CODES, disruption=ACTION and success=INDEXES:COUNT.
func (s spec) job(template corev1.PodTemplateSpec) batchv1.JobSpec {
	out := batchv1.JobSpec{Template: template}
	out.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	for option, field := range map[string]**int32{
		"completions": &out.Completions, "parallelism": &out.Parallelism, "backoff": &out.BackoffLimit, "perIndex": &out.BackoffLimitPerIndex,
		"maxFailed": &out.MaxFailedIndexes, "ttl": &out.TTLSecondsAfterFinished,
	} {
		if text, given := s.more[option]; given {
			*field = new(int32(number(text, 0)))
		}
	}
	if text, given := s.more["active"]; given {
		out.ActiveDeadlineSeconds = new(number(text, 0))
	}
	if mode, given := s.more["mode"]; given {
		out.CompletionMode = new(batchv1.CompletionMode(mode))
	}
	if policy, given := s.more["replace"]; given {
		out.PodReplacementPolicy = new(batchv1.PodReplacementPolicy(policy))
	}
	if s.more["restart"] != "" {
		out.Template.Spec.RestartPolicy = corev1.RestartPolicy(s.more["restart"])
	}
	if s.more["suspend"] == "true" {
		out.Suspend = new(true)
	}
	s.policies(&out)
	return out
}

func (s spec) policies(out *batchv1.JobSpec) {
	var rules []batchv1.PodFailurePolicyRule
	if action, codes, given := strings.Cut(s.more["exit"], ":"); given {
		on := &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn}
		for code := range strings.SplitSeq(codes, "+") {
			on.Values = append(on.Values, int32(number(code, 0)))
		}
		rules = append(rules, batchv1.PodFailurePolicyRule{Action: batchv1.PodFailurePolicyAction(action), OnExitCodes: on})
	}
	if action := s.more["disruption"]; action != "" {
		rules = append(rules, batchv1.PodFailurePolicyRule{
			Action:          batchv1.PodFailurePolicyAction(action),
			OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}},
		})
	}
	if rules != nil {
		out.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: rules}
	}
	if text := s.more["success"]; text != "" {
		var rule batchv1.SuccessPolicyRule
		named, count, counted := strings.Cut(text, ":")
		if named != "" {
			rule.SucceededIndexes = &named
		}
		if counted {
			rule.SucceededCount = new(int32(number(count, 0)))
		}
		out.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{rule}}
	}
}

// cronJob makes a CronJob: schedule with _ for spaces, zone, policy, starting,
// halt=true, keep and keepFailed; the rest is its Job's.
func (s spec) cronJob(meta metav1.ObjectMeta) *batchv1.CronJob {
	out := &batchv1.CronJob{ObjectMeta: meta}
	out.Spec.Schedule = strings.ReplaceAll(s.more["schedule"], "_", " ")
	out.Spec.ConcurrencyPolicy = batchv1.ConcurrencyPolicy(s.more["policy"])
	if zone, given := s.more["zone"]; given {
		out.Spec.TimeZone = &zone
	}
	if text, given := s.more["starting"]; given {
		out.Spec.StartingDeadlineSeconds = new(number(text, 0))
	}
	if s.more["halt"] == "true" {
		out.Spec.Suspend = new(true)
	}
	for option, field := range map[string]**int32{"keep": &out.Spec.SuccessfulJobsHistoryLimit, "keepFailed": &out.Spec.FailedJobsHistoryLimit} {
		if text, given := s.more[option]; given {
			*field = new(int32(number(text, 0)))
		}
	}
	out.Spec.JobTemplate.Spec = s.job(s.template())
	return out
}

func over(s api.PodState) bool {
	return s.Phase == corev1.PodFailed || s.Phase == corev1.PodSucceeded
}

// runJobs runs the commands that concern Jobs.
func (m *model) runJobs(command string, args []string) (string, bool) {
	args = append(args, "", "", "")
	switch command {
	case "succeed":
		m.endPods(args[0], args[1], 0, "")
	case "fail":
		m.endPods(args[0], args[1], int32(number(args[2], 1)), "")
	case "fenced":
		m.endPods(args[0], args[1], 137, endedByFence)
	case "restart":
		for instance, s := range m.states {
			if s.Pod.Owner == args[0] && s.Pod.Slot == args[1] && !over(s) {
				s.Restarts = int32(number(args[2], 1))
				m.states[instance] = s
			}
		}
	case "job":
		return m.describeJobs(args[0]), true
	case "events":
		var out strings.Builder
		for _, e := range Events("fleet", m.told.set, m.set, m.told.facts, m.facts, m.now) {
			if strings.HasSuffix(e.Regards.Kind, "Job") && !strings.HasSuffix(e.Reason, "ulCreate") || e.Regards.Kind == "CronJob" ||
				e.Regards.Kind == "Deployment" && !strings.HasPrefix(e.Reason, "Successful") {
				fmt.Fprintf(&out, "%s %s/%s: %s\n", e.Type, e.Regards.Kind, e.Regards.Name, e.Reason+": "+e.Message)
			}
		}
		m.told.set, m.told.facts = m.set, m.facts
		return out.String(), true
	case "lostcontainers":
		for instance, s := range m.states {
			if s.Pod.Owner == args[0] && over(s) {
				delete(m.states, instance)
			}
		}
	default:
		return "", false
	}
	return "", true
}

// endPods ends pods of an owner for good, those of one SLOT or SLOT@NODE if it is
// not empty.
func (m *model) endPods(owner, slot string, code int32, reason string) {
	slot, node, _ := strings.Cut(slot, "@")
	for instance, s := range m.states {
		if s.Pod.Owner != owner || slot != "" && !strings.HasSuffix("-"+s.Pod.Slot, "-"+slot) || over(s) || m.away(m.where[instance]) || node != "" && node != m.where[instance] {
			continue
		}
		s.Phase, s.Ready, s.ExitCode = corev1.PodSucceeded, false, code
		if code != 0 {
			s.Phase = corev1.PodFailed
		}
		s.Containers = []api.ContainerState{{Name: "c", Ended: &api.ContainerEnd{ExitCode: code, Reason: reason, Finished: m.now}}}
		m.states[instance] = s
	}
}

// describeJobs prints what kubectl would show of Jobs of an owner.
func (m *model) describeJobs(owner string) string {
	var out strings.Builder
	none := func(string, api.Commit) api.Snapshot { return api.Snapshot{} }
	for _, o := range Workloads("fleet", m.snapshot(), none, m.board(), m.facts, m.now) {
		switch o := o.(type) {
		case *batchv1.Job:
			if o.Name != owner && !strings.HasPrefix(o.Name, owner+"-2") {
				continue
			}
			st := o.Status
			fmt.Fprintf(&out, "%s: %d active, %d succeeded, %d failed, %d terminating", o.Name, st.Active, st.Succeeded, st.Failed, *st.Terminating)
			if st.CompletedIndexes != "" {
				fmt.Fprintf(&out, ", completed %s", st.CompletedIndexes)
			}
			if st.FailedIndexes != nil && *st.FailedIndexes != "" {
				fmt.Fprintf(&out, ", given up %s", *st.FailedIndexes)
			}
			for _, c := range st.Conditions {
				fmt.Fprintf(&out, "; %s=%s %s", c.Type, c.Status, c.Reason)
			}
			if scheduled, isRun := o.Annotations[batchv1.CronJobScheduledTimestampAnnotation]; isRun {
				fmt.Fprintf(&out, "; for %s", scheduled)
			}
			out.WriteString("\n")
		case *batchv1.CronJob:
			if o.Name != owner {
				continue
			}
			fmt.Fprintf(&out, "%s: %d active", o.Name, len(o.Status.Active))
			if o.Status.LastScheduleTime != nil {
				fmt.Fprintf(&out, ", last run for %s", o.Status.LastScheduleTime.UTC().Format("2006-01-02 15:04:05"))
			}
			if o.Status.LastSuccessfulTime != nil {
				fmt.Fprintf(&out, ", last success at %s", o.Status.LastSuccessfulTime.UTC().Format("15:04:05"))
			}
			if note := o.Annotations[noteAnnotation]; note != "" {
				fmt.Fprintf(&out, "\n  %s", note)
			}
			out.WriteString("\n")
		}
	}
	return out.String()
}

// checkJobs: never more pieces of work at a time than a Job allows, none of them
// twice, none that is done, nothing once it is over. pods are what one decision
// lets run.
func (m *model) checkJobs() error {
	running := map[string]map[string]int{}
	runs := map[string]api.JobRun{}
	specs := map[string]batchv1.JobSpec{}
	maps.Copy(runs, m.facts.Jobs)
	for key, run := range runs {
		_, name, _ := strings.Cut(key, "/Job/")
		specs[key] = jobDefaults(m.objects["Job/"+name].Value.(*batchv1.Job).Spec)
		_ = run
	}
	for key, cron := range m.facts.CronJobs {
		for _, run := range cron.Runs {
			id := key + "-" + strconv.FormatInt(run.Minute(), 10)
			runs[id], specs[id] = run, *run.Spec
		}
	}
	note := func(p api.Pod, node string, ended corev1.PodPhase) error {
		if p.Kind != "Job" && p.Kind != "CronJob" || ended != "" || m.away(node) {
			return nil
		}
		key := p.Workload().String()
		slot, ok := api.ParseJobSlot(p.Slot)
		if p.Kind == "CronJob" {
			key += "-" + strconv.FormatInt(slot.Minute, 10)
		}
		run, known := runs[key]
		switch {
		case !ok || !known:
			return fmt.Errorf("%s belongs to no run", p)
		case run.Finished():
			return fmt.Errorf("%s is to run though its Job is over", p)
		case parseIndexes(run.Done, math.MaxInt).has(slot.Index):
			return fmt.Errorf("%s is to run though its part is done", p)
		}
		if running[key] == nil {
			running[key] = map[string]int{}
		}
		running[key][p.Slot]++
		if running[key][p.Slot] > 1 && len(m.facts.Away) == 0 {
			return fmt.Errorf("%s runs twice", p.Identity)
		}
		return nil
	}
	for _, a := range m.set.Pods {
		if err := note(a.Pod, a.Node, a.Ended); err != nil {
			return err
		}
	}
	for _, u := range m.set.Pending {
		if err := note(u.Pod, "", ""); err != nil {
			return err
		}
	}
	for key, slots := range running {
		if most := int(*specs[key].Parallelism); len(slots) > most {
			return fmt.Errorf("%s runs %d pods, %d are allowed", key, len(slots), most)
		}
	}
	return nil
}
