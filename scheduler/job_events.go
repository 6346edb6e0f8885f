package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// jobEvents says in the words of Kubernetes' controllers what has become of Jobs
// and CronJobs from one decision to the next.
func jobEvents(fleet string, before, after api.Facts, now time.Time) []api.Event {
	var out []api.Event
	add := func(key api.Key, kind, reason, message string) {
		out = append(out, api.Event{Time: now, Type: kind, Reason: reason, Message: message, Source: "scheduler", Regards: referenceTo(fleet, key)})
	}
	changed := func(key api.Key, was, is api.JobRun) {
		switch {
		case is.Switched.Equal(was.Switched):
		case is.Suspended:
			add(key, corev1.EventTypeNormal, "Suspended", "Job suspended")
		default:
			add(key, corev1.EventTypeNormal, "Resumed", "Job resumed")
		}
		switch {
		case !is.Finished() || was.Finished() && was.Revision == is.Revision:
		case is.End.Type == batchv1.JobComplete:
			add(key, corev1.EventTypeNormal, "Completed", "Job completed")
		default:
			add(key, corev1.EventTypeWarning, is.End.Reason, is.End.Message)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after.Jobs)) {
		changed(batchKey(name, "Job"), before.Jobs[name], after.Jobs[name])
	}
	for _, name := range slices.Sorted(maps.Keys(after.CronJobs)) {
		was, is := before.CronJobs[name], after.CronJobs[name]
		key := batchKey(name, "CronJob")
		if is.Note.Reason != "" && !is.Note.Equal(was.Note) {
			kind := corev1.EventTypeWarning
			if is.Note.Reason == noteActive {
				kind = corev1.EventTypeNormal
			}
			add(key, kind, is.Note.Reason, is.Note.Message)
		}
		cronEvents(key, was, is, add, changed)
	}
	return out
}

// cronEvents tells of the runs of one CronJob.
func cronEvents(key api.Key, was, is api.CronRuns, add func(key api.Key, kind, reason, message string), changed func(api.Key, api.JobRun, api.JobRun)) {
	for _, run := range is.Runs {
		job := api.Key{Group: "batch", Kind: "Job", Namespace: key.Namespace, Name: api.CronJobName(key.Name, run.Minute())}
		former, known := was.Run(run.Minute())
		if !known {
			add(key, corev1.EventTypeNormal, "SuccessfulCreate", "Created job "+job.Name)
		}
		changed(job, former, run)
		if run.Finished() && !former.Finished() {
			add(key, corev1.EventTypeNormal, "SawCompletedJob", fmt.Sprintf("Saw completed job: %s, condition: %s", job.Name, run.End.Type))
		}
	}
	for _, run := range was.Runs {
		if _, there := is.Run(run.Minute()); !there {
			add(key, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted job "+api.CronJobName(key.Name, run.Minute()))
		}
	}
}

// batchKey names the object whose memory is kept under the name of its identity.
func batchKey(identity, kind string) api.Key {
	namespace, rest, _ := strings.Cut(identity, "/")
	return api.Key{Group: "batch", Kind: kind, Namespace: namespace, Name: strings.TrimPrefix(rest, kind+"/")}
}
