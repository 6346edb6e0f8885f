package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-dev/shoal/runtime"
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

// Attach connects to a running container until it or ctx ends: what it writes from
// now on, and its input and terminal where its spec gives it one. Whoever does not
// read in time misses some of the output; the container is never held up. With
// stdinOnce the end of Stdin ends the container's input for good. The error wraps
// runtime.ErrNotFound when no such container runs.
// Source: kubernetes.io, the fields stdin, stdinOnce and tty of Container.
func (a *Agent) Attach(ctx context.Context, instance, container string, streams runtime.Streams) error {
	c, pod, err := a.running(instance, container)
	if err != nil {
		return err
	}
	stdout, stderr, err := a.cfg.Logs.Tee(ctx, c.ID)
	if err != nil {
		return fmt.Errorf("attach to container %q in pod %q: %w", c.Name, pod.Object.Name, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _, _ = stdout.Close(), stderr.Close() })() // only read
	spec, known := runtime.FindContainer(&pod.Object.Spec, c.Name)
	if !known {
		spec, known = runtime.DebugContainer(a.Debugged(instance), c.Name)
	}
	if known && spec.Stdin && streams.Stdin != nil {
		input, err := openInput(a.memory(instance).input(c.ID))
		if err != nil {
			return fmt.Errorf("attach to container %q in pod %q: %w", c.Name, pod.Object.Name, err)
		}
		defer input.Close() //nolint:errcheck // likewise
		go func() {         // ends with ctx, as the writer does, or with streams.Stdin
			_, _ = io.Copy(input, streams.Stdin) // whoever types sees what comes of it
			_ = input.Close()                    // nothing is left in it
			if spec.StdinOnce {
				_ = a.cfg.Engine.CloseInput(context.WithoutCancel(ctx), c.ID) // it may just have ended
			}
		}()
	}
	if known && spec.TTY && streams.Resize != nil {
		go func() {
			for size := range streams.Resize {
				_ = a.cfg.Engine.Resize(ctx, c.ID, size) // likewise
			}
		}()
	}
	var g errgroup.Group
	for from, to := range map[io.Reader]io.Writer{stdout: streams.Stdout, stderr: streams.Stderr} {
		if to == nil {
			to = io.Discard
		}
		g.Go(func() error {
			_, err := io.Copy(to, from)
			return err
		})
	}
	err = g.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil && !a.ended(instance, c.ID) {
		err = fmt.Errorf("container %q in pod %q runs on, its outputs were lost: attach again", c.Name, pod.Object.Name)
	}
	return err
}

// openInput opens the writing end of a container's input.
func openInput(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ENXIO) {
		return nil, errors.New("its input was closed: with stdinOnce only the first to attach can write to it")
	}
	return file, err
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

// Offer says what another machine may know of an image. The error wraps
// runtime.ErrNotFound when this one does not have it.
func (a *Agent) Offer(ctx context.Context, ref string) (runtime.PeerImage, error) {
	return a.cfg.Engine.Offer(ctx, ref)
}

// Blob opens a part of an image, by its digest.
func (a *Agent) Blob(ctx context.Context, digest string) (io.ReadCloser, error) {
	return a.cfg.Engine.Blob(ctx, digest)
}
