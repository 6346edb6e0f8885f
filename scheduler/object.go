package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-dev/shoal/api"
)

// PodObject writes out the pod that an assignment stands for, from the template
// in a snapshot of the assignment's commit. Its status is empty. The error says
// what the snapshot lacks; the pod must not be started then, but one that runs
// is left alone.
func PodObject(fleet string, snapshot api.Snapshot, pod api.Pod, node string, created time.Time) (*corev1.Pod, error) {
	object, found := ownerOf(snapshot, pod.Identity)
	if !found {
		return nil, fmt.Errorf("template of pod %s/%s: %s %s is not in this commit", pod.Namespace, pod.Name(), pod.Kind, pod.Owner)
	}
	if object.Revision != pod.Revision {
		return nil, fmt.Errorf("template of pod %s/%s: %s %s has revision %s in this commit, not %s",
			pod.Namespace, pod.Name(), pod.Kind, pod.Owner, object.Revision, pod.Revision)
	}
	template := templateOf(object)
	out := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name:              pod.Name(),
			Namespace:         pod.Namespace,
			UID:               types.UID(pod.Instance),
			CreationTimestamp: metav1.NewTime(created.Truncate(time.Second)),
			Labels:            maps.Clone(template.Labels),
			Annotations:       maps.Clone(template.Annotations),
		},
		Spec: *template.Spec.DeepCopy(),
	}
	out.Spec.NodeName = node
	addPullSecrets(snapshot, out)
	owner := object.Key()
	switch pod.Kind {
	case "Pod":
		return out, nil
	case "Deployment":
		setLabel(&out.ObjectMeta, appsv1.DefaultDeploymentUniqueLabelKey, pod.Revision)
		owner = replicaSetKey(pod.Identity, pod.Revision)
	case "DaemonSet":
		setLabel(&out.ObjectMeta, appsv1.ControllerRevisionHashLabelKey, pod.Revision)
		out.Spec.Tolerations = append(out.Spec.Tolerations, daemonTolerations...)
	case "StatefulSet":
		if set, ok := object.Value.(*appsv1.StatefulSet); ok {
			markSetPod(out, set, pod)
		}
	case "Job", "CronJob":
		owner = jobKey(pod.Identity)
		markJobPod(out, pod.Identity, string(api.UID(fleet, owner)))
	}
	out.OwnerReferences = []metav1.OwnerReference{ownerReference(fleet, owner, object.GVK.GroupVersion().String())}
	return out, nil
}

// addPullSecrets gives a pod that names no secrets for its images those of its
// service account. Source: kubernetes.io, Configure Service Accounts for Pods,
// "Add ImagePullSecrets to a service account".
func addPullSecrets(snapshot api.Snapshot, pod *corev1.Pod) {
	if len(pod.Spec.ImagePullSecrets) > 0 {
		return
	}
	name := cmp.Or(pod.Spec.ServiceAccountName, "default")
	if account, found := api.Get[*corev1.ServiceAccount](snapshot, "", "ServiceAccount", pod.Namespace, name); found {
		pod.Spec.ImagePullSecrets = slices.Clone(account.ImagePullSecrets)
	}
}

func setLabel(meta *metav1.ObjectMeta, key, value string) {
	if meta.Labels == nil {
		meta.Labels = map[string]string{}
	}
	meta.Labels[key] = value
}

func ownerReference(fleet string, key api.Key, apiVersion string) metav1.OwnerReference {
	yes := true
	return metav1.OwnerReference{
		APIVersion: apiVersion, Kind: key.Kind, Name: key.Name, UID: api.UID(fleet, key), Controller: &yes, BlockOwnerDeletion: &yes,
	}
}

// ownerOf returns the object that a pod belongs to.
func ownerOf(snapshot api.Snapshot, id api.Identity) (api.Object, bool) {
	return snapshot.Lookup(api.Key{Group: groupOf(id.Kind), Kind: id.Kind, Namespace: id.Namespace, Name: id.Owner})
}

// groupOf returns the API group of a kind that owns pods.
func groupOf(kind string) string {
	switch kind {
	case "Pod", "ReplicationController":
		return ""
	case "Job", "CronJob":
		return "batch"
	}
	return "apps"
}

// replicaSetKey names the ReplicaSet that Kubernetes would have made for one
// revision of a Deployment.
func replicaSetKey(id api.Identity, revision string) api.Key {
	return api.Key{Group: "apps", Kind: "ReplicaSet", Namespace: id.Namespace, Name: id.Owner + "-" + revision}
}
