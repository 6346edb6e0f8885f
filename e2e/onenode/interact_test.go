//go:build e2e

package onenode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const boxYAML = `apiVersion: v1
kind: Pod
metadata: {name: box, annotations: {kubectl.kubernetes.io/default-container: main}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: side, image: busybox, command: [sleep, "100000"]}
  - name: main
    image: busybox
    command: [sh, -c, "mkdir /www; echo hello > /www/index.html; httpd -p 127.0.0.1:8080 -h /www; i=0; while sleep 0.2; do i=$((i+1)); echo line $i; done"]
    env: [{name: COLOR, value: green}]
    securityContext: {runAsUser: 0}
`

// TestInteract: the stock kubectl reaches into containers: commands with their
// exit codes, input, a terminal that follows the size of its own, files both
// ways, ports and outputs.
func TestInteract(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	r.write(map[string]string{"box.yaml": boxYAML})
	r.commit("a box")
	m.start(r.dir)
	m.ready("default", 1)
	t.Run("exec", func(t *testing.T) { m.execs(t) })
	t.Run("exec with input", func(t *testing.T) { m.pipes(t) })
	t.Run("exec -it", func(t *testing.T) { m.types(t) })
	t.Run("debug -it", func(t *testing.T) { m.debugs(t) })
	t.Run("a client that goes away", func(t *testing.T) { m.goesAway(t) })
	t.Run("cp", func(t *testing.T) { m.copies(t) })
	t.Run("port-forward", func(t *testing.T) { m.forwards(t) })
	t.Run("attach", func(t *testing.T) {
		lines := m.lines(t, "attach", "box", "-c", "main")
		expect(t, lines, `^line \d+$`)
	})
	t.Run("auth can-i", func(t *testing.T) {
		if out := m.must("auth", "can-i", "create", "pods", "--subresource=exec"); !strings.HasPrefix(out, "yes") {
			t.Errorf("got %q", out)
		}
	})
	if log := m.daemonLog(); !strings.Contains(log, "a command is run in a container") || !strings.Contains(log, "user=") {
		t.Errorf("the log does not say who ran commands:\n%s", log)
	}
}

// client returns a kubectl that is not started yet.
func (m *machine) client(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "kubectl", append([]string{"--kubeconfig", m.kubeconfig, "--cache-dir", m.run + "-kubectl"}, args...)...)
}

func (m *machine) execs(t *testing.T) {
	for _, sockets := range []string{"true", "false"} { // WebSocket, SPDY
		t.Setenv("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", sockets)
		tests := []struct {
			args string
			code int
			out  string
			err  string
		}{
			{"exec box -- sh -c", 7, "green root\n", "oh\n"},
			{"exec box -c side -- hostname", 0, "box\n", ""},
			{"exec box -- nonesuch", 1, "", "executable file not found"},
			{"exec box -c other -- true", 1, "", "container other"},
			{"exec nobody -- true", 1, "", `pods "nobody" not found`},
		}
		for _, tt := range tests {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			args := strings.Fields(tt.args)
			if tt.code == 7 {
				args = append(args, "echo $COLOR $(whoami); echo oh >&2; exit 7")
			}
			cmd := m.client(ctx, args...)
			var out, wrong bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &wrong
			_ = cmd.Run() // its exit code is looked at
			cancel()
			if got := cmd.ProcessState.ExitCode(); got != tt.code || out.String() != tt.out || !strings.Contains(wrong.String(), tt.err) {
				t.Errorf("%s (WebSocket: %s): got %d, %q, %q, want %d, %q, %q", tt.args, sockets, got, out.String(), wrong.String(), tt.code, tt.out, tt.err)
			}
		}
	}
}

func (m *machine) pipes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	text := bytes.Repeat([]byte("0123456789abcde\n"), 1<<18) // 4 MiB
	cmd := m.client(ctx, "exec", "-i", "box", "--", "sh", "-c", "cat; exit 3")
	cmd.Stdin = bytes.NewReader(text)
	out, err := cmd.Output()
	var end *exec.ExitError
	if !errors.As(err, &end) || end.ExitCode() != 3 || !bytes.Equal(out, text) {
		t.Errorf("got %v and %d bytes, want the exit code 3 and %d bytes", err, len(out), len(text))
	}
	// What is not read does not hide how the command ended.
	cmd = m.client(ctx, "exec", "-i", "box", "--", "sh", "-c", "head -c 5; exit 4")
	cmd.Stdin = bytes.NewReader(text)
	out, err = cmd.Output()
	if !errors.As(err, &end) || end.ExitCode() != 4 || string(out) != "01234" {
		t.Errorf("an input that is not read: got %v and %q", err, out)
	}
}

