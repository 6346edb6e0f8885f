package kube

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
)

// The bounds of a HorizontalPodAutoscaler's behavior, in seconds.
// Source: Kubernetes, HorizontalPodAutoscaler v2.
const (
	longestWindow = 3600
	longestPeriod = 1800
)

// autoscaler checks a HorizontalPodAutoscaler. Kubernetes' own functions for it
// are not called: their package needs the API server's libraries and, through
// them, an interpreter (3 MB). Only metrics of resources have rules here; the
// others are not served. The bounds of the replicas are declared rules.
func autoscaler(o *autoscaling.HorizontalPodAutoscaler) field.ErrorList {
	spec := field.NewPath("spec")
	out := corevalidation.ValidateObjectMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	out = append(out, scaleTarget(&o.Spec.ScaleTargetRef, spec.Child("scaleTargetRef"))...)
	if least := o.Spec.MinReplicas; least != nil && o.Spec.MaxReplicas < *least {
		out = append(out, field.Invalid(spec.Child("maxReplicas"), o.Spec.MaxReplicas, "must be no less than minReplicas"))
	}
	for i := range o.Spec.Metrics {
		out = append(out, resourceMetric(&o.Spec.Metrics[i], spec.Child("metrics").Index(i))...)
	}
	if b := o.Spec.Behavior; b != nil {
		out = append(out, scalingRules(b.ScaleUp, spec.Child("behavior", "scaleUp"))...)
		out = append(out, scalingRules(b.ScaleDown, spec.Child("behavior", "scaleDown"))...)
	}
	return out
}

func scaleTarget(ref *autoscaling.CrossVersionObjectReference, at *field.Path) field.ErrorList {
	var out field.ErrorList
	for _, part := range []struct{ name, value string }{{"kind", ref.Kind}, {"name", ref.Name}} {
		if part.value == "" {
			out = append(out, field.Required(at.Child(part.name), ""))
		}
		for _, problem := range content.IsPathSegmentName(part.value) {
			out = append(out, field.Invalid(at.Child(part.name), part.value, problem))
		}
	}
	if _, err := schema.ParseGroupVersion(ref.APIVersion); err != nil {
		out = append(out, field.Invalid(at.Child("apiVersion"), ref.APIVersion, err.Error()))
	}
	return out
}

func resourceMetric(m *autoscaling.MetricSpec, at *field.Path) field.ErrorList {
	var out field.ErrorList
	if m.Resource != nil && m.ContainerResource != nil {
		out = append(out, field.Forbidden(at, "may not have both resource and containerResource"))
	}
	switch {
	case m.Type == autoscaling.ResourceMetricSourceType && m.Resource == nil:
		return append(out, field.Required(at.Child("resource"), "must be given when type is Resource"))
	case m.Type == autoscaling.ResourceMetricSourceType:
		return append(out, metricTarget(m.Resource.Name, &m.Resource.Target, at.Child("resource"))...)
	case m.Type == autoscaling.ContainerResourceMetricSourceType && m.ContainerResource == nil:
		return append(out, field.Required(at.Child("containerResource"), "must be given when type is ContainerResource"))
	case m.Type == autoscaling.ContainerResourceMetricSourceType:
		if m.ContainerResource.Container == "" {
			out = append(out, field.Required(at.Child("containerResource", "container"), ""))
		}
		return append(out, metricTarget(m.ContainerResource.Name, &m.ContainerResource.Target, at.Child("containerResource"))...)
	case m.Type == "":
		out = append(out, field.Required(at.Child("type"), ""))
	}
	return out
}

func metricTarget(name core.ResourceName, target *autoscaling.MetricTarget, at *field.Path) field.ErrorList {
	var out field.ErrorList
	if name == "" {
		out = append(out, field.Required(at.Child("name"), ""))
	}
	at = at.Child("target")
	percent, value := target.AverageUtilization, target.AverageValue
	switch {
	case target.Type == autoscaling.UtilizationMetricType && percent == nil:
		out = append(out, field.Required(at.Child("averageUtilization"), "must be given when type is Utilization"))
	case target.Type == autoscaling.AverageValueMetricType && value == nil:
		out = append(out, field.Required(at.Child("averageValue"), "must be given when type is AverageValue"))
	case target.Type != autoscaling.UtilizationMetricType && target.Type != autoscaling.AverageValueMetricType:
		out = append(out, field.NotSupported(at.Child("type"), target.Type, []autoscaling.MetricTargetType{autoscaling.UtilizationMetricType, autoscaling.AverageValueMetricType}))
	}
	if percent != nil && value != nil {
		out = append(out, field.Forbidden(at.Child("averageValue"), "may not be given together with averageUtilization"))
	}
	if percent != nil && *percent < 1 {
		out = append(out, field.Invalid(at.Child("averageUtilization"), *percent, "must be more than 0"))
	}
	if value != nil && value.Sign() != 1 {
		out = append(out, field.Invalid(at.Child("averageValue"), value.String(), "must be more than 0"))
	}
	return out
}

func scalingRules(rules *autoscaling.HPAScalingRules, at *field.Path) field.ErrorList {
	if rules == nil {
		return nil
	}
	var out field.ErrorList
	if w := rules.StabilizationWindowSeconds; w != nil && (*w < 0 || *w > longestWindow) {
		out = append(out, field.Invalid(at.Child("stabilizationWindowSeconds"), *w, fmt.Sprintf("must be between 0 and %d", longestWindow)))
	}
	choices := []autoscaling.ScalingPolicySelect{autoscaling.MaxPolicySelect, autoscaling.MinPolicySelect, autoscaling.DisabledPolicySelect}
	if s := rules.SelectPolicy; s != nil && *s != choices[0] && *s != choices[1] && *s != choices[2] {
		out = append(out, field.NotSupported(at.Child("selectPolicy"), *s, choices))
	}
	if t := rules.Tolerance; t != nil && t.Sign() < 0 {
		out = append(out, field.Invalid(at.Child("tolerance"), t.String(), "must not be less than 0"))
	}
	if len(rules.Policies) == 0 {
		out = append(out, field.Required(at.Child("policies"), "must have at least one"))
	}
	for i, p := range rules.Policies {
		at := at.Child("policies").Index(i)
		if p.Type != autoscaling.PodsScalingPolicy && p.Type != autoscaling.PercentScalingPolicy {
			out = append(out, field.NotSupported(at.Child("type"), p.Type, []autoscaling.HPAScalingPolicyType{autoscaling.PodsScalingPolicy, autoscaling.PercentScalingPolicy}))
		}
		if p.Value <= 0 {
			out = append(out, field.Invalid(at.Child("value"), p.Value, "must be more than 0"))
		}
		if p.PeriodSeconds <= 0 || p.PeriodSeconds > longestPeriod {
			out = append(out, field.Invalid(at.Child("periodSeconds"), p.PeriodSeconds, fmt.Sprintf("must be between 1 and %d", longestPeriod)))
		}
	}
	return out
}
