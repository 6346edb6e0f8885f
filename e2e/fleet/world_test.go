//go:build e2e

package fleet

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/shoal-dev/shoal/daemon"
	"github.com/shoal-dev/shoal/internal/images"
	"github.com/shoal-dev/shoal/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// full reports whether the long tests are wanted.
func full() bool { return os.Getenv("SHOAL_E2E") == "full" }

// world is a network with machines on it, and a Git repository that they follow.
type world struct {
	t          testing.TB
	containerd *testenv.Daemon
	repo       string
	url        string   // what the machines follow
	registries string   // a folder of hosts.toml files, "" for none
	settings   []string // more flags of every daemon
	nodes      []*node
	sites      []site
	desk       string          // a folder that pods of all machines may write to
	switches   map[string]bool // bridges that were made
}

// node is a machine with a daemon on it.
type node struct {
	w          *world
	name       string
	address    string // on the network
	net        testenv.Net
	port       string // its end of the cable at the switch
	state, run string
	namespace  string // in containerd
	cmd        *exec.Cmd
	ended      chan struct{} // closed when cmd has been waited for
	log        *os.File
}

// site is where a machine will stand. All of them are made before the world, so
// that they are there until it is taken down.
type site struct {
	dir string
	net testenv.Net
}

// spare is how many machines a test may add.
const spare = 2

// newWorld makes n machines in one fleet, all of them running.
func newWorld(t testing.TB, n int) *world {
	t.Helper()
	w := prepare(t, n)
	for range n {
		w.add()
	}
	w.settled(2 * time.Minute)
	return w
}

// prepare makes a world with room for n machines, and none yet.
func prepare(t testing.TB, n int) *world {
	t.Helper()
	w := &world{t: t, containerd: testenv.Containerd(t), repo: testenv.Dir(t), desk: testenv.Dir(t), switches: map[string]bool{}}
	w.url = w.repo
	w.git("init", "-q", "-b", "main")
	w.write(map[string]string{"namespace.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: app}\n"})
	w.commit("the beginning")
	for range n + spare {
		w.sites = append(w.sites, site{testenv.Dir(t), testenv.Netns(t)})
	}
	t.Cleanup(w.remove)
	return w
}

func (w *world) git(args ...string) string {
	w.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", w.repo, "-c", "user.name=e2e", "-c", "user.email=e2e@localhost"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (w *world) write(files map[string]string) {
	w.t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(w.repo, name), []byte(text), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) commit(message string) string {
	w.t.Helper()
	w.git("add", "-A")
	w.git("commit", "-q", "--allow-empty", "-m", message)
	return w.git("rev-parse", "HEAD")
}

// add makes a machine and lets it join; the first one founds the fleet.
func (w *world) add() {
	w.t.Helper()
	i := len(w.nodes) + 1
	dir := w.sites[i-1].dir
	n := &node{
		w: w, name: fmt.Sprintf("n%d", i), address: fmt.Sprintf("192.0.2.%d", 10+i), net: w.sites[i-1].net, port: fmt.Sprintf("port%d", i),
		state: filepath.Join(dir, "disk", "state"), run: filepath.Join(dir, "run"), namespace: "shoal-" + filepath.Base(dir),
	}
	w.plug(n)
	n.images()
	if i == 1 {
		n.must("init", "--repository", w.url)
	} else {
		token := strings.TrimSpace(w.voter().must("token", "create"))
		n.must("join", w.voter().address, "--token", token)
	}
	w.nodes = append(w.nodes, n)
	n.start()
}

// images puts what the tests run where the daemon imports it.
func (n *node) images() {
	n.w.t.Helper()
	hello := testenv.Program(n.w.t, "github.com/shoal-dev/shoal/internal/images/hello")
	dir := filepath.Join(n.state, "images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		n.w.t.Fatal(err)
	}
	for _, version := range []string{"1", "2"} {
		testenv.Archive(n.w.t, dir, "hello:"+version, testenv.Image(n.w.t, images.Program(hello, "-version", version)))
	}
	testenv.Archive(n.w.t, dir, "busybox:1", testenv.Image(n.w.t, testenv.Busybox()))
}

func program(t testing.TB) string { return testenv.Program(t, "github.com/shoal-dev/shoal/cmd/shoal") }

