package runtime

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// What is kept from pods where nobody says otherwise: enough for the daemon, its
// keeper and fencer, and containerd.
const (
	usualCPU    = 100       // thousandths of a processor
	usualMemory = 256 << 20 // bytes
	usualPart   = 10        // but no more than a tenth
)

// reservable are the resources of which some can be kept from pods.
var reservable = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, "pid"}

// ParseReserves reads what is kept from pods as a kubelet's flags write it:
// cpu=100m, memory=256Mi, ephemeral-storage=1Gi, pid=1000.
func ParseReserves(list []string) (corev1.ResourceList, error) {
	out := corev1.ResourceList{}
	var errs []error
	for _, entry := range list {
		name, text, _ := strings.Cut(entry, "=")
		key := corev1.ResourceName(strings.TrimSpace(name))
		q, err := resource.ParseQuantity(strings.TrimSpace(text))
		switch {
		case !slices.Contains(reservable, key):
			errs = append(errs, fmt.Errorf("%q is none of %v", key, reservable))
		case err != nil || q.Sign() < 0:
			errs = append(errs, fmt.Errorf("%q is no resource=quantity, such as memory=256Mi", entry))
		default:
			out[key] = q
		}
	}
	return out, errors.Join(errs...)
}

// UsualReserves is what is kept from pods where kubeReserved is not set: 100m of
// the processors and 256 MiB of the memory, but no more than a tenth of each.
func UsualReserves(capacity corev1.ResourceList) corev1.ResourceList {
	cpu := min(usualCPU, capacity.Cpu().MilliValue()/usualPart)
	memory := min(usualMemory, capacity.Memory().Value()/usualPart)
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(cpu, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(memory, resource.BinarySI),
	}
}

// Without returns what is left of resources when others are taken from them, and
// never less than nothing. Resources that there are none of are left out.
// Source: Kubernetes, "Reserve Compute Resources for System Daemons".
func Without(capacity corev1.ResourceList, taken ...corev1.ResourceList) corev1.ResourceList {
	out := capacity.DeepCopy()
	for _, list := range taken {
		for name, q := range list {
			left, there := out[name]
			if !there {
				continue
			}
			if left.Sub(q); left.Sign() < 0 {
				left = *resource.NewQuantity(0, q.Format)
			}
			out[name] = left
		}
	}
	return out
}
