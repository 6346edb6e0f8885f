package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// overQuota reports the objects that are more than a ResourceQuota allows, and the
// pods that leave out what it counts. How many pods there may be is the
// scheduler's affair: it starts as many. Source: Kubernetes, "Resource Quotas".
func (a *admission) overQuota(objects []api.Object) {
	byNamespace := map[string][]api.Object{}
	for _, o := range objects {
		namespace := o.Value.GetNamespace()
		byNamespace[namespace] = append(byNamespace[namespace], o)
	}
	for _, o := range objects {
		q, ok := o.Value.(*corev1.ResourceQuota)
		if !ok {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(q.Spec.Hard)) {
			a.tooMany(q, name, byNamespace[q.Namespace])
		}
		if len(q.Spec.Scopes) == 0 && q.Spec.ScopeSelector == nil {
			for _, other := range byNamespace[q.Namespace] {
				a.mustSay(q, other)
			}
		}
	}
}

// tooMany reports the first object that is beyond a quota of objects.
func (a *admission) tooMany(q *corev1.ResourceQuota, name corev1.ResourceName, objects []api.Object) {
	hard := q.Spec.Hard[name]
	used := int64(0)
	for _, o := range objects {
		n := api.QuotaOf(o, name)
		if n > 0 && n > hard.Value()-used { // their sum may be more than can be counted
			a.refuse(o, "", fmt.Sprintf("exceeded quota: %s/%s allows %s of %s", q.Namespace, q.Name, hard.String(), name))
			return
		}
		used += n
	}
}

// mustSay reports containers that do not say how much they take of what a quota
// counts.
func (a *admission) mustSay(q *corev1.ResourceQuota, o api.Object) {
	spec, path := podSpec(o.Value)
	if spec == nil {
		return
	}
	eachContainer(spec, func(c *corev1.Container, at string, _ bool) {
		var missing []string
		for _, name := range slices.Sorted(maps.Keys(q.Spec.Hard)) {
			list, of := c.Resources.Requests, name
			switch text := string(name); {
			case strings.HasPrefix(text, corev1.DefaultResourceRequestsPrefix):
				of = corev1.ResourceName(text[len(corev1.DefaultResourceRequestsPrefix):])
			case strings.HasPrefix(text, "limits."):
				list, of = c.Resources.Limits, corev1.ResourceName(text[len("limits."):])
			}
			if of != corev1.ResourceCPU && of != corev1.ResourceMemory {
				continue
			}
			if _, written := list[of]; !written {
				missing = append(missing, string(name))
			}
		}
		if len(missing) > 0 {
			a.refuse(o, path+"."+at+".resources", fmt.Sprintf("container %s must say its %s: quota %s/%s counts it", c.Name, strings.Join(missing, ", "), q.Namespace, q.Name))
		}
	})
}
