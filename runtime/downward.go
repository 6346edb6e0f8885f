package runtime

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Field returns the value of a downward API fieldPath.
// Source: kubernetes.io, Downward API, "Available fields".
func (s Sources) Field(path string) (string, error) {
	pod := s.Pod
	if name, key, ok := subscript(path); ok {
		switch name {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
		return "", fmt.Errorf("fieldPath %q is not supported", path)
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return quoted(pod.Labels), nil
	case "metadata.annotations":
		return quoted(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return pod.Status.HostIP, nil
	case "status.hostIPs":
		ips := make([]string, len(pod.Status.HostIPs))
		for i, ip := range pod.Status.HostIPs {
			ips[i] = ip.IP
		}
		return strings.Join(ips, ","), nil
	case "status.podIP":
		if len(s.IPs) == 0 {
			return "", nil
		}
		return s.IPs[0], nil
	case "status.podIPs":
		return strings.Join(s.IPs, ","), nil
	}
	return "", fmt.Errorf("fieldPath %q is not supported", path)
}

// subscript splits metadata.labels['key'].
func subscript(path string) (name, key string, ok bool) {
	name, rest, found := strings.Cut(path, "['")
	if !found || !strings.HasSuffix(rest, "']") {
		return "", "", false
	}
	return name, strings.TrimSuffix(rest, "']"), true
}

func quoted(m map[string]string) string {
	lines := make([]string, 0, len(m))
	for _, k := range sortedKeys(m) {
		lines = append(lines, k+"="+strconv.Quote(m[k]))
	}
	return strings.Join(lines, "\n")
}

// Resource returns the value of a resourceFieldRef, rounded up to its divisor.
// A limit that is not set is the node's allocatable amount.
func (s Sources) Resource(c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	if ref.ContainerName != "" && (c == nil || c.Name != ref.ContainerName) {
		other, found := FindContainer(&s.Pod.Spec, ref.ContainerName)
		if !found {
			return "", fmt.Errorf("container %q not found", ref.ContainerName)
		}
		c = other
	}
	if c == nil {
		return "", fmt.Errorf("resource %q: containerName is missing", ref.Resource)
	}
	kind, name, found := strings.Cut(ref.Resource, ".")
	var list corev1.ResourceList
	switch {
	case found && kind == "limits":
		list = c.Resources.Limits
	case found && kind == "requests":
		list = c.Resources.Requests
	default:
		return "", fmt.Errorf("resource %q is not supported", ref.Resource)
	}
	quantity, set := list[corev1.ResourceName(name)]
	if !set || quantity.IsZero() {
		quantity = resource.Quantity{}
		if kind == "limits" && (name == "cpu" || name == "memory" || name == "ephemeral-storage") {
			quantity = s.Allocatable[corev1.ResourceName(name)]
		}
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == "cpu" {
		return itoa(ceilDivide(quantity.MilliValue(), divisor.MilliValue())), nil
	}
	return itoa(ceilDivide(quantity.Value(), divisor.Value())), nil
}

func ceilDivide(n, by int64) int64 {
	if by <= 0 {
		by = 1
	}
	return (n + by - 1) / by
}
