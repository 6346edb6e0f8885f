package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-dev/shoal/api"
)

// eachContainer calls a function with every container of a pod and where it
// stands in the spec; init says that it is not one of those that run for the
// pod's life.
func eachContainer(spec *corev1.PodSpec, each func(c *corev1.Container, path string, init bool)) {
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		each(c, "initContainers["+strconv.Itoa(i)+"]", c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways)
	}
	for i := range spec.Containers {
		each(&spec.Containers[i], "containers["+strconv.Itoa(i)+"]", false)
	}
}

func set(list *corev1.ResourceList, name corev1.ResourceName, quantity resource.Quantity) {
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	(*list)[name] = quantity
}

// defaultResources fills in what containers do not write from the defaults of a
// namespace. Source: Kubernetes, "Limit Ranges".
func defaultResources(spec *corev1.PodSpec, limits *corev1.LimitRange) {
	for _, item := range limits.Spec.Limits {
		if item.Type != corev1.LimitTypeContainer {
			continue
		}
		eachContainer(spec, func(c *corev1.Container, _ string, _ bool) {
			for name, quantity := range item.Default {
				if _, written := c.Resources.Limits[name]; !written {
					set(&c.Resources.Limits, name, quantity)
				}
			}
			for name, quantity := range item.DefaultRequest {
				if _, written := c.Resources.Requests[name]; !written {
					set(&c.Resources.Requests, name, quantity)
				}
			}
		})
	}
}

// boundPod reports what of a pod is out of the bounds of its namespace.
func (a *admission) boundPod(o api.Object, spec *corev1.PodSpec, path string, limits *corev1.LimitRange) {
	for _, item := range limits.Spec.Limits {
		switch item.Type {
		case corev1.LimitTypeContainer:
			eachContainer(spec, func(c *corev1.Container, at string, _ bool) {
				a.bound(o, path+"."+at+".resources", "container "+c.Name, limits.Name, item, c.Resources.Requests, c.Resources.Limits)
			})
		case corev1.LimitTypePod:
			requests := whole(spec, func(r corev1.ResourceRequirements) corev1.ResourceList { return r.Requests })
			most := whole(spec, func(r corev1.ResourceRequirements) corev1.ResourceList { return r.Limits })
			a.bound(o, path, "the pod", limits.Name, item, requests, most)
		}
	}
}

// whole is what a pod has of something in all: the sum of its containers, or as
// much as the one that runs before them and has more.
func whole(spec *corev1.PodSpec, of func(corev1.ResourceRequirements) corev1.ResourceList) corev1.ResourceList {
	sum, first := corev1.ResourceList{}, corev1.ResourceList{}
	eachContainer(spec, func(c *corev1.Container, _ string, init bool) {
		for name, quantity := range of(c.Resources) {
			if init {
				if have := first[name]; have.Cmp(quantity) < 0 {
					first[name] = quantity
				}
				continue
			}
			have := sum[name].DeepCopy()
			have.Add(quantity)
			sum[name] = have
		}
	})
	for name, quantity := range first {
		if have := sum[name]; have.Cmp(quantity) < 0 {
			sum[name] = quantity
		}
	}
	return sum
}

// boundClaim reports a claim that asks for more or less storage than its
// namespace allows: one in Git, or one that a StatefulSet makes.
func (a *admission) boundClaim(o api.Object, field, what string, resources corev1.VolumeResourceRequirements) {
	for _, limits := range a.ranges[o.Value.GetNamespace()] {
		for _, item := range limits.Spec.Limits {
			if item.Type == corev1.LimitTypePersistentVolumeClaim {
				// Of a claim only the request counts.
				a.bound(o, field, what, limits.Name, item, resources.Requests, resources.Requests)
			}
		}
	}
}

// bound holds requests and limits against the bounds of one item.
// Source: Kubernetes, "Limit Ranges".
func (a *admission) bound(o api.Object, field, what, name string, item corev1.LimitRangeItem, requests, limits corev1.ResourceList) {
	by := fmt.Sprintf("LimitRange %s/%s", o.Value.GetNamespace(), name)
	for _, r := range slices.Sorted(maps.Keys(item.Min)) {
		least, have := item.Min[r], requests[r]
		if _, written := requests[r]; !written {
			a.refuse(o, field, fmt.Sprintf("%s must request %s: %s wants %s at least", what, r, by, least.String()))
		} else if have.Cmp(least) < 0 {
			a.refuse(o, field, fmt.Sprintf("%s requests %s of %s: %s wants %s at least", what, have.String(), r, by, least.String()))
		}
	}
	has := "has a limit of"
	if item.Type == corev1.LimitTypePersistentVolumeClaim {
		has = "requests"
	}
	for _, r := range slices.Sorted(maps.Keys(item.Max)) {
		most, have := item.Max[r], limits[r]
		if _, written := limits[r]; !written {
			a.refuse(o, field, fmt.Sprintf("%s must have a limit of %s: %s allows %s at most", what, r, by, most.String()))
		} else if have.Cmp(most) > 0 {
			a.refuse(o, field, fmt.Sprintf("%s %s %s of %s: %s allows %s at most", what, has, have.String(), r, by, most.String()))
		}
	}
	for _, r := range slices.Sorted(maps.Keys(item.MaxLimitRequestRatio)) {
		ratio, request, limit := item.MaxLimitRequestRatio[r], requests[r], limits[r]
		if request.IsZero() || limit.IsZero() {
			a.refuse(o, field, fmt.Sprintf("%s must have a request and a limit of %s: %s allows a ratio of %s", what, r, by, ratio.String()))
		} else if limit.AsApproximateFloat64() > ratio.AsApproximateFloat64()*request.AsApproximateFloat64()*(1+1e-9) {
			a.refuse(o, field, fmt.Sprintf("the limit of %s of %s is %s, more than %s times its request of %s, which is what %s allows",
				r, what, limit.String(), ratio.String(), request.String(), by))
		}
	}
}
