//go:build e2e

package fleet

import (
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/internal/testenv"
)

// BenchmarkFleet prints the figures of a fleet as JSON lines. It measures once,
// whatever -benchtime says; the spread is in the lines.
func BenchmarkFleet(b *testing.B) {
	b.Run("deaths", benchDeaths)
	b.Run("remote", benchRemote)
	b.Run("idle", func(b *testing.B) { benchIdle(b, 10) })
}

// asked returns a number that the environment may set.
func asked(name string, or int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return or
}

const stampYAML = `apiVersion: apps/v1
kind: Deployment
metadata: {name: stamp, namespace: app}
spec:
  replicas: %d
  selector: {matchLabels: {app: stamp}}
  template:
    metadata: {labels: {app: stamp}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: c
        image: busybox:1
        command: [/bin/busybox, sh, -c, "echo > /desk/stamp.$$(/bin/busybox hostname).$$(/bin/busybox cat /proc/sys/kernel/random/uuid); exec /bin/busybox sleep 1000000"]
        volumeMounts: [{name: work, mountPath: /desk}]
      volumes: [{name: work, hostPath: {path: %s}}]
`

// stamps returns the times at which pods whose name begins with a text ran their
// first instruction since then, oldest first.
func stamps(b *testing.B, dir, prefix string, since time.Time) []time.Time {
	b.Helper()
	files, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
	if err != nil {
		b.Fatal(err)
	}
	var out []time.Time
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && info.ModTime().After(since) {
			out = append(out, info.ModTime())
		}
	}
	slices.SortFunc(out, time.Time.Compare)
	return out
}

// benchDeaths kills machines, followers and leaders in turn, and takes the times
// to the first instruction of the last replacement, and to the next leader.
func benchDeaths(b *testing.B) {
	w := newWorld(b, 3)
	desk := w.desk
	w.write(map[string]string{"stamp.yaml": strings.ReplaceAll(fmt.Sprintf(stampYAML, 6, desk), "$$", "$")})
	w.commit("stamps")
	w.ready(w.nodes[0], "stamp", 6, time.Minute)
	var follower, leader, next []float64
	for i := range asked("SHOAL_KILLS", 30) {
		head := w.leader()
		victim := head
		pods := head.pods("stamp")
		if i%2 == 0 {
			at := slices.Index(w.nodes, head)
			if victim = w.nodes[(at+1)%3]; pods[victim.name] < pods[w.nodes[(at+2)%3].name] {
				victim = w.nodes[(at+2)%3]
			}
		}
		others := slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return n == victim })
		lost := pods[victim.name] // a leader that has come back may have none
		begin := time.Now()
		victim.die()
		if victim == head {
			took := w.eventually(10*time.Second, "the next leader", func() (bool, string) {
				s, err := others[0].status()
				return err == nil && s.Quorate && s.Leader != victim.name && s.Leader != "", ""
			})
			next = append(next, took.Seconds())
		}
		w.eventually(20*time.Second, "the replacements run", func() (bool, string) {
			return len(stamps(b, desk, "stamp", begin)) >= lost, fmt.Sprint(lost)
		})
		if lost > 0 {
			took := stamps(b, desk, "stamp", begin)[lost-1].Sub(begin).Seconds()
			if victim == head {
				leader = append(leader, took)
			} else {
				follower = append(follower, took)
			}
		}
		victim.revive()
		w.settled(30 * time.Second)
		w.eventually(90*time.Second, "six pods and no more", func() (bool, string) {
			n := 0
			for _, ready := range others[0].pods("stamp") {
				n += ready
			}
			s, err := others[0].status()
			return err == nil && n == 6 && len(s.Pods) == 6, fmt.Sprint(n, s.Health)
		})
	}
	const note = "3 nodes, 6 pods, image present; cable cut and everything killed -> first instruction of the last replacement"
	testenv.Report(b, "node_death_to_running", "s", note, follower...)
	testenv.Report(b, "leader_death_to_running", "s", note, leader...)
	testenv.Report(b, "new_leader", "s", "from the leader's death until another node says that it follows a quorate one", next...)

	lengths := []int{5, 60}
	if full() {
		lengths = append(lengths, 300)
	}
	var merged []float64
	for _, length := range lengths {
		w.nodes[2].cable("sw1")
		time.Sleep(time.Duration(length) * time.Second)
		w.nodes[2].cable("sw0")
		healed := time.Now()
		w.settled(time.Minute)
		merged = append(merged, time.Since(healed).Seconds())
	}
	testenv.Report(b, "remerge", "s", fmt.Sprintf("after splits of %v s", lengths), merged...)
}

