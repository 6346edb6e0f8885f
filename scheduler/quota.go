package scheduler

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-dev/shoal/api"
)

// A quota is a ResourceQuota and what of it is used, by the pods that have nodes,
// those that are going, and those that are to start. Pods that have ended use
// nothing, and neither do those on nodes that are gone: others are to take their
// place. Source: Kubernetes, "Resource Quotas".
type quota struct {
	object *corev1.ResourceQuota
	hard   map[corev1.ResourceName]int64 // of what pods can use
	used   map[corev1.ResourceName]int64
}

// quotas are the ResourceQuotas of each namespace, nil when there are none.
func quotas(snapshot api.Snapshot) map[string][]*quota {
	var out map[string][]*quota
	for object := range api.Of[*corev1.ResourceQuota](snapshot) {
		q := &quota{object: object, hard: map[corev1.ResourceName]int64{}, used: map[corev1.ResourceName]int64{}}
		for name, quantity := range object.Spec.Hard {
			if _, counts := usedBy(name, &api.Mold{}); counts {
				q.hard[name] = amountOfQuota(name, quantity)
			}
		}
		if out == nil {
			out = map[string][]*quota{}
		}
		out[object.Namespace] = append(out[object.Namespace], q)
	}
	return out
}

// amountOfQuota is a quantity in the unit of Mold.Requests, or the most that can be
// counted.
func amountOfQuota(name corev1.ResourceName, quantity resource.Quantity) int64 {
	if strings.HasSuffix(string(name), "cpu") {
		if quantity.CmpInt64(math.MaxInt64/1000) > 0 {
			return math.MaxInt64
		}
		return quantity.MilliValue()
	}
	return quantity.Value()
}

// usedBy returns how much of a quota a pod uses, and whether the quota is one that
// pods use.
func usedBy(name corev1.ResourceName, m *api.Mold) (int64, bool) {
	text := string(name)
	switch {
	case name == corev1.ResourcePods || text == "count/pods":
		return 1, true
	case name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage || strings.HasPrefix(text, corev1.ResourceHugePagesPrefix):
		return m.Requests[name], true
	case name == corev1.ResourceRequestsStorage:
		return 0, false
	case strings.HasPrefix(text, corev1.DefaultResourceRequestsPrefix):
		return m.Requests[corev1.ResourceName(text[len(corev1.DefaultResourceRequestsPrefix):])], true
	case strings.HasPrefix(text, "limits."):
		return m.Limits[corev1.ResourceName(text[len("limits."):])], true
	}
	return 0, false
}

// covers reports whether the quota is about a pod.
func (q *quota) covers(m *api.Mold) bool {
	for _, scope := range q.object.Spec.Scopes {
		if !inScope(corev1.ScopedResourceSelectorRequirement{ScopeName: scope, Operator: corev1.ScopeSelectorOpExists}, m) {
			return false
		}
	}
	if s := q.object.Spec.ScopeSelector; s != nil {
		for _, r := range s.MatchExpressions {
			if !inScope(r, m) {
				return false
			}
		}
	}
	return true
}

func inScope(r corev1.ScopedResourceSelectorRequirement, m *api.Mold) bool {
	switch r.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return m.Bounded
	case corev1.ResourceQuotaScopeNotTerminating:
		return !m.Bounded
	case corev1.ResourceQuotaScopeBestEffort:
		return bestEffort(m)
	case corev1.ResourceQuotaScopeNotBestEffort:
		return !bestEffort(m)
	case corev1.ResourceQuotaScopePriorityClass:
		switch r.Operator {
		case corev1.ScopeSelectorOpIn:
			return slices.Contains(r.Values, m.Class)
		case corev1.ScopeSelectorOpNotIn:
			return !slices.Contains(r.Values, m.Class)
		case corev1.ScopeSelectorOpDoesNotExist:
			return m.Class == ""
		}
		return m.Class != ""
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return slices.ContainsFunc(slices.Concat(m.Apart, m.Together, m.Preferred), func(t api.MoldTerm) bool {
			return len(t.Namespaces) > 0 || t.NamespaceSelector != nil
		})
	}
	return false
}

// bestEffort reports whether a pod asks for no CPU and no memory.
// Source: Kubernetes, "Pod Quality of Service Classes".
func bestEffort(m *api.Mold) bool {
	for _, list := range []map[corev1.ResourceName]int64{m.Requests, m.Limits} {
		if list[corev1.ResourceCPU] > 0 || list[corev1.ResourceMemory] > 0 {
			return false
		}
	}
	return true
}

func (q *quota) charge(m *api.Mold) {
	for name := range q.hard {
		amount, _ := usedBy(name, m)
		q.used[name] += amount
	}
}

