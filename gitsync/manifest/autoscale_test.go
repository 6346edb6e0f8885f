package manifest

import (
	"strings"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// TestMetricsThatNobodyMeasures: they are refused, each by its own field.
func TestMetricsThatNobodyMeasures(t *testing.T) {
	for want, metric := range map[string]autoscalingv2.MetricSpec{
		"spec.metrics[0].pods":     {Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "rps"}}},
		"spec.metrics[0].object":   {Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "rps"}}},
		"spec.metrics[0].external": {Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "rps"}}},
		"spec.metrics[0].resource.name": {
			Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: "ephemeral-storage"},
		},
	} {
		found := checkScope(&autoscalingv2.HorizontalPodAutoscaler{Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MaxReplicas: 3, Metrics: []autoscalingv2.MetricSpec{metric}}})
		refused := false
		for _, f := range found {
			refused = refused || f.field == want && !f.warning && strings.Contains(f.reason, "measure")
		}
		if !refused {
			t.Errorf("%s: got %v", want, found)
		}
	}
}
