package agent

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// Debug adds a container to a pod on this node. It is started once, whatever the
// pod's other containers do, ends with the pod, and is remembered until the machine
// boots anew. The error wraps runtime.ErrNotFound when the pod is not here.
func (a *Agent) Debug(instance string, c corev1.EphemeralContainer) error {
	a.mu.Lock()
	w, r := a.workers[instance], a.reports[instance]
	a.mu.Unlock()
	if w == nil || !r.known {
		return fmt.Errorf("pod %s: %w on this node", instance, runtime.ErrNotFound)
	}
	spec := &r.pod.Object.Spec
	if _, taken := runtime.FindContainer(spec, c.Name); taken {
		return fmt.Errorf("pod %q has a container %q already", r.pod.Object.Name, c.Name)
	}
	if target := c.TargetContainerName; target != "" {
		if _, found := runtime.FindContainer(spec, target); !found {
			return fmt.Errorf("pod %q has no container %q to look into", r.pod.Object.Name, target)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, taken := runtime.DebugContainer(w.debug, c.Name); taken {
		return fmt.Errorf("pod %q has a container %q already", r.pod.Object.Name, c.Name)
	}
	debug := append(slices.Clone(w.debug), c)
	if err := w.memory.write("debug.json", debug); err != nil {
		return fmt.Errorf("add container %q to pod %q: %w", c.Name, r.pod.Object.Name, err)
	}
	w.debug = debug
	w.poke()
	return nil
}

// Debugged returns the containers that were added to a pod on this node. The value
// is shared: do not change it.
func (a *Agent) Debugged(instance string) []corev1.EphemeralContainer {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reports[instance].debug
}

// recall returns the debug containers that an earlier daemon was told of.
func (w *worker) recall() []corev1.EphemeralContainer {
	var debug []corev1.EphemeralContainer
	if !w.memory.read("debug.json", &debug) {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.debug = debug
	return debug
}

// debuggers returns the debug containers in the form of others.
func (w *worker) debuggers() []corev1.Container {
	out := make([]corev1.Container, len(w.pod.Debug))
	for i, c := range w.pod.Debug {
		out[i] = corev1.Container(c.EphemeralContainerCommon)
	}
	return out
}

// watched returns the namespace of the processes that a debug container looks at,
// "" for its own.
func (w *worker) watched(ctx context.Context, name string) (string, error) {
	i := slices.IndexFunc(w.pod.Debug, func(c corev1.EphemeralContainer) bool { return c.Name == name && c.TargetContainerName != "" })
	if i < 0 || w.object.Object.Spec.HostPID {
		return "", nil
	}
	target := w.pod.Debug[i].TargetContainerName
	for _, c := range w.pod.Containers {
		if c.Name != target || c.State != runtime.ContainerRunning {
			continue
		}
		held, err := w.a.cfg.Engine.Inspect(ctx, c.ID)
		if err != nil {
			return "", err
		}
		if held.PID > 0 {
			return fmt.Sprintf("/proc/%d/ns/pid", held.PID), nil
		}
	}
	return "", fmt.Errorf("container %q, which it should look into, does not run", target)
}
