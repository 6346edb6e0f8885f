package api

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// QuotaOf returns how much of a quota of objects one object uses: of
// "count/configmaps" or "configmaps", of "services.nodeports", of
// "requests.storage". Pods are not counted: they are made of other objects.
// Source: Kubernetes, "Resource Quotas": object count quota.
func QuotaOf(object Object, name corev1.ResourceName) int64 {
	text := string(name)
	switch value := object.Value.(type) {
	case *corev1.Service:
		nodePort := value.Spec.Type == corev1.ServiceTypeNodePort
		balanced := value.Spec.Type == corev1.ServiceTypeLoadBalancer
		switch {
		case name == corev1.ResourceServicesNodePorts && nodePort,
			name == corev1.ResourceServicesNodePorts && balanced && (value.Spec.AllocateLoadBalancerNodePorts == nil || *value.Spec.AllocateLoadBalancerNodePorts):
			return int64(len(value.Spec.Ports))
		case name == corev1.ResourceServicesLoadBalancers && balanced:
			return 1
		}
	case *corev1.PersistentVolumeClaim:
		if name == corev1.ResourceRequestsStorage {
			return value.Spec.Resources.Requests.Storage().Value()
		}
	case *corev1.Pod:
		return 0
	}
	plural := strings.ToLower(object.GVK.Kind) + "s"
	if object.GVK.Group != "" {
		plural += "." + object.GVK.Group
	}
	if text == plural && object.GVK.Group == "" || text == "count/"+plural {
		return 1
	}
	return 0
}
