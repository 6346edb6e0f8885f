package daemon

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gossip/fleet"
	"github.com/shoal-dev/shoal/policy"
	"github.com/shoal-dev/shoal/scheduler"
)

// A view is what this node believes at one moment: the answer to every question
// of the API, the input of the traffic rules. It is immutable.
type view struct {
	fleet    string
	node     api.NodeInfo
	snapshot api.Snapshot
	board    api.Board // board.Assigned is the decision in force
	facts    api.Facts
	company  fleet.View // who is there and who leads
	units    []api.UnitStatus
	pods     []podView // sorted by namespace and name
	observed bool      // the machine's pods have been listed since the daemon started
	now      time.Time // of the decision
	// conflicts are the Services that have no address.
	conflicts []policy.Conflict
	// published is when all of this was decided and handed on.
	published time.Time
}

// A podView is a pod that was decided on, with what is known of it.
type podView struct {
	pod     api.Pod
	object  *corev1.Pod // with its status; nil when its template cannot be found
	state   *api.PodState
	node    string
	removed bool // told to stop
	lost    bool // its node is lost: what it said last says nothing any more
}

// trafficPods is the part of the view that concerns traffic.
func (v *view) trafficPods() []policy.Pod {
	out := make([]policy.Pod, 0, len(v.pods))
	highest := v.claims()
	for _, p := range v.pods {
		if p.object == nil || p.state == nil {
			continue
		}
		ip, _ := netip.ParseAddr(p.state.IP)
		out = append(out, policy.Pod{
			Object: p.object, IP: ip, Node: p.node,
			Ready: p.state.Ready && !p.state.Stopping && !p.removed && !v.board.HealthOf(p.node).Gone() &&
				!p.state.Claim.Less(highest[p.pod.Identity]),
		})
	}
	return out
}

// claims returns the highest claim under which each exclusive identity is run or
// may be. Traffic goes to no pod with a lower one: its machine may be frozen, and
// not know yet that another has its place.
func (v *view) claims() map[api.Identity]api.Claim {
	out := map[api.Identity]api.Claim{}
	note := func(id api.Identity, claim api.Claim) {
		if out[id].Less(claim) {
			out[id] = claim
		}
	}
	for _, p := range v.pods {
		if p.state != nil {
			note(p.pod.Identity, p.state.Claim)
		}
		note(p.pod.Identity, v.board.Claims[p.pod.Identity.String()].Claim)
	}
	return out
}

// services works out who answers for each Service.
func (v *view) services() []policy.Service {
	var objects []*corev1.Service
	for service := range api.Of[*corev1.Service](v.snapshot) {
		shown := policy.WithAddress(service, v.facts.Addresses[service.Namespace+"/"+service.Name])
		v.stamp(shown)
		objects = append(objects, shown)
	}
	return policy.Endpoints(objects, v.facts.Addresses, v.trafficPods())
}

// objects lists everything that the API shows but events: what Git says with
// the status it has here, and what follows from it. The objects are shared.
func (v *view) objects(shown *wardrobe, at func(unit string, commit api.Commit) api.Snapshot) []api.KubeObject {
	out := shown.dress(v)
	add := func(object api.KubeObject) { out = append(out, v.dressed(object)) }
	for _, object := range scheduler.Workloads(v.fleet, v.snapshot, at, v.board, v.facts, v.now) {
		add(object)
	}
	for _, object := range scheduler.Volumes(v.fleet, v.snapshot, v.board, v.facts, v.now) {
		add(object)
	}
	for _, p := range v.pods {
		if p.object != nil {
			out = append(out, p.object)
		}
	}
	for _, s := range v.services() {
		add(s.Object)
		for _, object := range policy.Objects(v.fleet, &s) {
			add(object)
		}
	}
	out = append(out, v.namespaces()...)
	for i := range v.board.Nodes {
		out = append(out, v.nodeObject(&v.board.Nodes[i]))
	}
	return out
}

func isWorkload(kind string) bool {
	return slices.Contains([]string{"Deployment", "ReplicaSet", "ReplicationController", "DaemonSet", "StatefulSet", "Job", "CronJob"}, kind)
}

// dressed returns the object with the metadata that an API server adds: UID and
// creation time.
func (v *view) dressed(object api.KubeObject) api.KubeObject {
	created := object.GetCreationTimestamp()
	if object.GetUID() != "" && !created.IsZero() {
		return object
	}
	out, ok := object.DeepCopyObject().(api.KubeObject)
	if !ok {
		return object // every KubeObject's copy is one
	}
	v.stamp(out)
	return out
}

// stamp writes UID and creation time into an object that is not shared.
func (v *view) stamp(object api.KubeObject) {
	gvk := object.GetObjectKind().GroupVersionKind()
	key := api.Key{Group: gvk.Group, Kind: gvk.Kind, Namespace: object.GetNamespace(), Name: object.GetName()}
	if object.GetUID() == "" {
		object.SetUID(api.UID(v.fleet, key))
	}
	created := object.GetCreationTimestamp()
	if t, known := v.facts.Created[key.String()]; known && created.IsZero() {
		object.SetCreationTimestamp(metav1.NewTime(t.Truncate(time.Second)))
	}
}

