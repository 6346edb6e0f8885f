package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
)

// revisionAnnotation carries the number of a revision, as kubectl rollout
// history expects it.
const revisionAnnotation = "deployment.kubernetes.io/revision"

// Workloads returns every object of the snapshot that owns pods, with the
// status that Kubernetes' controllers would have given it, and the ReplicaSets
// that stand behind the revisions of each Deployment, and the Jobs that are the
// runs of each CronJob, PodDisruptionBudgets, HorizontalPodAutoscalers and
// ResourceQuotas. at finds the snapshot of
// an older commit; it may return an unknown one, and the ReplicaSets of that
// commit are then left out. Bare pods are not listed. The returned objects are
// the caller's, what they point to is shared.
func Workloads(fleet string, snapshot api.Snapshot, at func(unit string, commit api.Commit) api.Snapshot, board api.Board, facts api.Facts, now time.Time) []api.KubeObject {
	in := newInput(board, facts, Authority{Fleet: fleet}, now)
	pods, _ := existing(in)
	var out []api.KubeObject
	workloads := expand(snapshot, in.nodes)
	in.applyScale(workloads, facts.Autoscalers)
	in.share(workloads, pods)
	in.setGuards(snapshot, workloads, pods)
	for _, w := range workloads {
		mine := pods[w.id]
		switch value := w.object.Value.(type) {
		case *appsv1.Deployment:
			rollout := facts.Rollouts[w.id.String()]
			object := *value
			w.showScale(&object)
			object.Annotations = withRevision(value.Annotations, rollout)
			object.Generation = generation(rollout)
			object.Status = deploymentStatus(value, mine, rollout, &w, now)
			out = append(out, &object)
			out = append(out, replicaSets(fleet, &w, mine, rollout, at, now)...)
		case *appsv1.ReplicaSet:
			object := *value
			w.showScale(&object)
			w.showCut(&object)
			object.Status = replicaSetStatus(mine, seconds(value.Spec.MinReadySeconds), now)
			out = append(out, &object)
		case *corev1.ReplicationController:
			object := *value
			w.showScale(&object)
			w.showCut(&object)
			s := replicaSetStatus(mine, seconds(value.Spec.MinReadySeconds), now)
			object.Status = corev1.ReplicationControllerStatus{
				Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas, AvailableReplicas: s.AvailableReplicas,
			}
			out = append(out, &object)
		case *appsv1.DaemonSet:
			object := *value
			object.Status = daemonSetStatus(&w, mine, seconds(value.Spec.MinReadySeconds), now)
			out = append(out, &object)
		case *appsv1.StatefulSet:
			object := statefulSetObject(value, mine, facts.Rollouts[w.id.String()], in)
			w.showScale(object)
			w.showCut(object)
			out = append(out, object)
		case *batchv1.Job:
			out = append(out, jobObject(fleet, value, &w, mine, facts.Jobs[w.id.String()], in))
		case *batchv1.CronJob:
			out = append(out, cronJobObjects(fleet, value, &w, mine, facts.CronJobs[w.id.String()], in, at)...)
		}
	}
	out = append(out, in.budgetObjects()...)
	out = append(out, in.autoscalerObjects(snapshot, workloads, pods)...)
	return append(out, in.quotaObjects(snapshot)...)
}

// generation counts a Deployment's revisions; the scheduler is never behind it.
func generation(r api.Rollout) int64 {
	if len(r.History) == 0 {
		return 0
	}
	return r.History[len(r.History)-1].Number
}

func withRevision(annotations map[string]string, r api.Rollout) map[string]string {
	if len(r.History) == 0 {
		return annotations
	}
	out := maps.Clone(annotations)
	if out == nil {
		out = map[string]string{}
	}
	out[revisionAnnotation] = strconv.FormatInt(generation(r), 10)
	return out
}

// tally counts pods the way all the statuses do.
type tally struct{ total, ready, available int32 }

func tallyPods(pods []*pod, minReady time.Duration, now time.Time) tally {
	var t tally
	for _, p := range pods {
		if p.ended() || p.lost { // a lost one is replaced, and counts again when it is back
			continue
		}
		t.total++
		if p.ready() {
			t.ready++
		}
		if ok, _ := p.available(minReady, now); ok {
			t.available++
		}
	}
	return t
}

