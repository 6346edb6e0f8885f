package network_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/runtime/network"
)

// Source: kubernetes.io, DNS for Services and Pods, "Pod's hostname and subdomain
// fields" and "Pod's setHostnameAsFQDN field".
func TestHostname(t *testing.T) {
	yes, name := true, "node.example.com"
	for _, tt := range []struct {
		spec           corev1.PodSpec
		hostname, fqdn string
	}{
		{corev1.PodSpec{}, "web-1", ""},
		{corev1.PodSpec{Hostname: "box"}, "box", ""},
		{corev1.PodSpec{Subdomain: "web"}, "web-1", "web-1.web.ns.svc.cluster.local"},
		{corev1.PodSpec{Subdomain: "web", SetHostnameAsFQDN: &yes}, "web-1.web.ns.svc.cluster.local", "web-1.web.ns.svc.cluster.local"},
		{corev1.PodSpec{SetHostnameAsFQDN: &yes}, "web-1", ""},
		{corev1.PodSpec{Hostname: "box", Subdomain: "web", HostnameOverride: &name}, name, ""},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web-1"}, Spec: tt.spec}
		if hostname, fqdn := network.Hostname(pod, "cluster.local"); hostname != tt.hostname || fqdn != tt.fqdn {
			t.Errorf("%+v: got %q, %q; want %q, %q", tt.spec, hostname, fqdn, tt.hostname, tt.fqdn)
		}
	}
}
