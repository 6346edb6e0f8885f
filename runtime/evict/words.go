package evict

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Reason is that of pods that were evicted, or not admitted because they would be.
const Reason = "Evicted"

// resources are what nodes run short of, in kubelet's words.
var resources = map[Signal]string{
	Memory: "memory", Allocatable: "memory", NodeFS: "ephemeral-storage", ImageFS: "ephemeral-storage",
	NodeInodes: "inodes", ImageInodes: "inodes", PIDs: "pids",
}

// message says why a pod has to go, in kubelet's words.
func message(p Pod, t Threshold, in Input) string {
	reading := in.Readings[t.Signal]
	var out strings.Builder
	fmt.Fprintf(&out, "The node was low on resource: %s. Threshold quantity: %s, available: %s. ",
		resources[t.Signal], shown(t.Signal, t.Least.Of(reading.Capacity)), shown(t.Signal, reading.Available))
	for _, c := range p.Containers {
		used, requested, what := c.Memory, c.Request, "memory"
		switch {
		case !requests(t.Signal):
			continue
		case OnDisk(t.Signal):
			used, requested, what = c.Disk, c.Claim, "ephemeral-storage"
		}
		if used > requested {
			fmt.Fprintf(&out, "Container %s was using %s, request is %s, has larger consumption of %s. ", c.Name, bytes(used), bytes(requested), what)
		}
	}
	return out.String()
}

func shown(s Signal, amount int64) string {
	if requests(s) {
		return bytes(amount)
	}
	return fmt.Sprint(amount)
}

// bytes writes an amount in Ki, which is exact enough and never longer.
func bytes(n int64) string {
	if n%1024 != 0 && n > 1024 {
		n = n >> 10 << 10
	}
	return resource.NewQuantity(n, resource.BinarySI).String()
}

// criticalPriority is that of system-cluster-critical: pods that have as much, or
// more, are critical. Source: Kubernetes, "Guaranteed Scheduling For Critical
// Add-On Pods".
const criticalPriority = 2000000000

// Critical reports whether a pod is one that is never evicted.
func Critical(spec *corev1.PodSpec) bool {
	return spec.Priority != nil && *spec.Priority >= criticalPriority
}

// taints are those that a node has under pressure. Source: Kubernetes, "Taint
// Nodes by Condition".
var taints = map[corev1.NodeConditionType]string{
	corev1.NodeMemoryPressure: corev1.TaintNodeMemoryPressure, corev1.NodeDiskPressure: corev1.TaintNodeDiskPressure, corev1.NodePIDPressure: corev1.TaintNodePIDPressure,
}

// Taints are those of a node with these conditions.
func Taints(pressures []corev1.NodeConditionType) []corev1.Taint {
	var out []corev1.Taint
	for _, kind := range pressures {
		if key, known := taints[kind]; known {
			out = append(out, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
		}
	}
	return out
}

// Admit says why a pod may not begin on a node with these conditions, "" when it
// may. Under memory pressure pods without any requests may not; under any other no
// pod may. Critical ones may, and those that tolerate the condition's taint.
func Admit(spec *corev1.PodSpec, class corev1.PodQOSClass, pressures []corev1.NodeConditionType) string {
	if Critical(spec) {
		return ""
	}
	var against []corev1.NodeConditionType
	for _, taint := range Taints(pressures) {
		kind := pressures[slices.IndexFunc(pressures, func(k corev1.NodeConditionType) bool { return taints[k] == taint.Key })]
		tolerated := slices.ContainsFunc(spec.Tolerations, func(t corev1.Toleration) bool {
			return (t.Effect == "" || t.Effect == taint.Effect) && (t.Key == taint.Key || t.Key == "" && t.Operator == corev1.TolerationOpExists)
		})
		if !tolerated && (kind != corev1.NodeMemoryPressure || class == corev1.PodQOSBestEffort) {
			against = append(against, kind)
		}
	}
	if len(against) == 0 {
		return ""
	}
	return fmt.Sprintf("The node had condition: %v. ", against)
}
