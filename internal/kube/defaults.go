package kube

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Default fills in the fields that the author left out, in place, as an API
// server does when it decodes an object.
func Default(object runtime.Object) {
	Scheme().Default(object)
	switch value := object.(type) {
	case *corev1.Service:
		pairClusterIPs(&value.Spec)
	case *corev1.Secret:
		foldStringData(value)
	}
}

// pairClusterIPs makes clusterIP and clusterIPs agree when one of them is
// given: an API server does it when it stores a Service (KEP-563, dual stack).
func pairClusterIPs(spec *corev1.ServiceSpec) {
	switch {
	case spec.ClusterIP != "" && len(spec.ClusterIPs) == 0:
		spec.ClusterIPs = []string{spec.ClusterIP}
	case spec.ClusterIP == "" && len(spec.ClusterIPs) > 0:
		spec.ClusterIP = spec.ClusterIPs[0]
	}
}

// foldStringData moves a Secret's write-only stringData into its data.
func foldStringData(secret *corev1.Secret) {
	if len(secret.StringData) == 0 {
		return
	}
	if secret.Data == nil {
		secret.Data = make(map[string][]byte, len(secret.StringData))
	}
	for key, text := range secret.StringData {
		secret.Data[key] = []byte(text)
	}
	secret.StringData = nil
}
