package api

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// AssignmentSet is everything that one leader has decided: which pods exist and
// where, and which instances must go. It is a whole state, not a change. Of two
// sets, a quorate one beats an acting one, then the higher (Epoch, Term) wins.
type AssignmentSet struct {
	Epoch   uint64 `json:"epoch"`
	Term    uint64 `json:"term"`
	Quorate bool   `json:"quorate"`
	Leader  string `json:"leader"`
	// BasedOn is the newest record of each node that the leader had seen. A
	// node obeys Remove only for instances it had reported by then.
	BasedOn map[string]Seq `json:"basedOn,omitempty"`
	Pods    []Assignment   `json:"pods"`              // sorted by Pod
	Remove  []Removal      `json:"remove"`            // sorted by instance; absence from Pods alone stops nothing
	Pending []Unplaced     `json:"pending,omitempty"` // wanted pods without a node, sorted by Pod
	// Molds say what the pods of each revision in use take from their nodes and
	// mean to others, by Pod.MoldKey: a leader that does not hold the template of
	// an older revision still knows how full a node is.
	Molds map[string]Mold `json:"molds,omitempty"`
}

// Known reports whether a leader ever decided anything: the zero set is no
// decision.
func (s AssignmentSet) Known() bool { return s.Leader != "" }

// Removes reports whether the set tells a node to stop this instance.
func (s AssignmentSet) Removes(instance string) bool {
	_, found := slices.BinarySearchFunc(s.Remove, instance, func(r Removal, i string) int {
		return strings.Compare(r.Assignment.Pod.Instance, i)
	})
	return found
}

// Removal tells a node to stop one instance. It keeps the assignment, so that
// the node still finds the template whose hooks and grace period it must
// honor, and the leader what the pod occupies until it is gone.
type Removal struct {
	Assignment Assignment `json:"assignment"`
	At         time.Time  `json:"at"` // when it was first decided
	// Seen reports whether its node has shown the instance since it was
	// assigned: one that was seen and is no longer shown is gone.
	Seen   bool   `json:"seen,omitempty"`
	Reason string `json:"reason"`
}

// Assignment gives one pod to one node. It carries no spec: the node looks the
// revision up in the unit's commit, which it verified itself.
type Assignment struct {
	Pod     Pod       `json:"pod"`
	Node    string    `json:"node"`
	Unit    string    `json:"unit"`
	Commit  Commit    `json:"commit"` // one that holds the template of Pod.Revision
	Claim   Claim     `json:"claim,omitzero"`
	Created time.Time `json:"created"`
	Reason  string    `json:"reason"` // why it exists and why here, see package scheduler
	// Ended is how the pod has ended, "" while it has not. It stays for its
	// logs, occupies nothing, and never starts again, whatever its node still
	// has of it.
	Ended corev1.PodPhase `json:"ended,omitempty"`
}

// Unplaced is a pod that should exist and has no node.
type Unplaced struct {
	Pod     Pod       `json:"pod"`
	Unit    string    `json:"unit"`
	Commit  Commit    `json:"commit"`
	Created time.Time `json:"created"`
	Why     string    `json:"why"`    // why it should exist, see Assignment.Reason
	Reason  string    `json:"reason"` // "0/3 nodes are available: 3 Insufficient memory."
	// Nominated is the node on which other pods were told to go for this one.
	Nominated string `json:"nominated,omitempty"`
}

// Claim is the right to run an exclusive identity, granted by consensus.
// Claims are ordered by (Epoch, Index). The zero Claim is none.
type Claim struct {
	Epoch uint64 `json:"epoch"`
	Index uint64 `json:"index"`
}

// Less reports whether c was granted before other.
func (c Claim) Less(other Claim) bool {
	if c.Epoch != other.Epoch {
		return c.Epoch < other.Epoch
	}
	return c.Index < other.Index
}

// Facts is the scheduler's memory: what it must know of the past to decide the
// same way as the leader before it. It comes in and goes out of Schedule and
// travels with the assignments. Versioned by (Term, Seq). Losing it costs
// history and deadlines, never a pod.
type Facts struct {
	Term      uint64                    `json:"term"`
	Seq       uint64                    `json:"seq"`
	Minted    uint64                    `json:"minted"`              // instances made so far; no two are made of the same number
	Created   map[string]time.Time      `json:"created,omitempty"`   // first seen, by Key.String() of the object
	Rollouts  map[string]Rollout        `json:"rollouts,omitempty"`  // by Identity.String() of the workload
	Addresses map[string]ServiceAddress `json:"addresses,omitempty"` // by namespace/name of the Service
	Jobs      map[string]JobRun         `json:"jobs,omitempty"`      // by Identity.String() of the Job
	CronJobs  map[string]CronRuns       `json:"cronJobs,omitempty"`  // by Identity.String() of the CronJob
	Volumes   map[string]Volume         `json:"volumes,omitempty"`   // by Identity.String() of the claim, see VolumeClaim
	// Discards are volumes that nobody wants any more and that their nodes are to
	// delete, sorted by name.
	Discards []Discard `json:"discards,omitempty"`
	// Autoscalers are what became of HorizontalPodAutoscalers, by namespace/name.
	Autoscalers map[string]Autoscaling `json:"autoscalers,omitempty"`
	// Replaced are the recent starts of pods in the place of lost ones, oldest
	// first: the storm brake counts them.
	Replaced []Replacement `json:"replaced,omitempty"`
	// Away are the nodes that were lost or had left: with the zero time while
	// they are, then for a while with the time at which they came back.
	Away map[string]time.Time `json:"away,omitempty"`
	// Tainted is since when each node has each of its taints that end pods, by
	// "node key=value".
	Tainted map[string]time.Time `json:"tainted,omitempty"`
	// Balance is what is remembered of moving pods to nodes with more room.
	Balance Balance `json:"balance,omitzero"`
	// Hindered are the pods that stay on nodes that are drained, by instance.
	Hindered map[string]Hindrance `json:"hindered,omitempty"`
}

