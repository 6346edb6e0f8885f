package manifest

import (
	"reflect"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
)

// FieldScope is the verdict on a field that is not served, or only with some
// values.
type FieldScope struct {
	Of      reflect.Type // the struct that has the field
	Field   string       // its name in a manifest
	Allow   string       // values that are accepted, separated by spaces
	Verdict Verdict
	Warning bool // the object is accepted without it
	Reason  string
}

func planned[T any](field, allow, reason string) FieldScope {
	return FieldScope{Of: reflect.TypeFor[T](), Field: field, Allow: allow, Verdict: Planned, Reason: reason}
}

func out[T any](field, allow, reason string) FieldScope {
	return FieldScope{Of: reflect.TypeFor[T](), Field: field, Allow: allow, Verdict: Out, Reason: reason}
}

func warn(f FieldScope) FieldScope {
	f.Warning = true
	return f
}

// FieldScopes lists what is not served of the structs in servedFields.
var FieldScopes = []FieldScope{
	planned[corev1.PodSpec]("ephemeralContainers", "", "debug containers are added to running pods, not written in Git"),
	planned[corev1.PodSpec]("shareProcessNamespace", "false", "containers of a pod have process namespaces of their own"),
	planned[corev1.PodSpec]("hostUsers", "true", "user namespaces are not set up"),
	planned[corev1.PodSpec]("resources", "", "write the resources of each container"),
	warn(planned[corev1.PodSpec]("automountServiceAccountToken", "false", "no token is mounted: there is no API server that would accept it for writing")),
	planned[corev1.PodSpec]("readinessGates", "", "there is nobody who could set the conditions"),
	planned[corev1.PodSpec]("schedulingGates", "", "there is nobody who could remove the gates"),
	planned[corev1.PodSpec]("evictionResponders", "", "nobody but Shoal itself evicts pods"),
	planned[corev1.PodSpec]("schedulingGroup", "", "pods are placed one by one"),
	out[corev1.PodSpec]("runtimeClassName", "", "containers run on runc"),
	out[corev1.PodSpec]("overhead", "", "it belongs to runtimeClassName"),
	out[corev1.PodSpec]("resourceClaims", "", "dynamic resource allocation needs drivers"),
	out[corev1.PodSpec]("schedulerName", "default-scheduler", "there is one scheduler"),
	out[corev1.PodOS]("name", "linux", "nodes run Linux"),

	planned[corev1.Container]("restartPolicy", "Always", "the pod's restartPolicy decides, but for sidecars, which are init containers that always restart"),
	planned[corev1.Container]("restartPolicyRules", "", "the pod's restartPolicy decides alone"),
	planned[corev1.Container]("volumeDevices", "", "there are no block volumes"),
	warn(planned[corev1.Container]("resizePolicy", "", "a change of resources replaces the pod")),
	planned[corev1.ContainerPort]("protocol", "TCP UDP", "only TCP and UDP are routed"),
	planned[corev1.EnvVarSource]("fileKeyRef", "", "variables are not read from files"),
	out[corev1.LifecycleHandler]("tcpSocket", "", "Kubernetes does not support it either; use exec or httpGet"),
	out[corev1.ResourceRequirements]("claims", "", "dynamic resource allocation needs drivers"),

	planned[corev1.SecurityContext]("seLinuxOptions", "", "SELinux labels are not set"),
	out[corev1.SecurityContext]("windowsOptions", "", "nodes run Linux"),
	planned[corev1.PodSecurityContext]("seLinuxOptions", "", "SELinux labels are not set"),
	planned[corev1.PodSecurityContext]("seLinuxChangePolicy", "", "SELinux labels are not set"),
	out[corev1.PodSecurityContext]("windowsOptions", "", "nodes run Linux"),

	planned[corev1.EmptyDirVolumeSource]("medium", "Memory", "only disk and memory"),
	planned[corev1.VolumeProjection]("serviceAccountToken", "", "tokens are not issued"),
	planned[corev1.VolumeProjection]("clusterTrustBundle", "", "there are no trust bundles"),
	planned[corev1.VolumeProjection]("podCertificate", "", "certificates are not issued to pods"),
	planned[corev1.VolumeSource]("ephemeral", "", "volumes that outlive a pod are not provided"),
	planned[corev1.VolumeSource]("nfs", "", "network file systems are not mounted"),
	planned[corev1.VolumeSource]("image", "", "images are not mounted as volumes"),
	out[corev1.VolumeSource]("csi", "", "CSI is out of scope"),
	out[corev1.VolumeSource]("flexVolume", "", "volume plugins are out of scope"),
	out[corev1.VolumeSource]("gitRepo", "", "Kubernetes removed it"),
	out[corev1.VolumeSource]("iscsi", "", "needs a driver"),
	out[corev1.VolumeSource]("fc", "", "needs a driver"),
	out[corev1.VolumeSource]("rbd", "", "needs a driver"),
	out[corev1.VolumeSource]("cephfs", "", "needs a driver"),
	out[corev1.VolumeSource]("glusterfs", "", "needs a driver"),
	out[corev1.VolumeSource]("quobyte", "", "needs a driver"),
	out[corev1.VolumeSource]("flocker", "", "needs a driver"),
	out[corev1.VolumeSource]("cinder", "", "needs a cloud provider"),
	out[corev1.VolumeSource]("gcePersistentDisk", "", "needs a cloud provider"),
	out[corev1.VolumeSource]("awsElasticBlockStore", "", "needs a cloud provider"),
	out[corev1.VolumeSource]("azureFile", "", "needs a cloud provider"),
	out[corev1.VolumeSource]("azureDisk", "", "needs a cloud provider"),
	out[corev1.VolumeSource]("vsphereVolume", "", "needs a cloud provider"),
	out[corev1.VolumeSource]("photonPersistentDisk", "", "needs a cloud provider"),
	out[corev1.VolumeSource]("portworxVolume", "", "needs a driver"),
	out[corev1.VolumeSource]("scaleIO", "", "needs a driver"),
	out[corev1.VolumeSource]("storageos", "", "needs a driver"),

	planned[corev1.PersistentVolumeClaimSpec]("accessModes", "[ReadWriteOnce] [ReadWriteOncePod]", "a volume is a folder on the disk of one node"),
	warn(planned[corev1.PersistentVolumeClaimSpec]("storageClassName", "local-path", "local-path is the only class, and the default; pods that use the claim wait")),
	planned[corev1.PersistentVolumeClaimSpec]("volumeMode", "Filesystem", "there are no block volumes"),
	planned[corev1.PersistentVolumeClaimSpec]("volumeName", "", "volumes are made for claims, not chosen by them"),
	planned[corev1.PersistentVolumeClaimSpec]("selector", "", "volumes are made for claims, not chosen by them"),
	planned[corev1.PersistentVolumeClaimSpec]("dataSource", "", "volumes begin empty"),
	planned[corev1.PersistentVolumeClaimSpec]("dataSourceRef", "", "volumes begin empty"),
	planned[corev1.PersistentVolumeClaimSpec]("volumeAttributesClassName", "", "volumes have no attributes"),

	planned[batchv1.JobSpec]("managedBy", "kubernetes.io/job-controller", "there is no other controller"),
	planned[batchv1.JobSpec]("scheduling", "", "pods are placed one by one"),
	warn(planned[batchv1.PodFailurePolicyOnPodConditionsPattern]("type", "DisruptionTarget", "nobody sets other conditions, so the rule never applies")),

	planned[autoscalingv2.MetricSpec]("type", "Resource ContainerResource", "nobody measures other metrics"),
	planned[autoscalingv2.MetricSpec]("pods", "", "nobody measures other metrics"),
	planned[autoscalingv2.MetricSpec]("object", "", "nobody measures other metrics"),
	planned[autoscalingv2.MetricSpec]("external", "", "nobody measures other metrics"),
	planned[autoscalingv2.ResourceMetricSource]("name", "cpu memory", "only cpu and memory are measured"),
	planned[autoscalingv2.ContainerResourceMetricSource]("name", "cpu memory", "only cpu and memory are measured"),

	warn(planned[corev1.ServiceSpec]("type", "ClusterIP NodePort ExternalName", "no load balancer is provided; the Service works like a NodePort")),
	warn(planned[corev1.ServiceSpec]("loadBalancerIP", "", "no load balancer is provided")),
	warn(planned[corev1.ServiceSpec]("loadBalancerClass", "", "no load balancer is provided")),
	warn(planned[corev1.ServiceSpec]("loadBalancerSourceRanges", "", "no load balancer is provided; traffic is NOT FILTERED by source")),
	planned[corev1.ServiceSpec]("ipFamilyPolicy", "SingleStack PreferDualStack", "services have one IPv4 address"),
	warn(planned[corev1.ServiceSpec]("ipFamilies", "[IPv4]", "services have one IPv4 address")),
	warn(planned[corev1.ServiceSpec]("externalTrafficPolicy", "Cluster", "traffic from outside goes to all endpoints, with the node's address as its source")),
	warn(planned[corev1.ServiceSpec]("internalTrafficPolicy", "Cluster", "traffic goes to the endpoints of all nodes")),
	warn(planned[corev1.ServiceSpec]("trafficDistribution", "", "every endpoint is chosen with equal chance")),
	warn(planned[corev1.ServiceSpec]("healthCheckNodePort", "", "nothing answers on it")),
	planned[corev1.ServicePort]("protocol", "TCP UDP", "only TCP and UDP are routed"),
}

