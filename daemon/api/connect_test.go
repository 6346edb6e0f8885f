package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	clientspdy "k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/runtimetest"
)

// machine is a Containers with an engine in memory, in which a container's ID is
// its pod's instance.
type machine struct {
	engine  *runtimetest.Memory
	written atomic.Int64 // what commands wrote to stdout
	ended   chan error   // how each command ended
	last    atomic.Pointer[Target]
	added   []corev1.EphemeralContainer
}

func newMachine(t *testing.T, instances ...string) *machine {
	t.Helper()
	m := &machine{engine: runtimetest.NewMemory("i:1"), ended: make(chan error, 100)}
	for _, id := range instances {
		if err := m.engine.Create(t.Context(), runtime.ContainerSpec{ID: id, Image: "i:1", Command: []string{"sleep", "1000"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := m.engine.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

type counting struct {
	to io.Writer
	n  *atomic.Int64
}

func (c counting) Write(b []byte) (int, error) {
	n, err := c.to.Write(b)
	c.n.Add(int64(n))
	return n, err
}

func (m *machine) Exec(ctx context.Context, in Target, command []string, streams runtime.Streams) (int, error) {
	m.last.Store(&in)
	if streams.Stdout != nil {
		streams.Stdout = counting{streams.Stdout, &m.written}
	}
	code, err := m.engine.Exec(ctx, in.Instance, command, streams)
	m.ended <- err
	return code, err
}

func (m *machine) Debug(_ context.Context, to Target, added corev1.EphemeralContainer) error {
	m.last.Store(&to)
	if to.Instance == "absent" {
		return errors.New("node n2, where the pod is, is out of reach")
	}
	m.added = append(m.added, added)
	return nil
}

func (m *machine) Attach(_ context.Context, to Target, streams runtime.Streams) error {
	m.last.Store(&to)
	_, err := io.WriteString(streams.Stdout, "a line\n")
	return err
}

func (m *machine) Forward(_ context.Context, _ Target, port uint16) (io.ReadWriteCloser, error) {
	if port != 80 {
		return nil, errors.New("connection refused")
	}
	near, far := net.Pipe()
	go func() {
		_, _ = io.Copy(far, far)
		_ = far.Close()
	}()
	return near, nil
}

// executors are the ways in which kubectl runs commands.
var executors = map[string]func(*rest.Config, *url.URL) (remotecommand.Executor, error){
	"WebSocket": func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(c, http.MethodGet, u.String())
	},
	"WebSocket, fourth version": func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutorForProtocols(c, http.MethodGet, u.String(), "v4.channel.k8s.io")
	},
	"SPDY": func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(c, http.MethodPost, u)
	},
}

// connect returns a fleet with running pods, and what their containers are on.
func connect(t *testing.T) (*fleet, *machine) {
	f := newFleet(t)
	done, two := testPod("done", "Succeeded", nil), testPod("two", "Running", nil)
	two.Spec.Containers = append(two.Spec.Containers, corev1.Container{Name: "d"})
	annotated := two.DeepCopy()
	annotated.Name, annotated.UID, annotated.Annotations = "annotated", "annotated", map[string]string{defaultContainer: "d"}
	waiting := testPod("waiting", "Pending", nil)
	waiting.Spec.NodeName = ""
	f.show(testPod("web-1", "Running", nil), testPod("absent", "Running", nil), done, two, annotated, waiting)
	m := newMachine(t, "web-1", "two", "annotated")
	f.server.cfg.Containers = m
	return f, m
}

// run runs a command as kubectl does.
func (f *fleet) run(ctx context.Context, way, pod, command string, streams remotecommand.StreamOptions) error {
	f.t.Helper()
	query := url.Values{"command": strings.SplitN(command, " ", 3)}
	if command == "" {
		query = url.Values{}
	}
	for key, wanted := range map[string]bool{"stdin": streams.Stdin != nil, "stdout": streams.Stdout != nil, "stderr": streams.Stderr != nil, "tty": streams.Tty} {
		if wanted {
			query.Set(key, "true")
		}
	}
	u, err := url.Parse(f.http.URL + "/api/v1/namespaces/ns/pods/" + pod + "/" + map[bool]string{true: "attach", false: "exec"}[command == ""] + "?" + query.Encode())
	if err != nil {
		f.t.Fatal(err)
	}
	e, err := executors[way](f.config(""), u)
	if err != nil {
		f.t.Fatal(err)
	}
	return e.StreamWithContext(ctx, streams)
}

func codeOf(err error) int {
	var end exec.CodeExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &end):
		return end.Code
	}
	return -1
}