// Balance is how far the fleet is with moving pods to nodes with more room. It is
// zero where nobody asks for that.
type Balance struct {
	Calm time.Time `json:"calm,omitzero"` // since when nothing else has happened; zero while something does
	Rest time.Time `json:"rest,omitzero"` // when the last move was over
	// Move is the one that is under way; it has no pod when none is.
	Move Move `json:"move,omitzero"`
	// Failed are workloads of which a pod was moved and did not become available
	// in its time, by Identity.String(). They are left alone for a while.
	Failed map[string]FailedMove `json:"failed,omitempty"`
}

// Move is a pod that takes the place of one on another node.
type Move struct {
	Pod   Pod       `json:"pod"` // the new one
	Old   string    `json:"old"` // instance that goes once the new one is available
	Since time.Time `json:"since"`
}

// FailedMove is the revision of a pod that could not be moved, and when that was.
type FailedMove struct {
	Revision string    `json:"revision"`
	At       time.Time `json:"at"`
}

// Equal reports whether two memories are the same.
func (b Balance) Equal(o Balance) bool {
	return b.Calm.Equal(o.Calm) && b.Rest.Equal(o.Rest) && b.Move.Pod == o.Move.Pod && b.Move.Old == o.Move.Old && b.Move.Since.Equal(o.Move.Since) &&
		maps.EqualFunc(b.Failed, o.Failed, func(x, y FailedMove) bool { return x.Revision == y.Revision && x.At.Equal(y.At) })
}

// Hindrance says why a pod does not leave a node that is drained.
type Hindrance struct {
	Pod    Pod    `json:"pod"`
	Node   string `json:"node"`
	Reason string `json:"reason"` // "PodDisruptionBudget default/db allows no disruption"
}

// Replacement is a number of pods that were started at one time in the place of
// lost ones.
type Replacement struct {
	At   time.Time `json:"at"`
	Pods int       `json:"pods"`
}

// Rollout is the history of one workload and the state of its current rollout.
type Rollout struct {
	Revision string    `json:"revision"` // the one being rolled out, or in force
	Started  time.Time `json:"started"`
	// Progressed is the last time at which a pod of the new revision became
	// available or an old one went; the progress deadline counts from it.
	Progressed time.Time `json:"progressed"`
	Complete   bool      `json:"complete,omitempty"`
	// Current is the revision that the pods had before this rollout: the last one
	// of which a rollout was complete. Those below the partition of a StatefulSet
	// keep it. It is Revision once the rollout is complete.
	Current string `json:"current,omitempty"`
	Failed  bool   `json:"failed,omitempty"` // the progress deadline passed
	// Held says that nothing may be done about the rollout now: it is paused, or
	// the leader has no quorum. The progress deadline counts from when that is over.
	Held bool `json:"held,omitempty"`
	// Back says that the pods got Current again because the rollout has failed,
	// see FleetSpec.OnFailedRollout.
	Back bool `json:"back,omitempty"`
	// Mark is what the scheduler compares to see progress: (updated, available) pods.
	Mark [2]int32 `json:"mark"`
	// History lists the revisions that were in force, oldest first, the
	// current one last; it is cut to revisionHistoryLimit, but for Current.
	History []Revision `json:"history,omitempty"`
}

// Revision is one template that a workload had.
type Revision struct {
	Revision string    `json:"revision"`
	Number   int64     `json:"number"` // 1, 2, ...: kubectl's deployment.kubernetes.io/revision
	Unit     string    `json:"unit"`
	Commit   Commit    `json:"commit"`
	Since    time.Time `json:"since"`
}

// ServiceAddress is what was allocated to a Service. Once given, an address
// stays until the Service goes.
type ServiceAddress struct {
	ClusterIP string           `json:"clusterIP,omitempty"`
	NodePorts map[string]int32 `json:"nodePorts,omitempty"` // by "protocol/port"
}

// Equal reports whether two addresses are the same. No ports may be nil or empty.
func (a ServiceAddress) Equal(other ServiceAddress) bool {
	return a.ClusterIP == other.ClusterIP && maps.Equal(a.NodePorts, other.NodePorts)
}

// Event is something that happened to an object, for people.
type Event struct {
	Time    time.Time
	Type    string // corev1.EventTypeNormal or corev1.EventTypeWarning
	Reason  string // one CamelCase word, Kubernetes' own where it has one
	Message string
	Source  string                 // the room that says it: "gitsync", "scheduler", "runtime", "policy"
	Regards corev1.ObjectReference // Kind, Namespace, Name and, for pods, UID (the instance)
}
