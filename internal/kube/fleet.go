package kube

import (
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shoal-dev/shoal/api"
)

// addFleet registers the one kind that is not Kubernetes': it has no internal
// version.
func addFleet(s *runtime.Scheme) error {
	s.AddKnownTypes(api.FleetKind.GroupVersion(), &api.Fleet{}, &api.FleetList{})
	metav1.AddToGroupVersion(s, api.FleetKind.GroupVersion())
	return nil
}

// validateFleet checks the settings of a fleet.
func validateFleet(f *api.Fleet) field.ErrorList {
	spec := field.NewPath("spec")
	out := apivalidation.ValidateObjectMeta(&f.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	switch f.Spec.OnFailedRollout {
	case "", api.FailedRolloutNone, api.FailedRolloutBack:
	default:
		out = append(out, field.NotSupported(spec.Child("onFailedRollout"), f.Spec.OnFailedRollout, []api.FailedRollout{api.FailedRolloutNone, api.FailedRolloutBack}))
	}
	switch f.Spec.Rebalance {
	case "", api.RebalanceNone, api.RebalanceGentle:
	default:
		out = append(out, field.NotSupported(spec.Child("rebalance"), f.Spec.Rebalance, []api.Rebalance{api.RebalanceNone, api.RebalanceGentle}))
	}
	return out
}
