package scheduler

import (
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
)

// selectedNode is the node for which a claim was bound.
const selectedNode = "volume.kubernetes.io/selected-node"

// Volumes returns the claims for volumes, with the status that Kubernetes'
// controllers would have given them, and the volumes that they are bound to: those
// of Git, those that StatefulSets made, and volumes that outlived their claims.
// The returned objects are the caller's, what they point to is shared.
func Volumes(fleet string, snapshot api.Snapshot, board api.Board, facts api.Facts, now time.Time) []api.KubeObject {
	if !hasVolumes(snapshot, board) {
		return nil
	}
	in := newInput(board, facts, Authority{}, now)
	workloads := expand(snapshot, in.nodes)
	in.readClaims(snapshot, workloads)
	claims := map[string]*corev1.PersistentVolumeClaim{}
	for name, value := range in.claims {
		claims[name] = shownClaim(value.ObjectMeta, value.Spec)
	}
	if len(in.sets) > 0 {
		pods, _ := existing(in)
		for _, w := range in.sets {
			for _, p := range pods[w.id] {
				in.claimsOfPod(w, p, claims)
			}
		}
	}
	var out []api.KubeObject
	for _, name := range slices.Sorted(maps.Keys(board.Claims)) {
		id, ok := api.ParseVolumeClaim(name)
		if !ok {
			continue
		}
		holder := board.Claims[name]
		v := in.volumeOf(name, id, holder)
		claim, shown := claims[name]
		if !shown && v.Set != "" {
			claim = in.retained(id, v)
			claims[name] = claim
		}
		volume := persistentVolume(fleet, id, holder, v, claim)
		if claim != nil {
			bindShown(claim, volume, holder)
		}
		out = append(out, volume)
	}
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		out = append(out, claims[name])
	}
	return out
}

// hasVolumes reports whether there is anything to list.
func hasVolumes(snapshot api.Snapshot, board api.Board) bool {
	for name := range board.Claims {
		if _, ok := api.ParseVolumeClaim(name); ok {
			return true
		}
	}
	for object := range snapshot.Objects() {
		switch object.Value.(type) {
		case *appsv1.StatefulSet, *corev1.PersistentVolumeClaim:
			return true
		}
	}
	return false
}

// volumeOf is what is known of a bound volume.
func (in *input) volumeOf(name string, id api.Identity, holder api.ClaimHolder) api.Volume {
	claim, found := in.wanted(id)
	return in.volume(name, holder, claim, found)
}

