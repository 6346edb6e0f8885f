//go:build e2e

package onenode

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/shoal-dev/shoal/daemon"
	"github.com/shoal-dev/shoal/internal/testenv"
)

func TestMain(m *testing.M) {
	testenv.Main(m)
}

// corpus is where the manifests are that nobody here wrote.
const corpus = "../../../shared/corpus"

// full reports whether the long tests are wanted.
func full() bool { return os.Getenv("SHOAL_E2E") == "full" }

// A machine is a Linux machine with a shoal daemon on it, as far as the daemon
// can tell.
type machine struct {
	t          testing.TB
	containerd *testenv.Daemon
	state, run string
	namespace  string // in containerd, and of the cgroups
	registries string
	port       int // of the API
	repository string
	flags      []string
	cmd        *exec.Cmd
	log        *os.File
	kubeconfig string
}

// newMachine makes a machine with containerd and a network, and no daemon yet.
func newMachine(t testing.TB) *machine {
	t.Helper()
	network(t)
	dir := testenv.Dir(t)
	m := &machine{
		t: t, namespace: "shoal-" + filepath.Base(dir), state: filepath.Join(dir, "state"), run: filepath.Join(dir, "run"), registries: filepath.Join(dir, "none"), port: freePort(t),
	}
	// Registered before containerd, so that it is undone after it is used.
	m.containerd = testenv.Containerd(t)
	t.Cleanup(m.remove)
	return m
}

// network gives this network namespace an interface and a default route, as
// every machine has them. They stay for the tests that follow.
func network(t testing.TB) {
	t.Helper()
	if _, err := netlink.LinkByName("eth0"); err == nil {
		return
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "wire0"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"wire0", "eth0"} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			t.Fatal(err)
		}
		if name == "wire0" {
			continue
		}
		addr, _ := netlink.ParseAddr("192.0.2.10/24")
		if err := netlink.AddrAdd(link, addr); err != nil {
			t.Fatal(err)
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.IPv4(192, 0, 2, 1)}); err != nil {
			t.Fatal(err)
		}
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func program(t testing.TB) string { return testenv.Program(t, "github.com/shoal-dev/shoal/cmd/shoal") }

// args are the flags that all commands about this machine share.
func (m *machine) args(command string) []string {
	out := []string{command, "--state", m.state, "--run", m.run}
	switch command {
	case "run":
		out = append(out, "--repository", m.repository, "--containerd-address", m.containerd.Address, "--containerd-registries", m.registries, "--containerd-namespace", m.namespace,
			"--api-listen", fmt.Sprintf("127.0.0.1:%d", m.port), "--node", "n1", "--poll", "1h")
		out = append(out, m.flags...)
	case "reset":
		out = append(out, "--containerd-address", m.containerd.Address, "--containerd-namespace", m.namespace, "--yes")
	case "kubeconfig":
		out = append(out, "--api-listen", fmt.Sprintf("127.0.0.1:%d", m.port))
	}
	return out
}

// start starts the daemon on a repository and waits until it answers.
func (m *machine) start(repository string, flags ...string) {
	m.t.Helper()
	m.repository, m.flags = repository, flags
	m.restart()
}

func (m *machine) restart() {
	m.t.Helper()
	if m.log == nil {
		var err error
		if m.log, err = os.Create(filepath.Join(filepath.Dir(m.state), "daemon.log")); err != nil {
			m.t.Fatal(err)
		}
	}
	m.cmd = exec.Command(program(m.t), m.args("run")...)
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.eventually(30*time.Second, "the daemon has listed its pods", func() (bool, string) {
		s, err := m.status()
		return err == nil && s.Observed, fmt.Sprint(err)
	})
	if m.kubeconfig == "" {
		m.kubeconfig = filepath.Join(filepath.Dir(m.state), "kubeconfig")
		out, err := m.shoal("kubeconfig")
		if err == nil {
			err = os.WriteFile(m.kubeconfig, []byte(out), 0o600)
		}
		if err != nil {
			m.t.Fatalf("kubeconfig: %v\n%s", err, out)
		}
	}
}

