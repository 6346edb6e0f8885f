package fencer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// cgroupMount is where the hierarchies are mounted.
const cgroupMount = "/sys/fs/cgroup"

// group is the cgroup of one pod, in every hierarchy.
type group string

// checkGroup refuses a path that is not that of one pod: everything below it
// will be killed.
func checkGroup(g string) error {
	if !path.IsAbs(g) || path.Clean(g) != g || strings.Count(g, "/") < 2 {
		return fmt.Errorf("%q is not the cgroup of a pod", g)
	}
	return nil
}

// folder returns the group's folder in a hierarchy of cgroup v1, or, where there
// is but one, in that.
func (g group) folder(hierarchy string) string {
	if _, err := os.Stat(filepath.Join(cgroupMount, "cgroup.controllers")); err == nil {
		return filepath.Join(cgroupMount, string(g))
	}
	return filepath.Join(cgroupMount, hierarchy, string(g))
}

// processes returns the processes in the group and below it. Those that runc is
// about to put there are not among them yet.
func (g group) processes() ([]int, error) {
	var out []int
	err := filepath.WalkDir(g.folder("pids"), func(p string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // it ended meanwhile
		case err != nil || !entry.IsDir():
			return err
		}
		raw, err := os.ReadFile(filepath.Join(p, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			return nil
		}
		for word := range strings.FieldsSeq(string(raw)) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 1 { // 0 is one of another namespace
				out = append(out, pid)
			}
		}
		return err
	})
	if err != nil {
		return out, fmt.Errorf("list the processes of cgroup %s: %w", g, err)
	}
	return out, nil
}

// shut keeps processes in the group from making others, which is also how runc
// brings the first one in. A group that does not exist needs no shutting.
func (g group) shut() error { return g.limit("0") }

// open is the reverse of shut.
func (g group) open() error { return g.limit("max") }

func (g group) limit(value string) error {
	err := os.WriteFile(filepath.Join(g.folder("pids"), "pids.max"), []byte(value), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set pids.max of cgroup %s to %s: %w", g, value, err)
	}
	return nil
}

// term asks the first process of every container to end, as the runtime would.
func (g group) term() error {
	pids, err := g.processes()
	var inits []int
	for _, pid := range pids {
		if initOfNamespace(pid) {
			inits = append(inits, pid)
		}
	}
	if len(inits) == 0 {
		inits = pids // they are in the machine's PID namespace
	}
	for _, pid := range inits {
		err = errors.Join(err, signal(pid, syscall.SIGTERM))
	}
	return err
}

// initOfNamespace reports whether a process is the first of its PID namespace,
// and that not the one of this process.
func initOfNamespace(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(raw)) {
		if numbers, found := strings.CutPrefix(line, "NSpid:"); found {
			words := strings.Fields(numbers)
			return len(words) > 1 && words[len(words)-1] == "1"
		}
	}
	return false
}

// kill kills every process of the group and reports whether none was left.
func (g group) kill() (empty bool, err error) {
	pids, err := g.processes()
	for _, pid := range pids {
		err = errors.Join(err, signal(pid, syscall.SIGKILL))
	}
	if len(pids) > 0 {
		// The frozen do not die.
		_ = filepath.WalkDir(g.folder("freezer"), func(p string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				_ = os.WriteFile(filepath.Join(p, "freezer.state"), []byte("THAWED"), 0) // v1
				_ = os.WriteFile(filepath.Join(p, "cgroup.freeze"), []byte("0"), 0)      // v2
			}
			return nil
		})
	}
	return len(pids) == 0 && err == nil, err
}

func signal(pid int, s syscall.Signal) error {
	if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal process %d: %w", pid, err)
	}
	return nil
}
