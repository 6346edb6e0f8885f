package scheduler

import (
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-dev/shoal/api"
)

// Images returns the names of all images that the pods of a snapshot would run
// from, as they are written, sorted. Which node would run them does not matter.
func Images(snapshot api.Snapshot) []string {
	names := map[string]bool{}
	for object := range snapshot.Objects() {
		template := templateOf(object)
		if template == nil {
			continue
		}
		for _, containers := range [][]corev1.Container{template.Spec.InitContainers, template.Spec.Containers} {
			for i := range containers {
				names[containers[i].Image] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Upcoming returns what the next pods on a node will be like, one for each workload
// that replaces its pods in place: it stops one here before another starts, most
// likely here again, so that the time in which nothing runs is shorter when the
// images are there before. Workloads that start a pod first need no such thing.
// Only pods whose template has changed count. What is returned has a namespace, the
// name of its workload, and a spec; it is sorted.
func Upcoming(snapshot api.Snapshot, set api.AssignmentSet, node string) []*corev1.Pod {
	next := map[api.Identity]*corev1.Pod{}
	for _, a := range set.Pods {
		if a.Node != node || a.Ended != "" || next[a.Pod.Workload()] != nil {
			continue
		}
		object, found := ownerOf(snapshot, a.Pod.Identity)
		if !found || object.Revision == a.Pod.Revision || !inPlace(object) {
			continue
		}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: a.Pod.Namespace, Name: a.Pod.Owner},
			Spec:       *templateOf(object).Spec.DeepCopy(),
		}
		addPullSecrets(snapshot, pod)
		next[a.Pod.Workload()] = pod
	}
	ids := slices.SortedFunc(maps.Keys(next), api.Identity.Compare)
	out := make([]*corev1.Pod, 0, len(ids))
	for _, id := range ids {
		out = append(out, next[id])
	}
	return out
}

// inPlace reports whether a workload stops a pod before it starts the one that
// takes its place.
func inPlace(object api.Object) bool {
	switch value := object.Value.(type) {
	case *corev1.Pod, *appsv1.StatefulSet:
		return true
	case *appsv1.DaemonSet:
		rolling := value.Spec.UpdateStrategy.RollingUpdate
		return rolling == nil || noSurge(rolling.MaxSurge)
	case *appsv1.Deployment:
		rolling := value.Spec.Strategy.RollingUpdate
		return !value.Spec.Paused && (value.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || rolling != nil && noSurge(rolling.MaxSurge))
	}
	return false
}

// noSurge reports whether a workload may have no pod more than it asks for.
func noSurge(surge *intstr.IntOrString) bool {
	return surge != nil && (surge.Type == intstr.Int && surge.IntVal == 0 || surge.Type == intstr.String && surge.StrVal == "0%")
}