func (n *node) args(command ...string) []string {
	out := append(slices.Clone(command), "--state", n.state, "--run", n.run)
	switch command[0] {
	case "run":
		out = append(out, "--containerd-address", n.w.containerd.Address, "--containerd-namespace", n.namespace, "--poll", "1h", "--node", n.name, "--log-level", "debug")
		out = append(out, n.w.settings...)
		if n.w.registries != "" {
			out = append(out, "--containerd-registries", n.w.registries)
		}
	case "init", "join":
		out = append(out, "--node", n.name)
	case "reset":
		out = append(out, "--containerd-address", n.w.containerd.Address, "--containerd-namespace", n.namespace, "--yes")
	}
	return out
}

// shoal runs a command of the program on the machine.
func (n *node) shoal(command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + n.net.Path, "--", program(n.w.t)}, n.args(command...)...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%w: %s", err, stderr.String())
	}
	return string(out), nil
}

func (n *node) must(command ...string) string {
	n.w.t.Helper()
	out, err := n.shoal(command...)
	if err != nil {
		n.w.t.Fatalf("%s: shoal %s: %v", n.name, command[0], err)
	}
	return out
}

// start starts the daemon.
func (n *node) start() {
	n.w.t.Helper()
	if n.log == nil {
		var err error
		if n.log, err = os.Create(filepath.Join(filepath.Dir(n.run), "daemon.log")); err != nil {
			n.w.t.Fatal(err)
		}
	}
	n.launch()
	n.w.eventually(30*time.Second, n.name+" has listed its pods", func() (bool, string) {
		s, err := n.status()
		return err == nil && s.Observed, fmt.Sprint(err)
	})
}

// launch starts the daemon's process.
func (n *node) launch() {
	n.w.t.Helper()
	cmd := n.net.Command(program(n.w.t), n.args("run")...)
	cmd.Stdout, cmd.Stderr = n.log, n.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		n.w.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	n.cmd, n.ended = cmd, ended
}

// stop ends the daemon with a signal and waits for it.
func (n *node) stop(signal syscall.Signal) {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(syscall.SIGCONT) // it may be stopped
	_ = n.cmd.Process.Signal(signal)
	select {
	case <-n.ended:
	case <-time.After(20 * time.Second):
		_ = n.cmd.Process.Signal(syscall.SIGQUIT)
		<-n.ended
		n.w.t.Errorf("%s: the daemon did not end within 20 s", n.name)
	}
	n.cmd = nil
}

// die is the end of the machine as the others see it: its cable is cut, and
// everything on it is killed.
func (n *node) die() {
	n.w.t.Helper()
	n.cable("")
	n.stop(syscall.SIGKILL)
	for _, pid := range n.pids() {
		_ = exec.Command("kill", "-9", pid).Run() // it may have ended
	}
}

// revive is the machine's boot.
func (n *node) revive() {
	n.w.t.Helper()
	n.cable("sw0")
	n.start()
}

// pids returns the processes of the machine's containers, by name.
func (n *node) pids() map[string]string {
	n.w.t.Helper()
	out, err := exec.Command("ctr", "-a", n.w.containerd.Address, "-n", n.namespace, "tasks", "ls").Output()
	if err != nil {
		n.w.t.Fatal(err)
	}
	pids := map[string]string{}
	for _, line := range strings.Split(string(out), "\n")[1:] {
		if words := strings.Fields(line); len(words) == 3 && words[2] == "RUNNING" {
			pids[words[0]] = words[1]
		}
	}
	return pids
}

// daemon returns the daemon's process: nsenter becomes it.
func (n *node) daemon() int { return n.cmd.Process.Pid }

func (n *node) status() (daemon.Status, error) {
	return daemon.NewClient(filepath.Join(n.run, "shoal.sock")).Status(context.Background())
}

