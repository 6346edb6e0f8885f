package runtimetest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/containerd"
)

// Change is what has become of a container. Asked says that it ended because
// Kill asked it to.
type Change struct {
	Held  runtime.Held
	Asked bool
}

// Memory is a container engine in memory. The zero value is not ready: use
// NewMemory. It may be used concurrently.
type Memory struct {
	// Observe is told of every container that starts or ends, at that moment.
	// It must not call the engine. It is set before the engine is used.
	Observe func(Change)

	mu         sync.Mutex
	down       bool
	containers map[string]*container
	images     map[string]string // reference -> ID
	created    map[string]time.Time
	disk       runtime.Filesystem
	remote     map[string]string // what Pull finds
	access     map[string][]string
	away       bool // the registry is
	peers      containerd.Peers
	pods       map[string]bool
	limits     runtime.Resources // of all pods together
	watchers   map[chan string]bool
	pid        int
}

type container struct {
	held    runtime.Held
	spec    runtime.ContainerSpec
	task    bool
	onTerm  int // exit code on TERM; negative: ignored
	exitNow int // exit code at once; negative: runs on

	ended chan struct{} // closed when it ends, or is removed
}

// NewMemory returns an engine that holds the given images.
func NewMemory(images ...string) *Memory {
	m := &Memory{
		containers: map[string]*container{}, images: map[string]string{}, access: map[string][]string{}, created: map[string]time.Time{},
		disk: runtime.Filesystem{Path: "/memory", Capacity: 1 << 40, Available: 1 << 39}, remote: map[string]string{},
		pods: map[string]bool{}, watchers: map[chan string]bool{}, Observe: func(Change) {},
	}
	for _, i := range images {
		m.images[i] = imageID(i)
	}
	return m
}

func imageID(ref string) string {
	name, _, _ := strings.Cut(ref, ":")
	return fmt.Sprintf("%s@sha256:%x", name, sha256.Sum256([]byte(ref)))
}

// Serve makes an image known to the registry that Pull asks.
func (m *Memory) Serve(ref string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remote[ref] = imageID(ref)
}

// SetDown makes the engine unreachable, or reachable again. Containers run on.
func (m *Memory) SetDown(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
	if down {
		for w := range m.watchers {
			close(w)
			delete(m.watchers, w)
		}
	}
}

// Crash lets a running container end with a code.
func (m *Memory) Crash(id string, code int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.containers[id]; c != nil && c.held.State == runtime.ContainerRunning {
		m.end(c, code, false)
	}
}

// Env returns the environment of a container, nil when there is none of this ID.
func (m *Memory) Env(id string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.containers[id]; c != nil {
		return slices.Clone(c.spec.Env)
	}
	return nil
}

// Reboot ends every container at once, and whoever watches is cut off.
func (m *Memory) Reboot() {
	m.SetDown(true)
	m.mu.Lock()
	for _, c := range m.containers {
		if c.task {
			m.end(c, 137, false)
			c.held.Reason, c.task = runtime.EndedUnknown, false
		}
	}
	clear(m.pods)
	m.mu.Unlock()
	m.SetDown(false)
}

func (m *Memory) lock() (unlock func(), err error) {
	m.mu.Lock()
	if m.down {
		m.mu.Unlock()
		return nil, runtime.ErrUnavailable
	}
	return m.mu.Unlock, nil
}

