package runtime

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-dev/shoal/api"
)

// Desired is the whole state that this machine should be in. The zero Desired
// means "not known yet": it starts nothing and removes nothing. A Desired that
// was handed out is not changed afterwards.
type Desired struct {
	Known bool
	// Pods are the pods assigned to this node, sorted by Assignment.Pod.
	Pods []Pod
	// Remove names the instances that must go, sorted. Only these are ever
	// stopped for being unwanted; absence from Pods stops nothing.
	Remove []string
	// Leaving names the instances that will be in Remove once nothing leads to
	// them any more, sorted: what runs of them goes on, and nothing is started.
	Leaving []string
	// Upcoming are like the pods that will soon take the place of others here: their
	// images are fetched ahead. Nothing is ever started for them.
	Upcoming []*corev1.Pod
	// ImagePolicies say which images must be signed before a container is started
	// from them for the first time.
	ImagePolicies []api.ImagePolicy
	// ConfigMaps and Secrets are those that pods may refer to, and have credentials
	// for images in. Containers and volumes of a pod with a Config have that instead.
	ConfigMaps map[types.NamespacedName]*corev1.ConfigMap
	Secrets    map[types.NamespacedName]*corev1.Secret
	// Services are those whose addresses go into environment variables
	// (enableServiceLinks), with ClusterIP filled in.
	Services []*corev1.Service
	DNS      DNSConfig
	// Claims say who may run exclusive pods, and which nodes have the volumes of
	// claims, by Identity.String(); nil while that is not known.
	Claims map[string]api.ClaimHolder
	// Discard names persistent volumes of this node, by api.VolumeName, that are
	// to be deleted: a quorum has given them up. No other one ever is.
	Discard []string
	// Alone says that the fleet has no other node: exclusive pods need no lease
	// and no fence.
	Alone bool
	// LeaseUntil is until when exclusive pods may be started; zero when they
	// may not. The agent fills it in for every decision.
	LeaseUntil time.Time
}

// Pod is one pod that should run here.
type Pod struct {
	Assignment api.Assignment
	// Object is the pod as kubectl shows it, without a status worth the name:
	// name, namespace, UID (the instance), labels, annotations, the defaulted
	// spec with its nodeName, and the node's addresses in status.hostIP and
	// status.hostIPs.
	Object *corev1.Pod
	// Config is what the pod refers to where that is of its own revision; nil for
	// a pod that has the newest, Desired's, and follows it. It stays as it is for
	// as long as the instance lives.
	Config *Config
}

// Config is the configuration of one revision of a workload. What is not in it is
// not there.
type Config struct {
	ConfigMaps []*corev1.ConfigMap `json:"configMaps,omitempty"`
	Secrets    []*corev1.Secret    `json:"secrets,omitempty"`
}

// Instance returns the pod's UID.
func (p Pod) Instance() string { return p.Assignment.Pod.Instance }

// DNSConfig says how names are resolved in pods.
type DNSConfig struct {
	Server     string // address of the cluster's DNS; "" when there is none
	Domain     string // "cluster.local"
	NodeConfig string // path of the node's own resolv.conf; "" means /etc/resolv.conf
}

// Lookup returns the pod with this instance.
func (d Desired) Lookup(instance string) (Pod, bool) {
	for _, p := range d.Pods {
		if p.Instance() == instance {
			return p, true
		}
	}
	return Pod{}, false
}

// Removes reports whether the instance must go.
func (d Desired) Removes(instance string) bool {
	_, found := slices.BinarySearch(d.Remove, instance)
	return found
}

// Leaves reports whether the instance is about to go.
func (d Desired) Leaves(instance string) bool {
	_, found := slices.BinarySearch(d.Leaving, instance)
	return found
}

// Only returns the part of d that regards one instance. Decisions about pods
// are independent: deciding each part decides the whole.
func (d Desired) Only(instance string) Desired {
	out := d
	out.Pods, out.Remove, out.Leaving = nil, nil, nil
	if p, found := d.Lookup(instance); found {
		out.Pods = []Pod{p}
	}
	if d.Removes(instance) {
		out.Remove = []string{instance}
	}
	if d.Leaves(instance) {
		out.Leaving = []string{instance}
	}
	return out
}
