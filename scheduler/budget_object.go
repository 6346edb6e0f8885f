package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
)

// budgetObjects are the PodDisruptionBudgets with the status that Kubernetes'
// disruption controller would have given them. When a condition changed is not
// remembered: it is dated with the budget.
func (in *input) budgetObjects() []api.KubeObject {
	var out []api.KubeObject
	for _, namespace := range slices.Sorted(maps.Keys(in.guards.spaces)) {
		for _, g := range in.guards.spaces[namespace] {
			object := *g.value
			object.Status = policyv1.PodDisruptionBudgetStatus{
				CurrentHealthy: int32(g.healthy), DesiredHealthy: int32(g.desired), DisruptionsAllowed: int32(g.allowed()), ExpectedPods: int32(g.expected),
				Conditions: []metav1.Condition{g.condition(in.facts.Created)},
			}
			out = append(out, &object)
		}
	}
	return out
}

func (g *guard) condition(created map[string]time.Time) metav1.Condition {
	key := api.Key{Group: "policy", Kind: "PodDisruptionBudget", Namespace: g.value.Namespace, Name: g.value.Name}
	c := metav1.Condition{Type: policyv1.DisruptionAllowedCondition, LastTransitionTime: metav1.NewTime(created[key.String()].Truncate(time.Second))}
	switch {
	case g.problem != "":
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, policyv1.SyncFailedReason, g.problem
	case g.allowed() > 0:
		c.Status, c.Reason = metav1.ConditionTrue, policyv1.SufficientPodsReason
	default:
		c.Status, c.Reason = metav1.ConditionFalse, policyv1.InsufficientPodsReason
	}
	return c
}

// Hindrances says of each node that is drained, and that pods do not leave, why:
// "drain of n1 waits: PodDisruptionBudget default/db allows no disruption".
func Hindrances(facts api.Facts) []string {
	var out []string
	for _, h := range facts.Hindered {
		out = append(out, fmt.Sprintf("drain of %s waits: %s", h.Node, h.Reason))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// drainEvents tells of pods that do not leave nodes that are drained.
func drainEvents(fleet string, before, after api.Facts, now time.Time) []api.Event {
	var out []api.Event
	told := map[string]bool{}
	for _, message := range Hindrances(before) {
		told[message] = true
	}
	for _, instance := range slices.Sorted(maps.Keys(after.Hindered)) {
		h := after.Hindered[instance]
		if before.Hindered[instance] == h {
			continue
		}
		out = append(out, api.Event{
			Time: now, Type: corev1.EventTypeWarning, Reason: "DrainWaits", Message: "Stays on a node that is drained: " + h.Reason, Source: "scheduler",
			Regards: PodReference(h.Pod),
		})
		message := fmt.Sprintf("drain of %s waits: %s", h.Node, h.Reason)
		if !told[message] {
			told[message] = true
			out = append(out, api.Event{
				Time: now, Type: corev1.EventTypeWarning, Reason: "DrainWaits", Message: message, Source: "scheduler",
				Regards: referenceTo(fleet, api.Key{Kind: "Node", Name: h.Node}),
			})
		}
	}
	return out
}
