package agent

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/logs"
)

// Logs returns what a container wrote, as kubectl logs prints it. An empty
// container name means the pod's only one. The error wraps runtime.ErrNotFound
// when there is no such pod, container or earlier attempt.
func (a *Agent) Logs(ctx context.Context, instance, container string, opts corev1.PodLogOptions) (io.ReadCloser, error) {
	c, pod, err := a.attempt(instance, container, opts.Previous)
	if err != nil {
		return nil, err
	}
	read := logs.Options{Follow: opts.Follow, Timestamps: opts.Timestamps, Tail: -1}
	if opts.TailLines != nil {
		read.Tail = *opts.TailLines
	}
	if opts.LimitBytes != nil {
		read.Limit = *opts.LimitBytes
	}
	if opts.SinceTime != nil {
		read.Since = opts.SinceTime.Time
	}
	if opts.SinceSeconds != nil {
		read.Since = time.Now().Add(-time.Duration(*opts.SinceSeconds) * time.Second)
	}
	read.Ended = func() bool { return a.ended(instance, c.ID) }
	path := filepath.Join(a.logDir(), runtime.LogPath(pod.Object.Namespace, pod.Object.Name, instance, c.Name, c.Attempt))
	return logs.Read(ctx, path, read)
}

// attempt finds the attempt whose log is meant: the newest that was started, or
// the one before.
func (a *Agent) attempt(instance, container string, previous bool) (runtime.Container, runtime.Pod, error) {
	a.mu.Lock()
	r, found := a.reports[instance]
	a.mu.Unlock()
	if !found || !r.known {
		return runtime.Container{}, runtime.Pod{}, fmt.Errorf("pod %s: %w on this node", instance, runtime.ErrNotFound)
	}
	if container == "" && len(r.pod.Object.Spec.Containers) > 0 {
		container = r.pod.Object.Spec.Containers[0].Name
	}
	var newest, before []runtime.Container
	for _, c := range r.held { // sorted by attempt
		if c.Name == container && c.State != runtime.ContainerCreated {
			before = newest
			newest = []runtime.Container{c}
		}
	}
	if previous {
		newest = before
	}
	if len(newest) == 0 {
		what := "container"
		if previous {
			what = "previous terminated container"
		}
		return runtime.Container{}, r.pod, fmt.Errorf("%s %q in pod %q: %w", what, container, r.pod.Object.Name, runtime.ErrNotFound)
	}
	return newest[0], r.pod, nil
}

// ended reports whether nothing more will come from a container.
func (a *Agent) ended(instance, id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.reports[instance].held {
		if c.ID == id {
			return c.State == runtime.ContainerExited
		}
	}
	return true
}

// Groups returns the cgroups of the pods that this machine holds, below the mount
// of each hierarchy, by instance.
func (a *Agent) Groups() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]string, len(a.reports))
	for instance := range a.reports {
		out[instance] = a.cfg.Engine.Group(instance)
	}
	return out
}
