package api

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// FleetKind is the kind of [Fleet].
var FleetKind = schema.GroupVersionKind{Group: "fleet.shoal.dev", Version: "v1alpha1", Kind: "Fleet"}

// A Fleet is the settings of a whole fleet, which stand in Git beside what it
// runs. There is one at most; without it every setting has its zero value.
type Fleet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`

	Spec FleetSpec `json:"spec,omitzero"`
}

// A FleetList is how the API lists Fleets.
type FleetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []Fleet `json:"items"`
}

// FleetSpec is what a fleet is to do beyond what its workloads say.
type FleetSpec struct {
	// OnFailedRollout is what becomes of a Deployment whose rollout has missed its
	// progress deadline.
	OnFailedRollout FailedRollout `json:"onFailedRollout,omitempty"`
	// Rebalance says whether pods that run well move to nodes with more room.
	Rebalance Rebalance `json:"rebalance,omitempty"`
	// ImagePolicies say which images must be signed, and by whom. Others need not.
	ImagePolicies []ImagePolicy `json:"imagePolicies,omitempty"`
}

// FailedRollout is a value of FleetSpec.OnFailedRollout.
type FailedRollout string

// The values of FleetSpec.OnFailedRollout; "" is FailedRolloutNone.
const (
	FailedRolloutNone FailedRollout = "none"     // it stays as it is, and is marked
	FailedRolloutBack FailedRollout = "rollback" // the pods get the last template that worked
)

// Rebalance is a value of FleetSpec.Rebalance.
type Rebalance string

// The values of FleetSpec.Rebalance; "" is RebalanceNone.
const (
	RebalanceNone   Rebalance = "none"   // pods stay where they are
	RebalanceGentle Rebalance = "gentle" // one at a time, while nothing else happens
)

// DeepCopyObject returns a copy that shares nothing with f.
func (f *Fleet) DeepCopyObject() runtime.Object {
	if f == nil {
		return nil
	}
	out := *f
	f.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Spec.ImagePolicies = nil
	for _, p := range f.Spec.ImagePolicies {
		out.Spec.ImagePolicies = append(out.Spec.ImagePolicies, p.DeepCopy())
	}
	return &out
}

// DeepCopyObject returns a copy that shares nothing with l.
func (l *FleetList) DeepCopyObject() runtime.Object {
	if l == nil {
		return nil
	}
	out := *l
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = make([]Fleet, len(l.Items))
	for i := range l.Items {
		if copied, ok := l.Items[i].DeepCopyObject().(*Fleet); ok {
			out.Items[i] = *copied
		}
	}
	return &out
}

// Settings returns what the snapshot says of the whole fleet.
func (s Snapshot) Settings() FleetSpec {
	for fleet := range Of[*Fleet](s) {
		return fleet.Spec
	}
	return FleetSpec{}
}
