package usage

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-dev/shoal/api"
)

// By how much usage must differ from what was told last to be told again: every
// node hears of it. The second is a part of what was told.
const (
	nodeCPUStep    = 100 // thousandths of a processor
	podCPUStep     = 20
	nodeMemoryStep = 64 << 20 // bytes
	podMemoryStep  = 4 << 20
	cpuPart        = 4 // a quarter
	memoryPart     = 10
)

// Between returns what a machine and its pods used between two readings: the
// processors on average, the memory at the end. What hardly differs from what
// was told before is told again as it was; a usage that is all as before is the
// one before. Usage of pods that were not there at the first reading is of memory
// only.
func Between(first, last Counters, before api.Usage, node string, now time.Time) api.Usage {
	out := api.Usage{Node: node, Time: now, Pods: map[string]corev1.ResourceList{}}
	elapsed := last.At - first.At
	if elapsed <= 0 {
		return before
	}
	out.Used = list(first.Node, last.Node, elapsed, true, before.Used, nodeCPUStep, nodeMemoryStep)
	same := before.Used != nil && equal(out.Used, before.Used) && len(last.Pods) == len(before.Pods)
	for instance, counter := range last.Pods {
		old, known := first.Pods[instance]
		out.Pods[instance] = list(old, counter, elapsed, known, before.Pods[instance], podCPUStep, podMemoryStep)
		same = same && equal(out.Pods[instance], before.Pods[instance])
	}
	if same {
		return before
	}
	return out
}

// list is the usage of one thing.
func list(first, last Counter, elapsed time.Duration, known bool, before corev1.ResourceList, cpuStep, memoryStep int64) corev1.ResourceList {
	out := corev1.ResourceList{}
	if known && last.CPU >= first.CPU {
		was, told := before[corev1.ResourceCPU]
		milli := settled(int64((last.CPU-first.CPU)*1000/elapsed), was.MilliValue(), told, cpuStep, cpuPart)
		out[corev1.ResourceCPU] = *resource.NewMilliQuantity(milli, resource.DecimalSI)
	}
	was, told := before[corev1.ResourceMemory]
	bytes := settled(last.Memory, was.Value(), told, memoryStep, memoryPart)
	out[corev1.ResourceMemory] = *resource.NewQuantity(bytes>>20<<20, resource.BinarySI)
	return out
}

// settled returns what was told when the new value is near it.
func settled(value, was int64, told bool, step, part int64) int64 {
	if difference := max(value-was, was-value); told && difference < max(step, was/part) {
		return was
	}
	return value
}

func equal(a, b corev1.ResourceList) bool {
	if len(a) != len(b) {
		return false
	}
	for name, quantity := range a {
		if other, found := b[name]; !found || quantity.Cmp(other) != 0 {
			return false
		}
	}
	return true
}
