package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/runtime"
)

// execWithin bounds what must come soon.
const execWithin = 20 * time.Second

// output is what a command wrote so far.
type output struct {
	mu   sync.Mutex
	b    bytes.Buffer
	news chan struct{}
}

func newOutput() *output { return &output{news: make(chan struct{}, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b.Write(p)
	select {
	case o.news <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// await waits until the output holds a text.
func (o *output) await(t *testing.T, want string) {
	t.Helper()
	late := time.After(execWithin)
	for !strings.Contains(o.String(), want) {
		select {
		case <-o.news:
		case <-late:
			t.Fatalf("the output does not become %q: %q", want, o.String())
		}
	}
}

func testExec(t *testing.T, s suite) {
	spec := s.run(t, "sleep", "1000")
	var out bytes.Buffer
	code, err := s.Engine.Exec(t.Context(), spec.ID, []string{"echo", "hello", "you"}, runtime.Streams{Stdout: &out})
	if code != 0 || err != nil || out.String() != "hello you\n" {
		t.Errorf("echo: got %d, %v, %q", code, err, out.String())
	}
	code, err = s.Engine.Exec(t.Context(), spec.ID, []string{"sh", "-c", "exit 5"}, runtime.Streams{})
	if code != 5 || err != nil {
		t.Errorf("exit: got %d, %v", code, err)
	}
	out.Reset()
	var wrong bytes.Buffer
	code, err = s.Engine.Exec(t.Context(), spec.ID, []string{"sh", "-c", "echo oh >&2; exit 3"}, runtime.Streams{Stdout: &out, Stderr: &wrong})
	if code != 3 || err != nil || out.String() != "" || wrong.String() != "oh\n" {
		t.Errorf("both outputs: got %d, %v, %q, %q", code, err, out.String(), wrong.String())
	}
}

func testExecPlace(t *testing.T, s suite) {
	spec := s.spec(t, "sleep", "1000")
	user := int64(1234)
	spec.Env, spec.WorkingDir, spec.Security.User = []string{"COLOR=green"}, "/tmp", &user
	if err := s.Engine.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Engine.Start(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{"env": "COLOR=green\n", "pwd": "/tmp\n", "id -u": "1234\n"} {
		var out bytes.Buffer
		code, err := s.Engine.Exec(t.Context(), spec.ID, strings.Fields(command), runtime.Streams{Stdout: &out})
		if code != 0 || err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: got %d, %v, %q, want %q", command, code, err, out.String(), want)
		}
	}
}

func testExecInput(t *testing.T, s suite) {
	spec := s.run(t, "sleep", "1000")
	text := strings.Repeat("0123456789abcde\n", 1<<16) // 1 MiB: more than all buffers on the way
	var out bytes.Buffer
	code, err := s.Engine.Exec(t.Context(), spec.ID, []string{"sh", "-c", "cat; exit 4"}, runtime.Streams{Stdin: strings.NewReader(text), Stdout: &out})
	if code != 4 || err != nil || out.String() != text {
		t.Errorf("got %d, %v and %d bytes, want 4 and %d bytes", code, err, out.Len(), len(text))
	}
	// One that ends does not wait for an input that does not.
	r, w := io.Pipe()
	defer w.Close() //nolint:errcheck // it never fails
	code, err = s.Engine.Exec(t.Context(), spec.ID, []string{"sh", "-c", "exit 6"}, runtime.Streams{Stdin: r})
	if code != 6 || err != nil {
		t.Errorf("an input that does not end: got %d, %v", code, err)
	}
}

func testExecTerminal(t *testing.T, s suite) {
	spec := s.run(t, "sleep", "1000")
	ctx, cancel := context.WithCancel(t.Context())
	out, resize := newOutput(), make(chan runtime.Size)
	var wg sync.WaitGroup
	wg.Go(func() {
		streams := runtime.Streams{Stdout: out, TTY: true, Resize: resize}
		if _, err := s.Engine.Exec(ctx, spec.ID, []string{"sh", "-c", sizesScript}, streams); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want it to be canceled", err)
		}
	})
	defer wg.Wait()
	defer cancel()
	for _, size := range []runtime.Size{{Width: 100, Height: 40}, {Width: 33, Height: 7}} {
		select {
		case resize <- size:
		case <-time.After(execWithin):
			t.Fatal("nobody takes the size of the terminal")
		}
		out.await(t, map[uint16]string{40: "40 100\r\n", 7: "7 33\r\n"}[size.Height])
	}
	close(resize)
}

func testExecKilled(t *testing.T, s suite) {
	spec := s.run(t, "sleep", "1000")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	input, typed := io.Pipe()
	out := newOutput()
	go func() {
		_, err := s.Engine.Exec(ctx, spec.ID, []string{"cat"}, runtime.Streams{Stdin: input, Stdout: out})
		done <- err
	}()
	if _, err := typed.Write([]byte("it runs\n")); err != nil {
		t.Fatal(err)
	}
	out.await(t, "it runs\n")
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	case <-time.After(execWithin):
		t.Error("it runs on")
	}
	_ = typed.Close()
}

// held is an output that takes nothing before it is let go.
type held struct {
	came, free chan struct{}
	once       sync.Once
	n          int
}

func (h *held) Write(p []byte) (int, error) {
	h.once.Do(func() { close(h.came) })
	<-h.free
	h.n += len(p)
	return len(p), nil
}

func testExecSlow(t *testing.T, s suite) {
	spec := s.run(t, "sleep", "1000")
	out, wrong := &held{came: make(chan struct{}), free: make(chan struct{})}, newOutput()
	done := make(chan error, 1)
	go func() {
		_, err := s.Engine.Exec(t.Context(), spec.ID, []string{"sh", "-c", "head -c 10000000 /dev/zero; echo done >&2"}, runtime.Streams{Stdout: out, Stderr: wrong})
		done <- err
	}()
	<-out.came
	select {
	case <-wrong.news:
		t.Error("it goes on though nobody reads: what it writes is heaped up")
	case <-time.After(100 * time.Millisecond): // long enough for 10 MB
	}
	close(out.free)
	if err := <-done; err != nil || out.n != 10000000 || wrong.String() != "done\n" {
		t.Errorf("got %v, %d bytes, %q", err, out.n, wrong.String())
	}
}

func testExecEnds(t *testing.T, s suite) {
	spec := s.run(t, "sleep", "1000")
	out := newOutput()
	done := make(chan int, 1)
	input, typed := io.Pipe()
	defer typed.Close() //nolint:errcheck // it never fails
	go func() {
		code, _ := s.Engine.Exec(t.Context(), spec.ID, []string{"cat"}, runtime.Streams{Stdin: input, Stdout: out})
		done <- code
	}()
	if _, err := typed.Write([]byte("it runs\n")); err != nil {
		t.Fatal(err)
	}
	out.await(t, "it runs\n")
	if err := s.Engine.Kill(t.Context(), spec.ID, syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	select {
	case code := <-done:
		if code != 137 {
			t.Errorf("got %d, want 137", code)
		}
	case <-time.After(execWithin):
		t.Error("it runs on")
	}
}

func testExecMissing(t *testing.T, s suite) {
	spec := s.run(t, "sleep", "1000")
	if _, err := s.Engine.Exec(t.Context(), spec.ID, []string{"nonesuch"}, runtime.Streams{}); err == nil || !strings.Contains(err.Error(), "executable file not found") {
		t.Errorf("an absent program: got %v", err)
	}
	if _, err := s.Engine.Exec(t.Context(), "absent", []string{"echo"}, runtime.Streams{}); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("an absent container: got %v", err)
	}
}

func testConsole(t *testing.T, s suite) {
	spec := s.spec(t, "sleep", "1000")
	for name, call := range map[string]func() error{
		"CloseInput": func() error { return s.Engine.CloseInput(t.Context(), spec.ID) },
		"Resize":     func() error { return s.Engine.Resize(t.Context(), spec.ID, runtime.Size{Width: 80, Height: 25}) },
	} {
		if err := call(); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("%s of what is not there: got %v", name, err)
		}
	}
	running := s.run(t, "sleep", "1000")
	if err := s.Engine.CloseInput(t.Context(), running.ID); err != nil {
		t.Errorf("CloseInput of one without an input: %v", err)
	}
}
