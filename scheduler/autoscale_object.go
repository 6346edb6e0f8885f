package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
)

// autoscalerObjects are the HorizontalPodAutoscalers as kubectl shows them: what
// they remember, and what their metrics are on the board at this moment.
func (in *input) autoscalerObjects(snapshot api.Snapshot, workloads []workload, pods map[api.Identity][]*pod) []api.KubeObject {
	var out []api.KubeObject
	for _, a := range in.autoscalers(snapshot, workloads, pods) {
		object := *a.value
		object.Status = autoscalingv2.HorizontalPodAutoscalerStatus{DesiredReplicas: a.next.Replicas, Conditions: a.next.Conditions}
		if !a.next.Scaled.IsZero() {
			object.Status.LastScaleTime = &metav1.Time{Time: a.next.Scaled.Truncate(time.Second)}
		}
		if a.w != nil {
			object.Status.CurrentReplicas = tallyPods(a.pods, 0, in.now).total
			a.lookAt()
		}
		for _, m := range a.metrics { // in the order of the spec, as kubectl expects
			object.Status.CurrentMetrics = append(object.Status.CurrentMetrics, m.status())
		}
		out = append(out, &object)
	}
	return out
}

// showScale shows the number of pods that is in force in the place of the one in
// Git. The object is the caller's.
func (w *workload) showScale(object api.KubeObject) {
	if !w.scaled {
		return
	}
	n := clamp(int64(w.want) + int64(w.beyond))
	switch o := object.(type) {
	case *appsv1.Deployment:
		o.Spec.Replicas = &n
	case *appsv1.ReplicaSet:
		o.Spec.Replicas = &n
	case *appsv1.StatefulSet:
		o.Spec.Replicas = &n
	case *corev1.ReplicationController:
		o.Spec.Replicas = &n
	}
}

// scaleEvents tells what autoscalers did, and what keeps them from it.
func scaleEvents(fleet string, before, after api.Facts, now time.Time) []api.Event {
	var out []api.Event
	for _, name := range slices.Sorted(maps.Keys(after.Autoscalers)) {
		was, is := before.Autoscalers[name], after.Autoscalers[name]
		namespace, short, _ := strings.Cut(name, "/")
		regards := referenceTo(fleet, api.Key{Group: "autoscaling", Kind: "HorizontalPodAutoscaler", Namespace: namespace, Name: short})
		regards.APIVersion = "autoscaling/v2"
		add := func(kind, reason, message string) {
			out = append(out, api.Event{Time: now, Type: kind, Reason: reason, Message: message, Source: "scheduler", Regards: regards})
		}
		if !is.Scaled.Equal(was.Scaled) {
			add(corev1.EventTypeNormal, "SuccessfulRescale", fmt.Sprintf("New size: %d; reason: %s", is.Replicas, is.Why))
		}
		for _, c := range is.Conditions {
			known := slices.ContainsFunc(was.Conditions, func(o autoscalingv2.HorizontalPodAutoscalerCondition) bool {
				return o.Type == c.Type && o.Status == c.Status && o.Reason == c.Reason && o.Message == c.Message
			})
			if !known && c.Status == corev1.ConditionFalse && c.Type != scalingLimited {
				add(corev1.EventTypeWarning, c.Reason, c.Message)
			}
		}
	}
	return out
}
