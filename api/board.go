package api

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Seq orders the records of one node: the newest (Boot, N) wins. Boot is the
// time at which the node's daemon first wrote a record, in Unix nanoseconds; N
// grows by one with every record.
type Seq struct {
	Boot int64  `json:"boot"`
	N    uint64 `json:"n"`
}

// Less reports whether s is older than other.
func (s Seq) Less(other Seq) bool {
	if s.Boot != other.Boot {
		return s.Boot < other.Boot
	}
	return s.N < other.N
}

// NodeInfo is what a node says of itself. It is written by that node only, and
// only when something changed.
type NodeInfo struct {
	Seq       Seq                  `json:"seq"`
	Name      string               `json:"name"`
	Addresses []corev1.NodeAddress `json:"addresses"`
	Peer      string               `json:"peer,omitempty"` // host:port at which its peers reach it
	// Network is the range of the network in which its internal address lies, as
	// its link says; "" when no link does.
	Network string            `json:"network,omitempty"`
	PodCIDR string            `json:"podCIDR"`
	Labels  map[string]string `json:"labels,omitempty"`
	Taints  []corev1.Taint    `json:"taints,omitempty"`
	// Unschedulable keeps new pods away; what runs stays. Draining also moves
	// what runs to other nodes, but for the pods of DaemonSets.
	Unschedulable bool                    `json:"unschedulable,omitempty"`
	Draining      bool                    `json:"draining,omitempty"`
	Capacity      corev1.ResourceList     `json:"capacity"`
	Allocatable   corev1.ResourceList     `json:"allocatable"`
	System        corev1.NodeSystemInfo   `json:"system"`
	Conditions    []corev1.NodeCondition  `json:"conditions,omitempty"`
	Units         map[string]Commit       `json:"units,omitempty"`  // accepted commit of each sync unit
	Tips          map[string]Commit       `json:"tips,omitempty"`   // newest commit seen of each sync unit
	Images        []corev1.ContainerImage `json:"images,omitempty"` // present on the node
	// Volumes are the names of those that are on its disk, see VolumeName, sorted.
	Volumes []string `json:"volumes,omitempty"`
}

// PodStates is what a node says of its pods: everything that routing and
// scheduling need, a digest and never a spec. Written by that node only.
type PodStates struct {
	Seq  Seq    `json:"seq"`
	Node string `json:"node"`
	// BootID is that of the machine when it said so, see corev1.NodeSystemInfo.
	BootID string     `json:"bootID,omitempty"`
	Pods   []PodState `json:"pods"` // sorted by Pod; every pod the machine holds, wanted or not
}

// After returns what is left of the states once the machine says that it is of a
// certain boot: nothing that ran before runs now, whatever the machine says of it
// when it has looked.
func (s PodStates) After(bootID string) PodStates {
	if bootID == "" || s.BootID == "" || s.BootID == bootID {
		return s
	}
	pods := slices.Clone(s.Pods)
	for i := range pods {
		pods[i].Ready, pods[i].ReadyAt = false, time.Time{}
	}
	s.Pods = pods
	return s
}

// PodState is the digest of one pod on its node.
type PodState struct {
	Pod      Pod             `json:"pod"`
	Commit   Commit          `json:"commit"` // from which the running template was taken
	Unit     string          `json:"unit"`
	Phase    corev1.PodPhase `json:"phase"`
	Ready    bool            `json:"ready"`
	Stopping bool            `json:"stopping,omitempty"` // its termination has begun: no traffic any more
	IP       string          `json:"ip,omitempty"`
	Restarts int32           `json:"restarts,omitempty"`
	ExitCode int32           `json:"exitCode,omitempty"` // of the first failed container, once the pod has failed
	Reason   string          `json:"reason,omitempty"`   // "CrashLoopBackOff", "ImagePullBackOff", ...
	Message  string          `json:"message,omitempty"`
	Started  time.Time       `json:"started,omitzero"`
	ReadyAt  time.Time       `json:"readyAt,omitzero"` // since when it has been ready without a break
	Claim    Claim           `json:"claim,omitzero"`
	// Containers are those that the rest does not say all of: see
	// runtime.Containers. A pod that is well has none.
	Containers []ContainerState `json:"containers,omitempty"`
}

