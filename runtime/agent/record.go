package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
)

// memory is what this machine remembers of one pod until its next boot: a
// folder below the run directory.
type memory struct{ dir string }

func (a *Agent) memory(instance string) memory {
	return memory{filepath.Join(a.cfg.RunDir, "pods", instance)}
}

// recorded is the pod's record on disk.
type recorded struct {
	Assignment api.Assignment  `json:"assignment"`
	Object     *corev1.Pod     `json:"object"`
	Config     *runtime.Config `json:"config,omitempty"`
	Admitted   time.Time       `json:"admitted"`
}

func (m memory) path(parts ...string) string {
	return filepath.Join(append([]string{m.dir}, parts...)...)
}

// input returns where the writing end of a container's input is.
func (m memory) input(id string) string { return m.path("input", id) }

// makeInput makes it.
func (m memory) makeInput(id string) (string, error) {
	if err := os.MkdirAll(m.path("input"), 0o700); err != nil {
		return "", err
	}
	if err := syscall.Mkfifo(m.input(id), 0o600); err != nil {
		return "", fmt.Errorf("make %s: %w", m.input(id), err)
	}
	return m.input(id), nil
}

func (m memory) write(name string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(m.dir, 0o711); err != nil {
		return err
	}
	path := m.path(name)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (m memory) read(name string, value any) bool {
	b, err := os.ReadFile(m.path(name))
	return err == nil && json.Unmarshal(b, value) == nil
}

// record returns the pod's record, nil when there is none that can be read.
func (m memory) record() (*runtime.Pod, time.Time) {
	var r recorded
	if !m.read("pod.json", &r) || r.Object == nil {
		return nil, time.Time{}
	}
	return &runtime.Pod{Assignment: r.Assignment, Object: r.Object, Config: r.Config}, r.Admitted
}

func (m memory) setRecord(p runtime.Pod, admitted time.Time) error {
	return m.write("pod.json", recorded{p.Assignment, p.Object, p.Config, admitted})
}

// removing returns when the removal of the pod began.
func (m memory) removing() time.Time {
	var t time.Time
	m.read("removing.json", &t)
	return t
}

func (m memory) setRemoving(t time.Time) error { return m.write("removing.json", t) }

// evicted returns why the machine ended the pod for good.
func (m memory) evicted() runtime.Eviction {
	var e runtime.Eviction
	m.read("evicted.json", &e)
	return e
}

func (m memory) setEvicted(e runtime.Eviction) error { return m.write("evicted.json", e) }

// probes returns what the probes last said.
func (m memory) probes() map[string]runtime.Probes {
	var out map[string]runtime.Probes
	m.read("probes.json", &out)
	return out
}

func (m memory) setProbes(p map[string]runtime.Probes) error { return m.write("probes.json", p) }

// remembered returns the instances that have a memory, sorted.
func (a *Agent) remembered() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(a.cfg.RunDir, "pods"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, nil
}