// benchRemote pushes commits over HTTP and takes the time until a pod of theirs
// runs on another node than the one that was told of the push.
func benchRemote(b *testing.B) {
	w := prepare(b, 3)
	root := testenv.Dir(b)
	bare := filepath.Join(root, "fleet.git")
	w.git("clone", "-q", "--bare", w.repo, bare)
	backend, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		b.Fatal(err)
	}
	w.bridge("sw0")
	listener, err := net.Listen("tcp", "192.0.2.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(backend)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}}
	go func() { _ = server.Serve(listener) }()
	b.Cleanup(func() { _ = server.Close() }) // nobody asks any more
	w.url = fmt.Sprintf("http://%s/fleet.git", listener.Addr())
	for range 3 {
		w.add()
	}
	w.settled(time.Minute)
	desk := w.desk
	var took []float64
	for i := range asked("SHOAL_ROUNDS", 15) {
		name := fmt.Sprintf("r%d", i)
		w.write(map[string]string{"r.yaml": fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: app}
spec:
  nodeName: n3
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox:1
    command: [/bin/busybox, sh, -c, "echo > /desk/%s.x; exec /bin/busybox sleep 1000000"]
    volumeMounts: [{name: work, mountPath: /desk}]
  volumes: [{name: work, hostPath: {path: %s}}]
`, name, name, desk)})
		w.commit(name)
		begin := time.Now()
		w.git("push", "-q", bare, "HEAD:main")
		if out, err := exec.Command("curl", "-sS", "-X", "POST", "--unix-socket", filepath.Join(w.nodes[0].run, "shoal.sock"), "http://shoal/sync").CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		w.eventually(30*time.Second, name+" runs", func() (bool, string) { return len(stamps(b, desk, name+".x", begin)) == 1, "" })
		took = append(took, stamps(b, desk, name+".x", begin)[0].Sub(begin).Seconds())
	}
	testenv.Report(b, "commit_to_remote_running", "s", "push over HTTP, n1 is told of it -> first instruction on n3", took...)
}

// benchIdle takes what one daemon of several costs when nothing happens.
func benchIdle(b *testing.B, n int) {
	w := newWorld(b, n)
	w.write(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, n)})
	w.commit("some pods")
	w.ready(w.nodes[0], "hello", n, 2*time.Minute)
	time.Sleep(20 * time.Second)
	leader := w.leader()
	var rss, cpu []float64
	before := map[*node]float64{}
	begin := time.Now()
	for _, node := range w.nodes {
		before[node] = testenv.CPUTime(b, node.daemon())
	}
	time.Sleep(time.Duration(asked("SHOAL_IDLE", 30)) * time.Second)
	lead := 0.0
	for _, node := range w.nodes {
		percent := 100 * (testenv.CPUTime(b, node.daemon()) - before[node]) / time.Since(begin).Seconds()
		rss, cpu = append(rss, testenv.RSS(b, node.daemon())), append(cpu, percent)
		if node == leader {
			lead = percent
		}
	}
	note := fmt.Sprintf("%d nodes, %d pods with a probe every second and one more on each node, over %.0f s; the leader takes %.2f %% of a core", n, n, time.Since(begin).Seconds(), lead)
	testenv.Report(b, fmt.Sprintf("fleet%d_idle_rss_mib", n), "MiB", note, rss...)
	testenv.Report(b, fmt.Sprintf("fleet%d_idle_cpu_percent", n), "%", note, cpu...)
}
