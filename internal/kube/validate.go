package kube

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	"k8s.io/kubernetes/pkg/apis/batch"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/discovery"
	discoveryvalidation "k8s.io/kubernetes/pkg/apis/discovery/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	"k8s.io/kubernetes/pkg/apis/rbac"
	rbacvalidation "k8s.io/kubernetes/pkg/apis/rbac/validation"
	"k8s.io/kubernetes/pkg/apis/scheduling"
	schedulingvalidation "k8s.io/kubernetes/pkg/apis/scheduling/validation"
	"k8s.io/kubernetes/pkg/apis/storage"
	storagevalidation "k8s.io/kubernetes/pkg/apis/storage/validation"
	"k8s.io/kubernetes/pkg/features"

	"github.com/shoal-dev/shoal/api"
)

// Validate applies Kubernetes' own rules to a defaulted object of a served
// version, as on its creation, and returns every violation. It changes nothing.
//
// Kubernetes keeps its rules in two places: handwritten functions over the
// internal version, and functions generated from markers on the served one
// (KEP-5073). Both are run and merged the way k8s.io/apiserver does it.
func Validate(object runtime.Object) field.ErrorList {
	if fleet, ours := object.(*api.Fleet); ours {
		return validateFleet(fleet)
	}
	gvk := object.GetObjectKind().GroupVersionKind()
	internal, err := Scheme().UnsafeConvertToVersion(object.DeepCopyObject(), runtime.InternalGroupVersioner)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, fmt.Errorf("convert %s: %w", gvk, err))}
	}
	ctx := context.Background()
	handwritten := handwritten(internal).MarkFromImperative()
	declared := Scheme().Validate(ctx, declaredOptions, object)
	declared = validate.FilterEnforcedDeclarativeErrors(ctx, declared, true)
	handwritten = validate.FilterCoveredHandwrittenErrors(ctx, handwritten, declared, true)
	return append(handwritten, declared...)
}

// ValidateDebug applies Kubernetes' own rules to a pod to which ephemeral containers
// were added, and which is the same but for them. It changes nothing.
func ValidateDebug(pod, old *corev1.Pod) field.ErrorList {
	var both [2]core.Pod
	for i, p := range []*corev1.Pod{pod, old} {
		if err := Scheme().Convert(p.DeepCopy(), &both[i], nil); err != nil {
			return field.ErrorList{field.InternalError(nil, fmt.Errorf("convert the pod: %w", err))}
		}
		both[i].ResourceVersion = "1"
	}
	return corevalidation.ValidatePodEphemeralContainersUpdate(&both[0], &both[1], corevalidation.PodValidationOptions{})
}

// declaredOptions are the feature gates that declared rules ask for, at
// Kubernetes' defaults. An undefined one is an error of the rule.
var declaredOptions = map[string]bool{
	string(features.HPAScaleToZero):  false,
	string(features.WorkloadWithJob): false,
}

// handwritten runs the rules of the kind with the options that Kubernetes'
// registry strategies use on create. Those of HorizontalPodAutoscalers are ours.
func handwritten(object runtime.Object) field.ErrorList {
	switch o := object.(type) {
	case *core.Pod:
		opts := podutil.GetValidationOptionsFromPodSpecAndMeta(&o.Spec, nil, &o.ObjectMeta, nil)
		opts.ResourceIsPod = true
		return corevalidation.ValidatePodCreate(o, opts)
	case *core.ReplicationController:
		return corevalidation.ValidateReplicationController(o, template(o.Spec.Template))
	case *core.Service:
		return corevalidation.ValidateServiceCreate(o)
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMap(o)
	case *core.Secret:
		return corevalidation.ValidateSecret(o)
	case *core.Namespace:
		return corevalidation.ValidateNamespace(o)
	case *core.ServiceAccount:
		return corevalidation.ValidateServiceAccount(o)
	case *core.Endpoints:
		return corevalidation.ValidateEndpointsCreate(o)
	case *core.LimitRange:
		return corevalidation.ValidateLimitRange(o)
	case *core.ResourceQuota:
		return corevalidation.ValidateResourceQuota(o)
	case *core.PersistentVolume:
		return corevalidation.ValidatePersistentVolume(o, corevalidation.ValidationOptionsForPersistentVolume(o, nil))
	case *core.PersistentVolumeClaim:
		return corevalidation.ValidatePersistentVolumeClaim(o, corevalidation.ValidationOptionsForPersistentVolumeClaim(o, nil))
	case *apps.Deployment, *apps.ReplicaSet, *apps.DaemonSet, *apps.StatefulSet, *batch.Job, *batch.CronJob:
		return workload(o)
	default:
		return other(o)
	}
}

