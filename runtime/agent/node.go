package agent

import (
	"context"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxPods is how many pods a node takes, as with kubelet.
const maxPods = 110

// Node is what a node says of itself.
type Node struct {
	Capacity corev1.ResourceList
	// Allocatable is what pods may request of it together.
	Allocatable corev1.ResourceList
	System      corev1.NodeSystemInfo
	Conditions  []corev1.NodeCondition // without times of transitions
	Images      []corev1.ContainerImage
	Volumes     []string // persistent ones, by api.VolumeName
}

// machine is what does not change while the machine runs.
type machine struct {
	memory    int64 // bytes
	processes int64 // and threads, that there can be at most
	system    corev1.NodeSystemInfo
}

func readMachine() machine {
	m := machine{system: corev1.NodeSystemInfo{
		MachineID:       word("/etc/machine-id"),
		SystemUUID:      word("/sys/class/dmi/id/product_uuid"),
		KernelVersion:   word("/proc/sys/kernel/osrelease"),
		OSImage:         osImage(),
		OperatingSystem: goruntime.GOOS,
		Architecture:    goruntime.GOARCH,
	}}
	if m.system.SystemUUID == "" {
		m.system.SystemUUID = m.system.MachineID
	}
	m.memory = meminfo("MemTotal")
	m.processes = mostProcesses()
	return m
}

func word(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func osImage() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if value, found := strings.CutPrefix(line, "PRETTY_NAME="); found {
			return strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return ""
}

// meminfo returns a field of /proc/meminfo in bytes.
func meminfo(field string) int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, found := strings.CutPrefix(line, field+":"); found {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err == nil {
				return n << 10
			}
		}
	}
	return 0
}

// capacity returns what the machine has. dir lies on the disk that pods write to.
func (m machine) capacity(dir string) corev1.ResourceList {
	out := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(int64(goruntime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(m.memory, resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(maxPods, resource.DecimalSI),
	}
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil || unix.Statfs("/", &st) == nil {
		size := int64(st.Blocks) * st.Bsize
		out[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(size, resource.BinarySI)
	}
	return out
}

// Node returns what this node says of itself now. The engine's version and the
// images are left out while it does not answer.
func (a *Agent) Node(ctx context.Context) Node {
	capacity := a.machine.capacity(a.cfg.StateDir)
	out := Node{Capacity: capacity, Allocatable: a.cfg.Resources.Allocatable(capacity), System: a.machine.system}
	a.mu.Lock()
	down, keeper := a.down, a.keeper
	a.mu.Unlock()
	if down == nil {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if version, err := a.cfg.Engine.Version(ctx); err == nil {
			out.System.ContainerRuntimeVersion = "containerd://" + version
		}
		if images, err := a.cfg.Engine.Images(ctx); err == nil {
			for _, i := range images {
				out.Images = append(out.Images, corev1.ContainerImage{
					Names: append([]string{i.ID}, i.Names...), SizeBytes: i.Size,
				})
			}
		}
	}
	if volumes, err := a.volumes.Persistent(); err == nil {
		out.Volumes = volumes
	}
	out.Conditions = []corev1.NodeCondition{
		a.pressureCondition(corev1.NodeMemoryPressure), a.diskPressure(), a.pressureCondition(corev1.NodePIDPressure), a.ready(down, keeper),
	}
	return out
}

func condition(kind corev1.NodeConditionType, status bool, reason, message string) corev1.NodeCondition {
	out := corev1.NodeCondition{
		Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message,
		LastHeartbeatTime: metav1.Now(),
	}
	if status {
		out.Status = corev1.ConditionTrue
	}
	return out
}

// ready says whether pods can be run. What the machine does not allow is said
// along with it.
func (a *Agent) ready(down, keeper error) corev1.NodeCondition {
	switch {
	case down != nil:
		return condition(corev1.NodeReady, false, "ContainerRuntimeDown", down.Error())
	case keeper != nil:
		return condition(corev1.NodeReady, false, "KeeperDown", keeper.Error())
	}
	message := "pods can run"
	limits := append(a.cfg.Engine.Degraded(), a.cfg.Network.Warnings()...)
	if a.cfg.Fencer != nil {
		limits = append(limits, a.cfg.Fencer.Degraded()...)
	}
	if len(limits) > 0 {
		return condition(corev1.NodeReady, true, "Degraded", message+"; "+strings.Join(limits, "; "))
	}
	return condition(corev1.NodeReady, true, "Ready", message)
}

// diskPressure says that there is none on a disk that can be read.
func (a *Agent) diskPressure() corev1.NodeCondition {
	var st unix.Statfs_t
	if err := unix.Statfs(a.cfg.StateDir, &st); err != nil {
		return condition(corev1.NodeDiskPressure, true, "NodeDiskUnreadable", fmt.Sprintf("%s: %v", a.cfg.StateDir, err))
	}
	return a.pressureCondition(corev1.NodeDiskPressure)
}
