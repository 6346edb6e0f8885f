package policy

import (
	"maps"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
)

// WithAddress returns a copy of a Service that carries the addresses it was
// given, as the API shows it. What the copy points to is shared.
func WithAddress(object *corev1.Service, given api.ServiceAddress) *corev1.Service {
	out := *object
	if out.Spec.Type != corev1.ServiceTypeExternalName {
		if out.Spec.ClusterIP == "" {
			out.Spec.ClusterIP = given.ClusterIP
		}
		if out.Spec.ClusterIP != "" {
			out.Spec.ClusterIPs = []string{out.Spec.ClusterIP}
		}
	}
	out.Spec.Ports = make([]corev1.ServicePort, len(object.Spec.Ports))
	for i, port := range object.Spec.Ports {
		out.Spec.Ports[i] = port
		if number := given.NodePorts[PortKey(port)]; number != 0 {
			out.Spec.Ports[i].NodePort = number
		}
	}
	return &out
}

// Objects returns the Endpoints and EndpointSlice that Kubernetes would keep
// for a Service with a selector, nil for one without.
func Objects(fleet string, s *Service) []api.KubeObject {
	if len(s.Object.Spec.Selector) == 0 || s.Object.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	return []api.KubeObject{s.endpoints(fleet), s.slice(fleet)}
}

func (s *Service) meta(fleet string, key api.Key) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: key.Name, Namespace: key.Namespace, UID: api.UID(fleet, key), Labels: s.Object.Labels,
		CreationTimestamp: s.Object.CreationTimestamp,
	}
}

func podReference(pod *corev1.Pod) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
}

func (s *Service) endpoints(fleet string) *corev1.Endpoints { //nolint:staticcheck // deprecated upstream, and what kubectl get endpoints asks for
	key := api.Key{Kind: "Endpoints", Namespace: s.Object.Namespace, Name: s.Object.Name}
	out := &corev1.Endpoints{ //nolint:staticcheck // see above
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Endpoints"},
		ObjectMeta: s.meta(fleet, key),
	}
	// Pods that resolve named ports to the same numbers share a subset.
	subsets := map[string]int{}
	for _, b := range s.Pods {
		ports := s.portsOf(b.Pod)
		var id strings.Builder
		var list []corev1.EndpointPort
		for _, p := range ports {
			id.WriteString(p.name + "/" + strconv.Itoa(int(p.number)) + ",")
			list = append(list, corev1.EndpointPort{Name: p.name, Port: p.number, Protocol: p.protocol})
		}
		i, found := subsets[id.String()]
		if !found {
			i = len(out.Subsets)
			subsets[id.String()] = i
			out.Subsets = append(out.Subsets, corev1.EndpointSubset{Ports: list}) //nolint:staticcheck // see above
		}
		node := b.Node
		address := corev1.EndpointAddress{IP: b.IP.String(), NodeName: &node, TargetRef: podReference(b.Pod)}
		if b.Routed {
			out.Subsets[i].Addresses = append(out.Subsets[i].Addresses, address)
		} else {
			out.Subsets[i].NotReadyAddresses = append(out.Subsets[i].NotReadyAddresses, address)
		}
	}
	return out
}

type targetPort struct {
	name     string
	number   int32
	protocol corev1.Protocol
}

func (s *Service) portsOf(pod *corev1.Pod) []targetPort {
	var out []targetPort
	for i, p := range s.Ports {
		if number, ok := TargetPort(pod, s.Object.Spec.Ports[i]); ok {
			out = append(out, targetPort{p.Name, number, p.Protocol})
		}
	}
	return out
}

// slice puts all pods into one EndpointSlice. Its ports are those of the first
// pod: pods with other numbers for a named port are seen in the Endpoints.
func (s *Service) slice(fleet string) *discoveryv1.EndpointSlice {
	key := api.Key{Group: "discovery.k8s.io", Kind: "EndpointSlice", Namespace: s.Object.Namespace, Name: s.Object.Name + "-" + api.SafeHash(s.Object.Name, 5)}
	out := &discoveryv1.EndpointSlice{
		TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta:  s.meta(fleet, key),
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	out.Labels = map[string]string{discoveryv1.LabelServiceName: s.Object.Name, discoveryv1.LabelManagedBy: "shoal"}
	maps.Copy(out.Labels, s.Object.Labels)
	service := api.Key{Kind: "Service", Namespace: s.Object.Namespace, Name: s.Object.Name}
	yes := true
	out.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: service.Name, UID: api.UID(fleet, service), Controller: &yes}}
	for i, b := range s.Pods {
		ready, serving, terminating := b.Routed, b.Ready, b.Pod.DeletionTimestamp != nil
		node := b.Node
		out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{b.IP.String()}, NodeName: &node, TargetRef: podReference(b.Pod),
			Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		})
		if i > 0 {
			continue
		}
		for _, p := range s.portsOf(b.Pod) {
			out.Ports = append(out.Ports, discoveryv1.EndpointPort{Name: &p.name, Port: &p.number, Protocol: &p.protocol})
		}
	}
	return out
}
