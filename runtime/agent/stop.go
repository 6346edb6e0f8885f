package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-dev/shoal/runtime"
)

// minGrace is what a container has after its preStop hook at least, as with
// kubelet.
const minGrace = 2 * time.Second

// stop begins to stop a container and does not wait.
func (w *worker) stop(ctx context.Context, action runtime.Action) {
	w.mu.Lock()
	begun := w.stopping[action.ID]
	w.stopping[action.ID] = true
	w.mu.Unlock()
	if begun {
		return
	}
	w.a.prober.Forget(w.instance, action.Container)
	message := "Stopping container " + action.Container
	if action.Reason == runtime.ReasonLiveness || action.Reason == runtime.ReasonStartup {
		message = fmt.Sprintf("Container %s %s, will be restarted", action.Container, probeWords[action.Reason])
	}
	w.event(corev1.EventTypeNormal, "Killing", action.Container, message)
	t := termination{
		a: w.a, id: action.ID, container: w.container(action.Container), address: w.address(),
		grace: action.Grace, ended: w.exit(action.ID), regards: w.regards(action.Container),
	}
	w.a.background(t.regards, func() {
		t.run(ctx)
		w.look(action.ID)
	})
}

var probeWords = map[runtime.Reason]string{
	runtime.ReasonLiveness: "failed liveness probe",
	runtime.ReasonStartup:  "failed startup probe",
}

// termination is the end of one container: preStop, TERM, and KILL when the
// grace period is over.
type termination struct {
	a         *Agent
	id        string
	container *corev1.Container
	address   string
	grace     time.Duration
	ended     <-chan struct{}
	regards   corev1.ObjectReference
}

func (t termination) run(ctx context.Context) {
	deadline := time.Now().Add(t.grace)
	if t.grace > 0 {
		t.preStop(ctx)
		t.signal(ctx, t.stopSignal(ctx), false)
		left := time.Until(deadline)
		if t.container != nil && t.container.Lifecycle != nil && t.container.Lifecycle.PreStop != nil {
			left = max(left, minGrace)
		}
		if t.wait(ctx, left) {
			return
		}
	}
	for wait := time.Second; ctx.Err() == nil; wait = min(2*wait, 30*time.Second) {
		t.signal(ctx, syscall.SIGKILL, true)
		if t.wait(ctx, wait) {
			return
		}
	}
}

func (t termination) wait(ctx context.Context, limit time.Duration) (ended bool) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-t.ended:
		return true
	case <-timer.C:
		return false
	case <-ctx.Done():
		return true
	}
}

// signal sends a signal; what keeps it from arriving shows in the wait.
func (t termination) signal(ctx context.Context, s syscall.Signal, all bool) {
	if err := t.a.cfg.Engine.Kill(ctx, t.id, s, all); err != nil && ctx.Err() == nil {
		t.a.record(t.regards, corev1.EventTypeWarning, "FailedKillPod", err.Error())
	}
}

func (t termination) preStop(ctx context.Context) {
	if t.container == nil || t.container.Lifecycle == nil || t.container.Lifecycle.PreStop == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, t.grace)
	defer cancel()
	if err := t.a.hook(ctx, t.address, t.container, t.id, t.container.Lifecycle.PreStop); err != nil {
		t.a.record(t.regards, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: "+err.Error())
	}
}

// stopSignal returns the signal that asks the container to end: its own, its
// image's, or TERM.
func (t termination) stopSignal(ctx context.Context) syscall.Signal {
	if t.container == nil {
		return syscall.SIGTERM
	}
	if l := t.container.Lifecycle; l != nil && l.StopSignal != nil {
		return parseSignal(string(*l.StopSignal))
	}
	if info, err := t.a.cfg.Engine.Image(ctx, t.container.Image); err == nil {
		return parseSignal(info.StopSignal)
	}
	return syscall.SIGTERM
}

func parseSignal(s string) syscall.Signal {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n)
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n
	}
	if rest, found := strings.CutPrefix(name, "SIGRTMIN"); found {
		if n, err := strconv.Atoi(strings.TrimPrefix(rest, "+")); rest == "" || err == nil && n <= 30 {
			return syscall.Signal(34 + n)
		}
	}
	return syscall.SIGTERM
}

// hook runs a lifecycle hook until it ends or ctx does.
func (a *Agent) hook(ctx context.Context, address string, c *corev1.Container, id string, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		code, output, err := a.capture(ctx, id, h.Exec.Command)
		if err != nil {
			return err
		}
		if code != 0 {
			return fmt.Errorf("command %q exited with %d: %s", strings.Join(h.Exec.Command, " "), code, output)
		}
		return nil
	case h.HTTPGet != nil:
		return httpHook(ctx, address, c, h.HTTPGet)
	case h.Sleep != nil:
		timer := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("the hook's type is not supported on this node")
}

func httpHook(ctx context.Context, address string, c *corev1.Container, get *corev1.HTTPGetAction) error {
	host := get.Host
	if host == "" {
		host = address
	}
	port := get.Port.String()
	if get.Port.Type == intstr.String {
		for _, p := range c.Ports {
			if p.Name == get.Port.StrVal {
				port = strconv.Itoa(int(p.ContainerPort))
			}
		}
	}
	scheme := strings.ToLower(string(get.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	url := scheme + "://" + net.JoinHostPort(host, port) + "/" + strings.TrimPrefix(get.Path, "/")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	for _, h := range get.HTTPHeaders {
		request.Header.Add(h.Name, h.Value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	_, _ = io.CopyN(io.Discard, response.Body, 10<<10)
	return response.Body.Close()
}

// probeExec runs the command of a probe.
func (a *Agent) probeExec(ctx context.Context, id string, command []string) (int, string, error) {
	return a.capture(ctx, id, command)
}

// capture runs a command in a container and keeps the first part of its output.
func (a *Agent) capture(ctx context.Context, id string, command []string) (code int, output string, err error) {
	var out limited
	code, err = a.cfg.Engine.Exec(ctx, id, command, runtime.Streams{Stdout: &out, Stderr: &out})
	return code, strings.TrimSpace(out.String()), err
}

// limited keeps the first 10 KiB written to it.
type limited struct {
	mu sync.Mutex // both streams write to it
	b  bytes.Buffer
}

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := 10<<10 - l.b.Len(); room > 0 {
		l.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
