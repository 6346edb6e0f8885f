package runtime

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// Exclusive reports whether the pod must not run twice, so that the claim of its
// identity and the node's lease are needed to run it. In a fleet of one no pod
// is.
func (d Desired) Exclusive(p Pod) bool {
	return !d.Alone && p.Assignment.Claim != (api.Claim{})
}

// Bound reports whether the pod is bound to a volume of its node: then it runs
// nowhere else, and is never fenced.
func Bound(spec *corev1.PodSpec) bool {
	for i := range spec.Volumes {
		if spec.Volumes[i].PersistentVolumeClaim != nil {
			return true
		}
	}
	return false
}

// Attached reports whether the ledger binds all persistent volumes of the pod to
// its node, as far as this node knows.
func (d Desired) Attached(p Pod) bool {
	for i := range p.Object.Spec.Volumes {
		source := p.Object.Spec.Volumes[i].PersistentVolumeClaim
		if source == nil {
			continue
		}
		holder, bound := d.Claims[api.VolumeClaim(p.Object.Namespace, source.ClaimName).String()]
		if !bound || holder.Node != p.Assignment.Node {
			return false
		}
	}
	return true
}

// right says whether an exclusive pod may run here.
type right int

const (
	unsure     right = iota // nothing is started, nothing is stopped
	entitled                // the claim in force is the pod's own, and there is a lease
	outclaimed              // a newer claim was granted
)

// rightOf returns the right of the pod to run. What has no claim needs none. A
// lease that has run out stops nothing here: that is the fencer's work, and
// deciding it twice would only make it less sure.
func (d *decision) rightOf() right {
	p, known := d.pod.pod(d.desired)
	if !known {
		return entitled
	}
	out := entitled
	if !d.pod.Volumes.Ready && !d.desired.Attached(p) {
		out = unsure // the ledger may come a little later than the decision
	}
	if !d.desired.Exclusive(p) {
		return out
	}
	holder, granted := d.desired.Claims[p.Assignment.Pod.Identity.String()]
	switch {
	case granted && p.Assignment.Claim.Less(holder.Claim):
		return outclaimed
	case granted && holder.Claim == p.Assignment.Claim && holder.Node == p.Assignment.Node && d.leased():
		return out
	}
	return unsure
}

// leased reports whether the lease is good now; if it is, it may be gone later.
func (d *decision) leased() bool { return d.now.Before(d.desired.LeaseUntil) }

// Fenced reports whether an ended container was ended for want of a lease, as
// far as its end tells.
func (c Container) Fenced() bool { return c.State == ContainerExited && c.Reason == EndedFenced }