func deploymentStatus(value *appsv1.Deployment, pods []*pod, r api.Rollout, w *workload, now time.Time) appsv1.DeploymentStatus {
	minReady, want := seconds(value.Spec.MinReadySeconds), w.want
	all := tallyPods(pods, minReady, now)
	current, _ := splitRevision(pods, r.Revision)
	updated := tallyPods(current, minReady, now)
	status := appsv1.DeploymentStatus{
		ObservedGeneration: generation(r), Replicas: all.total, UpdatedReplicas: updated.total, ReadyReplicas: all.ready,
		AvailableReplicas: all.available, UnavailableReplicas: max(0, int32(want)-all.available),
	}
	budget := deploymentBudget(value, want)
	available := condition(appsv1.DeploymentAvailable, int(all.available) >= want-budget.unavailable,
		"MinimumReplicasAvailable", "Deployment has minimum availability.",
		"MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
	name := fmt.Sprintf("ReplicaSet %q", value.Name+"-"+r.Revision)
	var progressing appsv1.DeploymentCondition
	switch {
	case r.Back:
		progressing = condition(appsv1.DeploymentProgressing, false, "", "", "ProgressDeadlineExceeded", "Rolled back: "+backTo(r)+".")
	case r.Failed:
		progressing = condition(appsv1.DeploymentProgressing, false, "", "", "ProgressDeadlineExceeded", name+" has timed out progressing.")
	case value.Spec.Paused:
		progressing = condition(appsv1.DeploymentProgressing, true, "DeploymentPaused", "Deployment is paused", "", "")
		progressing.Status = corev1.ConditionUnknown
	case r.Complete:
		progressing = condition(appsv1.DeploymentProgressing, true, "NewReplicaSetAvailable", name+" has successfully progressed.", "", "")
	default:
		progressing = condition(appsv1.DeploymentProgressing, true, "ReplicaSetUpdated", name+" is progressing.", "", "")
	}
	conditions := []appsv1.DeploymentCondition{available, progressing}
	if w.beyond > 0 {
		conditions = append(conditions, condition(appsv1.DeploymentReplicaFailure, true, "FailedCreate",
			w.cut(), "", ""))
	}
	for _, c := range conditions {
		c.LastUpdateTime = metav1.NewTime(r.Progressed.Truncate(time.Second))
		c.LastTransitionTime = metav1.NewTime(r.Started.Truncate(time.Second))
		status.Conditions = append(status.Conditions, c)
	}
	return status
}

// cut says that not all pods are made that a workload asks for.
func (w *workload) cut() string {
	return fmt.Sprintf("%d pods are not made: no more than %d are, which is its share of what all nodes can hold and of some that wait", w.beyond, w.want)
}

// showCut notes that on an object which has no condition for it. The object is the
// caller's.
func (w *workload) showCut(object api.KubeObject) {
	if w.beyond > 0 {
		annotations := maps.Clone(object.GetAnnotations())
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[noteAnnotation] = w.cut()
		object.SetAnnotations(annotations)
	}
}

func condition(kind appsv1.DeploymentConditionType, ok bool, yesReason, yes, noReason, no string) appsv1.DeploymentCondition {
	if ok {
		return appsv1.DeploymentCondition{Type: kind, Status: corev1.ConditionTrue, Reason: yesReason, Message: yes}
	}
	return appsv1.DeploymentCondition{Type: kind, Status: corev1.ConditionFalse, Reason: noReason, Message: no}
}

func replicaSetStatus(pods []*pod, minReady time.Duration, now time.Time) appsv1.ReplicaSetStatus {
	t := tallyPods(pods, minReady, now)
	return appsv1.ReplicaSetStatus{Replicas: t.total, FullyLabeledReplicas: t.total, ReadyReplicas: t.ready, AvailableReplicas: t.available}
}

// replicaSets lists the revisions of a Deployment as ReplicaSets, oldest first.
func replicaSets(fleet string, w *workload, pods []*pod, r api.Rollout, at func(string, api.Commit) api.Snapshot, now time.Time) []api.KubeObject {
	var out []api.KubeObject
	for _, revision := range r.History {
		owner := w.object
		if revision.Revision != w.revision {
			var found bool
			if owner, found = ownerOf(at(revision.Unit, revision.Commit), w.id); !found || owner.Revision != revision.Revision {
				continue
			}
		}
		deployment, ok := owner.Value.(*appsv1.Deployment)
		if !ok {
			continue
		}
		mine := slices.DeleteFunc(slices.Clone(pods), func(p *pod) bool { return p.Revision != revision.Revision })
		key := replicaSetKey(w.id, revision.Revision)
		template := deployment.Spec.Template.DeepCopy()
		setLabel(&template.ObjectMeta, appsv1.DefaultDeploymentUniqueLabelKey, revision.Revision)
		selector := deployment.Spec.Selector.DeepCopy()
		selector.MatchLabels = maps.Clone(selector.MatchLabels)
		if selector.MatchLabels == nil {
			selector.MatchLabels = map[string]string{}
		}
		selector.MatchLabels[appsv1.DefaultDeploymentUniqueLabelKey] = revision.Revision
		replicas := tallyPods(mine, 0, now).total
		out = append(out, &appsv1.ReplicaSet{
			TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"},
			ObjectMeta: metav1.ObjectMeta{
				Name: key.Name, Namespace: key.Namespace, UID: api.UID(fleet, key), Labels: template.Labels,
				CreationTimestamp: metav1.NewTime(revision.Since.Truncate(time.Second)),
				Annotations:       map[string]string{revisionAnnotation: strconv.FormatInt(revision.Number, 10)},
				OwnerReferences:   []metav1.OwnerReference{ownerReference(fleet, w.object.Key(), "apps/v1")},
			},
			Spec: appsv1.ReplicaSetSpec{
				Replicas: &replicas, MinReadySeconds: deployment.Spec.MinReadySeconds, Selector: selector, Template: *template,
			},
			Status: replicaSetStatus(mine, seconds(deployment.Spec.MinReadySeconds), now),
		})
	}
	return out
}

func daemonSetStatus(w *workload, pods []*pod, minReady time.Duration, now time.Time) appsv1.DaemonSetStatus {
	all := tallyPods(pods, minReady, now)
	current, _ := splitRevision(pods, w.revision)
	want := int32(w.want)
	return appsv1.DaemonSetStatus{
		DesiredNumberScheduled: want, CurrentNumberScheduled: min(all.total, want), NumberReady: all.ready, NumberAvailable: all.available,
		UpdatedNumberScheduled: tallyPods(current, minReady, now).total, NumberUnavailable: max(0, want-all.available),
	}
}
