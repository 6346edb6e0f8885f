//go:build e2e

package onenode

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-dev/shoal/internal/testenv"
)

// BenchmarkRuntime prints what running pods cost the daemon, and how well it measures
// them, as JSON lines. It measures once, whatever -benchtime says.
func BenchmarkRuntime(b *testing.B) {
	m := newMachine(b)
	m.benchImages()
	r := newRepo(b)
	r.write(map[string]string{"burner.yaml": benchBurner})
	r.commit("a burner")
	m.start(r.dir, "--poll", "10s")
	m.ready("default", 1)
	m.benchUsage(b)
	r.write(map[string]string{"burner.yaml": "", "idle.yaml": idleYAML(10)})
	r.commit("ten that idle")
	m.ready("default", 10)
	few, _ := m.atRest(b)
	r.write(map[string]string{"idle.yaml": idleYAML(110)})
	r.commit("a hundred and ten that idle")
	m.ready("default", 110)
	many, cpu := m.atRest(b)
	testenv.Report(b, "mem_per_pod_mib", "MiB", "of the daemon's memory in RAM at 110 idle pods over that at 10", (many[len(many)/2]-few[len(few)/2])/100)
	testenv.Report(b, "pods110_idle_rss_mib", "MiB", "of the daemon, over 60 s after 60 s of rest", many...)
	testenv.Report(b, "pods110_idle_cpu_percent", "%", "of one core, over the same", cpu)
}

// benchBurner is a pod that uses a known share of a core and of memory, without a
// break.
const benchBurner = `apiVersion: v1
kind: Pod
metadata: {name: burner}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox:1
    command: [/bin/busybox, sh, -c, "/bin/busybox dd if=/dev/zero of=/dev/shm/x bs=1M count=50; while :; do :; done"]
    resources: {limits: {cpu: 300m, memory: 100Mi}}
`

func idleYAML(replicas int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: idle}
spec:
  replicas: %d
  selector: {matchLabels: {app: idle}}
  template:
    metadata: {labels: {app: idle}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: busybox:1, command: [/bin/busybox, sleep, "1000000"]}]
`, replicas)
}

// atRest returns the daemon's memory over a minute, sorted in time, and the share of
// a core that it used, in percent.
func (m *machine) atRest(b *testing.B) (rss []float64, cpu float64) {
	time.Sleep(time.Minute)
	before, start := testenv.CPUTime(b, m.cmd.Process.Pid), time.Now()
	for range 6 {
		time.Sleep(10 * time.Second)
		rss = append(rss, testenv.RSS(b, m.cmd.Process.Pid))
	}
	return rss, 100 * (testenv.CPUTime(b, m.cmd.Process.Pid) - before) / time.Since(start).Seconds()
}

// benchUsage compares what the metrics API says of a pod with the kernel's own
// figures: processor time over its window, and the memory that is not inactive files.
func (m *machine) benchUsage(b *testing.B) {
	var errors []float64
	for range 3 {
		begin, burned := time.Now(), m.burned(b)
		time.Sleep(20 * time.Second)
		kernelCPU := (m.burned(b) - burned) / time.Since(begin).Seconds()
		kernelMemory := m.group(b, "memory", "memory.usage_in_bytes", "") - m.group(b, "memory", "memory.stat", "total_inactive_file ")
		raw := m.must("get", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/burner")
		var said struct {
			Containers []struct {
				Usage struct{ CPU, Memory resource.Quantity }
			}
		}
		if err := json.Unmarshal([]byte(raw), &said); err != nil || len(said.Containers) != 1 {
			b.Fatalf("%v: %s", err, raw)
		}
		usage := said.Containers[0].Usage
		off := func(said, is float64) float64 { return 100 * math.Abs(said-is) / is }
		errors = append(errors, off(usage.CPU.AsApproximateFloat64(), kernelCPU), off(usage.Memory.AsApproximateFloat64(), kernelMemory))
	}
	testenv.Report(b, "usage_error_percent", "%", "of processor time and working set in the metrics API, against the pod's cgroup", errors...)
}

// burned returns the processor time of the burner, in seconds.
func (m *machine) burned(b *testing.B) float64 {
	return m.group(b, "cpuacct", "cpuacct.usage", "") / 1e9
}

// group reads a figure of the burner's cgroup.
func (m *machine) group(b *testing.B, hierarchy, file, line string) float64 {
	b.Helper()
	files, err := filepath.Glob(filepath.Join("/sys/fs/cgroup", hierarchy, m.namespace, m.must("get", "pod", "burner", "-o", "jsonpath={.metadata.uid}"), file))
	if err != nil || len(files) != 1 {
		b.Fatalf("%s of the burner: %q, %v", file, files, err)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		b.Fatal(err)
	}
	for text := range strings.Lines(string(raw)) {
		if rest, found := strings.CutPrefix(text, line); found {
			n, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatalf("%s has no %q", files[0], line)
	return 0
}
