package usage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Counter is how much processor time something has used since it began, and how
// much memory it uses: that which cannot be dropped at once, as kubectl top
// counts it.
type Counter struct {
	CPU    time.Duration
	Memory int64 // bytes
}

// Counters are those of a machine at one time, and of its pods by instance.
type Counters struct {
	At   time.Duration // on any clock that does not step
	Node Counter
	Pods map[string]Counter
	// Exact are the pods by whose usage something is decided: it is told in
	// smaller steps, and at least every minute.
	Exact map[string]bool
	// Containers are those of pods of which they are wanted, by instance and name.
	Containers map[string]map[string]Counter
}

// Roots are where the kernel tells.
type Roots struct{ Proc, Cgroup string }

// Kernel is where the kernel of this machine tells.
func Kernel() Roots { return Roots{"/proc", "/sys/fs/cgroup"} }

// Read reads the counters of the machine and of pods, which are given by their
// cgroups below the mount of each hierarchy, by instance. A pod whose cgroup is
// gone is left out.
func (r Roots) Read(groups map[string]string, at time.Duration) (Counters, error) {
	out := Counters{At: at, Pods: map[string]Counter{}}
	var err error
	if out.Node, err = r.node(); err != nil {
		return Counters{}, err
	}
	read, _ := r.version()
	for instance, group := range groups {
		if c, err := read(group); err == nil {
			out.Pods[instance] = c
		}
	}
	return out, nil
}

// Containers reads the counters of the containers of pods, which are given as for
// Read. The cgroups of a container are below that of its pod and named after it,
// with something behind a dot that tells its tries apart; an old one goes soon.
func (r Roots) Containers(groups map[string]string) map[string]map[string]Counter {
	read, mount := r.version()
	out := make(map[string]map[string]Counter, len(groups))
	for instance, group := range groups {
		entries, err := os.ReadDir(filepath.Join(mount, group))
		if err != nil {
			continue // it is gone
		}
		out[instance] = map[string]Counter{}
		for _, entry := range entries {
			name, _, found := strings.Cut(entry.Name(), ".")
			if !found || !entry.IsDir() {
				continue // a file, or nobody's
			}
			if c, err := read(filepath.Join(group, entry.Name())); err == nil {
				all := out[instance][name]
				out[instance][name] = Counter{all.CPU + c.CPU, all.Memory + c.Memory}
			}
		}
	}
	return out
}

// Processes is how many processes and threads are in a cgroup and below it; 0 when
// the kernel does not say.
func (r Roots) Processes(group string) int64 {
	dir := filepath.Join(r.Cgroup, "pids", group)
	if _, err := os.Stat(filepath.Join(r.Cgroup, "cgroup.controllers")); err == nil {
		dir = filepath.Join(r.Cgroup, group)
	}
	n, _ := number(filepath.Join(dir, "pids.current")) // it may be gone
	return n
}

// version returns how to read a cgroup of the machine's version, and below which
// mount all of them are listed.
func (r Roots) version() (read func(group string) (Counter, error), mount string) {
	if _, err := os.Stat(filepath.Join(r.Cgroup, "cgroup.controllers")); err == nil {
		return r.version2, r.Cgroup
	}
	return r.version1, filepath.Join(r.Cgroup, "cpuacct")
}

// userHz is the unit of /proc/stat on every architecture that Go knows.
const userHz = 100

// node reads /proc/stat and /proc/meminfo.
func (r Roots) node() (Counter, error) {
	var out Counter
	stat, err := os.ReadFile(filepath.Join(r.Proc, "stat"))
	if err != nil {
		return out, fmt.Errorf("read the machine's usage: %w", err)
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return out, errors.New("read the machine's usage: /proc/stat does not begin with the sum of all processors")
	}
	for i, field := range fields[1:9] { // user nice system idle iowait irq softirq steal
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return out, fmt.Errorf("read the machine's usage: %w", err)
		}
		if i != 3 && i != 4 {
			out.CPU += time.Duration(ticks) * time.Second / userHz
		}
	}
	info, err := os.ReadFile(filepath.Join(r.Proc, "meminfo"))
	if err != nil {
		return out, fmt.Errorf("read the machine's usage: %w", err)
	}
	total, available := value(string(info), "MemTotal:"), value(string(info), "MemAvailable:")
	out.Memory = max(0, total-available) << 10 // they are in KiB
	return out, nil
}

// version1 reads the hierarchies cpuacct and memory.
func (r Roots) version1(group string) (Counter, error) {
	cpu, err := number(filepath.Join(r.Cgroup, "cpuacct", group, "cpuacct.usage"))
	if err != nil {
		return Counter{}, err
	}
	used, err := number(filepath.Join(r.Cgroup, "memory", group, "memory.usage_in_bytes"))
	if err != nil {
		return Counter{}, err
	}
	stat, err := os.ReadFile(filepath.Join(r.Cgroup, "memory", group, "memory.stat"))
	if err != nil {
		return Counter{}, err
	}
	return Counter{time.Duration(cpu), max(0, used-value(string(stat), "total_inactive_file"))}, nil
}

// version2 reads the one hierarchy.
func (r Roots) version2(group string) (Counter, error) {
	dir := filepath.Join(r.Cgroup, group)
	cpu, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return Counter{}, err
	}
	used, err := number(filepath.Join(dir, "memory.current"))
	if err != nil {
		return Counter{}, err
	}
	stat, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return Counter{}, err
	}
	micros := value(string(cpu), "usage_usec")
	return Counter{time.Duration(micros) * time.Microsecond, max(0, used-value(string(stat), "inactive_file"))}, nil
}

func number(path string) (int64, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
}

// value returns the number behind a name at the beginning of a line, 0 when there
// is none.
func value(text, name string) int64 {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			n, _ := strconv.ParseInt(fields[1], 10, 64) // the kernel writes numbers
			return n
		}
	}
	return 0
}