// remove takes the world down.
func (w *world) remove() {
	for _, n := range w.nodes {
		if w.t.Failed() && n.log != nil {
			raw, _ := os.ReadFile(n.log.Name()) // what there is
			lines := strings.Split(string(raw), "\n")
			w.t.Logf("the log of %s:\n%s", n.name, strings.Join(lines[max(0, len(lines)-60):], "\n"))
		}
		n.stop(syscall.SIGTERM)
		if out, err := n.shoal("reset"); err != nil {
			w.t.Errorf("%s: reset: %v\n%s", n.name, err, out)
		}
		// The cable goes with the machine's namespace, but not at once.
		if link, err := netlink.LinkByName(n.port); err == nil {
			_ = netlink.LinkDel(link) // it has just gone
		}
	}
	for name := range w.switches {
		if link, err := netlink.LinkByName(name); err != nil {
			w.t.Errorf("remove the switch %s: %v", name, err)
		} else {
			if err := netlink.LinkDel(link); err != nil {
				w.t.Errorf("remove the switch %s: %v", name, err)
			}
		}
	}
}

// voter returns a running node that votes, other than some.
func (w *world) voter(but ...*node) *node {
	w.t.Helper()
	for _, n := range w.nodes {
		if n.cmd == nil || slices.Contains(but, n) {
			continue
		}
		if s, err := n.status(); err == nil && slices.Contains(s.Voters, n.name) && s.Quorate {
			return n
		}
	}
	w.t.Fatal("no voter is running")
	return nil
}

// leader returns the node that leads with a quorum.
func (w *world) leader() *node {
	w.t.Helper()
	var leader *node
	w.eventually(20*time.Second, "a quorate leader", func() (bool, string) {
		for _, n := range w.nodes {
			if s, err := n.status(); n.cmd != nil && err == nil && s.Leader == n.name && s.Quorate {
				leader = n
				return true, ""
			}
		}
		return false, ""
	})
	return leader
}

// running returns the nodes whose daemons run.
func (w *world) running() []*node {
	var out []*node
	for _, n := range w.nodes {
		if n.cmd != nil {
			out = append(out, n)
		}
	}
	return out
}

// settled waits until all running nodes follow one quorate leader, hear of all
// nodes, and as many vote as should.
func (w *world) settled(limit time.Duration) {
	w.t.Helper()
	voters := 5
	switch n := len(w.nodes); {
	case n < 3:
		voters = 1
	case n < 7:
		voters = 3
	}
	w.eventually(limit, "one fleet with a quorate leader", func() (bool, string) {
		leaders, last := map[string]bool{}, ""
		for _, n := range w.running() {
			s, err := n.status()
			last += fmt.Sprintf("%s: leader %s quorate %v heard %s, nodes %d, voters %v, unwell %v, alarms %v %v\n", n.name, s.Leader, s.Quorate, s.Heard, len(s.Nodes), s.Voters, s.Health, s.Alarms, err)
			if err != nil || !s.Quorate || s.Heard > 2*time.Second || len(s.Nodes) != len(w.nodes) || len(s.Voters) != voters {
				return false, last
			}
			leaders[s.Leader] = true
		}
		return len(leaders) == 1, last
	})
}

func (w *world) eventually(limit time.Duration, what string, ok func() (bool, string)) time.Duration {
	w.t.Helper()
	begin := time.Now()
	for {
		done, last := ok()
		if done {
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			w.t.Fatalf("not within %s: %s\n%s", limit, what, last)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ready waits until as many pods of an owner as wanted are ready in the eyes of
// a node, and returns where they are by name.
func (w *world) ready(eyes *node, prefix string, want int, limit time.Duration) map[string]string {
	w.t.Helper()
	var where map[string]string
	w.eventually(limit, fmt.Sprintf("%d pods %s* ready as %s sees it", want, prefix, eyes.name), func() (bool, string) {
		s, err := eyes.status()
		where = map[string]string{}
		last := fmt.Sprint(err, " leader ", s.Leader, " ", s.Health, "\n")
		gone := map[string]bool{}
		for _, n := range w.nodes {
			gone[n.name] = n.cmd == nil
		}
		for _, h := range s.Health {
			gone[h.Node] = gone[h.Node] || h.Gone()
		}
		for _, p := range s.Pods {
			if !strings.HasPrefix(p.Name, prefix) {
				continue
			}
			last += fmt.Sprintf("%+v\n", p)
			if p.Ready && p.Phase == "Running" && !gone[p.Node] {
				where[p.Name] = p.Node
			}
		}
		return err == nil && len(where) == want, last
	})
	return where
}

// get fetches a URL from within a machine.
func (n *node) get(url string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := n.net.Command("curl", "-sS", "-m", "3", url).CombinedOutput()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return string(out), err
}
