package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/scheduler/place"
)

// A guard is a PodDisruptionBudget, and what one decision has left of it.
//
// What a decision takes away is charged to it once, whoever takes it. What the
// fleet does of its own will, see voluntary, waits until all else is charged.
// Pods that were told to go before are not counted as healthy any more.
//
// Source: Kubernetes, "Specifying a Disruption Budget for your Application" and
// "API-initiated Eviction".
type guard struct {
	value    *policyv1.PodDisruptionBudget
	selector labels.Selector
	pods     int
	owners   map[api.Identity]*workload // of the pods that it selects
	expected int
	desired  int
	healthy  int
	spare    int    // healthy pods beyond the desired ones; below zero when some lack
	problem  string // why it cannot be worked out
}

// guards are the budgets of a snapshot.
type guards struct {
	spaces map[string][]*guard  // by namespace
	kept   map[castKey][]*guard // by revision, where all its pods have the same labels
	asking map[askKey][]*guard  // by a label that they ask for, if they ask for one
	byName bool                 // a selector reads labels that tell the pods of a StatefulSet apart
}

// askKey is a label with its value; no label where a selector asks for none.
type askKey struct{ namespace, label, value string }

// voluntary reports whether a pod that goes for this reason goes because the
// fleet wants it to, and not because of Git, or of what it does itself.
func voluntary(reason string) bool {
	switch reason {
	case reasonDrained, reasonDouble, reasonBalanced, reasonUnmoved:
		return true
	}
	return false
}

// setGuards reads the budgets, and counts the pods that they select.
func (in *input) setGuards(snapshot api.Snapshot, workloads []workload, pods map[api.Identity][]*pod) {
	in.guards = guards{}
	for value := range api.Of[*policyv1.PodDisruptionBudget](snapshot) {
		if in.guards.spaces == nil {
			in.guards = guards{spaces: map[string][]*guard{}, kept: map[castKey][]*guard{}, asking: map[askKey][]*guard{}}
		}
		g := &guard{value: value, owners: map[api.Identity]*workload{}}
		var err error
		if g.selector, err = metav1.LabelSelectorAsSelector(value.Spec.Selector); err != nil {
			g.problem = err.Error()
			g.selector = labels.Nothing()
		}
		in.guards.byName = in.guards.byName || readsNames(g.selector)
		in.guards.spaces[value.Namespace] = append(in.guards.spaces[value.Namespace], g)
	}
	in.guards.index()
	for i := range workloads {
		w := &workloads[i]
		if len(in.guards.spaces[w.id.Namespace]) == 0 {
			continue
		}
		revision, list := "", []*guard(nil)
		for _, p := range pods[w.id] {
			if p.lost || p.ended() {
				continue
			}
			if list == nil || p.Revision != revision || !in.guards.alikeLabels(p.Kind) {
				in.castOf(w, p.Revision)
				revision, list = p.Revision, in.guardsOf(p)
			}
			for _, g := range list {
				g.owners[w.id] = w
				g.pods++
				if p.ready() {
					g.healthy++
				}
			}
		}
	}
	for _, list := range in.guards.spaces {
		for _, g := range list {
			g.workOut()
		}
	}
}

// guardsOf returns the budgets that select a pod.
func (in *input) guardsOf(p *pod) []*guard {
	list := in.guards.spaces[p.Namespace]
	if len(list) == 0 {
		return nil
	}
	key := castKey{p.Workload(), p.Revision}
	if kept, known := in.guards.kept[key]; known {
		return kept
	}
	set := labels.Set(in.labelsOf(p))
	out := matching(nil, in.guards.asking[askKey{namespace: p.Namespace}], set)
	for label, value := range set {
		out = matching(out, in.guards.asking[askKey{p.Namespace, label, value}], set)
	}
	slices.SortFunc(out, func(a, b *guard) int { return strings.Compare(a.value.Name, b.value.Name) })
	if in.guards.alikeLabels(p.Kind) {
		in.guards.kept[key] = out
	}
	return out
}

func matching(out, list []*guard, set labels.Set) []*guard {
	for _, g := range list {
		if g.selector.Matches(set) {
			out = append(out, g)
		}
	}
	return out
}

// alikeLabels reports whether all pods of one revision have the same labels, as
// far as selectors read them.
func (gs *guards) alikeLabels(kind string) bool {
	return kind != "Job" && kind != "CronJob" && (kind != "StatefulSet" || !gs.byName)
}