// namespaces lists the namespaces that objects are in and that no object of the
// repository declares: a namespace need not be declared.
func (v *view) namespaces() []api.KubeObject {
	names := map[string]bool{metav1.NamespaceDefault: true}
	for object := range v.snapshot.Objects() {
		if ns := object.Value.GetNamespace(); ns != "" {
			names[ns] = true
		}
	}
	for namespace := range api.Of[*corev1.Namespace](v.snapshot) {
		delete(names, namespace.Name)
	}
	var out []api.KubeObject
	for name := range names {
		key := api.Key{Kind: "Namespace", Name: name}
		out = append(out, &corev1.Namespace{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
			ObjectMeta: metav1.ObjectMeta{
				Name: name, UID: api.UID(v.fleet, key), Labels: map[string]string{corev1.LabelMetadataName: name},
				CreationTimestamp: metav1.NewTime(v.oldest(name).Truncate(time.Second)),
			},
			Spec:   corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}},
			Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
		})
	}
	slices.SortFunc(out, func(a, b api.KubeObject) int { return compareNames(a, b) })
	return out
}

// oldest is when the first object of a namespace was seen.
func (v *view) oldest(namespace string) time.Time {
	oldest := v.now
	for object := range v.snapshot.Objects() {
		if object.Value.GetNamespace() != namespace {
			continue
		}
		if t, known := v.facts.Created[object.Key().String()]; known && t.Before(oldest) {
			oldest = t
		}
	}
	return oldest
}

func compareNames(a, b api.KubeObject) int {
	if a.GetName() < b.GetName() {
		return -1
	}
	return 1
}

// nodeObject shows a node's record as Kubernetes' Node.
func (v *view) nodeObject(n *api.NodeInfo) *corev1.Node {
	key := api.Key{Kind: "Node", Name: n.Name}
	out := &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{
			Name: n.Name, UID: api.UID(v.fleet, key), Labels: n.Labels,
			CreationTimestamp: metav1.NewTime(v.facts.Created[key.String()].Truncate(time.Second)),
		},
		Spec: corev1.NodeSpec{PodCIDR: n.PodCIDR, PodCIDRs: []string{n.PodCIDR}, Taints: n.Taints},
		Status: corev1.NodeStatus{
			Capacity: n.Capacity, Allocatable: n.Allocatable, Conditions: n.Conditions, Addresses: n.Addresses,
			NodeInfo: n.System, Images: n.Images,
		},
	}
	out.Annotations = v.usageOf(n.Name)
	out.Spec.Unschedulable = n.Unschedulable || n.Draining
	if health := v.board.HealthOf(n.Name); health.Gone() {
		out.Status.Conditions = unheardOf(n.Conditions, health)
	}
	return out
}

// where finds the object in Git that a user must change in order to change what
// the API shows under this kind and name.
func (v *view) where(kind, namespace, name string) (api.Key, api.Source, bool) {
	if v == nil {
		return api.Key{}, api.Source{}, false
	}
	for object := range v.snapshot.Objects() {
		key := object.Key()
		if key.Kind == kind && key.Namespace == namespace && key.Name == name {
			return key, object.Source, true
		}
	}
	switch kind {
	case "Pod":
		for _, p := range v.pods {
			if p.pod.Namespace == namespace && p.pod.Name() == name && p.pod.Kind != "Pod" {
				return v.where(p.pod.Kind, namespace, p.pod.Owner)
			}
		}
	case "PersistentVolumeClaim":
		return v.whoClaims(namespace, name)
	case "Job":
		if i := strings.LastIndex(name, "-"); i > 0 {
			return v.where("CronJob", namespace, name[:i])
		}
	case "ReplicaSet":
		if i := strings.LastIndex(name, "-"); i > 0 {
			return v.where("Deployment", namespace, name[:i])
		}
	case "Endpoints":
		return v.where("Service", namespace, name)
	case "EndpointSlice":
		if i := strings.LastIndex(name, "-"); i > 0 {
			return v.where("Service", namespace, name[:i])
		}
	}
	return api.Key{}, api.Source{}, false
}

// whoClaims finds the StatefulSet that made a claim for a volume.
func (v *view) whoClaims(namespace, name string) (api.Key, api.Source, bool) {
	known := v.facts.Volumes[api.VolumeClaim(namespace, name).String()]
	if known.Set == "" {
		return api.Key{}, api.Source{}, false
	}
	return v.where("StatefulSet", namespace, known.Set)
}

// deletionTime is when a removed pod must be gone: its grace period after it
// was told to stop.
func deletionTime(grace *int64, told time.Time) metav1.Time {
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if grace != nil {
		seconds = *grace
	}
	return metav1.NewTime(told.Add(time.Duration(seconds) * time.Second).Truncate(time.Second))
}

// countProblems tells mistakes from warnings.
func countProblems(problems []api.Invalid) (mistakes, warnings int) {
	for _, p := range problems {
		if p.Warning {
			warnings++
		} else {
			mistakes++
		}
	}
	return mistakes, warnings
}
