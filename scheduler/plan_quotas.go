package scheduler

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// A QuotaBreach is a ResourceQuota that holds pods back after a change.
type QuotaBreach struct {
	Quota string `json:"quota"` // "default/all"
	// Pods are how many wait for it, and Before how many did before the change.
	Pods   int `json:"pods"`
	Before int `json:"before"`
	// Resources are what they would take too much of, sorted: "pods", "requests.cpu".
	Resources []string `json:"resources"`
}

// An excess is what pods that wait would take too much of, of one quota.
type excess struct {
	pods      int
	resources map[string]bool
}

// exceeds notes a pod that a quota holds back.
func (in *input) exceeds(q *quota, m *api.Mold) {
	if in.excess == nil {
		in.excess = map[*quota]*excess{}
	}
	e := in.excess[q]
	if e == nil {
		e = &excess{resources: map[string]bool{}}
		in.excess[q] = e
	}
	e.pods++
	for _, name := range q.lacks(m) {
		e.resources[string(name)] = true
	}
}

// lacks returns what of a quota is too little for one more pod, sorted.
func (q *quota) lacks(m *api.Mold) []corev1.ResourceName {
	var out []corev1.ResourceName
	for _, name := range slices.Sorted(maps.Keys(q.hard)) {
		if amount, _ := usedBy(name, m); amount > 0 && amount > q.hard[name]-q.used[name] {
			out = append(out, name)
		}
	}
	return out
}

// compareQuotas lists the quotas that hold pods back after a change, sorted.
func compareQuotas(first, last rest) []QuotaBreach {
	before := map[string]int{}
	for q, e := range first.excess {
		before[q.name()] = e.pods
	}
	out := []QuotaBreach{}
	for q, e := range last.excess {
		out = append(out, QuotaBreach{
			Quota: q.name(), Pods: e.pods, Before: before[q.name()], Resources: slices.Sorted(maps.Keys(e.resources)),
		})
	}
	slices.SortFunc(out, func(a, b QuotaBreach) int { return strings.Compare(a.Quota, b.Quota) })
	return out
}

func (q *quota) name() string { return q.object.Namespace + "/" + q.object.Name }
