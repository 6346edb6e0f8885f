package agent_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// TestInteract: commands run in a pod's container, its outputs are followed, and
// its ports are reached without a rule of the machine, from one that listens on
// the loopback interface only.
func TestInteract(t *testing.T) {
	h := newHouse(t)
	p := pod("box", "mkdir /www; echo hello > /www/index.html; httpd -p 127.0.0.1:8080 -h /www; while true; do echo out; echo err >&2; sleep 0.05; done",
		func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })
	h.run(p)
	h.eventually(p, 30*time.Second, "ready", ready)

	var out bytes.Buffer
	code, err := h.agent.Exec(t.Context(), p.Instance(), "", []string{"sh", "-c", "cat /www/index.html; exit 9"}, runtime.Streams{Stdout: &out})
	if code != 9 || err != nil || out.String() != "hello\n" {
		t.Errorf("exec: got %d, %v, %q", code, err, out.String())
	}
	if _, err := h.agent.Exec(t.Context(), p.Instance(), "nope", []string{"true"}, runtime.Streams{}); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("exec in an absent container: got %v", err)
	}

	conn, err := h.agent.Forward(t.Context(), p.Instance(), 8080)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(answer), "\r\n\r\nhello\n") {
		t.Errorf("forward: got %q, %v", answer, err)
	}
	_ = conn.Close()
	if _, err := h.agent.Forward(t.Context(), p.Instance(), 8081); err == nil {
		t.Error("forward to a port where nobody listens: no error")
	}

	stdout, intoOut := io.Pipe()
	stderr, intoErr := io.Pipe()
	var g errgroup.Group
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	attached := make(chan struct{})
	g.Go(func() error {
		defer close(attached)
		return h.agent.Attach(ctx, p.Instance(), "app", runtime.Streams{Stdout: intoOut, Stderr: intoErr})
	})
	for want, from := range map[string]io.Reader{"out\nout\n": stdout, "err\nerr\n": stderr} {
		got := make([]byte, len(want))
		if _, err := io.ReadFull(from, got); err != nil || string(got) != want {
			t.Errorf("attach: got %q, %v, want %q", got, err, want)
		}
		g.Go(func() error { _, err := io.Copy(io.Discard, from); return err })
	}
	// It ends with the container.
	h.desired.Remove = append(h.desired.Remove, p.Instance())
	h.agent.Sync(h.desired)
	done := make(chan error, 1)
	go func() { done <- g.Wait() }()
	select {
	case <-attached:
	case <-ctx.Done():
		t.Error("the container ends, and attach does not")
	}
	_ = intoOut.Close()
	_ = intoErr.Close()
	if err := <-done; err != nil {
		t.Errorf("attach: %v", err)
	}
	h.eventually(p, 20*time.Second, "gone", func(s corev1.PodStatus) bool { return len(s.ContainerStatuses) == 0 })
	if _, err := h.agent.Exec(t.Context(), p.Instance(), "", []string{"true"}, runtime.Streams{}); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("exec in a pod that is gone: got %v", err)
	}
}

// TestAttachedInput: what is typed reaches a container, through a terminal that has
// a size, again and again; with stdinOnce its input ends with the first who attached.
func TestAttachedInput(t *testing.T) {
	h := newHouse(t)
	shell := pod("shell", "exec sh", func(p *corev1.Pod) {
		p.Spec.Containers[0].Stdin, p.Spec.Containers[0].TTY = true, true
	})
	once := pod("once", "cat; echo over; exec sleep 1000", func(p *corev1.Pod) {
		p.Spec.Containers[0].Stdin, p.Spec.Containers[0].StdinOnce = true, true
	})
	h.run(shell)
	h.run(once)
	h.eventually(shell, 30*time.Second, "ready", ready)
	h.eventually(once, 30*time.Second, "ready", ready)
	for _, word := range []string{"first", "second"} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		typed, typing := io.Pipe()
		shown, showing := io.Pipe()
		sizes := make(chan runtime.Size, 1)
		sizes <- runtime.Size{Width: 101, Height: 33}
		done := make(chan error, 1)
		go func() {
			done <- h.agent.Attach(ctx, shell.Instance(), "app", runtime.Streams{Stdin: typed, Stdout: showing, TTY: true, Resize: sizes})
			_ = showing.Close()
		}()
		_, _ = io.WriteString(typing, "until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; echo "+word+"''word\n")
		want, seen := word+"word\r\n", ""
		for b := make([]byte, 1024); !strings.Contains(seen, want); {
			n, err := shown.Read(b)
			if seen += string(b[:n]); err != nil {
				t.Fatalf("the terminal shows %q, %v", seen, err)
			}
		}
		cancel()
		_ = typing.Close()
		go func() { _, _ = io.Copy(io.Discard, shown) }()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("attach: %v", err)
		}
		close(sizes)
	}
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- h.agent.Attach(ctx, once.Instance(), "app", runtime.Streams{Stdin: strings.NewReader("hello\n"), Stdout: &out})
	}()
	h.says(once, "app", "hello\nover\n")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || out.String() != "hello\nover\n" {
		t.Errorf("attach: got %v, %q", err, out.String())
	}
	err := h.agent.Attach(t.Context(), once.Instance(), "app", runtime.Streams{Stdin: strings.NewReader("more\n")})
	if err == nil || !strings.Contains(err.Error(), "its input was closed") {
		t.Errorf("attach to an input that was closed: got %v", err)
	}
	h.removeAll()
}

// TestDebug: a container that is added to a pod sees the processes of another, and
// outlives the daemon, but not the pod.
func TestDebug(t *testing.T) {
	h := newHouse(t)
	p := pod("web", "exec sleep 4242")
	h.run(p)
	h.eventually(p, 30*time.Second, "ready", ready)
	look := corev1.EphemeralContainer{TargetContainerName: "app", EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: "look", Image: image, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"sh", "-c", "ps -o args; hostname; exec sleep 1000"},
	}}
	if err := h.agent.Debug(p.Instance(), look); err != nil {
		t.Fatal(err)
	}
	looks := func(s corev1.PodStatus) bool {
		return len(s.EphemeralContainerStatuses) == 1 && s.EphemeralContainerStatuses[0].State.Running != nil && ready(s)
	}
	h.eventually(p, 30*time.Second, "looked into", looks)
	h.says(p, "look", "sleep 4242\n")
	h.says(p, "look", "web\n")
	if err := h.agent.Debug(p.Instance(), look); err == nil {
		t.Error("a second one of the same name: no error")
	}
	if err := h.agent.Debug("nobody", look); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("in a pod that is not here: got %v", err)
	}
	h.stop()
	h.start()
	h.eventually(p, 30*time.Second, "looked into after a restart", looks)
	if code, err := h.agent.Exec(t.Context(), p.Instance(), "look", []string{"true"}, runtime.Streams{}); code != 0 || err != nil {
		t.Errorf("exec: got %d, %v", code, err)
	}
	h.removeAll()
}
