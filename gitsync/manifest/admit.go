package manifest

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"

	"github.com/shoal-dev/shoal/api"
)

// admission is what an API server does to objects because of other objects:
// priorities by PriorityClass, defaults and bounds by LimitRange, numbers by
// ResourceQuota.
type admission struct {
	classes  map[string]*schedulingv1.PriorityClass
	standard *schedulingv1.PriorityClass // of pods that name none
	ranges   map[string][]*corev1.LimitRange
	problems []api.Invalid
}

// systemClasses exist in every cluster.
// Source: Kubernetes, "Guaranteed Scheduling For Critical Add-On Pods".
var systemClasses = map[string]int32{"system-cluster-critical": 2000000000, "system-node-critical": 2000001000}

// admit returns the objects as an API server would have stored them, and what it
// would have refused. What came in is not written to: it is shared with other
// commits.
func admit(objects []api.Object) ([]api.Object, []api.Invalid) {
	a := admission{classes: map[string]*schedulingv1.PriorityClass{}, ranges: map[string][]*corev1.LimitRange{}}
	for name, value := range systemClasses {
		a.classes[name] = &schedulingv1.PriorityClass{Value: value}
	}
	for _, o := range objects {
		switch value := o.Value.(type) {
		case *schedulingv1.PriorityClass:
			a.classes[value.Name] = value
			if value.GlobalDefault {
				a.setStandard(o, value)
			}
		case *corev1.LimitRange:
			a.ranges[value.Namespace] = append(a.ranges[value.Namespace], value)
		}
	}
	var fleet api.Source
	for i := range objects {
		if _, ok := objects[i].Value.(*api.Fleet); ok {
			if fleet.File != "" {
				a.refuse(objects[i], "kind", fmt.Sprintf("there is a Fleet already, at %s:%d; only one can be", fleet.File, fleet.Line))
			}
			fleet = objects[i].Source
		}
		a.admit(&objects[i])
	}
	a.overQuota(objects)
	return objects, a.problems
}

// setStandard takes the class of pods that name none; there can be one.
// Source: Kubernetes, "Pod Priority and Preemption": globalDefault.
func (a *admission) setStandard(o api.Object, class *schedulingv1.PriorityClass) {
	if a.standard != nil {
		a.refuse(o, "globalDefault", fmt.Sprintf("PriorityClass %s is the default for all pods already; only one can be", a.standard.Name))
		return
	}
	a.standard = class
}

func (a *admission) refuse(o api.Object, field, reason string) {
	a.problems = append(a.problems, api.Invalid{
		File: o.Source.File, Line: o.Source.Line, Object: o.Key().String(), Field: field, Reason: reason,
	})
}

// admit changes one object, or a copy of it, to what an API server makes of it.
func (a *admission) admit(o *api.Object) {
	if claim, ok := o.Value.(*corev1.PersistentVolumeClaim); ok {
		a.boundClaim(*o, "spec.resources", "the claim", claim.Spec.Resources)
		return
	}
	if set, ok := o.Value.(*appsv1.StatefulSet); ok {
		for i := range set.Spec.VolumeClaimTemplates {
			claim := &set.Spec.VolumeClaimTemplates[i]
			a.boundClaim(*o, fmt.Sprintf("spec.volumeClaimTemplates[%d].spec.resources", i), "the claim "+claim.Name, claim.Spec.Resources)
		}
	}
	old, path := podSpec(o.Value)
	if old == nil {
		return
	}
	copied, _ := o.Value.DeepCopyObject().(api.KubeObject) // every kind of k8s.io/api is one
	spec, _ := podSpec(copied)
	a.priority(*o, spec, path)
	limitsAreRequests(spec)
	for _, r := range a.ranges[o.Value.GetNamespace()] {
		defaultResources(spec, r)
	}
	for _, r := range a.ranges[o.Value.GetNamespace()] {
		a.boundPod(*o, spec, path, r)
	}
	o.Value = copied
}

// podSpec returns the spec of the pods that an object makes, and where in the
// object it stands; nil for one that makes none.
func podSpec(object api.KubeObject) (*corev1.PodSpec, string) {
	if pod, ok := object.(*corev1.Pod); ok {
		return &pod.Spec, "spec"
	}
	template, path := podTemplate(object)
	if template == nil {
		return nil, ""
	}
	return &template.Spec, path + ".spec"
}

// podTemplate returns the template of the pods that an object makes, and where in
// the object it stands; nil for one that has none.
func podTemplate(object api.KubeObject) (*corev1.PodTemplateSpec, string) {
	const path = "spec.template"
	switch o := object.(type) {
	case *corev1.ReplicationController:
		return o.Spec.Template, path
	case *appsv1.Deployment:
		return &o.Spec.Template, path
	case *appsv1.ReplicaSet:
		return &o.Spec.Template, path
	case *appsv1.DaemonSet:
		return &o.Spec.Template, path
	case *appsv1.StatefulSet:
		return &o.Spec.Template, path
	case *batchv1.Job:
		return &o.Spec.Template, path
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template, "spec.jobTemplate.spec.template"
	}
	return nil, ""
}

// priority fills in the priority of a pod from its class.
// Source: Kubernetes, "Pod Priority and Preemption".
func (a *admission) priority(o api.Object, spec *corev1.PodSpec, path string) {
	class := a.standard
	if name := spec.PriorityClassName; name != "" {
		var known bool
		if class, known = a.classes[name]; !known {
			a.refuse(o, path+".priorityClassName", fmt.Sprintf("there is no PriorityClass %q: write one, or use one of those there are", name))
			return
		}
	}
	value, policy := int32(0), corev1.PreemptLowerPriority
	if class != nil {
		spec.PriorityClassName, value = className(spec.PriorityClassName, class), class.Value
		if class.PreemptionPolicy != nil {
			policy = *class.PreemptionPolicy
		}
	}
	if spec.Priority != nil && *spec.Priority != value {
		a.refuse(o, path+".priority", fmt.Sprintf("the priority comes from the PriorityClass, and is %d; leave it out", value))
		return
	}
	if spec.PreemptionPolicy != nil && *spec.PreemptionPolicy != policy {
		a.refuse(o, path+".preemptionPolicy", fmt.Sprintf("the policy comes from the PriorityClass, and is %s; leave it out", policy))
		return
	}
	spec.Priority, spec.PreemptionPolicy = &value, &policy
}

func className(written string, class *schedulingv1.PriorityClass) string {
	if written != "" {
		return written
	}
	return class.Name
}

// limitsAreRequests fills in requests that are not written from the limits.
// Source: Kubernetes, "Resource Management for Pods and Containers".
func limitsAreRequests(spec *corev1.PodSpec) {
	eachContainer(spec, func(c *corev1.Container, _ string, _ bool) {
		for name, quantity := range c.Resources.Limits {
			if _, written := c.Resources.Requests[name]; !written {
				set(&c.Resources.Requests, name, quantity)
			}
		}
	})
}
