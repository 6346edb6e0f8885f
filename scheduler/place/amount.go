package place

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// most is the largest amount that is told from larger ones. It leaves room for
// the pods of a full node, and for a percentage of them, in 64 bits. Nothing can
// be asked for that a node would have more of: 512 TiB, or 500 billion CPUs.
const most = 1 << 49

// mostPods is how many pods a node can have whatever it says. Sums of so many
// amounts do not overflow.
const mostPods = 1 << 13

// Amounts are resources in whole numbers: CPU in thousandths, everything else in
// its base unit.
type Amounts map[corev1.ResourceName]int64

// newAmounts rounds up, as Kubernetes does, and saturates: what is negative is
// zero, and what is more than can be counted is the most that can be.
func newAmounts(list corev1.ResourceList) Amounts {
	out := make(Amounts, len(list))
	for name, quantity := range list {
		out[name] = amountOf(name, quantity)
	}
	return out
}

func amountOf(name corev1.ResourceName, q resource.Quantity) int64 {
	switch {
	case q.Sign() <= 0:
		return 0
	case name == corev1.ResourceCPU && q.CmpInt64(most/1000) < 0:
		return min(q.MilliValue(), most)
	case name == corev1.ResourceCPU || q.CmpInt64(most) >= 0:
		return most
	}
	return q.Value()
}

// A resource that every node has a place for in its load. Others follow.
const (
	cpu = iota
	memory
	storage
	pods
	fixed
)

var fixedResources = [fixed]corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourcePods}

// A request is an amount of one resource.
type request struct {
	name   corev1.ResourceName
	amount int64
}

// sorted lists what a pod requests by name, without what it requests nothing of
// and without the pod itself.
func (a Amounts) sorted() []request {
	var out []request
	for name, amount := range a {
		if amount > 0 && name != corev1.ResourcePods {
			out = append(out, request{name, min(amount, most)})
		}
	}
	slices.SortFunc(out, func(a, b request) int { return cmp.Compare(a.name, b.name) })
	return out
}

// A need is an amount of a resource that some node has.
type need struct {
	resource int // where it is in a load
	amount   int64
}

// A load is what a node has and what is taken of it.
type load struct {
	all   [fixed]int64
	taken [fixed]int64
	// weighed is what is taken of CPU and memory when every container that
	// requests none is counted with some; for scores.
	weighed [2]int64
}

// beyondReserve reports whether one more amount takes what is kept in reserve.
func beyondReserve(all, taken, amount int64) bool {
	return taken+amount > all/100*Reserve+all%100*Reserve/100
}
