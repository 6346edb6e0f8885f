package api

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A Mold is what placing has to know of the pods of one revision of a template when
// their spec is not at hand: what they mean to other pods, and which nodes they may
// have. It is kept once for each revision in use, not once for each pod.
type Mold struct {
	Namespace string            `json:"namespace"`
	Workload  Identity          `json:"workload,omitzero"` // without a slot; no owner, no spreading by default
	Labels    map[string]string `json:"labels,omitempty"`
	Priority  int32             `json:"priority,omitempty"`
	// Requests are whole numbers: CPU in thousandths, everything else in its
	// base unit.
	Requests map[corev1.ResourceName]int64 `json:"requests,omitempty"`
	// Weighed is what counts in scores: requests of CPU and memory with 100
	// thousandths and 200 MiB for every container that requests none.
	Weighed map[corev1.ResourceName]int64 `json:"weighed,omitempty"`
	// Limits are as Requests; Class is the name of the PriorityClass, and Bounded
	// says that the pod ends after a time: quotas ask for them.
	Limits    map[corev1.ResourceName]int64 `json:"limits,omitempty"`
	Class     string                        `json:"class,omitempty"`
	Bounded   bool                          `json:"bounded,omitempty"`
	HostPorts []HostPort                    `json:"hostPorts,omitempty"`
	Apart     []MoldTerm                    `json:"apart,omitempty"`     // required anti-affinity
	Together  []MoldTerm                    `json:"together,omitempty"`  // required affinity, which attracts others
	Preferred []MoldTerm                    `json:"preferred,omitempty"` // preferred affinity and anti-affinity
	Volumes   []MoldVolume                  `json:"volumes,omitempty"`   // claims for volumes that the pods use
	// Containers are what each container requests that runs as long as the pod.
	Containers map[string]map[corev1.ResourceName]int64 `json:"containers,omitempty"`
	Nodes      NodeRules                                `json:"nodes,omitzero"`
}

// NodeRules say which nodes the pods of a template may have, and which they would
// rather have, in the words of its spec.
type NodeRules struct {
	Name        string                            `json:"name,omitempty"`
	Selector    map[string]string                 `json:"selector,omitempty"`
	Affinity    *corev1.NodeAffinity              `json:"affinity,omitempty"`
	Tolerations []corev1.Toleration               `json:"tolerations,omitempty"`
	Spread      []corev1.TopologySpreadConstraint `json:"spread,omitempty"`
	Images      []string                          `json:"images,omitempty"`  // that the pods need, with their tags
	Patient     bool                              `json:"patient,omitempty"` // they preempt nobody
}

// A MoldVolume is a claim for a volume that pods of one revision use.
type MoldVolume struct {
	Claim string `json:"claim"`
	// Each says that every pod has a claim of its own, which Claim begins the
	// name of, as with the volumeClaimTemplates of a StatefulSet.
	Each bool `json:"each,omitempty"`
}

// Of returns the claim that a pod uses.
func (v MoldVolume) Of(p Identity) Identity {
	name := v.Claim
	if v.Each {
		name += "-" + p.Owner + "-" + p.Slot
	}
	return VolumeClaim(p.Namespace, name)
}

// A MoldTerm selects pods, and says how near counts as together. Whether it brings
// pods together or keeps them apart depends on where it stands in a Mold.
// Keys of labels that the template's own labels answer (matchLabelKeys,
// mismatchLabelKeys) are part of its selector.
type MoldTerm struct {
	TopologyKey       string                `json:"topologyKey"`
	Selector          *metav1.LabelSelector `json:"selector,omitempty"` // nil selects nothing
	Namespaces        []string              `json:"namespaces,omitempty"`
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	Weight            int32                 `json:"weight,omitempty"` // of a preference; below zero it keeps apart
}

// HostPort is a port of the node that a pod occupies.
type HostPort struct {
	Protocol corev1.Protocol `json:"protocol"`
	IP       string          `json:"ip,omitempty"` // "" for all addresses
	Port     int32           `json:"port"`
}

// MoldKey names the mold of a pod in AssignmentSet.Molds.
func (p Pod) MoldKey() string { return p.Workload().String() + "@" + p.Revision }
