//go:build e2e

package onenode

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/internal/images"
	"github.com/shoal-dev/shoal/internal/testenv"
)

// BenchmarkOneNode prints the figures of one node as JSON lines. It measures
// once, whatever -benchtime says; the spread is in the lines.
func BenchmarkOneNode(b *testing.B) {
	benchBinary(b)
	benchStarts(b)
	benchManifests(b)
}

func benchBinary(b *testing.B) {
	info, err := os.Stat(program(b))
	if err != nil {
		b.Fatal(err)
	}
	testenv.Report(b, "binary_mib", "MiB", "stripped, with the keeper inside", float64(info.Size())/(1<<20))
}

// stampPod is a pod whose first instruction makes a file; the file's time says
// when that was.
func stampPod(name, dir string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox:1
    command: [/bin/busybox, sh, -c, "echo > /desk/%s.$$.$(/bin/busybox cat /proc/sys/kernel/random/uuid); exec /bin/busybox sleep 1000000"]
    volumeMounts: [{name: work, mountPath: /desk}]
  volumes: [{name: work, hostPath: {path: %s}}]
`, name, name, dir)
}

// benchImages puts busybox where the daemon imports it from.
func (m *machine) benchImages() {
	m.t.Helper()
	image, err := images.Build(images.Busybox())
	if err == nil {
		_, err = images.WriteArchive(filepath.Join(m.state, "images"), "busybox:1", image)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// stamps returns the times of the files that a pod made, oldest first.
func stamps(b *testing.B, dir, name string) []time.Time {
	b.Helper()
	files, err := filepath.Glob(filepath.Join(dir, name+".*"))
	if err != nil {
		b.Fatal(err)
	}
	var out []time.Time
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, info.ModTime())
	}
	slices.SortFunc(out, time.Time.Compare)
	return out
}

func (m *machine) waitStamps(b *testing.B, dir, name string, n int) []time.Time {
	b.Helper()
	var got []time.Time
	m.eventually(120*time.Second, fmt.Sprintf("%s has started %d times", name, n), func() (bool, string) {
		got = stamps(b, dir, name)
		return len(got) >= n, fmt.Sprint(len(got))
	})
	return got
}

// refTime is when a commit became the head of its branch.
func refTime(b *testing.B, gitDir string) time.Time {
	b.Helper()
	info, err := os.Stat(filepath.Join(gitDir, "refs/heads/main"))
	if err != nil {
		b.Fatal(err)
	}
	return info.ModTime()
}

const rounds = 15

func benchStarts(b *testing.B) {
	m := newMachine(b)
	m.benchImages()
	work := testenv.Dir(b)
	r := newRepo(b)
	r.write(map[string]string{"ns.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n"})
	r.commit("nothing")
	m.start(r.dir)
	m.eventually(30*time.Second, "the image is imported", func() (bool, string) {
		out, err := exec.Command("ctr", "-a", m.containerd.Address, "-n", m.namespace, "images", "ls", "-q").Output()
		return err == nil && strings.Contains(string(out), "busybox"), string(out)
	})

	var first []float64
	for i := range rounds {
		name := fmt.Sprintf("one%d", i)
		r.write(map[string]string{name + ".yaml": stampPod(name, work)})
		r.commit(name)
		at := m.waitStamps(b, work, name, 1)[0]
		first = append(first, at.Sub(refTime(b, filepath.Join(r.dir, ".git"))).Seconds())
	}
	testenv.Report(b, "commit_to_first_instruction", "s", "from the time of the ref to that of a file the container makes; with pod network", first...)
	m.benchKills(b, work)
	m.benchIdle(b)
	m.benchStartup(b)
	m.bench50(b, r, work)
	m.stop(syscall.SIGTERM)
	m.benchPush(b, r, work)
}

// benchKills kills each pod's container once: the first restart is immediate.
func (m *machine) benchKills(b *testing.B, work string) {
	var seconds []float64
	for i := range rounds {
		name := fmt.Sprintf("one%d", i)
		status := mustJSON[struct {
			ContainerStatuses []struct{ ContainerID string }
		}](b, m.field("{.status}", "get", "pod", name))
		id := strings.TrimPrefix(status.ContainerStatuses[0].ContainerID, "containerd://")
		pid, err := strconv.Atoi(m.pids()[id])
		if err != nil {
			b.Fatalf("pod %s has no process: %v", name, err)
		}
		before := time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			b.Fatal(err)
		}
		again := m.waitStamps(b, work, name, 2)[1]
		seconds = append(seconds, again.Sub(before).Seconds())
	}
	testenv.Report(b, "killed_to_running", "s", "kill -9 of a container's first process to its first instruction again", seconds...)
}

// benchIdle looks at the daemon while ten pods do nothing.
func (m *machine) benchIdle(b *testing.B) {
	m.stop(syscall.SIGTERM)
	m.flags = []string{"--poll", "10s"}
	m.restart()
	time.Sleep(30 * time.Second) // let it come to rest
	var rss []float64
	cpu := testenv.CPUTime(b, m.cmd.Process.Pid)
	start := time.Now()
	for range 6 {
		time.Sleep(10 * time.Second)
		rss = append(rss, testenv.RSS(b, m.cmd.Process.Pid))
	}
	used := testenv.CPUTime(b, m.cmd.Process.Pid) - cpu
	note := fmt.Sprintf("%d idle pods, poll every 10 s, over 60 s after 30 s of rest", rounds)
	testenv.Report(b, "idle_rss_mib", "MiB", note, rss...)
	testenv.Report(b, "idle_cpu_percent", "%", note, 100*used/time.Since(start).Seconds())
}

// benchStartup restarts the daemon until it says that it is ready, with its
// pods adopted.
func (m *machine) benchStartup(b *testing.B) {
	var seconds []float64
	client := m.apiClient(b)
	for range 7 {
		m.stop(syscall.SIGTERM)
		start := time.Now()
		m.restart()
		m.eventually(30*time.Second, "the daemon is ready", func() (bool, string) {
			response, err := client.Get(fmt.Sprintf("https://127.0.0.1:%d/readyz", m.port))
			if err != nil {
				return false, err.Error()
			}
			response.Body.Close()
			if response.StatusCode != http.StatusOK {
				return false, response.Status
			}
			s, err := m.status()
			ready := 0
			for _, p := range s.Pods {
				if p.Ready {
					ready++
				}
			}
			return err == nil && ready >= rounds, fmt.Sprintf("%d ready", ready)
		})
		seconds = append(seconds, time.Since(start).Seconds())
	}
	testenv.Report(b, "startup_ready", "s", fmt.Sprintf("start of the process until /readyz says ok and %d pods are adopted and ready", rounds), seconds...)
}

func (m *machine) bench50(b *testing.B, r *repo, work string) {
	var seconds []float64
	for round := range 3 {
		name := fmt.Sprintf("fifty%d", round)
		pod := stampPod(name, work)
		spec := strings.ReplaceAll(pod[strings.Index(pod, "spec:"):], "\n", "\n    ")
		r.write(map[string]string{name + ".yaml": fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %s}
spec:
  replicas: 50
  selector: {matchLabels: {app: %s}}
  template:
    metadata: {labels: {app: %s}}
    %s
`, name, name, name, spec)})
		r.commit(name)
		all := m.waitStamps(b, work, name, 50)
		seconds = append(seconds, all[49].Sub(refTime(b, filepath.Join(r.dir, ".git"))).Seconds())
		r.write(map[string]string{name + ".yaml": ""})
		r.commit("without " + name)
		m.ready("default", rounds)
	}
	testenv.Report(b, "replicas50_running", "s", "commit to the first instruction of the 50th pod", seconds...)
}