// terminal opens a pseudo terminal.
func terminal(t *testing.T) (own, theirs *os.File) {
	t.Helper()
	own, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Close() }) //nolint:errcheck // the test is over
	number, err := unix.IoctlGetInt(int(own.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(own.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return own, theirs
}

// session is a kubectl in a pseudo terminal.
type session struct {
	t      *testing.T
	own    *os.File
	cmd    *exec.Cmd
	shown  chan string
	screen string
}

// session starts a kubectl in a terminal of 33 lines and 101 columns.
func (m *machine) session(t *testing.T, args ...string) *session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	t.Cleanup(cancel)
	own, theirs := terminal(t)
	s := &session{t: t, own: own, cmd: m.client(ctx, args...), shown: make(chan string, 1000)}
	s.resize(33, 101)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = theirs, theirs, theirs
	s.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close() //nolint:errcheck // kubectl has it
	go func() {    // ends with the terminal
		for b := make([]byte, 4096); ; {
			n, err := own.Read(b)
			if err != nil {
				close(s.shown)
				return
			}
			s.shown <- string(b[:n])
		}
	}()
	return s
}

func (s *session) resize(rows, columns uint16) {
	if err := unix.IoctlSetWinsize(int(s.own.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *session) types(text string) { _, _ = io.WriteString(s.own, text) } // what comes of it is seen

// await waits until the terminal shows a text, from which on the next is awaited.
func (s *session) await(want string) {
	s.t.Helper()
	if !s.within(40*time.Second, want) {
		s.t.Fatalf("the terminal does not show %q: %q", want, s.screen)
	}
}

// within reports whether the terminal shows a text in time.
func (s *session) within(limit time.Duration, want string) bool {
	s.t.Helper()
	late := time.After(limit)
	for !strings.Contains(s.screen, want) {
		select {
		case text, open := <-s.shown:
			if s.screen += text; !open {
				s.t.Fatalf("the terminal ends without %q: %q", want, s.screen)
			}
		case <-late:
			return false
		}
	}
	s.screen = ""
	return true
}

func (m *machine) types(t *testing.T) {
	s := m.session(t, "exec", "-it", "box", "--", "sh")
	s.await("# ")
	// The size comes after the start, as from kubelet: it is asked for until it is there.
	s.types("tty; until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; echo first=$TERM\n")
	s.await("first=xterm\r\n")
	s.resize(20, 60)
	s.types("until [ \"$(stty size)\" = '20 60' ]; do sleep 0.1; done; echo sec''ond\n")
	s.await("second\r\n")
	// Control-C ends what runs in the terminal, and not the terminal.
	s.types("sh -c 'echo slee\"\"ping; exec sleep 1000'\n")
	s.await("sleeping")
	for prompt := false; !prompt; prompt = s.within(time.Second, "# ") {
		s.types("\x03") // the shell may not have led the command to the foreground yet
	}
	s.types("exit 5\n")
	err := s.cmd.Wait()
	var end *exec.ExitError
	if !errors.As(err, &end) || end.ExitCode() != 5 {
		t.Errorf("got %v, want the exit code 5", err)
	}
}

// debugs looks into the pod with a container of its own, from a terminal.
func (m *machine) debugs(t *testing.T) {
	s := m.session(t, "debug", "-it", "box", "--image=busybox", "--target=main", "--container=look", "--profile=general", "--", "sh")
	s.types("ps -o args | grep -c '^httpd -p'; echo see''n; wget -qO- http://127.0.0.1:8080/\n")
	s.await("1\r\nseen\r\nhello\r\n")
	s.types("exit\n")
	if err := s.cmd.Wait(); err != nil {
		t.Error(err)
	}
	if out := m.must("get", "pod", "box", "-o", "jsonpath={.status.phase} {.spec.ephemeralContainers[0].name} {.status.ephemeralContainerStatuses[0].state.terminated.reason}"); out != "Running look Completed" {
		t.Errorf("afterwards the pod is %q", out)
	}
	if out, err := m.kubectl("debug", "box", "--image=busybox", "--profile=sysadmin"); err == nil || !strings.Contains(out, "a privileged container has to stand in Git") {
		t.Errorf("a privileged container: got %v, %s", err, out)
	}
}

func (m *machine) goesAway(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	cmd := m.client(ctx, "exec", "box", "--", "sh", "-c", "echo on; sleep 4242 & sleep 4242")
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(pipe, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	cancel()
	_ = cmd.Wait() // it was killed
	m.eventually(15*time.Second, "the command and what it started are killed", func() (bool, string) {
		out, err := m.kubectl("exec", "box", "--", "ps", "-o", "args")
		return err == nil && !strings.Contains(out, "4242"), out
	})
}

func (m *machine) copies(t *testing.T) {
	dir := t.TempDir()
	data := bytes.Repeat([]byte{0, 1, 2, 3, 254, 255, '\n', 0}, 1<<17) // 1 MiB
	if err := os.MkdirAll(filepath.Join(dir, "tree", "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "below/two"} {
		if err := os.WriteFile(filepath.Join(dir, "tree", name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.must("cp", filepath.Join(dir, "tree"), "box:/tmp/tree", "-c", "main")
	m.must("cp", "default/box:/tmp/tree", filepath.Join(dir, "back"))
	for _, name := range []string{"one", "below/two"} {
		if got, err := os.ReadFile(filepath.Join(dir, "back", name)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: got %v and %d bytes, want %d", name, err, len(got), len(data))
		}
	}
}

func (m *machine) forwards(t *testing.T) {
	for _, sockets := range []string{"true", "false"} { // through a WebSocket, and not
		t.Setenv("KUBECTL_PORT_FORWARD_WEBSOCKETS", sockets)
		port := freePort(t)
		lines := m.lines(t, "port-forward", "pod/box", fmt.Sprintf("%d:8080", port))
		expect(t, lines, `^Forwarding from 127\.0\.0\.1`)
		for range 3 {
			out, err := exec.CommandContext(t.Context(), "curl", "-sS", "--max-time", "10", fmt.Sprintf("http://127.0.0.1:%d/", port)).CombinedOutput()
			if err != nil || string(out) != "hello\n" {
				t.Errorf("got %v, %q", err, out)
			}
		}
	}
}
