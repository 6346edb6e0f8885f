package agent

import (
	"math"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/evict"
)

// Resources says what pods may use of a machine, and when some have to go.
type Resources struct {
	// System and Own are what is kept from pods; Own nil means
	// runtime.UsualReserves.
	System, Own corev1.ResourceList
	// Eviction says when pods are evicted; the zero Policy means never.
	Eviction evict.Policy
	// PodPIDs is how many processes and threads a pod may have; 0 means an eighth
	// of what the machine can have, and no more than 16384; -1 means any number.
	PodPIDs int64
}

// Allocatable is what pods may request together of a machine's capacity.
// Source: Kubernetes, "Reserve Compute Resources for System Daemons: Node
// Allocatable".
func (r Resources) Allocatable(capacity corev1.ResourceList) corev1.ResourceList {
	disk := capacity[corev1.ResourceEphemeralStorage]
	least := corev1.ResourceList{
		corev1.ResourceMemory:           *resource.NewQuantity(r.Eviction.Hard(evict.Memory, capacity.Memory().Value()), resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(r.Eviction.Hard(evict.NodeFS, disk.Value()), resource.BinarySI),
	}
	return runtime.Without(capacity, r.System, r.own(capacity), least)
}

func (r Resources) own(capacity corev1.ResourceList) corev1.ResourceList {
	if r.Own == nil {
		return runtime.UsualReserves(capacity)
	}
	return r.Own
}

// ofPods are the limits of all pods together. Of memory they may have what has to
// be left as well, as with kubelet: what evicts pods comes before the kernel does.
// Of the processes that the machine can have, a tenth is kept unless somebody
// reserves others.
func (r Resources) ofPods(capacity corev1.ResourceList, processes int64) runtime.Resources {
	own := r.own(capacity)
	left := runtime.Without(capacity, r.System, own)
	system, pids := r.System["pid"], own["pid"]
	reserved := system.Value() + pids.Value()
	if reserved == 0 {
		reserved = processes / 10
	}
	return runtime.Resources{
		CPUShares: runtime.Shares(left.Cpu().MilliValue()), MemoryLimit: left.Memory().Value(), PIDs: max(0, processes-reserved),
	}
}

// mostPodPIDs bounds the share of processes that a pod has where nobody says how
// many: more threads than the largest programs use.
const mostPodPIDs = 16384

// podPIDs is how many processes and threads a pod may have; 0 means any number.
func (r Resources) podPIDs(processes int64) int64 {
	switch {
	case r.PodPIDs < 0:
		return 0
	case r.PodPIDs > 0:
		return r.PodPIDs
	}
	return min(processes/8, mostPodPIDs)
}

// allocatable is what pods may request of this machine together.
func (a *Agent) allocatable() corev1.ResourceList {
	return a.cfg.Resources.Allocatable(a.machine.capacity(a.cfg.StateDir))
}

// mostProcesses is how many processes and threads the kernel takes; 0 when it does
// not say.
func mostProcesses() int64 {
	least := int64(math.MaxInt64)
	for _, path := range []string{"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"} {
		if n, err := strconv.ParseInt(word(path), 10, 64); err == nil {
			least = min(least, n)
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}

// limitPods bounds what all pods use together, once. Where they use more already it
// is done later. Only Run calls it.
func (a *Agent) limitPods() {
	limits := a.cfg.Resources.ofPods(a.machine.capacity(a.cfg.StateDir), a.machine.processes)
	if limits == a.limits {
		return
	}
	if err := a.cfg.Engine.LimitPods(limits); err != nil {
		a.nodeEvent("FailedNodeAllocatableEnforcement", err.Error())
		return
	}
	a.limits = limits
}