// stop ends the daemon with a signal and waits for it.
func (m *machine) stop(signal syscall.Signal) {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Signal(signal)
	done := make(chan struct{})
	go func() { _ = m.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		_ = m.cmd.Process.Signal(syscall.SIGQUIT)
		<-done
		m.t.Errorf("the daemon did not end within 20 s; its log:\n%s", m.daemonLog())
	}
	m.cmd = nil
}

// remove ends the daemon and removes what it made; a failed test shows its log.
func (m *machine) remove() {
	if m.t.Failed() {
		m.t.Logf("the daemon's log:\n%s", m.daemonLog())
	}
	m.stop(syscall.SIGTERM)
	if out, err := m.shoal("reset"); err != nil {
		m.t.Errorf("reset: %v\n%s", err, out)
	}
}

func (m *machine) daemonLog() string {
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(m.state), "daemon.log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(raw), "\n")
	return strings.Join(lines[max(0, len(lines)-80):], "\n")
}

// shoal runs a command of the program about this machine.
func (m *machine) shoal(command string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(m.t), append(m.args(command), args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *machine) status() (daemon.Status, error) {
	return daemon.NewClient(filepath.Join(m.run, "shoal.sock")).Status(context.Background())
}

// kubectl runs the stock kubectl.
func (m *machine) kubectl(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "kubectl", append([]string{"--kubeconfig", m.kubeconfig, "--cache-dir", m.run + "-kubectl"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	return string(out) + stderr.String(), err
}

// must runs kubectl and fails the test when it fails.
func (m *machine) must(args ...string) string {
	m.t.Helper()
	out, err := m.kubectl(args...)
	if err != nil {
		m.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// eventually waits for a condition and fails the test, with what the condition
// said last and the state of all pods.
func (m *machine) eventually(limit time.Duration, what string, ok func() (bool, string)) {
	m.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		done, last := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			pods, _ := m.shoal("status")
			m.t.Fatalf("not within %s: %s\n%s\n%s", limit, what, last, pods)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// ready waits until the pods of a namespace are as many and all of them ready.
func (m *machine) ready(namespace string, n int) {
	m.t.Helper()
	m.eventually(90*time.Second, fmt.Sprintf("%d pods ready in %s", n, namespace), func() (bool, string) {
		s, err := m.status()
		if err != nil {
			return false, err.Error()
		}
		ready, all := 0, 0
		for _, p := range s.Pods {
			if p.Namespace != namespace {
				continue
			}
			all++
			if p.Ready && p.Phase == "Running" {
				ready++
			}
		}
		return ready == n && all == n, fmt.Sprintf("%d of %d are ready", ready, all)
	})
}

// inForce waits until a commit is in force.
func (m *machine) inForce(commit string) {
	m.t.Helper()
	m.eventually(30*time.Second, "commit "+commit+" is in force", func() (bool, string) {
		s, err := m.status()
		if err != nil || len(s.Units) == 0 {
			return false, fmt.Sprint(err)
		}
		return string(s.Units[0].Accepted.Commit) == commit, fmt.Sprintf("%+v", s.Units[0])
	})
}

// jsonpath reads one field with kubectl.
func (m *machine) field(path string, args ...string) string {
	m.t.Helper()
	return strings.TrimSpace(m.must(append(args, "-o", "jsonpath="+path)...))
}

// pids returns the process IDs of all containers by name, as containerd lists
// them.
func (m *machine) pids() map[string]string {
	m.t.Helper()
	out, err := exec.Command("ctr", "-a", m.containerd.Address, "-n", m.namespace, "tasks", "ls").Output()
	if err != nil {
		m.t.Fatal(err)
	}
	pids := map[string]string{}
	for _, line := range strings.Split(string(out), "\n")[1:] {
		if words := strings.Fields(line); len(words) == 3 && words[2] == "RUNNING" {
			pids[words[0]] = words[1]
		}
	}
	return pids
}

func mustJSON[T any](t testing.TB, text string) T {
	t.Helper()
	var out T
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return out
}

// unixClient speaks HTTP over a socket.
func unixClient(path string) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
}

// apiClient speaks to the API without a certificate of its own.
func (m *machine) apiClient(t testing.TB) *http.Client {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(m.state, "identity", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
}

func matches(pattern, text string) bool { return regexp.MustCompile(pattern).MatchString(text) }
