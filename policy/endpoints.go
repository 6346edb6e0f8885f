package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-dev/shoal/api"
)

// A Pod is a pod somewhere in the fleet, with what traffic needs to know of it.
type Pod struct {
	Object *corev1.Pod
	IP     netip.Addr // invalid while it has none
	Node   string
	Ready  bool // serves: ready and not told to stop
}

// A Service is a Service with its address and who answers for it.
type Service struct {
	Object    *corev1.Service
	ClusterIP netip.Addr // invalid for headless and ExternalName Services
	Ports     []ServicePort
	Pods      []Backend // every selected pod with an address, sorted by address
}

// Headless reports whether the Service has no address of its own and resolves
// to its pods.
func (s *Service) Headless() bool { return s.Object.Spec.ClusterIP == corev1.ClusterIPNone }

// A ServicePort is one port of a Service.
type ServicePort struct {
	Name      string
	Protocol  corev1.Protocol
	Port      int32
	NodePort  int32 // 0: none
	Affinity  int32 // seconds for which a client stays with its pod; 0: none
	Endpoints []Endpoint
}

// A Backend is a pod behind a Service.
type Backend struct {
	Pod    *corev1.Pod
	IP     netip.Addr
	Node   string
	Ready  bool
	Routed bool // receives traffic: ready, or the Service publishes pods that are not
}

// An Endpoint is where connections to a ServicePort go.
type Endpoint struct {
	IP   netip.Addr
	Port int32
	Node string
}

// Endpoints works out who answers for each Service: the pods that its selector
// matches, that have an address and are ready. The result is sorted by
// namespace and name.
func Endpoints(services []*corev1.Service, addresses map[string]api.ServiceAddress, pods []Pod) []Service {
	byNamespace := map[string][]*Pod{}
	for i := range pods {
		if pods[i].IP.IsValid() && !finished(pods[i].Object) {
			ns := pods[i].Object.Namespace
			byNamespace[ns] = append(byNamespace[ns], &pods[i])
		}
	}
	out := make([]Service, 0, len(services))
	for _, object := range services {
		given := addresses[object.Namespace+"/"+object.Name]
		s := Service{Object: object}
		if object.Spec.Type != corev1.ServiceTypeExternalName {
			s.ClusterIP, _ = netip.ParseAddr(given.ClusterIP)
			s.Pods = selected(object, byNamespace[object.Namespace])
		}
		for _, port := range object.Spec.Ports {
			s.Ports = append(s.Ports, servicePort(object, port, given, s.Pods))
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Service) int {
		return cmp.Or(strings.Compare(a.Object.Namespace, b.Object.Namespace), strings.Compare(a.Object.Name, b.Object.Name))
	})
	return out
}

func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// selected returns the pods of a Service; a Service without a selector has none.
func selected(object *corev1.Service, pods []*Pod) []Backend {
	if len(object.Spec.Selector) == 0 {
		return nil
	}
	selector := labels.SelectorFromSet(object.Spec.Selector)
	var out []Backend
	for _, p := range pods {
		if selector.Matches(labels.Set(p.Object.Labels)) {
			out = append(out, Backend{
				Pod: p.Object, IP: p.IP, Node: p.Node, Ready: p.Ready,
				Routed: p.Ready || object.Spec.PublishNotReadyAddresses,
			})
		}
	}
	slices.SortFunc(out, func(a, b Backend) int {
		return cmp.Or(a.IP.Compare(b.IP), strings.Compare(a.Pod.Name, b.Pod.Name))
	})
	return out
}

func servicePort(object *corev1.Service, port corev1.ServicePort, given api.ServiceAddress, pods []Backend) ServicePort {
	out := ServicePort{
		Name:     port.Name,
		Protocol: cmp.Or(port.Protocol, corev1.ProtocolTCP),
		Port:     port.Port,
		NodePort: given.NodePorts[PortKey(port)],
	}
	if object.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		out.Affinity = corev1.DefaultClientIPServiceAffinitySeconds
		if c := object.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			out.Affinity = *c.ClientIP.TimeoutSeconds
		}
	}
	for _, b := range pods {
		if number, ok := TargetPort(b.Pod, port); ok && b.Routed {
			out.Endpoints = append(out.Endpoints, Endpoint{IP: b.IP, Port: number, Node: b.Node})
		}
	}
	return out
}

// serving are the containers of a pod that run at the same time: its own, then its
// sidecars.
func serving(spec *corev1.PodSpec) []corev1.Container {
	out := slices.Clip(spec.Containers)
	for _, c := range spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, c)
		}
	}
	return out
}

// TargetPort returns the number of the container port that a Service port leads
// to on this pod. A name that no container of the pod declares leads nowhere.
func TargetPort(pod *corev1.Pod, port corev1.ServicePort) (int32, bool) {
	if port.TargetPort.Type == intstr.Int {
		if port.TargetPort.IntVal == 0 {
			return port.Port, true
		}
		return port.TargetPort.IntVal, true
	}
	for _, container := range serving(&pod.Spec) {
		for _, p := range container.Ports {
			if p.Name == port.TargetPort.StrVal && cmp.Or(p.Protocol, corev1.ProtocolTCP) == cmp.Or(port.Protocol, corev1.ProtocolTCP) {
				return p.ContainerPort, true
			}
		}
	}
	return 0, false
}
