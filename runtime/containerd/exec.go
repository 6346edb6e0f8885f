package containerd

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"

	"github.com/shoal-dev/shoal/runtime"
)

var execSequence atomic.Int64

// Exec runs a command in a running container, as the container's user and with
// its environment, and returns its exit code once everything that it wrote was
// passed on. When ctx ends the command is killed, together with what it started
// in its process group.
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
	if streams.TTY && !slices.ContainsFunc(process.Env, func(v string) bool { return strings.HasPrefix(v, "TERM=") }) {
		process.Env = append(process.Env, "TERM=xterm")
	}
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
	var input io.Reader
	ended := make(chan struct{})
	if streams.Stdin != nil {
		input = &ending{from: streams.Stdin, ended: ended}
	}
	options := []cio.Opt{cio.WithStreams(input, streams.Stdout, streams.Stderr), cio.WithFIFODir(e.execDir())}
	if streams.TTY {
		options = append(options, cio.WithTerminal)
	}
	name := "exec-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(execSequence.Add(1), 10)
	running, err := task.Exec(ctx, name, &process, cio.NewCreator(options...))
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", id, translate(err))
	}
	code, err = e.await(ctx, running, ended, streams.Resize)
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", id, err)
	}
	return code, nil
}

// ending tells when an input has ended.
type ending struct {
	from  io.Reader
	once  sync.Once
	ended chan struct{}
}

func (r *ending) Read(b []byte) (int, error) {
	n, err := r.from.Read(b)
	if err != nil {
		r.once.Do(func() { close(r.ended) })
	}
	return n, err
}

// await starts a command and waits for its end.
func (e *Engine) await(ctx context.Context, running client.Process, inputEnded <-chan struct{}, resize <-chan runtime.Size) (int, error) {
	late := context.WithoutCancel(ctx)
	defer func() {
		late, cancel := context.WithTimeout(late, 2*time.Minute)
		defer cancel()
		_, _ = running.Delete(late, client.WithProcessKill)
	}()
	waiting, stop := context.WithCancel(late)
	defer stop()
	exited, err := running.Wait(waiting)
	if err != nil {
		return 0, translate(err)
	}
	// It may run before Start returns: ctx ends it by its number, which that brings.
	starting, cancel := context.WithTimeout(late, time.Minute)
	err = running.Start(starting)
	cancel()
	if err != nil {
		return 0, translate(err)
	}
	for {
		select {
		case end := <-exited:
			code, _, err := end.Result()
			if err != nil {
				return 0, translate(err)
			}
			return int(code), drained(ctx, running)
		case <-inputEnded:
			inputEnded = nil
			// The shim holds the input open, too. It fails on a command that has
			// ended, which is seen next.
			_ = running.CloseIO(ctx, client.WithStdinCloser)
		case size, open := <-resize:
			if !open {
				resize = nil
				continue
			}
			_ = running.Resize(ctx, uint32(size.Width), uint32(size.Height)) // likewise
		case <-ctx.Done():
			kill(late, running)
			return 0, ctx.Err()
		}
	}
}

// drained waits until all that an ended command wrote was passed on. What it
// started and left behind may hold its outputs open.
func drained(ctx context.Context, running client.Process) error {
	done := make(chan struct{})
	go func() { // ends with the outputs, which Delete closes
		defer close(done)
		running.IO().Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// kill kills a command and the process group that it leads.
func kill(ctx context.Context, running client.Process) {
	pid := int(running.Pid())
	if group, err := syscall.Getpgid(pid); err == nil && group == pid && pid > 1 {
		_ = syscall.Kill(-pid, syscall.SIGKILL) // it may just have ended
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_ = running.Kill(ctx, syscall.SIGKILL) // likewise
}