func workload(object runtime.Object) field.ErrorList {
	switch o := object.(type) {
	case *apps.Deployment:
		return appsvalidation.ValidateDeployment(o, template(&o.Spec.Template))
	case *apps.ReplicaSet:
		return appsvalidation.ValidateReplicaSet(o, template(&o.Spec.Template))
	case *apps.DaemonSet:
		return appsvalidation.ValidateDaemonSet(o, template(&o.Spec.Template))
	case *apps.StatefulSet:
		return appsvalidation.ValidateStatefulSet(o, appsvalidation.StatefulSetValidationOptions{}, template(&o.Spec.Template))
	case *batch.Job:
		selectOwnPods(o)
		return batchvalidation.ValidateJobCreate(o, batchvalidation.JobValidationOptions{
			PodValidationOptions:  template(&o.Spec.Template),
			RequirePrefixedLabels: true,
		})
	case *batch.CronJob:
		return append(batchvalidation.ValidateCronJobCreate(o, template(&o.Spec.JobTemplate.Spec.Template)), hostNames(o)...)
	}
	return nil
}

// hostNames refuses a CronJob whose runs an API server would refuse: the pods of
// an Indexed Job have its name and their index as their host names.
func hostNames(o *batch.CronJob) field.ErrorList {
	spec := &o.Spec.JobTemplate.Spec
	if spec.CompletionMode == nil || *spec.CompletionMode != batch.IndexedCompletion || spec.Completions == nil || *spec.Completions <= 0 {
		return nil
	}
	const minutes = "29012345" // the time of a run, as it is in its name
	var out field.ErrorList
	name := fmt.Sprintf("%s-%s-%d", o.Name, minutes, *spec.Completions-1)
	for _, problem := range validation.IsDNS1123Label(name) {
		out = append(out, field.Invalid(field.NewPath("metadata", "name"), o.Name, "host names of its pods, such as "+name+": "+problem))
	}
	return out
}

func other(object runtime.Object) field.ErrorList {
	switch o := object.(type) {
	case *discovery.EndpointSlice:
		return discoveryvalidation.ValidateEndpointSliceCreate(o)
	case *networking.Ingress:
		return networkingvalidation.ValidateIngressCreate(o)
	case *networking.IngressClass:
		return networkingvalidation.ValidateIngressClass(o)
	case *networking.NetworkPolicy:
		return networkingvalidation.ValidateNetworkPolicy(o, networkingvalidation.ValidationOptionsForNetworking(o, nil))
	case *autoscaling.HorizontalPodAutoscaler:
		return autoscaler(o)
	case *policy.PodDisruptionBudget:
		return policyvalidation.ValidatePodDisruptionBudget(o, policyvalidation.PodDisruptionBudgetValidationOptions{})
	case *rbac.Role:
		return rbacvalidation.ValidateRole(o)
	case *rbac.RoleBinding:
		return rbacvalidation.ValidateRoleBinding(o)
	case *rbac.ClusterRole:
		return rbacvalidation.ValidateClusterRole(o, rbacvalidation.ClusterRoleValidationOptions{})
	case *rbac.ClusterRoleBinding:
		return rbacvalidation.ValidateClusterRoleBinding(o)
	case *scheduling.PriorityClass:
		return schedulingvalidation.ValidatePriorityClass(o)
	case *storage.StorageClass:
		return storagevalidation.ValidateStorageClass(o)
	}
	return nil
}

func template(t *core.PodTemplateSpec) corevalidation.PodValidationOptions {
	return podutil.GetValidationOptionsFromPodTemplate(t, nil)
}

// selectOwnPods gives a Job the selector and labels that an API server would
// generate before it validates, with a stand-in for the UID. The object is a
// copy that only validation sees.
func selectOwnPods(job *batch.Job) {
	if job.Spec.ManualSelector != nil && *job.Spec.ManualSelector {
		return
	}
	const uid = "00000000-0000-0000-0000-000000000000"
	job.UID = uid
	labels := &job.Spec.Template.Labels
	for key, value := range map[string]string{
		batch.JobNameLabel: job.Name, batch.LegacyJobNameLabel: job.Name,
		batch.ControllerUidLabel: uid, batch.LegacyControllerUidLabel: uid,
	} {
		if _, given := (*labels)[key]; !given {
			metav1.SetMetaDataLabel(&job.Spec.Template.ObjectMeta, key, value)
		}
	}
	if job.Spec.Selector == nil {
		job.Spec.Selector = &metav1.LabelSelector{}
	}
	if _, given := job.Spec.Selector.MatchLabels[batch.ControllerUidLabel]; !given {
		metav1.AddLabelToSelector(job.Spec.Selector, batch.ControllerUidLabel, uid)
	}
}
