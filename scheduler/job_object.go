package scheduler

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
)

// The labels of a Job's pods from before they had a prefix. Kubernetes still
// writes both.
const (
	oldJobNameLabel       = "job-name"
	oldControllerUIDLabel = "controller-uid"
)

// indexVariable tells a container its completion index.
const indexVariable = "JOB_COMPLETION_INDEX"

// jobKey names the Job that a pod belongs to.
func jobKey(id api.Identity) api.Key {
	return api.Key{Group: "batch", Kind: "Job", Namespace: id.Namespace, Name: id.JobName()}
}

// markJobPod adds what Kubernetes' Job controller adds to the pods of a Job.
// Source: Kubernetes, "Jobs: Completion mode", and "Well-Known Labels,
// Annotations and Taints".
func markJobPod(out *corev1.Pod, id api.Identity, uid string) {
	for key, value := range jobLabels(id.JobName(), uid) {
		setLabel(&out.ObjectMeta, key, value)
	}
	slot, ok := api.ParseJobSlot(id.Slot)
	if !ok || !slot.Indexed {
		return
	}
	index := strconv.Itoa(slot.Index)
	setLabel(&out.ObjectMeta, batchv1.JobCompletionIndexAnnotation, index)
	if out.Annotations == nil {
		out.Annotations = map[string]string{}
	}
	out.Annotations[batchv1.JobCompletionIndexAnnotation] = index
	name := id.JobName()
	out.Spec.Hostname = name[:min(len(name), 63-1-len(index))] + "-" + index
	for _, containers := range [][]corev1.Container{out.Spec.InitContainers, out.Spec.Containers} {
		for i := range containers {
			tellIndex(&containers[i])
		}
	}
}

func tellIndex(c *corev1.Container) {
	if slices.ContainsFunc(c.Env, func(v corev1.EnvVar) bool { return v.Name == indexVariable }) {
		return
	}
	c.Env = append(c.Env, corev1.EnvVar{Name: indexVariable, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{
		APIVersion: "v1", FieldPath: "metadata.labels['" + batchv1.JobCompletionIndexAnnotation + "']",
	}}})
}

// jobLabels are the labels of all pods of one Job.
func jobLabels(name, uid string) map[string]string {
	return map[string]string{
		batchv1.JobNameLabel: name, oldJobNameLabel: name, batchv1.ControllerUidLabel: uid, oldControllerUIDLabel: uid,
	}
}

// selectOwn gives a Job the selector and the labels that an API server generates.
func selectOwn(fleet string, job *batchv1.Job) {
	job.UID = api.UID(fleet, api.Key{Group: "batch", Kind: "Job", Namespace: job.Namespace, Name: job.Name})
	job.Spec.Template.Labels = maps.Clone(job.Spec.Template.Labels)
	for key, value := range jobLabels(job.Name, string(job.UID)) {
		setLabel(&job.Spec.Template.ObjectMeta, key, value)
	}
	if !valueOr(job.Spec.ManualSelector, false) {
		job.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: string(job.UID)}}
	}
}

// jobObject is a Job of Git as kubectl shows it.
func jobObject(fleet string, value *batchv1.Job, w *workload, pods []*pod, run api.JobRun, in *input) *batchv1.Job {
	out := *value
	selectOwn(fleet, &out)
	mine := slices.DeleteFunc(slices.Clone(pods), func(p *pod) bool { return p.Revision != run.Revision })
	out.Status = jobStatus(w, &out.Spec, run, mine, in)
	return &out
}

// cronJobObjects are a CronJob and its runs as kubectl shows them. Runs whose
// template cannot be found have none.
func cronJobObjects(fleet string, value *batchv1.CronJob, w *workload, pods []*pod, cron api.CronRuns, in *input, at func(string, api.Commit) api.Snapshot) []api.KubeObject {
	out := *value
	out.Status = batchv1.CronJobStatus{LastScheduleTime: timeOf(cron.Last), LastSuccessfulTime: timeOf(cron.Succeeded)}
	if cron.Note.Reason != "" {
		out.Annotations = maps.Clone(out.Annotations)
		if out.Annotations == nil {
			out.Annotations = map[string]string{}
		}
		out.Annotations[noteAnnotation] = cron.Note.Reason + ": " + cron.Note.Message
	}
	objects := []api.KubeObject{&out}
	for _, run := range cron.Runs {
		owner, held := w.object, value
		if run.Revision != w.revision {
			owner, _ = ownerOf(at(run.Unit, run.Commit), w.id)
			held, _ = owner.Value.(*batchv1.CronJob)
		}
		prefix := strconv.FormatInt(run.Minute(), 10) + "-"
		mine := slices.DeleteFunc(slices.Clone(pods), func(p *pod) bool { return !strings.HasPrefix(p.Slot, prefix) })
		job := runObject(fleet, value, held, run)
		job.Status = jobStatus(w, &job.Spec, run, mine, in)
		if !run.Finished() {
			out.Status.Active = append(out.Status.Active, referenceTo(fleet, api.Key{Group: "batch", Kind: "Job", Namespace: job.Namespace, Name: job.Name}))
		}
		objects = append(objects, job)
	}
	return objects
}

