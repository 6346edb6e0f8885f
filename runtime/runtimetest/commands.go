package runtimetest

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/shoal-dev/shoal/runtime"
)

// The scripts that commands in memory understand. All are what busybox does, too.
var (
	failScript  = regexp.MustCompile(`^echo (\w+) >&2; exit (\d+)$`)
	catScript   = regexp.MustCompile(`^cat; exit (\d+)$`)
	zeroScript  = regexp.MustCompile(`^head -c (\d+) /dev/zero; echo (\w+) >&2$`)
	sizesScript = "while stty size; do sleep 0.1; done"
)

// Exec understands echo, cat, env, pwd, id -u and sleep, and a few scripts. As
// with a real engine it ends with ctx and with the container.
func (m *Memory) Exec(ctx context.Context, id string, command []string, streams runtime.Streams) (int, error) {
	unlock, err := m.lock()
	if err != nil {
		return 0, err
	}
	c := m.containers[id]
	runs := c != nil && c.held.State == runtime.ContainerRunning
	unlock()
	if !runs || len(command) == 0 {
		return 0, fmt.Errorf("exec in %s: %w", id, runtime.ErrNotFound)
	}
	if streams.Stdout == nil {
		streams.Stdout = io.Discard
	}
	if streams.Stderr == nil || streams.TTY {
		streams.Stderr = streams.Stdout
	}
	if streams.Stdin == nil {
		streams.Stdin = strings.NewReader("")
	}
	p := &process{spec: c.spec, streams: streams, ctx: ctx, ended: c.ended}
	type result struct {
		code int
		err  error
	}
	done := make(chan result, 1)
	go func() { // it ends with its streams, as theirs do
		code, err := p.run(command)
		done <- result{code, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return 0, fmt.Errorf("exec in %s: %w", id, r.err)
		}
		return r.code, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("exec in %s: %w", id, ctx.Err())
	case <-c.ended:
		return 137, nil
	}
}

// CloseInput ends what a container reads, which in memory is nothing.
func (m *Memory) CloseInput(_ context.Context, id string) error { return m.console(id) }

// Resize says how large a container's terminal is, which in memory it has not.
func (m *Memory) Resize(_ context.Context, id string, _ runtime.Size) error { return m.console(id) }

func (m *Memory) console(id string) error {
	unlock, err := m.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if c := m.containers[id]; c == nil || c.held.State != runtime.ContainerRunning {
		return fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
	}
	return nil
}

// process is a command that runs in memory.
type process struct {
	spec    runtime.ContainerSpec
	streams runtime.Streams
	ctx     context.Context //nolint:containedctx // of the one call that it serves
	ended   <-chan struct{}
}

func (p *process) run(command []string) (int, error) {
	out := p.streams.Stdout
	switch command[0] {
	case "echo":
		fmt.Fprintln(out, strings.Join(command[1:], " "))
	case "env":
		fmt.Fprintln(out, strings.Join(p.spec.Env, "\n"))
	case "pwd":
		fmt.Fprintln(out, p.spec.WorkingDir)
	case "id":
		if p.spec.Security.User != nil {
			fmt.Fprintln(out, *p.spec.Security.User)
		}
	case "cat":
		_, _ = io.Copy(out, p.streams.Stdin) // a reader that is gone ends it
	case "sleep":
		p.sleep()
	case "sh":
		return p.script(command[len(command)-1])
	default:
		return 0, fmt.Errorf("%q: executable file not found", command[0])
	}
	return 0, nil
}

func (p *process) sleep() {
	select {
	case <-p.ctx.Done():
	case <-p.ended:
	}
}

func (p *process) script(text string) (int, error) {
	if match := exitScript.FindStringSubmatch(text); match != nil {
		return strconv.Atoi(match[1])
	}
	if match := failScript.FindStringSubmatch(text); match != nil {
		fmt.Fprintln(p.streams.Stderr, match[1])
		return strconv.Atoi(match[2])
	}
	if match := catScript.FindStringSubmatch(text); match != nil {
		_, _ = io.Copy(p.streams.Stdout, p.streams.Stdin) // a reader that is gone ends it
		return strconv.Atoi(match[1])
	}
	if match := zeroScript.FindStringSubmatch(text); match != nil {
		n, err := strconv.ParseInt(match[1], 10, 64)
		if err != nil {
			return 0, err
		}
		_, _ = io.CopyN(p.streams.Stdout, zeros{}, n) // likewise
		fmt.Fprintln(p.streams.Stderr, match[2])
		return 0, nil
	}
	if text == sizesScript {
		for size := range p.streams.Resize {
			fmt.Fprintf(p.streams.Stdout, "%d %d\r\n", size.Height, size.Width)
		}
	}
	p.sleep()
	return 0, nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
