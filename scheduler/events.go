package scheduler

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-dev/shoal/api"
)

// Events says in Kubernetes' words what changed from one decision to the next:
// pods created, placed and deleted, pods that fit nowhere, and rollouts that
// missed their deadline.
func Events(fleet string, was, is api.AssignmentSet, before, after api.Facts, now time.Time) []api.Event {
	var out []api.Event
	add := func(regards corev1.ObjectReference, kind, reason, format string, args ...any) {
		out = append(out, api.Event{
			Time: now, Type: kind, Reason: reason, Message: fmt.Sprintf(format, args...), Source: "scheduler", Regards: regards,
		})
	}
	known := map[string]bool{}
	waiting := map[string]string{}
	for _, a := range was.Pods {
		known[a.Pod.Instance] = true
	}
	for _, r := range was.Remove {
		known[r.Assignment.Pod.Instance] = true
	}
	for _, u := range was.Pending {
		waiting[u.Pod.Instance] = u.Reason
	}
	created := func(pod api.Pod, why string) {
		if pod.Kind != "Pod" {
			add(ownerReferenceOf(fleet, pod), corev1.EventTypeNormal, "SuccessfulCreate", "Created pod %s: %s", pod.Name(), why)
		}
	}
	for _, a := range is.Pods {
		if known[a.Pod.Instance] {
			continue
		}
		if _, waited := waiting[a.Pod.Instance]; !waited {
			created(a.Pod, a.Reason)
		}
		add(PodReference(a.Pod), corev1.EventTypeNormal, "Scheduled", "Successfully assigned %s/%s to %s", a.Pod.Namespace, a.Pod.Name(), a.Node)
	}
	for _, u := range is.Pending {
		reason, waited := waiting[u.Pod.Instance]
		if !waited {
			created(u.Pod, u.Why)
		}
		if reason != u.Reason {
			add(PodReference(u.Pod), corev1.EventTypeWarning, "FailedScheduling", "%s", u.Reason)
		}
	}
	for _, r := range is.Remove {
		if pod := r.Assignment.Pod; !was.Removes(pod.Instance) {
			if pod.Kind != "Pod" {
				add(ownerReferenceOf(fleet, pod), corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod %s: %s", pod.Name(), r.Reason)
			}
			add(PodReference(pod), corev1.EventTypeNormal, "Removed", "Pod is removed: %s", r.Reason)
		}
	}
	out = append(out, rolloutEvents(fleet, before, after, now)...)
	out = append(out, scaleEvents(fleet, before, after, now)...)
	out = append(out, drainEvents(fleet, before, after, now)...)
	out = append(out, volumeEvents(fleet, before, after, now)...)
	return append(out, jobEvents(fleet, before, after, now)...)
}

// PodReference refers to a pod, as events do.
func PodReference(pod api.Pod) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name(), UID: types.UID(pod.Instance)}
}

// ownerReferenceOf refers to the workload of a pod.
func ownerReferenceOf(fleet string, pod api.Pod) corev1.ObjectReference {
	key := api.Key{Group: groupOf(pod.Kind), Kind: pod.Kind, Namespace: pod.Namespace, Name: pod.Owner}
	if pod.Kind == "CronJob" {
		key = jobKey(pod.Identity)
	}
	return referenceTo(fleet, key)
}

// referenceTo refers to an object of a kind whose version is v1.
func referenceTo(fleet string, key api.Key) corev1.ObjectReference {
	version := "v1"
	if key.Group != "" {
		version = key.Group + "/v1"
	}
	return corev1.ObjectReference{APIVersion: version, Kind: key.Kind, Namespace: key.Namespace, Name: key.Name, UID: api.UID(fleet, key)}
}