func TestExec(t *testing.T) {
	megabyte := strings.Repeat("0123456789abcde\n", 1<<16)
	for way := range executors {
		t.Run(way, func(t *testing.T) {
			f, m := connect(t)
			var out, wrong bytes.Buffer
			if err := f.run(t.Context(), way, "web-1", "echo hello you", remotecommand.StreamOptions{Stdout: &out}); err != nil || out.String() != "hello you\n" {
				t.Errorf("echo: got %v, %q", err, out.String())
			}
			out.Reset()
			err := f.run(t.Context(), way, "web-1", "sh -c echo oh >&2; exit 3", remotecommand.StreamOptions{Stdout: &out, Stderr: &wrong})
			if codeOf(err) != 3 || out.String() != "" || wrong.String() != "oh\n" {
				t.Errorf("an exit code: got %v, %q, %q", err, out.String(), wrong.String())
			}
			if way != "WebSocket, fourth version" { // which cannot end an input
				out.Reset()
				err = f.run(t.Context(), way, "web-1", "sh -c cat; exit 4", remotecommand.StreamOptions{Stdin: strings.NewReader(megabyte), Stdout: &out})
				if codeOf(err) != 4 || out.String() != megabyte {
					t.Errorf("an input: got %v and %d bytes", err, out.Len())
				}
			}
			err = f.run(t.Context(), way, "absent", "echo", remotecommand.StreamOptions{Stdout: &out})
			if err == nil || !strings.Contains(err.Error(), "exec in absent: not found") {
				t.Errorf("a container that does not run: got %v", err)
			}
			out.Reset()
			if err := f.run(t.Context(), way, "annotated", "", remotecommand.StreamOptions{Stdout: &out}); err != nil || out.String() != "a line\n" {
				t.Errorf("attach: got %v, %q", err, out.String())
			}
			want := Target{Instance: "annotated", Container: "d", Pod: "ns/annotated", User: "admin"}
			if got := *m.last.Load(); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// TestExecOutlivedByInput: how a command ends is known though its input goes on.
func TestExecOutlivedByInput(t *testing.T) {
	for way := range executors {
		t.Run(way, func(t *testing.T) {
			f, _ := connect(t)
			for range 10 {
				r, w := io.Pipe()
				go func() {
					for block := make([]byte, 32<<10); ; {
						if _, err := w.Write(block); err != nil {
							return
						}
					}
				}()
				err := f.run(t.Context(), way, "web-1", "sh -c exit 6", remotecommand.StreamOptions{Stdin: r, Stdout: io.Discard})
				_ = r.Close()
				if codeOf(err) != 6 {
					t.Fatalf("got %v, want the exit code 6", err)
				}
			}
		})
	}
}

// sizes hands out the sizes of a terminal.
type sizes chan remotecommand.TerminalSize

func (s sizes) Next() *remotecommand.TerminalSize {
	if size, open := <-s; open {
		return &size
	}
	return nil
}

func TestExecTerminal(t *testing.T) {
	for way := range executors {
		t.Run(way, func(t *testing.T) {
			f, m := connect(t)
			queue := make(sizes, 2)
			queue <- remotecommand.TerminalSize{Width: 100, Height: 40}
			stdin, typed := io.Pipe()
			out, into := io.Pipe()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				done <- f.run(ctx, way, "web-1", "sh -c while stty size; do sleep 0.1; done", remotecommand.StreamOptions{Stdin: stdin, Stdout: into, Tty: true, TerminalSizeQueue: queue})
				_ = into.Close()
			}()
			for _, want := range []string{"40 100\r\n", "7 33\r\n"} {
				got := make([]byte, len(want))
				if _, err := io.ReadFull(out, got); err != nil || string(got) != want {
					t.Fatalf("got %q, %v, want %q", got, err, want)
				}
				if want == "40 100\r\n" {
					queue <- remotecommand.TerminalSize{Width: 33, Height: 7}
				}
			}
			// A client that goes away ends its command.
			cancel()
			_ = typed.Close()
			close(queue)
			select {
			case err := <-m.ended:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("the command: got %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Error("the command outlives its client")
			}
			_ = out.Close()
			<-done
		})
	}
}

// gate lets nothing through before it is opened.
type gate struct {
	open chan struct{}
	n    int64
}

func (g *gate) Write(b []byte) (int, error) {
	<-g.open
	g.n += int64(len(b))
	return len(b), nil
}

// TestExecSlowClient: a client that does not read holds its command back, and
// nothing is heaped up.
func TestExecSlowClient(t *testing.T) {
	const all = 64 << 20
	for way := range executors {
		t.Run(way, func(t *testing.T) {
			f, m := connect(t)
			out := &gate{open: make(chan struct{})}
			done := make(chan error, 1)
			go func() {
				done <- f.run(t.Context(), way, "web-1", fmt.Sprintf("sh -c head -c %d /dev/zero; echo done >&2", all), remotecommand.StreamOptions{Stdout: out, Stderr: io.Discard})
			}()
			before, deadline := int64(-1), time.Now().Add(20*time.Second)
			for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C { // until nothing moves any more
				now := m.written.Load()
				if now > 0 && now == before {
					break
				}
				if before = now; time.Now().After(deadline) {
					t.Fatalf("%d bytes were written, and it goes on", now)
				}
			}
			if before > all/2 {
				t.Errorf("%d bytes of %d are on the way to a client that reads none", before, all)
			}
			close(out.open)
			if err := <-done; err != nil || out.n != all {
				t.Errorf("got %v and %d bytes, want %d", err, out.n, all)
			}
		})
	}
}

func TestConnectRefused(t *testing.T) {
	f, _ := connect(t)
	config, err := rest.TLSConfigFor(f.config(""))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}} // HTTP/1.1: later ones upgrade nothing
	defer client.CloseIdleConnections()
	upgrade := map[string]string{"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v4.channel.k8s.io"}
	foreign := map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Origin": "https://evil.example.com"}
	tests := []struct {
		name, path string
		headers    map[string]string
		code       int
		want       string
	}{
		{"no upgrade", "web-1/exec?command=ls&stdout=true", nil, 400, "Upgrade request required"},
		{"no such pod", "nope/exec?command=ls&stdout=true", upgrade, 404, `pods \"nope\" not found`},
		{"a pod that has ended", "done/exec?command=ls&stdout=true", upgrade, 400, "cannot exec into a container in a completed pod; current phase is Succeeded"},
		{"a pod that has no node", "waiting/portforward", upgrade, 400, "does not have a host assigned"},
		{"no command", "web-1/exec?stdout=true", upgrade, 400, "at least one command"},
		{"no stream", "web-1/attach", upgrade, 400, "at least 1 of stdin, stdout, stderr"},
		{"no flag", "web-1/attach?stdout=maybe", upgrade, 400, "neither true nor false"},
		{"no such container", "two/exec?container=x&command=ls&stdout=true", upgrade, 400, "container x is not valid for pod two"},
		{"a page of another site", "web-1/exec?command=ls&stdout=true", foreign, 403, "another site"},
		{"an old protocol", "web-1/exec?command=ls&stdout=true", map[string]string{"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "channel.k8s.io"}, 403, "unable to negotiate protocol"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			request, err := http.NewRequest(http.MethodPost, f.http.URL+"/api/v1/namespaces/ns/pods/"+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for key, value := range tt.headers {
				request.Header.Set(key, value)
			}
			response, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, _ := io.ReadAll(response.Body)
			if response.StatusCode != tt.code || !strings.Contains(string(body), tt.want) {
				t.Errorf("got %d %s, want %d and %q", response.StatusCode, body, tt.code, tt.want)
			}
		})
	}
}

// TestForward: ports are forwarded over SPDY, and over SPDY in a WebSocket.
func TestForward(t *testing.T) {
	for _, way := range []string{"SPDY", "WebSocket"} {
		t.Run(way, func(t *testing.T) {
			f, _ := connect(t)
			u, err := url.Parse(f.http.URL + "/api/v1/namespaces/ns/pods/web-1/portforward")
			if err != nil {
				t.Fatal(err)
			}
			var dialer httpstream.Dialer
			if way == "SPDY" {
				transport, upgrader, err := clientspdy.RoundTripperFor(f.config(""))
				if err != nil {
					t.Fatal(err)
				}
				dialer = clientspdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, u)
			} else if dialer, err = portforward.NewSPDYOverWebsocketDialerForStreaming(u, f.config("")); err != nil {
				t.Fatal(err)
			}
			stop, isReady := make(chan struct{}), make(chan struct{})
			forwarder, err := portforward.NewOnAddressesForStreaming(dialer, []string{"127.0.0.1"}, []string{"0:80"}, stop, isReady, io.Discard, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- forwarder.ForwardPorts() }()
			select {
			case <-isReady:
			case err := <-done:
				t.Fatal(err)
			}
			ports, err := forwarder.GetPorts()
			if err != nil {
				t.Fatal(err)
			}
			want := bytes.Repeat([]byte("0123456789"), 50000)
			for range 3 {
				conn, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", ports[0].Local))
				if err != nil {
					t.Fatal(err)
				}
				go func() { _, _ = conn.Write(want) }() // the reader sees what is missing
				got := make([]byte, len(want))
				if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, want) {
					t.Errorf("what came back differs: %v", err)
				}
				conn.Close()
			}
			close(stop)
			if err := <-done; err != nil {
				t.Error(err)
			}
			refused(t, dialer)
		})
	}
}

