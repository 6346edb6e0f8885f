package runtime

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Limits returns the cgroup values of a container as kubelet computes them.
// memory is the machine's, in bytes.
// Source: kubernetes.io, Resource Management; Node-pressure Eviction, "oom_score_adj".
func Limits(spec *corev1.PodSpec, c *corev1.Container, memory int64) Resources {
	cpu, limit := c.Resources.Requests.Cpu(), c.Resources.Limits.Cpu()
	if cpu.IsZero() && !limit.IsZero() {
		cpu = limit
	}
	return Resources{
		CPUShares:   Shares(cpu.MilliValue()),
		CPUQuota:    Quota(limit.MilliValue()),
		MemoryLimit: c.Resources.Limits.Memory().Value(),
		OOMScoreAdj: oomScore(spec, c, memory),
	}
}

// Shares turns milli-CPUs into cpu.shares.
func Shares(milli int64) uint64 {
	return uint64(max(2, milli*1024/1000))
}

// Quota turns milli-CPUs into microseconds per 100 ms; 0 is no limit.
func Quota(milli int64) int64 {
	if milli <= 0 {
		return 0
	}
	return max(1000, milli*100)
}

func oomScore(spec *corev1.PodSpec, c *corev1.Container, memory int64) int {
	if spec.Priority != nil && *spec.Priority >= 2000000000 {
		return -997
	}
	switch QOS(spec) {
	case corev1.PodQOSGuaranteed:
		return -997
	case corev1.PodQOSBestEffort:
		return 1000
	}
	if memory <= 0 {
		return 999
	}
	return int(min(999, max(3, 1000-1000*c.Resources.Requests.Memory().Value()/memory)))
}

// PodLimits returns the limits of the whole pod: the sum over its containers,
// or the largest init container where that is more. A limit that one container
// does not have, the pod does not have.
func PodLimits(spec *corev1.PodSpec) Resources {
	requests := podSum(spec, func(c *corev1.Container) *resource.Quantity {
		if q := c.Resources.Requests.Cpu(); !q.IsZero() {
			return q
		}
		return c.Resources.Limits.Cpu()
	})
	out := Resources{CPUShares: Shares(requests.MilliValue())}
	if all(spec, func(c *corev1.Container) bool { return !c.Resources.Limits.Cpu().IsZero() }) {
		cpu := podSum(spec, func(c *corev1.Container) *resource.Quantity { return c.Resources.Limits.Cpu() })
		out.CPUQuota = Quota(cpu.MilliValue())
	}
	if all(spec, func(c *corev1.Container) bool { return !c.Resources.Limits.Memory().IsZero() }) {
		memory := podSum(spec, func(c *corev1.Container) *resource.Quantity { return c.Resources.Limits.Memory() })
		out.MemoryLimit = memory.Value()
	}
	return out
}

// podSum is the most of something that a pod has at a time: its containers with the
// sidecars, or an init container with the sidecars before it.
// Source: Kubernetes, "Sidecar Containers: Resource sharing within containers".
func podSum(spec *corev1.PodSpec, of func(*corev1.Container) *resource.Quantity) resource.Quantity {
	var sidecars, peak resource.Quantity
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		q := of(c).DeepCopy()
		q.Add(sidecars)
		if IsSidecar(c) {
			sidecars = q.DeepCopy()
		}
		if q.Cmp(peak) > 0 {
			peak = q
		}
	}
	for i := range spec.Containers {
		sidecars.Add(*of(&spec.Containers[i]))
	}
	if sidecars.Cmp(peak) > 0 {
		return sidecars
	}
	return peak
}

// Requested is what a pod requests of a resource: the sum over its containers, or
// the largest init container where that is more. Without a request a limit counts.
func Requested(spec *corev1.PodSpec, name corev1.ResourceName) int64 {
	sum := podSum(spec, func(c *corev1.Container) *resource.Quantity {
		q, set := c.Resources.Requests[name]
		if !set {
			q = c.Resources.Limits[name]
		}
		return &q
	})
	return sum.Value()
}

func all(spec *corev1.PodSpec, ok func(*corev1.Container) bool) bool {
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			if !ok(&containers[i]) {
				return false
			}
		}
	}
	return true
}