// shownClaim is a claim without a status worth the name.
func shownClaim(meta metav1.ObjectMeta, spec corev1.PersistentVolumeClaimSpec) *corev1.PersistentVolumeClaim {
	out := &corev1.PersistentVolumeClaim{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"}, ObjectMeta: meta, Spec: spec}
	out.Annotations = maps.Clone(meta.Annotations)
	if reason := (wantedClaim{spec: &spec}).unprovided(); reason != "" {
		annotate(&out.ObjectMeta, noteAnnotation, "ProvisioningFailed: "+reason)
	}
	class, mode := LocalPath, corev1.PersistentVolumeFilesystem
	if spec.StorageClassName == nil {
		out.Spec.StorageClassName = &class
	}
	if spec.VolumeMode == nil {
		out.Spec.VolumeMode = &mode
	}
	out.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
	return out
}

func annotate(meta *metav1.ObjectMeta, key, value string) {
	if meta.Annotations == nil {
		meta.Annotations = map[string]string{}
	}
	meta.Annotations[key] = value
}

// claimsOfPod adds the claims that a StatefulSet made for one of its pods.
func (in *input) claimsOfPod(w *workload, p *pod, claims map[string]*corev1.PersistentVolumeClaim) {
	for i := range w.each {
		id := api.MoldVolume{Claim: w.each[i].Name, Each: true}.Of(p.Identity)
		if _, known := claims[id.String()]; !known {
			claims[id.String()] = madeClaim(w, i, id, p.created)
		}
	}
}

// madeClaim is the claim that a StatefulSet's template makes for a pod.
// Source: Kubernetes' StatefulSet controller, which adds the set's own labels.
func madeClaim(w *workload, template int, id api.Identity, created time.Time) *corev1.PersistentVolumeClaim {
	from := &w.each[template]
	labels := maps.Clone(from.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	if set, ok := w.object.Value.(*appsv1.StatefulSet); ok && set.Spec.Selector != nil {
		maps.Copy(labels, set.Spec.Selector.MatchLabels)
	}
	meta := metav1.ObjectMeta{
		Name: id.Owner, Namespace: id.Namespace, Labels: labels, Annotations: from.Annotations,
		CreationTimestamp: metav1.NewTime(created.Truncate(time.Second)),
	}
	return shownClaim(meta, from.Spec)
}

// retained is a claim of a StatefulSet that has no pod for it, or is gone.
func (in *input) retained(id api.Identity, v api.Volume) *corev1.PersistentVolumeClaim {
	if claim, found := in.wanted(id); found && claim.set != nil {
		for i := range claim.set.each {
			if strings.HasPrefix(id.Owner, claim.set.each[i].Name+"-"+claim.set.id.Owner+"-") {
				return madeClaim(claim.set, i, id, v.Since)
			}
		}
	}
	return shownClaim(metav1.ObjectMeta{Name: id.Owner, Namespace: id.Namespace, CreationTimestamp: metav1.NewTime(v.Since.Truncate(time.Second))},
		corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{v.Mode}, Resources: corev1.VolumeResourceRequirements{Requests: storage(v.Bytes)}})
}

func storage(bytes int64) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: *resource.NewQuantity(bytes, resource.BinarySI)}
}

// persistentVolume is the volume that a claim is bound to; without a claim it was
// released.
func persistentVolume(fleet string, id api.Identity, holder api.ClaimHolder, v api.Volume, claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolume {
	mode := corev1.PersistentVolumeFilesystem
	name := api.VolumeName(id, holder.Claim)
	out := &corev1.PersistentVolume{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolume"},
		ObjectMeta: metav1.ObjectMeta{
			Name: volumeObjectName(id, holder.Claim), CreationTimestamp: metav1.NewTime(v.Since.Truncate(time.Second)),
			Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": provisioner},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: storage(v.Bytes), AccessModes: []corev1.PersistentVolumeAccessMode{v.Mode}, VolumeMode: &mode,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain, StorageClassName: LocalPath,
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "volumes/" + name}},
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: id.Namespace, Name: id.Owner,
				UID: api.UID(fleet, api.Key{Kind: "PersistentVolumeClaim", Namespace: id.Namespace, Name: id.Owner}),
			},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{holder.Node}}},
			}}}},
		},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeBound},
	}
	if claim == nil {
		out.Status.Phase = corev1.VolumeReleased
	}
	if holder.Former() {
		out.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumeFailed, Reason: "NodeRemoved", Message: "The node of this volume was removed from the fleet."}
	}
	return out
}

// volumeObjectName names the PersistentVolume of a volume.
func volumeObjectName(id api.Identity, c api.Claim) string {
	return strings.ReplaceAll(api.VolumeName(id, c), "/", "-")
}

// provisioner is what makes volumes.
const provisioner = "fleet.shoal.dev/local-path"

// bindShown says in a claim's status what it is bound to.
func bindShown(claim *corev1.PersistentVolumeClaim, volume *corev1.PersistentVolume, holder api.ClaimHolder) {
	claim.Spec.VolumeName = volume.Name
	annotate(&claim.ObjectMeta, selectedNode, holder.Node)
	claim.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, AccessModes: volume.Spec.AccessModes, Capacity: volume.Spec.Capacity}
	if holder.Former() {
		claim.Status.Phase = corev1.ClaimLost
	}
}
