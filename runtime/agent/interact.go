package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/logs"
)

// Exec runs a command in a container of a pod and returns its exit code. The
// command is killed when ctx ends. The error wraps runtime.ErrNotFound when no
// such container runs.
func (a *Agent) Exec(ctx context.Context, instance, container string, command []string, streams runtime.Streams) (int, error) {
	c, _, err := a.running(instance, container)
	if err != nil {
		return 0, err
	}
	return a.cfg.Engine.Exec(ctx, c.ID, command, streams)
}

// Attach passes on what a running container writes from now on, until it or ctx
// ends. Containers have no input and no terminal of their own, so there is
// nothing that could be written to. The error wraps runtime.ErrNotFound when no
// such container runs.
func (a *Agent) Attach(ctx context.Context, instance, container string, streams runtime.Streams) error {
	c, pod, err := a.running(instance, container)
	if err != nil {
		return err
	}
	path := filepath.Join(a.logDir(), runtime.LogPath(pod.Object.Namespace, pod.Object.Name, instance, c.Name, c.Attempt))
	g, ctx := errgroup.WithContext(ctx)
	follow := func(stream string, to io.Writer) error {
		if to == nil {
			return nil
		}
		log, err := logs.Read(ctx, path, logs.Options{
			Follow: true, Stream: stream, Ended: func() bool { return a.ended(instance, c.ID) },
		})
		if err != nil {
			return fmt.Errorf("attach to container %q in pod %q: %w", c.Name, pod.Object.Name, err)
		}
		g.Go(func() error {
			defer log.Close()
			_, err := io.Copy(to, log)
			return err
		})
		return nil
	}
	err = errors.Join(follow("stdout", streams.Stdout), follow("stderr", streams.Stderr))
	if streams.Stdout == nil && streams.Stderr == nil { // there is its end to wait for
		err = follow("stdout", io.Discard)
	}
	return errors.Join(err, g.Wait())
}

// Forward connects to a TCP port of a pod from inside of its network.
func (a *Agent) Forward(ctx context.Context, instance string, port uint16) (net.Conn, error) {
	a.mu.Lock()
	r, found := a.reports[instance]
	a.mu.Unlock()
	if !found || !r.known {
		return nil, fmt.Errorf("pod %s: %w on this node", instance, runtime.ErrNotFound)
	}
	if info, found := a.cfg.Network.Get(instance); !found || !info.Complete {
		return nil, fmt.Errorf("pod %q has no network", r.pod.Object.Name)
	}
	return a.cfg.Network.Dial(ctx, instance, port)
}

// running finds the container of a pod that runs now.
func (a *Agent) running(instance, container string) (runtime.Container, runtime.Pod, error) {
	c, pod, err := a.attempt(instance, container, false)
	if err == nil && c.State != runtime.ContainerRunning {
		err = fmt.Errorf("container %q in pod %q does not run: %w", c.Name, pod.Object.Name, runtime.ErrNotFound)
	}
	return c, pod, err
}
