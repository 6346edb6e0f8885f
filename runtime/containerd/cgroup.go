package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoal-dev/shoal/runtime"
)

const cgroupMount = "/sys/fs/cgroup"

// Group returns the path of a pod's cgroup below the mount of each hierarchy.
// Every process of the pod is in it or below it.
func (e *Engine) Group(instance string) string { return path.Join(e.cfg.CgroupRoot, instance) }

// CreatePod makes the cgroup of a pod with the limits of the whole pod. It is
// idempotent.
func (e *Engine) CreatePod(instance string, limits runtime.Resources) error {
	return limit(e.Group(instance), limits)
}

// LimitPods bounds what all pods use together. It is idempotent, and fails where
// they use more memory already than the kernel can take from them.
func (e *Engine) LimitPods(limits runtime.Resources) error {
	if cgroups.Mode() == cgroups.Unified { // the kernel would kill at once there
		raw, err := os.ReadFile(filepath.Join(cgroupMount, e.cfg.CgroupRoot, "memory.current"))
		if used, bad := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64); err == nil && bad == nil && limits.MemoryLimit > 0 && used > limits.MemoryLimit {
			return fmt.Errorf("limit the memory of all pods to %d MiB: they use %d MiB already", limits.MemoryLimit>>20, used>>20)
		}
	}
	return limit(e.cfg.CgroupRoot, limits)
}

// limit makes a cgroup, unless it exists, and gives it limits.
func limit(group string, limits runtime.Resources) error {
	resources := linuxResources(limits)
	if cgroups.Mode() == cgroups.Unified {
		if _, err := cgroup2.NewManager(cgroupMount, group, cgroup2.ToResources(resources)); err != nil {
			return fmt.Errorf("make cgroup %s: %w", group, err)
		}
		return nil
	}
	if _, err := cgroup1.New(cgroup1.StaticPath(group), resources); err != nil {
		return fmt.Errorf("make cgroup %s: %w", group, err)
	}
	return nil
}

// RemovePod removes a pod's cgroup and what is left below it. No process of the
// pod runs any more. Removing what does not exist is fine.
func (e *Engine) RemovePod(instance string) error {
	if instance == "" || strings.Contains(instance, "/") {
		return fmt.Errorf("remove cgroup of %q: not an instance", instance)
	}
	return e.removeCgroup(path.Join(e.cfg.CgroupRoot, instance))
}

// removeCgroup removes a cgroup and those below it, in every hierarchy: runc
// leaves some behind, as do containers whose shim was killed. Processes that
// are just ending keep a cgroup busy for a moment.
func (e *Engine) removeCgroup(group string) error {
	var errs []error
	for _, root := range hierarchies() {
		var err error
		for wait := 5 * time.Millisecond; wait < 6*time.Second; wait *= 2 {
			if err = removeFolders(filepath.Join(root, group)); !errors.Is(err, unix.EBUSY) {
				break
			}
			time.Sleep(wait)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", filepath.Join(root, group), err))
		}
	}
	return errors.Join(errs...)
}

// tryCgroup removes a cgroup where nothing keeps it busy.
func tryCgroup(group string) {
	for _, root := range hierarchies() {
		_ = removeFolders(filepath.Join(root, group))
	}
}

// removeFolders removes a folder and those below it, deepest first, leaving
// aside the files, which a cgroup's folder loses by itself.
func removeFolders(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(p string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			dirs = append(dirs, p)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(dirs) {
		if err := unix.Rmdir(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// removeCgroupRoot removes the cgroup of all pods when no pod is left in it.
func (e *Engine) removeCgroupRoot() {
	for _, root := range hierarchies() {
		_ = os.Remove(filepath.Join(root, e.cfg.CgroupRoot)) // in use by another fleet's daemon otherwise
	}
}

// hierarchies returns the mount points of all cgroup hierarchies.
func hierarchies() []string {
	if cgroups.Mode() == cgroups.Unified {
		return []string{cgroupMount}
	}
	entries, err := os.ReadDir(cgroupMount)
	if err != nil {
		return nil
	}
	var out []string
	for _, entry := range entries {
		if entry.IsDir() { // links are other names of the same
			out = append(out, filepath.Join(cgroupMount, entry.Name()))
		}
	}
	return out
}

// oomKills returns how many processes of a cgroup the kernel killed for want of
// memory.
func (e *Engine) oomKills(group string) int {
	file := filepath.Join(cgroupMount, "memory", group, "memory.oom_control")
	if cgroups.Mode() == cgroups.Unified {
		file = filepath.Join(cgroupMount, group, "memory.events")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	return oomKills(string(b))
}

// oomKills reads memory.oom_control (v1) or memory.events (v2).
func oomKills(text string) int {
	for line := range strings.Lines(text) {
		if rest, found := strings.CutPrefix(line, "oom_kill "); found {
			n, err := strconv.Atoi(strings.TrimSpace(rest))
			if err == nil {
				return n
			}
		}
	}
	return 0
}

// linuxResources turns limits into what runc and the cgroup libraries read.
func linuxResources(r runtime.Resources) *specs.LinuxResources {
	out := &specs.LinuxResources{CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{}}
	if r.CPUShares > 0 {
		out.CPU.Shares = &r.CPUShares
	}
	if r.CPUQuota > 0 {
		period := uint64(100_000)
		out.CPU.Quota, out.CPU.Period = &r.CPUQuota, &period
	}
	if r.MemoryLimit > 0 {
		out.Memory.Limit = &r.MemoryLimit
	}
	if r.PIDs > 0 {
		out.Pids = &specs.LinuxPids{Limit: &r.PIDs}
	}
	return out
}
