//go:build e2e

package onenode

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-dev/shoal/internal/testenv"
)

// TestABadCommitChangesNothing commits one mistake after the other: each is
// told with its place, and what runs keeps its processes.
func TestABadCommitChangesNothing(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	r.write(map[string]string{"hello.yaml": helloYAML})
	good := r.commit("hello")
	m.start(r.dir)
	m.ready("default", 3)
	before := m.pids()

	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	object := func(body string) string { return "apiVersion: v1\nkind: ConfigMap\n" + body }
	tests := []struct{ name, text, want string }{
		{"unknown kind", "apiVersion: example.com/v1\nkind: Unicorn\nmetadata: {name: x}\n", "Unicorn"},
		{"unknown field", object("metadata: {name: x}\ndatta: {}\n"), "bad.yaml:4: datta"},
		{"wrong type", object("metadata: {name: x}\ndata: [1]\n"), "bad.yaml:4: data"},
		{"repeated key", object("metadata: {name: x}\nmetadata: {name: y}\n"), "bad.yaml:4"},
		{"the same object twice", helloYAML[strings.Index(helloYAML, "---")+4:], "hello.yaml"},
		{"bad quantity", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - name: c\n    image: busybox\n    resources: {limits: {memory: lots}}\n", "bad.yaml:8"},
		{"alias bomb", bomb, "bad.yaml"},
		{"ten megabytes", object("metadata: {name: x}\ndata: {a: \"" + strings.Repeat("x", 10<<20) + "\"}\n"), "bad.yaml"},
		{"UTF-16", "\xff\xfea\x00p\x00i\x00", "UTF-8"},
		{"binary", "\x7fELF\x02\x01\x01\x00\x00", "bad.yaml"},
		{"a tab", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: x\n", "bad.yaml:4"},
		{"no name", object("data: {a: b}\n"), "name"},
		{"validation", strings.Replace(strings.Replace(helloYAML, "{app: hello}}\n  strategy", "{app: other}}\n  strategy", 1), "name: hello}", "name: other}", 1), "selector"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.write(map[string]string{"bad.yaml": tt.text})
			refused := r.commit(tt.name)
			m.eventually(20*time.Second, "the mistake is told", func() (bool, string) {
				s, err := m.status()
				if err != nil || string(s.Units[0].Tip.Commit) != refused || len(s.Units[0].Problems) == 0 {
					return false, fmt.Sprintf("%v %+v", err, s.Units)
				}
				said := ""
				for _, p := range s.Units[0].Problems {
					said += p.Error() + "\n"
				}
				return strings.Contains(said, tt.want), said
			})
			if s, err := m.status(); err != nil || string(s.Units[0].Accepted.Commit) != good {
				t.Errorf("%s is no longer in force: %+v %v", good[:7], s.Units, err)
			}
		})
	}
	t.Run("a link out of the tree", func(t *testing.T) {
		r.write(map[string]string{"bad.yaml": ""})
		if err := os.Symlink("/etc/passwd", filepath.Join(r.dir, "bad.yaml")); err != nil {
			t.Fatal(err)
		}
		r.commit("a link")
		m.eventually(20*time.Second, "the link is told", func() (bool, string) {
			out, _ := m.shoal("status")
			return strings.Contains(out, "bad.yaml") && strings.Contains(out, "link"), out
		})
	})
	if after := m.pids(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("bad commits changed what runs:\n%v\n%v", before, after)
	}
	raw := m.must("get", "--raw", "/metrics")
	if !strings.Contains(raw, `shoal_unit_problems{unit="main"} 1`) {
		t.Errorf("no metric tells about the refused commit:\n%s", raw)
	}
	r.write(map[string]string{"bad.yaml": ""})
	m.inForce(r.commit("without the mistake"))
}

// TestPodsThatCannotRun: what is wrong with a pod stands where its user looks,
// and the others are not touched.
func TestPodsThatCannotRun(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	pod := func(name, rest string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {name: c, " + rest + "}\n"
	}
	r.write(map[string]string{
		"hello.yaml":    helloYAML,
		"noimage.yaml":  pod("noimage", "image: docker.io/library/nowhere:1"),
		"badname.yaml":  pod("badname", "image: 'UPPER CASE'"),
		"crash.yaml":    pod("crash", "image: busybox, command: [sh, -c, 'echo dying; exit 3']"),
		"nocmd.yaml":    pod("nocmd", "image: busybox, command: [/no/such/program]"),
		"noconfig.yaml": pod("noconfig", "image: busybox, command: [sleep, '1000'], env: [{name: A, valueFrom: {configMapKeyRef: {name: nowhere, key: k}}}]"),
		"huge.yaml":     pod("huge", "image: busybox, resources: {requests: {memory: 10Ti}}"),
		"port1.yaml":    pod("port1", "image: hello:1, ports: [{containerPort: 8080, hostPort: 8181}]"),
		"port2.yaml":    pod("port2", "image: hello:1, ports: [{containerPort: 8080, hostPort: 8181}]"),
		"oom.yaml":      pod("oom", "image: busybox, command: [sh, -c, 'x=x; while true; do x=$x$x; done'], resources: {limits: {memory: 16Mi}}"),
		"done.yaml":     pod("done", "image: busybox, command: ['true']") + "  restartPolicy: Never\n",
	})
	r.commit("pods that cannot run")
	m.start(r.dir)
	want := map[string][]string{ // what kubectl get and describe say
		"noimage":  {"ImagePullBackOff|ErrImagePull", "nowhere:1"},
		"badname":  {"InvalidImageName", "UPPER CASE"},
		"crash":    {"CrashLoopBackOff|Error", "Exit Code: +3"},
		"nocmd":    {"RunContainerError|CrashLoopBackOff|CreateContainerError|StartError", "/no/such/program"},
		"noconfig": {"CreateContainerConfigError", `nowhere`},
		"huge":     {"Pending", "Insufficient memory"},
		"port2":    {"Pending", "free ports"},
		"oom":      {"OOMKilled|CrashLoopBackOff", "OOMKilled"},
		"done":     {"Completed", "Exit Code: +0"},
	}
	for name, words := range want {
		t.Run(name, func(t *testing.T) {
			m.eventually(60*time.Second, name+" says "+strings.Join(words, " and "), func() (bool, string) {
				short, _ := m.kubectl("get", "pod", name)
				long, _ := m.kubectl("describe", "pod", name)
				return matches(words[0], short) && matches(words[1], long), short + long
			})
		})
	}
	m.eventually(30*time.Second, "the others run", func() (bool, string) {
		out, err := m.kubectl("get", "deploy", "hello")
		return err == nil && strings.Contains(out, "3/3"), out
	})
	// What was missing appears, and the pod goes on by itself.
	r.write(map[string]string{"config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: nowhere}\ndata: {k: v}\n"})
	r.commit("what was missing")
	m.eventually(60*time.Second, "the pod that waited for a ConfigMap runs", func() (bool, string) {
		out, err := m.kubectl("get", "pod", "noconfig")
		return err == nil && strings.Contains(out, "Running"), out
	})
}

// TestStartsThatCannotWork: the daemon says what is wrong and what to do.
func TestStartsThatCannotWork(t *testing.T) {
	m := newMachine(t)
	r := newRepo(t)
	r.write(map[string]string{"ns.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n"})
	r.commit("a namespace")
	m.start(r.dir)
	fails := func(name, want string, args ...string) {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(program(t), args...)
			done := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
			defer done.Stop()
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), want) {
				t.Errorf("got %v\n%s\nwant an error with %q", err, out, want)
			}
		})
	}
	other := testenv.Dir(t)
	base := []string{"run", "--run", other, "--containerd-address", m.containerd.Address, "--peer-listen", "127.0.0.1:0", "--gossip-listen", "127.0.0.1:0"}
	fails("a second daemon on the state folder", "another shoal daemon uses the state folder", append(base, "--state", m.state, "--repository", r.dir)...)
	t.Run("a port that is taken", func(t *testing.T) {
		taken := fmt.Sprintf("127.0.0.1:%d", m.port)
		fails("the error", "listen for the API", append(base, "--state", other, "--repository", r.dir, "--api-listen", taken)...)
		if out, err := exec.Command("pgrep", "-f", "shoal-keeper.*"+other).Output(); err == nil {
			t.Errorf("a start that failed left its keeper running: %s", out)
		}
		if _, err := os.Stat(filepath.Join(other, "fleet")); err == nil {
			t.Error("a start that failed founded a fleet")
		}
	})
	fails("a peer port that is taken", "set peer.listen", "run", "--run", other, "--state", other, "--repository", r.dir)
	fails("no repository", "name the Git repository to follow", append(base, "--state", other)...)
	fails("a password in the URL", "repository.passwordFile", append(base, "--state", other, "--repository", "https://me:secret@example.com/x")...)
	fails("ranges that overlap", "overlaps", append(base, "--state", other, "--repository", r.dir, "--service-cidr", "10.64.0.0/12", "--dns", "10.64.0.10")...)
	fails("an unknown flag", "unknown flag", append(base, "--replicas", "3")...)
	fails("other ranges than the fleet was made with", "other address ranges", func() []string {
		m.stop(syscall.SIGTERM)
		return append(base, "--state", m.state, "--repository", r.dir, "--pod-cidr", "10.65.0.0/24")
	}()...)
	t.Run("not root", func(t *testing.T) {
		cmd := exec.Command(program(t), append(base, "--state", "/tmp/nobody", "--repository", r.dir)...)
		if err := os.Chmod(filepath.Dir(program(t)), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "needs root rights") {
			t.Errorf("got %v\n%s", err, out)
		}
	})
	m.restart()
}