// benchPush pushes over HTTP and hints the daemon, as a webhook does.
func (m *machine) benchPush(b *testing.B, r *repo, work string) {
	m.start(r.serveHTTP())
	hint := unixClient(filepath.Join(m.run, "shoal.sock"))
	var seconds []float64
	for i := range rounds {
		name := fmt.Sprintf("push%d", i)
		r.write(map[string]string{name + ".yaml": stampPod(name, work)})
		r.commit(name)
		response, err := hint.Post("http://shoal/sync", "", nil)
		if err != nil {
			b.Fatal(err)
		}
		response.Body.Close()
		at := m.waitStamps(b, work, name, 1)[0]
		seconds = append(seconds, at.Sub(refTime(b, r.remote)).Seconds())
	}
	testenv.Report(b, "push_to_first_instruction", "s", "from the time of the ref on the server; the hint is sent when the push returns", seconds...)
}

func benchManifests(b *testing.B) {
	m := newMachine(b)
	r := newRepo(b)
	r.commit("nothing")
	m.start(r.dir)
	var load []float64
	for round := range 3 {
		r.writeMany(fmt.Sprintf("k%d", round), 1000)
		load = append(load, m.takes(b, r, "1000 manifests"))
		r.write(map[string]string{fmt.Sprintf("k%d", round): ""})
		m.takes(b, r, "none")
	}
	testenv.Report(b, "manifests1k_first_load", "s", "400 ConfigMaps, 300 Services, 300 Deployments without pods: commit to in force", load...)
	r.writeMany("many", 10000)
	m.takes(b, r, "10000 manifests")
	var one []float64
	for i := range rounds {
		r.write(map[string]string{"many/17/170.yaml": fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: o170, namespace: many}\ndata: {round: \"%d\"}\n", i)})
		one = append(one, m.takes(b, r, "one"))
	}
	testenv.Report(b, "manifests10k_one_file", "s", "one of 10,000 manifests changed: commit to in force", one...)
}

// takes commits and returns how long it took from the ref until the daemon had
// acted on the commit.
func (m *machine) takes(b *testing.B, r *repo, message string) float64 {
	b.Helper()
	commit := r.commit(message)
	var took time.Duration
	m.eventually(180*time.Second, message+" in force", func() (bool, string) {
		s, err := m.status()
		if err != nil || string(s.Units[0].Accepted.Commit) != commit || s.AsOf.Before(s.Units[0].InForce) {
			return false, fmt.Sprint(err)
		}
		took = s.AsOf.Sub(refTime(b, filepath.Join(r.dir, ".git")))
		return true, ""
	})
	return took.Seconds()
}

// writeMany writes n manifests, ten a folder.
func (r *repo) writeMany(namespace string, n int) {
	files := map[string]string{}
	for i := range n {
		name := fmt.Sprintf("o%d", i)
		text := fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: %s}\ndata: {key: value}\n", name, namespace)
		switch i % 10 {
		case 1, 2, 3:
			text = fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: %s}\nspec: {selector: {app: %s}, ports: [{port: 80}]}\n", name, namespace, name)
		case 4, 5, 6:
			text = fmt.Sprintf("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: %s, namespace: %s}\nspec:\n  replicas: 0\n  selector: {matchLabels: {app: %s}}\n"+
				"  template:\n    metadata: {labels: {app: %s}}\n    spec: {containers: [{name: c, image: busybox:1}]}\n", name, namespace, name, name)
		}
		files[fmt.Sprintf("%s/%d/%d.yaml", namespace, i/10, i)] = text
	}
	r.write(files)
}