// readsNames reports whether a selector reads a label that the pods of a
// StatefulSet have each of its own.
func readsNames(selector labels.Selector) bool {
	requirements, _ := selector.Requirements()
	return slices.ContainsFunc(requirements, func(r labels.Requirement) bool {
		return r.Key() == appsv1.StatefulSetPodNameLabel || r.Key() == appsv1.PodIndexLabel
	})
}

// index puts each budget under the label of its selector that the fewest others
// ask for.
func (gs *guards) index() {
	asked := map[askKey]int{}
	for namespace, list := range gs.spaces {
		for _, g := range list {
			for label, value := range g.matchLabels() {
				asked[askKey{namespace, label, value}]++
			}
		}
	}
	for namespace, list := range gs.spaces {
		for _, g := range list {
			best := askKey{namespace: namespace}
			for _, label := range slices.Sorted(maps.Keys(g.matchLabels())) {
				if key := (askKey{namespace, label, g.matchLabels()[label]}); best.label == "" || asked[key] < asked[best] {
					best = key
				}
			}
			gs.asking[best] = append(gs.asking[best], g)
		}
	}
}

func (g *guard) matchLabels() map[string]string {
	if g.value.Spec.Selector == nil {
		return nil
	}
	return g.value.Spec.Selector.MatchLabels
}

// labelsOf returns the labels of a pod.
func (in *input) labelsOf(p *pod) map[string]string {
	c := in.castKnown(p.Pod)
	var out map[string]string
	switch {
	case c.mold != nil:
		out = c.mold.Labels
	case c.w != nil:
		out = podLabels(c.w, p.Revision)
	}
	if own := in.ownLabels(p); own != nil {
		return labels.Merge(out, own)
	}
	return out
}

// ownLabels are those of a pod that others of its revision do not have, as far as
// a selector of a budget reads them; nil for none.
func (in *input) ownLabels(p *pod) labels.Set {
	switch {
	case in.guards.alikeLabels(p.Kind):
		return nil
	case p.Kind == "StatefulSet":
		return labels.Set{appsv1.StatefulSetPodNameLabel: p.Name(), appsv1.PodIndexLabel: p.Slot}
	}
	name := p.JobName()
	out := labels.Set{batchv1.JobNameLabel: name, oldJobNameLabel: name}
	if fleet := in.authority.Fleet; fleet != "" {
		uid := string(api.UID(fleet, api.Key{Group: batchv1.GroupName, Kind: "Job", Namespace: p.Namespace, Name: name}))
		out[batchv1.ControllerUidLabel], out[oldControllerUIDLabel] = uid, uid
	}
	if slot, ok := api.ParseJobSlot(p.Slot); ok && slot.Indexed {
		out[batchv1.JobCompletionIndexAnnotation] = fmt.Sprint(slot.Index)
	}
	return out
}

// workOut works out how many pods there should be, and how many of them healthy.
// Percentages are rounded up. How many there should be is known of workloads that
// have a number of replicas only; for others minAvailable must be a number.
func (g *guard) workOut() {
	if g.problem != "" {
		return
	}
	spec := &g.value.Spec
	switch {
	case spec.MaxUnavailable != nil:
		g.expected = g.sum()
		may, err := intstr.GetScaledValueFromIntOrPercent(spec.MaxUnavailable, g.expected, true)
		g.desired = max(0, g.expected-may)
		g.note(err)
	case spec.MinAvailable != nil && spec.MinAvailable.Type == intstr.Int:
		g.expected, g.desired = g.pods, spec.MinAvailable.IntValue()
	case spec.MinAvailable != nil:
		g.expected = g.sum()
		var err error
		g.desired, err = intstr.GetScaledValueFromIntOrPercent(spec.MinAvailable, g.expected, true)
		g.note(err)
	}
	g.spare = g.healthy - g.desired
}

func (g *guard) note(err error) {
	if err != nil && g.problem == "" {
		g.problem = err.Error()
	}
}

// sum is how many pods the workloads want whose pods the budget selects. Bare
// pods belong to none.
func (g *guard) sum() int {
	n := 0
	var strangers []string
	for id, w := range g.owners {
		switch id.Kind {
		case "Deployment", "ReplicaSet", "ReplicationController", "StatefulSet":
			n += w.want + w.beyond
		case "Pod":
		default:
			strangers = append(strangers, id.Kind+" "+id.Namespace+"/"+id.Owner)
		}
	}
	if len(strangers) > 0 {
		slices.Sort(strangers)
		g.problem = strangers[0] + " has no number of replicas: use minAvailable with a number"
	}
	return n
}

