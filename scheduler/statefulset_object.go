package scheduler

import (
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/shoal-dev/shoal/api"
)

// controllerRevision names the ControllerRevision that Kubernetes would have made
// of one revision of a StatefulSet, as far as a label can hold it.
func controllerRevision(owner, revision string) string {
	most := validation.LabelValueMaxLength - len(revision) - 1
	return strings.TrimRight(owner[:min(len(owner), most)], "-.") + "-" + revision
}

// markSetPod adds what Kubernetes' StatefulSet controller adds to a pod: names
// that stay the same, and the claims that are its own.
// Source: Kubernetes, "StatefulSets: Pod Identity".
func markSetPod(out *corev1.Pod, set *appsv1.StatefulSet, pod api.Pod) {
	setLabel(&out.ObjectMeta, appsv1.StatefulSetPodNameLabel, out.Name)
	setLabel(&out.ObjectMeta, appsv1.PodIndexLabel, pod.Slot)
	setLabel(&out.ObjectMeta, appsv1.ControllerRevisionHashLabelKey, controllerRevision(pod.Owner, pod.Revision))
	out.Spec.Hostname = strings.TrimRight(out.Name[:min(len(out.Name), validation.DNS1123LabelMaxLength)], "-.")
	out.Spec.Subdomain = set.Spec.ServiceName
	for i := range set.Spec.VolumeClaimTemplates {
		name := set.Spec.VolumeClaimTemplates[i].Name
		own := api.MoldVolume{Claim: name, Each: true}.Of(pod.Identity)
		volume := corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: own.Owner},
		}}
		if j := slices.IndexFunc(out.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name }); j >= 0 {
			out.Spec.Volumes[j] = volume
		} else {
			out.Spec.Volumes = append(out.Spec.Volumes, volume)
		}
	}
}

// statefulSetObject is a StatefulSet as kubectl shows it.
func statefulSetObject(value *appsv1.StatefulSet, pods []*pod, r api.Rollout, in *input) *appsv1.StatefulSet {
	out := *value
	out.Generation = generation(r)
	minReady := seconds(value.Spec.MinReadySeconds)
	of := func(revision string) tally {
		return tallyPods(slices.DeleteFunc(slices.Clone(pods), func(p *pod) bool { return p.Revision != revision }), minReady, in.now)
	}
	all := tallyPods(pods, minReady, in.now)
	out.Status = appsv1.StatefulSetStatus{
		ObservedGeneration: generation(r), Replicas: all.total, ReadyReplicas: all.ready, AvailableReplicas: all.available,
		CurrentReplicas: of(r.Current).total, UpdatedReplicas: of(r.Revision).total,
	}
	if r.Revision != "" {
		out.Status.CurrentRevision, out.Status.UpdateRevision = controllerRevision(value.Name, r.Current), controllerRevision(value.Name, r.Revision)
	}
	return &out
}
