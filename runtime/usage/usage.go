package usage

import (
	"maps"
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

// The same of pods by whose usage something is decided, and how old what is told
// of them may be.
const (
	exactCPUStep    = 2
	exactMemoryStep = 1 << 20
	exactPart       = 50
	exactAge        = time.Minute
)

// windowStep is how finely it is told how long a measurement takes.
const windowStep = 10 * time.Second

// A step is by how much a usage must differ to be told again.
type step struct{ cpu, memory, cpuPart, memoryPart int64 }

var (
	nodeStep  = step{nodeCPUStep, nodeMemoryStep, cpuPart, memoryPart}
	podStep   = step{podCPUStep, podMemoryStep, cpuPart, memoryPart}
	exactStep = step{exactCPUStep, exactMemoryStep, exactPart, exactPart}
)

// Between returns what a machine and its pods used between two readings: the
// processors on average, the memory at the end. What hardly differs from what
// was told before is told again as it was; a usage that is all as before is the
// one before. Usage of pods that were not there at the first reading is of memory
// only.
func Between(first, last Counters, before api.Usage, node string, now time.Time) api.Usage {
	elapsed := last.At - first.At
	if elapsed <= 0 {
		return before
	}
	out := api.Usage{Node: node, Time: now, Pods: map[string]corev1.ResourceList{}, Window: max(elapsed.Round(windowStep), windowStep)}
	out.Used = list(first.Node, last.Node, elapsed, true, before.Used, nodeStep)
	same := before.Used != nil && equal(out.Used, before.Used) && len(last.Pods) == len(before.Pods)
	for instance, counter := range last.Pods {
		old, known := first.Pods[instance]
		steps := podStep
		if last.Exact[instance] {
			steps = exactStep
			same = same && now.Sub(before.Time) < exactAge
		}
		out.Pods[instance] = list(old, counter, elapsed, known, before.Pods[instance], steps)
		same = same && equal(out.Pods[instance], before.Pods[instance])
	}
	out.Containers = containers(first, last, elapsed, before)
	same = same && maps.EqualFunc(out.Containers, before.Containers, func(a, b map[string]corev1.ResourceList) bool {
		return maps.EqualFunc(a, b, equal)
	})
	if same {
		return before
	}
	return out
}

// Precise is like Between, but tells what was measured, to the thousandth of a
// processor and the byte.
func Precise(first, last Counters, node string, now time.Time) api.Usage {
	elapsed := last.At - first.At
	out := api.Usage{Node: node, Time: now, Window: elapsed, Pods: map[string]corev1.ResourceList{}, Containers: map[string]map[string]corev1.ResourceList{}}
	if elapsed <= 0 {
		return out
	}
	measured := func(old, c Counter, known bool) corev1.ResourceList {
		list := corev1.ResourceList{corev1.ResourceMemory: *resource.NewQuantity(c.Memory, resource.BinarySI)}
		if known && c.CPU >= old.CPU {
			list[corev1.ResourceCPU] = *resource.NewMilliQuantity(int64((c.CPU-old.CPU)*1000/elapsed), resource.DecimalSI)
		}
		return list
	}
	out.Used = measured(first.Node, last.Node, true)
	for instance, c := range last.Pods {
		old, known := first.Pods[instance]
		out.Pods[instance] = measured(old, c, known)
	}
	for instance, containers := range last.Containers {
		out.Containers[instance] = make(map[string]corev1.ResourceList, len(containers))
		for name, c := range containers {
			old, known := first.Containers[instance][name]
			out.Containers[instance][name] = measured(old, c, known)
		}
	}
	return out
}

// containers is the usage of the containers that were read.
func containers(first, last Counters, elapsed time.Duration, before api.Usage) map[string]map[string]corev1.ResourceList {
	var out map[string]map[string]corev1.ResourceList
	for instance, read := range last.Containers {
		if out == nil {
			out = make(map[string]map[string]corev1.ResourceList, len(last.Containers))
		}
		out[instance] = make(map[string]corev1.ResourceList, len(read))
		for name, counter := range read {
			old, known := first.Containers[instance][name]
			out[instance][name] = list(old, counter, elapsed, known, before.Containers[instance][name], exactStep)
		}
	}
	return out
}

// list is the usage of one thing.
func list(first, last Counter, elapsed time.Duration, known bool, before corev1.ResourceList, steps step) corev1.ResourceList {
	out := corev1.ResourceList{}
	if known && last.CPU >= first.CPU {
		was, told := before[corev1.ResourceCPU]
		milli := settled(int64((last.CPU-first.CPU)*1000/elapsed), was.MilliValue(), told, steps.cpu, steps.cpuPart)
		out[corev1.ResourceCPU] = *resource.NewMilliQuantity(milli, resource.DecimalSI)
	}
	was, told := before[corev1.ResourceMemory]
	bytes := settled(last.Memory, was.Value(), told, steps.memory, steps.memoryPart)
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