// ContainerState is one container of a PodState.
type ContainerState struct {
	Name     string    `json:"name"`
	Init     bool      `json:"init,omitempty"`
	Running  bool      `json:"running,omitempty"`
	Ready    bool      `json:"ready,omitempty"`
	Restarts int32     `json:"restarts,omitempty"`
	Since    time.Time `json:"since,omitzero"` // it runs
	// Waiting and Message are why it waits, when it does.
	Waiting string `json:"waiting,omitempty"`
	Message string `json:"message,omitempty"`
	// Ended is how it ended, when it neither runs nor waits; Before is how the
	// run before this one did.
	Ended  *ContainerEnd `json:"ended,omitempty"`
	Before *ContainerEnd `json:"before,omitempty"`
	// Debug says that the pod's template does not name it: somebody added it to
	// look into the pod.
	Debug *DebugContainer `json:"debug,omitempty"`
}

// DebugContainer is what nodes tell of a container that was added to a pod.
type DebugContainer struct {
	Image  string `json:"image"`
	Target string `json:"target,omitempty"` // the container whose processes it sees
	Stdin  bool   `json:"stdin,omitempty"`
	TTY    bool   `json:"tty,omitempty"`
}

// ContainerEnd is how a run of a container ended.
type ContainerEnd struct {
	ExitCode int32     `json:"exitCode"`
	Reason   string    `json:"reason,omitempty"`
	Message  string    `json:"message,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
}

// Usage is what a node and its pods consume.
type Usage struct {
	Node string                         `json:"node"`
	Time time.Time                      `json:"time"`
	Used corev1.ResourceList            `json:"used"`
	Pods map[string]corev1.ResourceList `json:"pods,omitempty"` // by instance
	// Containers are those of pods of which somebody asked for it, by instance
	// and name.
	Containers map[string]map[string]corev1.ResourceList `json:"containers,omitempty"`
	// Window is how long a measurement of processor time takes, and how far
	// apart two of them are.
	Window time.Duration `json:"window,omitempty"`
}

// NodeStatus says whether a node is heard of. It is judged by the leader, from
// leases, and never by the node itself.
type NodeStatus string

// The states of a node. Only Lost and Left move pods: a Suspect node gets no new
// ones, and nothing else happens to it.
const (
	NodeAlive   NodeStatus = "Alive"   // it renews its lease
	NodeSuspect NodeStatus = "Suspect" // it does not, and peers are being asked
	NodeLost    NodeStatus = "Lost"    // nobody reaches it; its pods may run on
	NodeLeft    NodeStatus = "Left"    // it said good-bye or was removed
)

// NodeHealth is the leader's judgement of one node.
type NodeHealth struct {
	Node   string     `json:"node"`
	Status NodeStatus `json:"status"`
	Since  time.Time  `json:"since"` // when it came to have this status
	// Unstable marks a node that came and went too often: it gets no new pods
	// and keeps what runs.
	Unstable bool `json:"unstable,omitempty"`
}

// Gone reports whether the node's pods count as gone.
func (h NodeHealth) Gone() bool { return h.Status == NodeLost || h.Status == NodeLeft }

// ClaimHolder is who may run an exclusive identity, as consensus granted it.
type ClaimHolder struct {
	Claim Claim  `json:"claim"`
	Node  string `json:"node"`
	// Released says that the holder cannot be running the identity any more,
	// though it is not heard of: its lease ended long enough ago for its fencer
	// to have done its work. The claim may then be granted to another node. It
	// is false again as soon as the holder is heard of.
	Released bool `json:"released,omitempty"`
}

// Former reports whether the holder was removed from the fleet: it is then called
// as no node can be. It never comes back by that name.
func (h ClaimHolder) Former() bool { return strings.Contains(h.Node, " ") }

// Board is the observed state of the whole fleet, as far as this node has heard.
type Board struct {
	Nodes    []NodeInfo    // sorted by name
	Pods     []PodStates   // sorted by node; a node without one has not reported yet
	Usage    []Usage       // sorted by node
	Health   []NodeHealth  // sorted by node; a node without an entry is alive
	Assigned AssignmentSet // the last one published; zero when none is known
	// Claims are the exclusive identities that were granted, and the claims for
	// volumes with the nodes that have them, by Identity.String().
	Claims map[string]ClaimHolder
	// ConnectivityChecked is when the leader last made sure that it is not the
	// leader itself that is cut off.
	ConnectivityChecked time.Time
}

// HealthOf returns the judgement on a node; one that nobody judged is alive.
func (b Board) HealthOf(name string) NodeHealth {
	for _, h := range b.Health {
		if h.Node == name {
			return h
		}
	}
	return NodeHealth{Node: name, Status: NodeAlive}
}

// Node returns the record of a node.
func (b Board) Node(name string) (NodeInfo, bool) {
	for _, n := range b.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return NodeInfo{}, false
}
