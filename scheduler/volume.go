package scheduler

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// LocalPath is the only storage class, and the default one. Its volumes are
// directories on the disk of one node. Which node that is is decided when the
// first pod that uses the claim is placed (WaitForFirstConsumer), and kept in the
// ledger from then on: a volume never moves.
const LocalPath = "local-path"

// volumes lists the claims that the pods of a workload use.
func (w *workload) volumes() []api.MoldVolume {
	var out []api.MoldVolume
	for i := range w.each {
		out = append(out, api.MoldVolume{Claim: w.each[i].Name, Each: true})
	}
	own := len(out)
	for _, v := range w.template.Spec.Volumes {
		if v.PersistentVolumeClaim == nil || slices.ContainsFunc(out[:own], func(o api.MoldVolume) bool { return o.Claim == v.Name }) {
			continue
		}
		if use := (api.MoldVolume{Claim: v.PersistentVolumeClaim.ClaimName}); !slices.Contains(out, use) {
			out = append(out, use)
		}
	}
	return out
}

// claims returns the claims that one pod uses, by name.
func (c *cast) claims(id api.Identity) []api.Identity {
	if c.mold == nil {
		c.booked()
	}
	if c.mold == nil || len(c.mold.Volumes) == 0 {
		return nil
	}
	out := make([]api.Identity, len(c.mold.Volumes))
	for i, v := range c.mold.Volumes {
		out[i] = v.Of(id)
	}
	slices.SortFunc(out, api.Identity.Compare)
	return slices.Compact(out)
}

// bound reports whether a pod uses a volume that a node has: then it can be
// nowhere else, and nobody fences it there.
func (in *input) bound(w *workload, p *pod) bool {
	return slices.ContainsFunc(in.castOf(w, p.Revision).claims(p.Identity), func(id api.Identity) bool {
		_, bound := in.board.Claims[id.String()]
		return bound
	})
}

// A wantedClaim is a claim for a volume that Git asks for: an object of its own,
// or one that the template of a StatefulSet makes.
type wantedClaim struct {
	spec *corev1.PersistentVolumeClaimSpec
	set  *workload // nil for an object
	slot int       // ordinal
	// beyond says that its pod is not wanted any more.
	beyond bool
}

// readClaims notes what Git says of claims.
func (in *input) readClaims(snapshot api.Snapshot, workloads []workload) {
	in.claims = map[string]*corev1.PersistentVolumeClaim{}
	for claim := range api.Of[*corev1.PersistentVolumeClaim](snapshot) {
		in.claims[api.VolumeClaim(claim.Namespace, claim.Name).String()] = claim
	}
	in.owners = map[api.Identity]bool{}
	for i := range workloads {
		if workloads[i].id.Kind == "StatefulSet" {
			in.owners[workloads[i].id] = true
		}
		if len(workloads[i].each) > 0 {
			in.sets = append(in.sets, &workloads[i])
		}
	}
}

// wanted returns what Git says of a claim. An object has precedence, as in
// Kubernetes, where a StatefulSet uses a claim that is there.
func (in *input) wanted(id api.Identity) (wantedClaim, bool) {
	if claim, found := in.claims[id.String()]; found {
		return wantedClaim{spec: &claim.Spec}, true
	}
	for _, w := range in.sets {
		if w.id.Namespace != id.Namespace {
			continue
		}
		for i := range w.each {
			n, ok := ordinal(id.Owner, w.each[i].Name+"-"+w.id.Owner+"-")
			if !ok {
				continue
			}
			value, _ := w.object.Value.(*appsv1.StatefulSet)
			first := firstOrdinal(value)
			return wantedClaim{spec: &w.each[i].Spec, set: w, slot: n, beyond: n < first || n-first >= w.want+w.beyond}, true
		}
	}
	return wantedClaim{}, false
}

// bytes is how much is asked for.
func (c wantedClaim) bytes() int64 {
	amount := c.spec.Resources.Requests[corev1.ResourceStorage]
	return amount.Value()
}

func (c wantedClaim) mode() corev1.PersistentVolumeAccessMode {
	if slices.Contains(c.spec.AccessModes, corev1.ReadWriteOncePod) {
		return corev1.ReadWriteOncePod
	}
	return corev1.ReadWriteOnce
}

// retention is what becomes of the volumes of a StatefulSet's pods. Source:
// StatefulSet.spec.persistentVolumeClaimRetentionPolicy.
func (c wantedClaim) retention() (goesWithPod, goesWithSet bool) {
	if c.set == nil {
		return false, false
	}
	value, ok := c.set.object.Value.(*appsv1.StatefulSet)
	if !ok || value.Spec.PersistentVolumeClaimRetentionPolicy == nil {
		return false, false
	}
	policy := value.Spec.PersistentVolumeClaimRetentionPolicy
	return policy.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType, policy.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
}

// unprovided says why no volume is ever made for a claim, "" when one is. What
// could be known from the claim alone was refused with its commit.
func (c wantedClaim) unprovided() string {
	switch class := c.spec.StorageClassName; {
	case class == nil || *class == LocalPath:
		return ""
	case *class == "":
		return "it has the storage class \"\", and no PersistentVolumes are provided"
	default:
		return "it has the storage class \"" + *class + "\", and only " + LocalPath + " is provided"
	}
}
