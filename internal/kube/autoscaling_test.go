package kube

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestAutoscalers: what Kubernetes would refuse of a HorizontalPodAutoscaler, and
// what it takes.
func TestAutoscalers(t *testing.T) {
	const ref = "scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}"
	cpu := func(target string) string {
		return "maxReplicas: 3, metrics: [{type: Resource, resource: {name: cpu, target: {" + target + "}}}], " + ref
	}
	behavior := func(text string) string { return "maxReplicas: 3, behavior: {" + text + "}, " + ref }
	for spec, want := range map[string]string{
		"maxReplicas: 3, " + ref:                                                "",
		"minReplicas: 3, maxReplicas: 2, " + ref:                                "spec.maxReplicas",
		"minReplicas: 0, maxReplicas: 2, " + ref:                                "spec.minReplicas",
		"maxReplicas: 0, " + ref:                                                "spec.maxReplicas",
		"maxReplicas: 3, scaleTargetRef: {kind: Deployment}":                    "spec.scaleTargetRef.name",
		"maxReplicas: 3, scaleTargetRef: {kind: a/b, name: c}":                  "spec.scaleTargetRef.kind",
		"maxReplicas: 3, scaleTargetRef: {apiVersion: a/b/c, kind: D, name: c}": "spec.scaleTargetRef.apiVersion",
		cpu("type: Utilization, averageUtilization: 50"):                        "",
		cpu("type: AverageValue, averageValue: 100m"):                           "",
		cpu("type: Utilization, averageUtilization: 0"):                         "spec.metrics[0].resource.target.averageUtilization",
		cpu("type: Utilization"):                                                "spec.metrics[0].resource.target.averageUtilization",
		cpu("type: AverageValue"):                                               "spec.metrics[0].resource.target.averageValue",
		cpu("type: AverageValue, averageValue: 0"):                              "spec.metrics[0].resource.target.averageValue",
		cpu("type: Value, value: 1"):                                            "spec.metrics[0].resource.target.type",
		cpu("type: Utilization, averageUtilization: 5, averageValue: 1"):        "spec.metrics[0].resource.target.averageValue",
		"maxReplicas: 3, metrics: [{type: Resource}], " + ref:                   "spec.metrics[0].resource",
		"maxReplicas: 3, metrics: [{type: ContainerResource}], " + ref:          "spec.metrics[0].containerResource",
		"maxReplicas: 3, metrics: [{type: ContainerResource, containerResource: {name: cpu, target: {type: Utilization, averageUtilization: 5}}}], " + ref: "spec.metrics[0].containerResource.container",
		behavior("scaleDown: {policies: [{type: Percent, value: 10, periodSeconds: 60}], tolerance: 50m}"):                                                 "",
		behavior("scaleDown: {stabilizationWindowSeconds: 3601}"):                                                                                          "spec.behavior.scaleDown.stabilizationWindowSeconds",
		behavior("scaleUp: {selectPolicy: Most}"):                                                                                                          "spec.behavior.scaleUp.selectPolicy",
		behavior("scaleUp: {tolerance: -1}"):                                                                                                               "spec.behavior.scaleUp.tolerance",
		behavior("scaleUp: {policies: [{type: Half, value: 10, periodSeconds: 60}]}"):                                                                      "spec.behavior.scaleUp.policies[0].type",
		behavior("scaleUp: {policies: [{type: Pods, value: 0, periodSeconds: 60}]}"):                                                                       "spec.behavior.scaleUp.policies[0].value",
		behavior("scaleUp: {policies: [{type: Pods, value: 1, periodSeconds: 1801}]}"):                                                                     "spec.behavior.scaleUp.policies[0].periodSeconds",
	} {
		got := decodeYAML(t, schema.GroupVersionKind{Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler"}, "metadata: {name: x}\nspec: {"+spec+"}")
		switch {
		case want == "" && len(got) > 0:
			t.Errorf("%s is refused: %v", spec, got)
		case want != "" && (len(got) == 0 || !strings.Contains(got[0], want)):
			t.Errorf("%s: got %v, want a mistake at %s", spec, got, want)
		}
	}
}
