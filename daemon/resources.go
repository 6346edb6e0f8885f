package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/agent"
	"github.com/shoal-dev/shoal/runtime/evict"
)

// evictionHard is what has to be left of the machine where nobody says otherwise:
// kubelet's thresholds, and one of processes. Source: Kubernetes, "Node-pressure
// Eviction: Hard eviction thresholds".
var evictionHard = []string{
	"memory.available<100Mi", "nodefs.available<10%", "nodefs.inodesFree<5%", "imagefs.available<15%", "imagefs.inodesFree<5%", "pid.available<10%",
}

// Resources reads what pods may use of the machine. The error names every mistake,
// with the setting.
func (c Config) Resources() (agent.Resources, error) {
	var errs []error
	reserves := func(setting string, list []string) corev1.ResourceList {
		out, err := runtime.ParseReserves(list)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", setting, err))
		}
		return out
	}
	out := agent.Resources{System: reserves("systemReserved", c.SystemReserved), PodPIDs: int64(c.PodPIDs)}
	if kube := reserves("kubeReserved", c.KubeReserved); len(c.KubeReserved) > 0 {
		out.Own = kube
	}
	var err error
	out.Eviction, err = evict.Parse(evict.Settings{
		Hard: c.EvictionHard, Soft: c.EvictionSoft, SoftGrace: c.EvictionSoftGrace, MinimumReclaim: c.EvictionMinimumReclaim,
		MaxPodGrace: time.Duration(c.EvictionMaxPodGrace) * time.Second, Transition: c.EvictionTransition,
	})
	if c.PodPIDs < -1 {
		errs = append(errs, fmt.Errorf("podPidsLimit: %d is neither a number of processes, nor -1 for any number, nor 0 for the default", c.PodPIDs))
	}
	return out, errors.Join(append(errs, err)...)
}

// protect makes this process, and the keeper that it starts, the last ones that
// the kernel kills when memory runs out, as kubelet does. Some containers may not;
// the log says so.
func protect(log *slog.Logger) {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0); err != nil {
		log.Warn("the daemon may be killed when memory runs out", "reason", err)
	}
}
