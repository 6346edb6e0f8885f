package agent

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/evict"
	"github.com/shoal-dev/shoal/runtime/usage"
)

// How often it is looked at what is left of the machine: seldom, and every second
// where little is.
const (
	pressureEvery = 10 * time.Second
	pressureTight = time.Second
	// reclaimEvery is how often is freed what nobody needs while a disk is full.
	reclaimEvery = 10 * time.Second
)

// pressure is what is known of how short the machine runs.
type pressure struct {
	past      evict.Past // tendPressure's alone, as the rest but for conditions
	reclaimed time.Time

	mu         sync.Mutex
	conditions []corev1.NodeConditionType
}

// Pressures are the conditions of this machine: what it runs short of, sorted.
func (a *Agent) Pressures() []corev1.NodeConditionType {
	a.pressure.mu.Lock()
	defer a.pressure.mu.Unlock()
	return a.pressure.conditions
}

// tendPressure looks at what is left of the machine until ctx ends, and ends pods
// where too little is.
func (a *Agent) tendPressure(ctx context.Context) {
	if a.cfg.Readings == nil || len(a.cfg.Resources.Eviction.Thresholds) == 0 {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next := pressureTight
		a.guard(corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: a.cfg.Node}, func() { next = a.lookForPressure(ctx) })
		timer.Reset(next)
	}
}

// lookForPressure looks once, and returns after what time to look again.
func (a *Agent) lookForPressure(ctx context.Context) time.Duration {
	policy := a.cfg.Resources.Eviction
	readings, oneDisk := a.cfg.Readings()
	in := evict.Input{Readings: readings, OneDisk: oneDisk, Past: a.pressure.past, Now: time.Now()}
	decision := evict.Decide(policy, in)
	if len(decision.Due) > 0 && a.Adopted() {
		in.Pods = a.candidates(ctx, decision.Due)
		in.Reclaimed = time.Since(a.pressure.reclaimed) < reclaimEvery
		decision = evict.Decide(policy, in)
		if decision.Reclaim {
			a.reclaim(ctx)
			in.Readings, in.OneDisk = a.cfg.Readings()
			in.Reclaimed, in.Now = true, time.Now()
			decision = evict.Decide(policy, in)
		}
	}
	a.pressure.past = decision.Past
	a.setPressures(decision.Conditions)
	if v := decision.Victim; v != nil {
		a.evict(v.Instance, runtime.Eviction{At: time.Now(), Reason: evict.Reason, Message: v.Message, Grace: v.Grace})
		return pressureTight
	}
	if len(decision.Due) > 0 || policy.Tight(readings, oneDisk) {
		return pressureTight
	}
	return pressureEvery
}

// setPressures makes known what the machine runs short of.
func (a *Agent) setPressures(conditions []corev1.NodeConditionType) {
	a.pressure.mu.Lock()
	changed := !slices.Equal(a.pressure.conditions, conditions)
	a.pressure.conditions = conditions
	a.pressure.mu.Unlock()
	if changed {
		a.notify()
	}
}

// reclaim frees what no pod needs.
func (a *Agent) reclaim(ctx context.Context) {
	a.pressure.reclaimed = time.Now()
	a.dropOldLogs()
	if err := a.DeleteUnusedImages(ctx); err != nil && ctx.Err() == nil {
		a.nodeEvent("EvictionThresholdMet", "Free what no pod needs: "+err.Error())
	}
}

// evict makes a pod end for good.
func (a *Agent) evict(instance string, e runtime.Eviction) {
	a.mu.Lock()
	w := a.workers[instance]
	a.mu.Unlock()
	if w == nil {
		return
	}
	w.mu.Lock()
	w.eviction = e
	if w.removal != nil {
		w.removal() // a hook that runs holds it up
	}
	w.mu.Unlock()
	w.poke()
}

// evicted notes that the pod was ended for good, before it is.
func (w *worker) evicted(e runtime.Eviction) {
	if err := w.memory.setEvicted(e); err != nil {
		// The disk that is full may be this one: it goes all the same.
		w.event(corev1.EventTypeWarning, "Failed", "", err.Error())
	}
	w.pod.Evicted = e
	w.pod.Leftovers = true
	w.event(corev1.EventTypeWarning, e.Reason, "", e.Message)
}

// refusal says why a pod may not begin on this machine now; the zero Eviction
// when it may.
func (a *Agent) refusal(pod *corev1.Pod) runtime.Eviction {
	why := evict.Admit(&pod.Spec, runtime.QOS(&pod.Spec), a.Pressures())
	if why == "" {
		return runtime.Eviction{}
	}
	return runtime.Eviction{At: time.Now(), Reason: evict.Reason, Message: "Pod was rejected: " + why, Unadmitted: true}
}

