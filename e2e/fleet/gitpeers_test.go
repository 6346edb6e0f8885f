//go:build e2e

package fleet

import (
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/internal/testenv"
)

// TestGitFromPeers: a machine that does not reach the Git host follows commits
// that the others have accepted within 10 s of them, and says where they came
// from; when it reaches the host again all is as before.
func TestGitFromPeers(t *testing.T) {
	w := prepare(t, 3)
	root := testenv.Dir(t)
	bare := filepath.Join(root, "fleet.git")
	w.git("clone", "-q", "--bare", w.repo, bare)
	backend, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	w.bridge("sw0")
	listener, err := net.Listen("tcp", "192.0.2.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(backend)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() }) // nobody asks any more
	w.url = fmt.Sprintf("http://%s/fleet.git", listener.Addr())
	for range 3 {
		w.add()
	}
	w.settled(time.Minute)
	leader := w.leader()
	apart, told := w.nodes[0], w.nodes[1]
	if apart == leader {
		apart, told = w.nodes[1], w.nodes[2]
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	firewall := func(action string) {
		t.Helper()
		if out, err := apart.net.Command("iptables", "-w", action, "OUTPUT", "-p", "tcp", "-d", "192.0.2.1", "--dport", port, "-j", "REJECT").CombinedOutput(); err != nil {
			t.Fatalf("iptables: %v: %s", err, out)
		}
	}
	push := func(files map[string]string, message string) string {
		t.Helper()
		w.write(files)
		commit := w.commit(message)
		w.git("push", "-q", bare, "HEAD:main")
		if out, err := exec.Command("curl", "-sS", "-X", "POST", "--unix-socket", filepath.Join(told.run, "shoal.sock"), "http://shoal/sync").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return commit
	}
	follows := func(commit string, limit time.Duration) {
		t.Helper()
		took := w.eventually(limit, apart.name+" follows "+commit[:7], func() (bool, string) {
			s, err := apart.status()
			return err == nil && len(s.Units) == 1 && string(s.Units[0].Accepted.Commit) == commit, fmt.Sprintf("%+v %v", s.Units, err)
		})
		t.Logf("%s follows after %s", apart.name, took.Round(10*time.Millisecond))
	}
	follows(push(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, 2)}, "two"), 20*time.Second)

	firewall("-I")
	for i, replicas := range []int{3, 4} {
		commit := push(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, replicas)}, fmt.Sprint(replicas))
		follows(commit, 10*time.Second)
		w.ready(apart, "hello", replicas, 40*time.Second)
		if s, err := apart.status(); err != nil || i == 0 && !strings.Contains(s.Units[0].Error, "came from node") {
			t.Errorf("status says %q, %v", s.Units[0].Error, err)
		}
	}
	firewall("-D")
	follows(push(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, 2)}, "two again"), 20*time.Second)
	w.eventually(90*time.Second, "nothing is wrong any more", func() (bool, string) {
		s, err := apart.status()
		return err == nil && s.Units[0].Error == "", fmt.Sprint(s.Units[0].Error, err)
	})
}