// refused tests that a port where nobody listens is told of.
func refused(t *testing.T, dialer httpstream.Dialer) {
	conn, _, err := dialer.Dial("portforward.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // it is over
	headers := http.Header{}
	headers.Set(corev1.PortHeader, "81")
	headers.Set(corev1.PortForwardRequestIDHeader, "7")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	failure, err := conn.CreateStream(headers)
	if err != nil {
		t.Fatal(err)
	}
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	if _, err := conn.CreateStream(headers); err != nil {
		t.Fatal(err)
	}
	told, err := io.ReadAll(failure)
	if want := "error forwarding port 81 to pod ns/web-1: connection refused"; string(told) != want || err != nil {
		t.Errorf("the client was told %q, %v, want %q", told, err, want)
	}
}

// TestMayI: whoever has a client certificate may connect to containers, and
// change nothing.
func TestMayI(t *testing.T) {
	f, _ := connect(t)
	client, err := rest.HTTPClientFor(f.config(""))
	if err != nil {
		t.Fatal(err)
	}
	for ask, want := range map[string]string{
		`"verb":"create","resource":"pods","subresource":"exec"`:                `"allowed":true`,
		`"verb":"create","resource":"pods","subresource":"portforward"`:         `"allowed":true`,
		`"verb":"patch","resource":"pods","subresource":"ephemeralcontainers"`:  `"allowed":true`,
		`"verb":"patch","resource":"pods"`:                                      `"allowed":false`,
		`"verb":"list","resource":"pods"`:                                       `"allowed":true`,
		`"verb":"create","resource":"pods"`:                                     `"allowed":false`,
		`"verb":"create","group":"apps","resource":"pods","subresource":"exec"`: `"allowed":false`,
		`"verb":"create","resource":"pods","subresource":"eviction"`:            `"allowed":false`,
	} {
		body := `{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{"resourceAttributes":{` + ask + `}}}`
		response, err := client.Post(f.http.URL+"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusCreated || !strings.Contains(string(got), want) {
			t.Errorf("%s: got %d %s, want %s", ask, response.StatusCode, got, want)
		}
	}
}