// servedFields names, for every struct that FieldScopes speaks of, the fields
// that are served. A field in neither table, such as one that a new version of
// Kubernetes brings, is refused; a test tells which.
var servedFields = map[reflect.Type]map[string]bool{
	reflect.TypeFor[corev1.PodSpec](): names("volumes initContainers containers restartPolicy terminationGracePeriodSeconds dnsPolicy nodeSelector " +
		"serviceAccountName serviceAccount nodeName hostNetwork securityContext imagePullSecrets hostname subdomain affinity tolerations hostAliases " +
		"dnsConfig enableServiceLinks os hostPID hostIPC activeDeadlineSeconds setHostnameAsFQDN hostnameOverride priorityClassName priority preemptionPolicy topologySpreadConstraints"),
	reflect.TypeFor[corev1.PodOS](): names(""),
	reflect.TypeFor[corev1.Container](): names("name image command args workingDir ports envFrom env resources volumeMounts livenessProbe readinessProbe " +
		"startupProbe lifecycle terminationMessagePath terminationMessagePolicy imagePullPolicy securityContext stdin stdinOnce tty"),
	reflect.TypeFor[corev1.ContainerPort]():        names("name hostPort containerPort hostIP"),
	reflect.TypeFor[corev1.EnvVarSource]():         names("fieldRef resourceFieldRef configMapKeyRef secretKeyRef"),
	reflect.TypeFor[corev1.VolumeMount]():          names("name readOnly mountPath subPath subPathExpr mountPropagation recursiveReadOnly bindMountOptions"),
	reflect.TypeFor[corev1.Probe]():                names("initialDelaySeconds timeoutSeconds periodSeconds successThreshold failureThreshold terminationGracePeriodSeconds"),
	reflect.TypeFor[corev1.Lifecycle]():            names("postStart preStop stopSignal"),
	reflect.TypeFor[corev1.LifecycleHandler]():     names("exec httpGet sleep"),
	reflect.TypeFor[corev1.ResourceRequirements](): names("limits requests"),
	reflect.TypeFor[corev1.SecurityContext](): names("capabilities privileged runAsUser runAsGroup runAsNonRoot readOnlyRootFilesystem allowPrivilegeEscalation " +
		"seccompProfile procMount appArmorProfile"),
	reflect.TypeFor[corev1.PodSecurityContext]():        names("runAsUser runAsGroup runAsNonRoot supplementalGroups fsGroup fsGroupChangePolicy seccompProfile sysctls supplementalGroupsPolicy appArmorProfile"),
	reflect.TypeFor[corev1.EmptyDirVolumeSource]():      names("sizeLimit mode"),
	reflect.TypeFor[corev1.ServiceAccount]():            names("metadata secrets imagePullSecrets automountServiceAccountToken"),
	reflect.TypeFor[corev1.VolumeProjection]():          names("secret downwardAPI configMap"),
	reflect.TypeFor[corev1.VolumeSource]():              names("hostPath emptyDir secret downwardAPI configMap projected persistentVolumeClaim"),
	reflect.TypeFor[corev1.PersistentVolumeClaimSpec](): names("resources"),
	reflect.TypeFor[appsv1.StatefulSetSpec](): names("replicas selector template volumeClaimTemplates serviceName podManagementPolicy updateStrategy " +
		"revisionHistoryLimit minReadySeconds persistentVolumeClaimRetentionPolicy ordinals"),
	reflect.TypeFor[batchv1.JobSpec](): names("parallelism completions activeDeadlineSeconds podFailurePolicy successPolicy backoffLimit backoffLimitPerIndex " +
		"maxFailedIndexes selector manualSelector template ttlSecondsAfterFinished completionMode suspend podReplacementPolicy"),
	reflect.TypeFor[batchv1.PodFailurePolicyOnPodConditionsPattern](): names("status"),
	reflect.TypeFor[batchv1.CronJobSpec](): names("schedule timeZone startingDeadlineSeconds concurrencyPolicy suspend jobTemplate " +
		"successfulJobsHistoryLimit failedJobsHistoryLimit"),
	reflect.TypeFor[autoscalingv2.HorizontalPodAutoscalerSpec]():   names("scaleTargetRef minReplicas maxReplicas metrics behavior"),
	reflect.TypeFor[autoscalingv2.MetricSpec]():                    names("resource containerResource"),
	reflect.TypeFor[autoscalingv2.ResourceMetricSource]():          names("target"),
	reflect.TypeFor[autoscalingv2.ContainerResourceMetricSource](): names("container target"),
	reflect.TypeFor[autoscalingv2.HPAScalingRules]():               names("stabilizationWindowSeconds selectPolicy policies tolerance"),
	reflect.TypeFor[policyv1.PodDisruptionBudgetSpec]():            names("minAvailable selector maxUnavailable unhealthyPodEvictionPolicy"),
	reflect.TypeFor[corev1.ServiceSpec](): names("ports selector clusterIP clusterIPs externalIPs externalName sessionAffinity " +
		"publishNotReadyAddresses sessionAffinityConfig allocateLoadBalancerNodePorts"),
	reflect.TypeFor[corev1.ServicePort](): names("name appProtocol port targetPort nodePort"),
}

func names(list string) map[string]bool {
	set := map[string]bool{}
	for name := range strings.FieldsSeq(list) {
		set[name] = true
	}
	return set
}