// List returns every container, sorted by ID.
func (m *Memory) List(context.Context) ([]runtime.Held, error) {
	unlock, err := m.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	var out []runtime.Held
	for _, c := range m.containers {
		out = append(out, c.held)
	}
	slices.SortFunc(out, func(a, b runtime.Held) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// Inspect returns one container.
func (m *Memory) Inspect(_ context.Context, id string) (runtime.Held, error) {
	unlock, err := m.lock()
	if err != nil {
		return runtime.Held{}, err
	}
	defer unlock()
	c := m.containers[id]
	if c == nil {
		return runtime.Held{}, fmt.Errorf("inspect %s: %w", id, runtime.ErrNotFound)
	}
	return c.held, nil
}

var (
	exitScript = regexp.MustCompile(`^exit (\d+)$`)
	trapScript = regexp.MustCompile(`^trap 'exit (\d+)' TERM;`)
)

// Create makes a container.
func (m *Memory) Create(_ context.Context, s runtime.ContainerSpec) error {
	unlock, err := m.lock()
	if err != nil {
		return err
	}
	defer unlock()
	image, found := m.images[s.Image]
	if !found {
		return fmt.Errorf("image %s: %w", s.Image, runtime.ErrNotFound)
	}
	if m.containers[s.ID] != nil {
		return fmt.Errorf("create %s: already exists", s.ID)
	}
	if len(s.Command) == 0 {
		return fmt.Errorf("%w: nothing to run", runtime.ErrConfig)
	}
	c := &container{spec: s, task: true, onTerm: -1, exitNow: -1, ended: make(chan struct{}), held: runtime.Held{
		Container: runtime.Container{
			ID: s.ID, Name: s.Name, Init: s.Init, Attempt: s.Attempt, Crashes: s.Crashes, Sandbox: s.Sandbox,
			State: runtime.ContainerCreated, Image: s.Image, ImageID: image,
		},
		Assignment: s.Assignment, Namespace: s.Namespace, Pod: s.Pod,
	}}
	m.containers[s.ID] = c
	switch {
	case s.Command[0] == "sleep":
	case s.Command[0] == "sh" && len(s.Command) == 3:
		if match := exitScript.FindStringSubmatch(s.Command[2]); match != nil {
			c.exitNow, _ = strconv.Atoi(match[1])
		}
		if match := trapScript.FindStringSubmatch(s.Command[2]); match != nil {
			c.onTerm, _ = strconv.Atoi(match[1])
		}
	default:
		now := time.Now()
		c.held.State, c.held.ExitCode, c.held.Reason = runtime.ContainerExited, 128, runtime.EndedStart
		c.held.Started, c.held.Finished, c.held.Recorded, c.task = now, now, true, false
		c.held.Message = "no such file or directory"
		return fmt.Errorf("%w: %s: no such file or directory", runtime.ErrStart, s.Command[0])
	}
	return nil
}

// Start lets a created container run.
func (m *Memory) Start(_ context.Context, id string) (int, error) {
	unlock, err := m.lock()
	if err != nil {
		return 0, err
	}
	defer unlock()
	c := m.containers[id]
	if c == nil || !c.task {
		return 0, fmt.Errorf("start %s: %w", id, runtime.ErrNotFound)
	}
	m.pid++
	c.held.State, c.held.Started, c.held.PID = runtime.ContainerRunning, time.Now(), m.pid
	m.Observe(Change{Held: c.held})
	if c.exitNow >= 0 {
		m.end(c, int32(c.exitNow), false)
	}
	return c.held.PID, nil
}

// end ends a container and pokes the watchers. m.mu is held.
func (m *Memory) end(c *container, code int32, asked bool) {
	c.held.State, c.held.Finished, c.held.ExitCode = runtime.ContainerExited, time.Now(), code
	c.held.Reason = runtime.EndedError
	if code == 0 {
		c.held.Reason = runtime.EndedCompleted
	}
	c.stop()
	m.Observe(Change{Held: c.held, Asked: asked})
	m.poke(c.held.ID)
}

// stop ends the commands in a container.
func (c *container) stop() {
	select {
	case <-c.ended:
	default:
		close(c.ended)
	}
}

func (m *Memory) poke(id string) {
	for w := range m.watchers {
		select {
		case w <- id:
		default:
		}
	}
}

// Kill sends a signal.
func (m *Memory) Kill(_ context.Context, id string, signal syscall.Signal, _ bool) error {
	unlock, err := m.lock()
	if err != nil {
		return err
	}
	defer unlock()
	c := m.containers[id]
	if c == nil || c.held.State != runtime.ContainerRunning {
		return nil
	}
	switch {
	case signal == syscall.SIGKILL:
		m.end(c, 137, true)
	case signal == syscall.SIGTERM && c.onTerm >= 0:
		m.end(c, int32(c.onTerm), true)
	}
	return nil
}

// Record writes down what has become of a container.
func (m *Memory) Record(_ context.Context, r runtime.Container) error {
	unlock, err := m.lock()
	if err != nil {
		return err
	}
	defer unlock()
	c := m.containers[r.ID]
	if c == nil {
		return fmt.Errorf("record %s: %w", r.ID, runtime.ErrNotFound)
	}
	c.held.Started = r.Started
	if r.State == runtime.ContainerExited {
		c.held.Container, c.held.Recorded, c.task = r, true, false
		c.held.Recorded = true
	}
	return nil
}

// Remove removes a container, running or not.
func (m *Memory) Remove(_ context.Context, id string) error {
	unlock, err := m.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if c := m.containers[id]; c != nil {
		c.stop()
	}
	delete(m.containers, id)
	return nil
}

// Sweep has nothing to do.
func (m *Memory) Sweep(context.Context, func(string) bool) error { return nil }

// Watch calls poke for every event until ctx ends or the engine goes down.
func (m *Memory) Watch(ctx context.Context, poke func(string)) error {
	unlock, err := m.lock()
	if err != nil {
		return err
	}
	w := make(chan string, 1000)
	m.watchers[w] = true
	unlock()
	defer func() {
		m.mu.Lock()
		delete(m.watchers, w)
		m.mu.Unlock()
	}()
	for {
		select {
		case id, open := <-w:
			if !open {
				return runtime.ErrUnavailable
			}
			poke(id)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Version returns a version.
func (m *Memory) Version(context.Context) (string, error) {
	unlock, err := m.lock()
	if err != nil {
		return "", err
	}
	unlock()
	return "memory", nil
}

// Degraded returns nothing.
func (m *Memory) Degraded() []string { return nil }

// Group returns the path of a cgroup that does not exist.
func (m *Memory) Group(instance string) string { return "/memory/" + instance }

// Written is what a container has written: nothing, on a disk that does not exist.
func (m *Memory) Written(_ context.Context, id string) (runtime.DiskUse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return runtime.DiskUse{}, runtime.ErrUnavailable
	}
	if m.containers[id] == nil {
		return runtime.DiskUse{}, fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
	}
	return runtime.DiskUse{}, nil
}

// Folder is nowhere on this machine.
func (m *Memory) Folder(context.Context) (string, error) { return "", nil }

// LimitPods notes what bounds all pods together.
func (m *Memory) LimitPods(limits runtime.Resources) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limits = limits
	return nil
}

// CreatePod notes that the pod has a cgroup.
func (m *Memory) CreatePod(instance string, _ runtime.Resources) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pods[instance] = true
	return nil
}

// RemovePod forgets it.
func (m *Memory) RemovePod(instance string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pods, instance)
	return nil
}
