package containerd

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"

	"github.com/shoal-dev/shoal/runtime"
)

var execSequence atomic.Int64

// Exec runs a command in a running container, as the container's user and with
// its environment, and returns its exit code. When ctx ends the command is
// killed.
func (e *Engine) Exec(ctx context.Context, id string, command []string, streams runtime.Streams) (code int, err error) {
	ctx = e.ctx(ctx)
	container, err := e.client.LoadContainer(ctx, id)
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", id, translate(err))
	}
	spec, err := container.Spec(ctx)
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", id, translate(err))
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", id, translate(err))
	}
	process := *spec.Process
	process.Args = command
	process.Terminal = streams.TTY
	if err := os.MkdirAll(e.execDir(), 0o711); err != nil {
		return 0, err
	}
	// Shims of containerd 1.6 cannot open an output that is left out.
	if streams.Stdout == nil {
		streams.Stdout = io.Discard
	}
	if streams.Stderr == nil {
		streams.Stderr = io.Discard
	}
	options := []cio.Opt{cio.WithStreams(streams.Stdin, streams.Stdout, streams.Stderr), cio.WithFIFODir(e.execDir())}
	if streams.TTY {
		options = append(options, cio.WithTerminal)
	}
	name := "exec-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(execSequence.Add(1), 10)
	running, err := task.Exec(ctx, name, &process, cio.NewCreator(options...))
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", id, translate(err))
	}
	return e.await(ctx, id, running)
}

// await starts a command and waits for its end.
func (e *Engine) await(ctx context.Context, id string, running client.Process) (int, error) {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	defer func() { _, _ = running.Delete(late, client.WithProcessKill) }()
	exited, err := running.Wait(late)
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", id, translate(err))
	}
	if err := running.Start(ctx); err != nil {
		return 0, fmt.Errorf("exec in %s: %w", id, translate(err))
	}
	select {
	case end := <-exited:
		code, _, err := end.Result()
		if err != nil {
			return 0, fmt.Errorf("exec in %s: %w", id, translate(err))
		}
		running.IO().Wait()
		return int(code), nil
	case <-ctx.Done():
		_ = running.Kill(late, syscall.SIGKILL)
		return 0, fmt.Errorf("exec in %s: %w", id, ctx.Err())
	}
}
