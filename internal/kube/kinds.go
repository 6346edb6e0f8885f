package kube

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kind is what Kubernetes' discovery says of one kind.
type Kind struct {
	schema.GroupVersionKind
	Plural     string // the resource: "deployments"
	Singular   string
	ShortNames []string
	Categories []string // "all": listed by "kubectl get all"
	Namespaced bool
}

// Resource returns the group, version and resource of the kind.
func (k Kind) Resource() schema.GroupVersionResource {
	return k.GroupVersion().WithResource(k.Plural)
}

var all = []string{"all"}

// kinds is sorted by group, then kind.
var kinds = []Kind{
	kind("", "v1", "ConfigMap", "configmaps", true, nil, "cm"),
	kind("", "v1", "Endpoints", "endpoints", true, nil, "ep"),
	kind("", "v1", "Event", "events", true, nil, "ev"),
	kind("", "v1", "LimitRange", "limitranges", true, nil, "limits"),
	kind("", "v1", "Namespace", "namespaces", false, nil, "ns"),
	kind("", "v1", "Node", "nodes", false, nil, "no"),
	kind("", "v1", "PersistentVolume", "persistentvolumes", false, nil, "pv"),
	kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true, nil, "pvc"),
	kind("", "v1", "Pod", "pods", true, all, "po"),
	kind("", "v1", "ReplicationController", "replicationcontrollers", true, all, "rc"),
	kind("", "v1", "ResourceQuota", "resourcequotas", true, nil, "quota"),
	kind("", "v1", "Secret", "secrets", true, nil),
	kind("", "v1", "Service", "services", true, all, "svc"),
	kind("", "v1", "ServiceAccount", "serviceaccounts", true, nil, "sa"),
	kind("apps", "v1", "DaemonSet", "daemonsets", true, all, "ds"),
	kind("apps", "v1", "Deployment", "deployments", true, all, "deploy"),
	kind("apps", "v1", "ReplicaSet", "replicasets", true, all, "rs"),
	kind("apps", "v1", "StatefulSet", "statefulsets", true, all, "sts"),
	kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true, all, "hpa"),
	kind("batch", "v1", "CronJob", "cronjobs", true, all, "cj"),
	kind("batch", "v1", "Job", "jobs", true, all),
	kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true, nil),
	kind("fleet.shoal.dev", "v1alpha1", "Fleet", "fleets", false, nil),
	kind("networking.k8s.io", "v1", "Ingress", "ingresses", true, nil, "ing"),
	kind("networking.k8s.io", "v1", "IngressClass", "ingressclasses", false, nil),
	kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", true, nil, "netpol"),
	kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true, nil, "pdb"),
	kind("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false, nil),
	kind("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", false, nil),
	kind("rbac.authorization.k8s.io", "v1", "Role", "roles", true, nil),
	kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", true, nil),
	kind("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", false, nil, "pc"),
	kind("storage.k8s.io", "v1", "StorageClass", "storageclasses", false, nil, "sc"),
}

func kind(group, version, name, plural string, namespaced bool, categories []string, short ...string) Kind {
	return Kind{
		GroupVersionKind: schema.GroupVersionKind{Group: group, Version: version, Kind: name},
		Plural:           plural,
		Singular:         strings.ToLower(name),
		ShortNames:       short,
		Categories:       categories,
		Namespaced:       namespaced,
	}
}

// Kinds returns every kind that this program knows, sorted by group and kind.
func Kinds() []Kind { return slices.Clone(kinds) }

var byGVK = func() map[schema.GroupVersionKind]Kind {
	index := make(map[schema.GroupVersionKind]Kind, len(kinds))
	for _, k := range kinds {
		index[k.GroupVersionKind] = k
	}
	return index
}()

// Lookup returns the kind with exactly this group, version and name.
func Lookup(gvk schema.GroupVersionKind) (Kind, bool) {
	k, found := byGVK[gvk]
	return k, found
}

// Named returns the kinds with this name in whatever group and version, to
// tell an author which apiVersion is right. Letter case is ignored.
func Named(name string) []Kind {
	var out []Kind
	for _, k := range kinds {
		if strings.EqualFold(k.Kind, name) {
			out = append(out, k)
		}
	}
	return out
}

// Resource returns the kind behind a resource of discovery, such as
// {apps v1 deployments}.
func Resource(gvr schema.GroupVersionResource) (Kind, bool) {
	for _, k := range kinds {
		if k.Resource() == gvr {
			return k, true
		}
	}
	return Kind{}, false
}

// KubernetesGroup reports whether an API group is one of Kubernetes' own,
// served here or not, as opposed to one that somebody's CRD defines.
func KubernetesGroup(group string) bool {
	if group == "gateway.networking.k8s.io" || strings.HasSuffix(group, ".x-k8s.io") {
		return false // made by SIGs, but delivered as CRDs
	}
	return !strings.Contains(group, ".") || strings.HasSuffix(group, ".k8s.io")
}
