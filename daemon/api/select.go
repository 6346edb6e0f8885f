package api

import (
	"fmt"
	"net/http"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/shoal-dev/shoal/api"
)

// matcher returns the condition that a request's namespace and selectors set.
func matcher(r *http.Request, q request) (func(api.KubeObject) bool, error) {
	query := r.URL.Query()
	byLabel, err := labels.Parse(query.Get("labelSelector"))
	if err != nil {
		return nil, fmt.Errorf("labelSelector: %w", err)
	}
	byField, err := fields.ParseSelector(query.Get("fieldSelector"))
	if err != nil {
		return nil, fmt.Errorf("fieldSelector: %w", err)
	}
	known := fieldsOf(emptyOf(q.kind.Kind))
	for _, requirement := range byField.Requirements() {
		if !known.Has(requirement.Field) {
			return nil, fmt.Errorf("fieldSelector: field label %q is not supported for %s", requirement.Field, q.kind.Kind)
		}
	}
	return func(object api.KubeObject) bool {
		return (q.namespace == "" || q.namespace == object.GetNamespace()) &&
			byLabel.Matches(labels.Set(object.GetLabels())) &&
			(byField.Empty() || byField.Matches(fieldsOf(object)))
	}, nil
}

func emptyOf(kind string) api.KubeObject {
	switch kind {
	case "Pod":
		return &corev1.Pod{}
	case "Event":
		return &corev1.Event{}
	case "Secret":
		return &corev1.Secret{}
	case "Namespace":
		return &corev1.Namespace{}
	case "Node":
		return &corev1.Node{}
	}
	return &corev1.ConfigMap{}
}

// fieldsOf returns the fields by which an object may be selected.
// Source: the field label conversions of Kubernetes' core group.
func fieldsOf(object api.KubeObject) fields.Set {
	set := fields.Set{"metadata.name": object.GetName(), "metadata.namespace": object.GetNamespace()}
	switch o := object.(type) {
	case *corev1.Pod:
		set["spec.nodeName"] = o.Spec.NodeName
		set["spec.restartPolicy"] = string(o.Spec.RestartPolicy)
		set["spec.schedulerName"] = o.Spec.SchedulerName
		set["spec.serviceAccountName"] = o.Spec.ServiceAccountName
		set["spec.hostNetwork"] = strconv.FormatBool(o.Spec.HostNetwork)
		set["status.phase"] = string(o.Status.Phase)
		set["status.podIP"] = o.Status.PodIP
		set["status.nominatedNodeName"] = o.Status.NominatedNodeName
	case *corev1.Event:
		set["involvedObject.kind"] = o.InvolvedObject.Kind
		set["involvedObject.namespace"] = o.InvolvedObject.Namespace
		set["involvedObject.name"] = o.InvolvedObject.Name
		set["involvedObject.uid"] = string(o.InvolvedObject.UID)
		set["involvedObject.apiVersion"] = o.InvolvedObject.APIVersion
		set["involvedObject.resourceVersion"] = o.InvolvedObject.ResourceVersion
		set["involvedObject.fieldPath"] = o.InvolvedObject.FieldPath
		set["reason"] = o.Reason
		set["reportingComponent"] = o.ReportingController
		set["source"] = o.Source.Component
		set["type"] = o.Type
	case *corev1.Secret:
		set["type"] = string(o.Type)
	case *corev1.Namespace:
		set["status.phase"] = string(o.Status.Phase)
	case *corev1.Node:
		set["spec.unschedulable"] = strconv.FormatBool(o.Spec.Unschedulable)
	}
	return set
}
