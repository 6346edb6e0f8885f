package manifest

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-dev/shoal/internal/kube"
)

// Verdict says what this program does with a kind or a field.
type Verdict string

// The verdicts.
const (
	Served  Verdict = "served"
	Planned Verdict = "planned" // will be served; until then it is reported by name
	Out     Verdict = "out"     // will not be served
)

// KindScope is the verdict on one kind.
type KindScope struct {
	Group, Kind string
	Verdict     Verdict
	Reason      string
}

// KindScopes is the verdict on every kind that Kubernetes itself defines and
// people write, sorted as people look for them. A planned kind is checked and
// warned about; a commit that holds a kind that is out is refused.
var KindScopes = []KindScope{
	{"", "Namespace", Served, ""},
	{"", "Pod", Served, ""},
	{"apps", "Deployment", Served, ""},
	{"apps", "ReplicaSet", Served, ""},
	{"", "ReplicationController", Served, ""},
	{"apps", "DaemonSet", Served, ""},
	{"apps", "StatefulSet", Served, ""},
	{"batch", "Job", Served, ""},
	{"batch", "CronJob", Served, ""},
	{"", "PersistentVolumeClaim", Served, ""},
	{"", "Service", Served, ""},
	{"", "ConfigMap", Served, ""},
	{"", "Secret", Served, ""},
	{"policy", "PodDisruptionBudget", Served, ""},
	{"autoscaling", "HorizontalPodAutoscaler", Served, ""},
	{"scheduling.k8s.io", "PriorityClass", Served, ""},
	{"", "LimitRange", Served, ""},
	{"", "ResourceQuota", Served, ""},
	{"fleet.shoal.dev", "Fleet", Served, ""},
	{"", "ServiceAccount", Served, "pods may name it and get its pull secrets; no tokens are issued"},

	{"", "PersistentVolume", Planned, "nothing is provided by it"},
	{"storage.k8s.io", "StorageClass", Planned, "nothing is provided by it"},
	{"networking.k8s.io", "Ingress", Planned, "no traffic is routed by it"},
	{"networking.k8s.io", "IngressClass", Planned, "nothing refers to it"},
	{"networking.k8s.io", "NetworkPolicy", Planned, "TRAFFIC IS NOT FILTERED by it: every pod can reach every other"},
	{"rbac.authorization.k8s.io", "Role", Planned, "it grants nothing"},
	{"rbac.authorization.k8s.io", "RoleBinding", Planned, "it grants nothing"},
	{"rbac.authorization.k8s.io", "ClusterRole", Planned, "it grants nothing"},
	{"rbac.authorization.k8s.io", "ClusterRoleBinding", Planned, "it grants nothing"},
	{"", "Endpoints", Planned, "only endpoints of pods receive traffic"},
	{"discovery.k8s.io", "EndpointSlice", Planned, "only endpoints of pods receive traffic"},

	{"", "Node", Out, "machines describe themselves; own labels and taints are settings of the node (nodeLabels, nodeTaints)"},
	{"", "Event", Out, "events are observed, not desired"},
	{"", "PodTemplate", Out, "nothing uses it"},
	{"", "Binding", Out, "use spec.nodeName"},
	{"apps", "ControllerRevision", Out, "history is in Git"},
	{"coordination.k8s.io", "Lease", Out, "leases live between the nodes, not in Git"},
	{"apiextensions.k8s.io", "CustomResourceDefinition", Out, "there is no API server to extend: custom resources and operators are out of scope"},
	{"apiregistration.k8s.io", "APIService", Out, "there is no API server to extend"},
	{"admissionregistration.k8s.io", "*", Out, "admission is the review of a commit; webhooks are out of scope"},
	{"certificates.k8s.io", "*", Out, "certificates are not issued through manifests"},
	{"flowcontrol.apiserver.k8s.io", "*", Out, "there is no API server to protect"},
	{"node.k8s.io", "RuntimeClass", Out, "containers run on runc"},
	{"resource.k8s.io", "*", Out, "dynamic resource allocation needs drivers, which are out of scope"},
	{"storage.k8s.io", "*", Out, "CSI is out of scope"},
	{"kustomize.config.k8s.io", "Kustomization", Out, "a kustomization is read only from a file named kustomization.yaml, kustomization.yml or Kustomization"},
	{"kustomize.config.k8s.io", "Component", Out, "a component is only read through a kustomization that names it"},
	{"kustomize.toolkit.fluxcd.io", "Kustomization", Out, "a Flux object; point Shoal's sync path at the folder it names"},
	{"argoproj.io", "Application", Out, "an Argo CD object; point Shoal's sync path at the folder it names"},
}

// scopeOf returns the verdict on a kind.
func scopeOf(group, kind string) KindScope {
	for _, s := range KindScopes {
		if s.Group == group && (s.Kind == kind || s.Kind == "*") {
			return s
		}
	}
	if !kube.KubernetesGroup(group) {
		return KindScope{group, kind, Out, "a custom resource: operators and their objects are out of scope"}
	}
	return KindScope{group, kind, Out, "not a kind that Shoal knows"}
}

// refuseKind says why an apiVersion and kind are not accepted, and which are
// right; "" when they are.
func refuseKind(gvk schema.GroupVersionKind) string {
	scope := scopeOf(gvk.Group, gvk.Kind)
	if scope.Verdict != Out {
		if _, known := kube.Lookup(gvk); known {
			return ""
		}
	}
	for _, k := range kube.Named(gvk.Kind) {
		right := fmt.Sprintf("write apiVersion: %s and kind: %s", k.GroupVersion(), k.GroupVersionKind.Kind)
		switch {
		case k.Group == gvk.Group && k.GroupVersionKind.Kind == gvk.Kind && k.Version != gvk.Version:
			return fmt.Sprintf("%s is not served as %s; %s", gvk.Kind, gvk.GroupVersion(), right)
		case k.GroupVersionKind.Kind != gvk.Kind && strings.EqualFold(k.GroupVersionKind.Kind, gvk.Kind):
			return fmt.Sprintf("no kind is spelled %s; %s", gvk.Kind, right)
		case scope.Verdict == Out && k.Group != gvk.Group && kube.KubernetesGroup(gvk.Group):
			return fmt.Sprintf("there is no %s in %s; %s", gvk.Kind, gvk.GroupVersion(), right)
		}
	}
	return fmt.Sprintf("%s of %s is out of scope: %s", gvk.Kind, gvk.GroupVersion(), scope.Reason)
}