// candidates are the pods that run, with what they use of what runs short.
func (a *Agent) candidates(ctx context.Context, due []evict.Signal) []evict.Pod {
	groups := a.Groups()
	kernel := usage.Kernel()
	counters, err := kernel.Read(groups, 0)
	if err != nil {
		return nil // the next look may find out
	}
	containers := kernel.Containers(groups)
	disk := slices.ContainsFunc(due, evict.OnDisk)
	var out []evict.Pod
	held := a.known()
	a.forgetDisks(held)
	for instance, r := range held {
		if r.state.Phase == corev1.PodSucceeded || r.state.Phase == corev1.PodFailed || r.state.Stopping {
			continue
		}
		spec := &r.pod.Object.Spec
		pod := evict.Pod{
			Instance: instance, Critical: evict.Critical(spec), Grace: grace(spec), Ending: a.ending(instance),
			Memory: runtime.Requested(spec, corev1.ResourceMemory), Disk: runtime.Requested(spec, corev1.ResourceEphemeralStorage),
			Used: evict.Use{Memory: counters.Pods[instance].Memory, Processes: kernel.Processes(groups[instance])},
		}
		if spec.Priority != nil {
			pod.Priority = *spec.Priority
		}
		for i := range spec.Containers {
			c := &spec.Containers[i]
			pod.Containers = append(pod.Containers, evict.Container{
				Name: c.Name, Memory: containers[instance][c.Name].Memory, Request: c.Resources.Requests.Memory().Value(),
				Claim: c.Resources.Requests.StorageEphemeral().Value(),
			})
		}
		if disk {
			a.addDisk(ctx, r, &pod)
		}
		out = append(out, pod)
	}
	return out
}

func grace(spec *corev1.PodSpec) time.Duration {
	if spec.TerminationGracePeriodSeconds == nil {
		return 30 * time.Second
	}
	return time.Duration(*spec.TerminationGracePeriodSeconds) * time.Second
}

// ending is since when a pod is being ended, by eviction; the zero time while it
// is not.
func (a *Agent) ending(instance string) time.Time {
	a.mu.Lock()
	w := a.workers[instance]
	a.mu.Unlock()
	if w == nil {
		return time.Time{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.eviction.At
}

// readings measures what is left of this machine.
func (a *Agent) readings() (out map[evict.Signal]evict.Reading, oneDisk bool) {
	out = map[evict.Signal]evict.Reading{}
	if free := meminfo("MemAvailable"); a.machine.memory > 0 && free > 0 {
		out[evict.Memory] = evict.Reading{Available: free, Capacity: a.machine.memory}
	}
	if limit := a.cfg.Resources.ofPods(a.machine.capacity(a.cfg.StateDir), a.machine.processes).MemoryLimit; limit > 0 {
		if all, err := usage.Kernel().Read(map[string]string{"": a.cfg.Engine.Group("")}, 0); err == nil {
			if used, known := all.Pods[""]; known {
				out[evict.Allocatable] = evict.Reading{Available: limit - used.Memory, Capacity: limit}
			}
		}
	}
	if n := processes(); n > 0 && a.machine.processes > 0 {
		out[evict.PIDs] = evict.Reading{Available: a.machine.processes - n, Capacity: a.machine.processes}
	}
	return out, a.disks(out)
}

// disks measures what is left of the disks: the node's, and that of the images,
// where it is another one.
func (a *Agent) disks(out map[evict.Signal]evict.Reading) (oneDisk bool) {
	read := func(dir string, bytes, inodes evict.Signal) (unix.Fsid, bool) {
		var st unix.Statfs_t
		if dir == "" || unix.Statfs(dir, &st) != nil || st.Blocks == 0 {
			return unix.Fsid{}, false
		}
		out[bytes] = evict.Reading{Available: int64(st.Bavail) * st.Bsize, Capacity: int64(st.Blocks) * st.Bsize}
		if st.Files > 0 {
			out[inodes] = evict.Reading{Available: int64(st.Ffree), Capacity: int64(st.Files)}
		}
		return st.Fsid, true
	}
	node, known := read(a.cfg.StateDir, evict.NodeFS, evict.NodeInodes)
	images, found := read(a.imageDir(), evict.ImageFS, evict.ImageInodes)
	return !known || !found || node == images
}

// processes is how many processes and threads there are; 0 when nobody says.
func processes() int64 {
	fields := strings.Fields(word("/proc/loadavg"))
	if len(fields) < 4 {
		return 0
	}
	_, all, _ := strings.Cut(fields[3], "/")
	n, _ := strconv.ParseInt(all, 10, 64) // the kernel writes numbers
	return n
}

// pressureCondition is a condition of the node, as kubelet words it.
func (a *Agent) pressureCondition(kind corev1.NodeConditionType) corev1.NodeCondition {
	under := slices.Contains(a.Pressures(), kind)
	switch kind {
	case corev1.NodeMemoryPressure:
		return condition(kind, under, choose(under, "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
			fmt.Sprintf("node has %s memory available", choose(under, "insufficient", "sufficient")))
	case corev1.NodeDiskPressure:
		return condition(kind, under, choose(under, "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
			fmt.Sprintf("node has %s disk pressure", choose(under, "a", "no")))
	}
	return condition(kind, under, choose(under, "NodeHasInsufficientPID", "NodeHasSufficientPID"),
		fmt.Sprintf("node has %s PID available", choose(under, "insufficient", "sufficient")))
}

func choose(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}