// refuse says why one more pod would be too much, "" when it is not.
func (q *quota) refuse(m *api.Mold) string {
	var asked, used, limited []string
	for _, name := range q.lacks(m) {
		amount, _ := usedBy(name, m)
		hard := q.object.Spec.Hard[name]
		asked = append(asked, string(name)+"="+quantityOf(name, amount))
		used = append(used, string(name)+"="+quantityOf(name, q.used[name]))
		limited = append(limited, string(name)+"="+hard.String())
	}
	if len(asked) == 0 {
		return ""
	}
	return fmt.Sprintf("exceeded quota: %s, requested: %s, used: %s, limited: %s",
		q.object.Name, strings.Join(asked, ","), strings.Join(used, ","), strings.Join(limited, ","))
}

func quantityOf(name corev1.ResourceName, amount int64) string {
	switch text := string(name); {
	case strings.HasSuffix(text, "cpu"):
		return resource.NewMilliQuantity(amount, resource.DecimalSI).String()
	case strings.HasSuffix(text, "memory") || strings.HasSuffix(text, "storage"):
		return resource.NewQuantity(amount, resource.BinarySI).String()
	}
	return resource.NewQuantity(amount, resource.DecimalSI).String()
}

// chargeAll charges the quotas for all pods that are there, and for those that are
// going until they are gone.
func (in *input) chargeAll(kept []*pod, going []api.Removal) {
	if in.quotas == nil {
		return
	}
	charge := func(c *cast, node, namespace string) {
		if in.health[node].Gone() {
			return
		}
		for _, q := range in.quotas[namespace] {
			if c.booked() != nil && q.covers(c.mold) {
				q.charge(c.mold)
			}
		}
	}
	for _, k := range kept {
		charge(k.cast, k.node, k.Namespace)
	}
	for i := range going {
		a := &going[i].Assignment
		charge(in.castKnown(a.Pod), a.Node, a.Pod.Namespace)
	}
}

// withinQuota returns the pods for which there is quota, in the order in which
// they are to be placed, and leaves the others pending. A pod that fits on no
// node uses quota, as in Kubernetes.
func (p *placer) withinQuota(starts []placement) []placement {
	if p.in.quotas == nil {
		return starts
	}
	out := starts[:0]
	for _, s := range starts {
		of := p.in.quotas[s.pod.Namespace]
		if _, err := s.cast.ready(); len(of) == 0 || err != nil {
			out = append(out, s)
			continue
		}
		reason := ""
		for _, q := range of {
			if reason != "" || !q.covers(s.cast.mold) {
				continue
			}
			if reason = q.refuse(s.cast.mold); reason != "" {
				p.in.exceeds(q, s.cast.mold)
			}
		}
		if reason != "" {
			p.wait(s, reason)
			continue
		}
		for _, q := range of {
			if q.covers(s.cast.mold) {
				q.charge(s.cast.mold)
			}
		}
		out = append(out, s)
	}
	return out
}

// quotaObjects are the ResourceQuotas with what is used of them.
func (in *input) quotaObjects(snapshot api.Snapshot) []api.KubeObject {
	all, set := quotas(snapshot), &in.board.Assigned
	use := func(p api.Pod, node string) {
		if in.health[node].Gone() {
			return
		}
		m, kept := set.Molds[p.MoldKey()]
		for _, q := range all[p.Namespace] {
			if kept && q.covers(&m) {
				q.charge(&m)
			}
		}
	}
	for i := range set.Pods {
		if set.Pods[i].Ended == "" {
			use(set.Pods[i].Pod, set.Pods[i].Node)
		}
	}
	for i := range set.Remove {
		use(set.Remove[i].Assignment.Pod, set.Remove[i].Assignment.Node)
	}
	var out []api.KubeObject
	for _, namespace := range slices.Sorted(maps.Keys(all)) {
		for _, q := range all[namespace] {
			object := *q.object
			object.Status = corev1.ResourceQuotaStatus{Hard: q.object.Spec.Hard, Used: corev1.ResourceList{}}
			for name := range q.object.Spec.Hard {
				amount := q.used[name]
				if _, pods := q.hard[name]; !pods {
					amount = objectsOf(snapshot, namespace, name)
				}
				object.Status.Used[name] = resource.MustParse(quantityOf(name, amount))
			}
			out = append(out, &object)
		}
	}
	return out
}

// objectsOf counts what of a quota the objects of a namespace use. How much they
// may use is checked with the commit.
func objectsOf(snapshot api.Snapshot, namespace string, name corev1.ResourceName) int64 {
	n := int64(0)
	for object := range snapshot.Objects() {
		if object.Value.GetNamespace() == namespace {
			n += api.QuotaOf(object, name)
		}
	}
	return n
}
