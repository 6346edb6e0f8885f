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
	for i, p := range f.Spec.ImagePolicies {
		out = append(out, validateImagePolicy(p, spec.Child("imagePolicies").Index(i))...)
	}
	return out
}

// validateImagePolicy refuses a policy that would protect nothing, or that nothing
// could satisfy.
func validateImagePolicy(p api.ImagePolicy, at *field.Path) field.ErrorList {
	var out field.ErrorList
	if len(p.Images) == 0 {
		out = append(out, field.Required(at.Child("images"), "name the repositories whose images must be signed"))
	}
	for i, pattern := range p.Images {
		if err := api.CheckImagePattern(pattern); err != nil {
			out = append(out, field.Invalid(at.Child("images").Index(i), pattern, err.Error()))
		}
	}
	if len(p.Keys) == 0 {
		out = append(out, field.Required(at.Child("keys"), "write the public keys of which one must have signed"))
	}
	for i, key := range p.Keys {
		if _, err := api.ParseImageKey(key); err != nil {
			out = append(out, field.Invalid(at.Child("keys").Index(i), key, err.Error()))
		}
	}
	return out
}