// noteAnnotation says on a CronJob why it does not run.
const noteAnnotation = "fleet.shoal.dev/note"

// runObject is the Job that Kubernetes would have made of a CronJob for one time.
// held is the CronJob as it was then, nil when that is not known any more.
func runObject(fleet string, value, held *batchv1.CronJob, run api.JobRun) *batchv1.Job {
	job := &batchv1.Job{
		TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: metav1.ObjectMeta{
			Name: api.CronJobName(value.Name, run.Minute()), Namespace: value.Namespace, CreationTimestamp: metav1.NewTime(run.Began.Truncate(time.Second)),
			OwnerReferences: []metav1.OwnerReference{ownerReference(fleet, api.Key{Group: "batch", Kind: "CronJob", Namespace: value.Namespace, Name: value.Name}, "batch/v1")},
		},
	}
	if run.Spec != nil {
		job.Spec = *run.Spec
	}
	zone := ""
	job.Annotations = map[string]string{}
	if held != nil {
		job.Labels = maps.Clone(held.Spec.JobTemplate.Labels)
		maps.Copy(job.Annotations, held.Spec.JobTemplate.Annotations)
		job.Spec.Template = *held.Spec.JobTemplate.Spec.Template.DeepCopy()
		zone = valueOr(held.Spec.TimeZone, "")
	}
	scheduled := run.Time.UTC()
	if location, err := time.LoadLocation(zone); err == nil {
		scheduled = run.Time.In(location)
	}
	job.Annotations[batchv1.CronJobScheduledTimestampAnnotation] = scheduled.Format(time.RFC3339)
	selectOwn(fleet, job)
	return job
}

// jobStatus is the status that Kubernetes' Job controller would have given.
func jobStatus(w *workload, spec *batchv1.JobSpec, run api.JobRun, pods []*pod, in *input) batchv1.JobStatus {
	r := newRunner(w, jobDefaults(*spec), run, in, &change{})
	status := batchv1.JobStatus{
		StartTime: timeOf(run.Started), Failed: run.Failed, Succeeded: int32(r.done.count()),
		Ready: new(int32(0)), Terminating: new(int32(0)), UncountedTerminatedPods: &batchv1.UncountedTerminatedPods{},
	}
	for _, n := range r.ending {
		*status.Terminating += int32(n)
	}
	for _, p := range pods {
		if p.ended() || p.lost || run.Finished() {
			continue
		}
		status.Active++
		if p.ready() {
			*status.Ready++
		}
	}
	if isIndexed(spec) {
		status.CompletedIndexes = run.Done
		if spec.BackoffLimitPerIndex != nil {
			status.FailedIndexes = new(run.GivenUp)
		}
	}
	if run.End.Type == batchv1.JobComplete {
		status.CompletionTime = timeOf(run.End.At)
	}
	status.Conditions = jobConditions(run)
	return status
}

// jobConditions tells how a run is going to end and has ended, and whether it is
// suspended.
func jobConditions(run api.JobRun) []batchv1.JobCondition {
	var out []batchv1.JobCondition
	add := func(kind batchv1.JobConditionType, yes bool, reason, message string, at time.Time) {
		c := batchv1.JobCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message}
		if yes {
			c.Status = corev1.ConditionTrue
		}
		c.LastTransitionTime = metav1.NewTime(at.Truncate(time.Second))
		c.LastProbeTime = c.LastTransitionTime
		out = append(out, c)
	}
	switch {
	case run.Switched.IsZero():
	case run.Suspended:
		add(batchv1.JobSuspended, true, "JobSuspended", "Job suspended", run.Switched)
	default:
		add(batchv1.JobSuspended, false, "JobResumed", "Job resumed", run.Switched)
	}
	end := run.End
	if !run.Finished() {
		end = run.Target
	}
	switch end.Type {
	case batchv1.JobComplete:
		add(batchv1.JobSuccessCriteriaMet, true, end.Reason, end.Message, end.At)
	case batchv1.JobFailed:
		add(batchv1.JobFailureTarget, true, end.Reason, end.Message, end.At)
	}
	if run.Finished() {
		add(run.End.Type, true, run.End.Reason, run.End.Message, run.End.At)
	}
	return out
}

// timeOf is a time in an object, nil when it is not known.
func timeOf(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	out := metav1.NewTime(t.Truncate(time.Second))
	return &out
}