// allowed is how many healthy pods the budget lets go.
func (g *guard) allowed() int {
	if g.problem != "" || g.expected <= 0 {
		return 0
	}
	return max(0, g.spare)
}

func (g *guard) String() string {
	return "PodDisruptionBudget " + g.value.Namespace + "/" + g.value.Name
}

// refusal says why a pod may not be disrupted now, "" when it may. coming is how
// many healthy pods there will be more by the time at which it would go.
func (in *input) refusal(p *pod, coming int) string {
	if p.node == "" || p.lost || p.ended() || p.state == nil || p.phase() == corev1.PodPending {
		return "" // nobody would miss it
	}
	list := in.guardsOf(p)
	switch {
	case len(list) == 0:
		return ""
	case len(list) > 1:
		names := make([]string, len(list))
		for i, g := range list {
			names[i] = g.value.Name
		}
		slices.Sort(names)
		return fmt.Sprintf("more than one PodDisruptionBudget selects pod %s/%s: %s", p.Namespace, p.Name(), strings.Join(names, ", "))
	}
	g := list[0]
	policy := g.value.Spec.UnhealthyPodEvictionPolicy
	switch {
	case !p.ready() && policy != nil && *policy == policyv1.AlwaysAllow:
		return ""
	case g.problem != "":
		return fmt.Sprintf("%s cannot be worked out: %s", g, g.problem)
	case !p.ready() && g.spare+coming >= 0:
		return ""
	case g.expected <= 0 || g.spare+coming <= 0:
		return fmt.Sprintf("%s allows no disruption", g)
	}
	return ""
}

// charge counts a pod that goes, once.
func (in *input) charge(p *pod) {
	if p.charged || !p.ready() || len(in.guards.spaces) == 0 {
		return
	}
	p.charged = true
	for _, g := range in.guardsOf(p) {
		g.spare--
	}
}

// mayLeave reports whether a pod may leave its node, which is drained, and
// charges it then. Where it may not, the reason is noted.
func (in *input) mayLeave(p *pod) bool {
	if p.granted {
		return true
	}
	if why := in.refusal(p, 0); why != "" {
		in.hinder(p, why)
		return false
	}
	p.granted = true
	in.charge(p)
	return true
}

// couldLeave is mayLeave for a pod about which is decided once all else is.
func (in *input) couldLeave(p *pod) bool {
	why := in.refusal(p, 0)
	if why != "" {
		in.hinder(p, why)
	}
	return why == ""
}

// mayBeReplaced reports whether the pods of a slot could leave their nodes once
// another pod is ready in their place.
func (in *input) mayBeReplaced(pods []*pod) bool {
	for _, p := range pods {
		if why := in.refusal(p, 1); why != "" {
			in.hinder(p, why)
			return false
		}
	}
	return true
}

// hinder notes why a pod stays on a node that is drained.
func (in *input) hinder(p *pod, why string) {
	if in.hindered == nil {
		in.hindered = map[string]api.Hindrance{}
	}
	in.hindered[p.Instance] = api.Hindrance{Pod: p.Pod, Node: p.node, Reason: why}
}

// budgets are how many pods each PodDisruptionBudget lets go now.
func (in *input) budgets() []place.Budget {
	var out []place.Budget
	for _, list := range in.guards.spaces {
		for _, g := range list {
			out = append(out, place.Budget{Namespace: g.value.Namespace, Selector: g.value.Spec.Selector, Allowed: int32(g.allowed())})
		}
	}
	slices.SortFunc(out, func(a, b place.Budget) int { return strings.Compare(a.Namespace, b.Namespace) })
	return out
}

// grant lets the pods go that the fleet wants to go, as far as budgets allow, and
// keeps the others.
func (r *round) grant() {
	for _, s := range r.asked {
		why := r.in.refusal(s.pod, 0)
		if why == "" {
			r.in.charge(s.pod)
			r.stops = append(r.stops, s)
			continue
		}
		if s.reason == reasonDrained {
			r.in.hinder(s.pod, why)
		}
		s.pod.stopped = false
		r.kept = append(r.kept, s.pod)
	}
}