// TestContainerdAbsent: the daemon waits for containerd, says so, and goes on
// when it comes.
func TestContainerdAbsent(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	r.write(map[string]string{"hello.yaml": helloYAML})
	r.commit("hello")
	m.containerd.Kill()
	m.repository = r.dir
	m.cmd = exec.Command(program(t), m.args("run")...)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.eventually(20*time.Second, "the status says that containerd does not answer", func() (bool, string) {
		out, err := m.shoal("status")
		return err == nil && strings.Contains(out, "alarm") && strings.Contains(out, "containerd"), out
	})
	m.containerd.Start()
	m.ready("default", 3)
}

// TestRepositoryTroubles: whatever the repository does, what runs runs on.
func TestRepositoryTroubles(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	r.write(map[string]string{"hello.yaml": helloYAML})
	r.commit("hello")
	m.start(r.dir)
	m.ready("default", 3)
	before := m.pids()
	says := func(want string) {
		t.Helper()
		m.eventually(30*time.Second, "the status says "+want, func() (bool, string) {
			out, err := m.shoal("status")
			return err == nil && strings.Contains(out, want), out
		})
	}
	m.stop(syscall.SIGTERM)
	m.start(filepath.Join(r.dir, "moved"))
	says("alarm")
	m.stop(syscall.SIGTERM)
	m.start(r.dir, "--ref", "nowhere")
	says("nowhere")
	m.stop(syscall.SIGTERM)
	m.start("http://127.0.0.1:1/fleet.git")
	says("connection refused")
	if after := m.pids(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("an unreachable repository changed what runs:\n%v\n%v", before, after)
	}
	m.stop(syscall.SIGTERM)
	m.start(r.dir)
	m.ready("default", 3)
	if after := m.pids(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the return of the repository changed what runs:\n%v\n%v", before, after)
	}
}

// TestFullDisk fills the disk under the state folder: the daemon goes on, and a
// commit is followed once there is room.
func TestFullDisk(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	if err := os.MkdirAll(m.state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", m.state, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(m.state, unix.MNT_DETACH) })
	r := newRepo(t)
	r.write(map[string]string{"hello.yaml": helloYAML})
	r.commit("hello")
	m.start(r.dir)
	m.ready("default", 3)
	before := m.pids()
	ballast := filepath.Join(m.state, "ballast")
	_ = exec.Command("dd", "if=/dev/zero", "of="+ballast, "bs=1M").Run() // it ends with "no space left"
	r.write(map[string]string{"hello.yaml": strings.ReplaceAll(helloYAML, "replicas: 3", "replicas: 4")})
	r.commit("one more")
	m.eventually(30*time.Second, "the node says that its disk is full", func() (bool, string) {
		out, err := m.kubectl("describe", "node", "n1")
		return err == nil && matches("DiskPressure +True", out), out
	})
	for id, pid := range before {
		if now := m.pids()[id]; now != pid {
			t.Errorf("container %s had process %s and has %q", id, pid, now)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	m.ready("default", 4)
}
