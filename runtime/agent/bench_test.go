package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime"
)

// benchRounds is how often starts and stops are measured, those of containerd's own
// client in turn with ours.
const benchRounds = 15

// BenchmarkRuntime prints what starting and stopping pods takes as JSON lines. It
// measures once, whatever -benchtime says; the spread is in the lines.
func BenchmarkRuntime(b *testing.B) {
	h := newHouse(b)
	warm := pod("warm", "exec sleep 1000") // so that the image is imported
	h.run(warm)
	h.eventually(warm, soon, "ready", ready)
	desk := b.TempDir()
	h.benchStarts(b, desk)
	h.benchStops(b)
	h.benchHundred(b, desk)
	h.removeAll()
}

// stamping is a pod whose containers each make a file with their first instruction.
func stamping(name, desk string, containers int) runtime.Pod {
	return pod(name, "", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "desk", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: desk}}}}
		first := p.Spec.Containers[0]
		first.VolumeMounts = []corev1.VolumeMount{{Name: "desk", MountPath: "/desk"}}
		p.Spec.Containers = nil
		for i := range containers {
			c := first
			c.Name = fmt.Sprint("c", i)
			c.Command = stamp(fmt.Sprintf("%s.%d", name, i))
			p.Spec.Containers = append(p.Spec.Containers, c)
		}
	})
}

func stamp(name string) []string {
	return []string{"/bin/busybox", "sh", "-c", "echo > /desk/" + name + "; exec /bin/busybox sleep 1000"}
}

// stamped waits for a file and returns when it was made.
func (h *house) stamped(desk, name string) time.Time {
	h.t.Helper()
	for late := time.Now().Add(time.Minute); time.Now().Before(late); time.Sleep(2 * time.Millisecond) {
		if info, err := os.Stat(filepath.Join(desk, name)); err == nil {
			return info.ModTime()
		}
	}
	h.t.Fatalf("%s was not made", name)
	return time.Time{}
}

// benchStarts measures from the call that assigns a pod to the first instruction of
// its last container, and the same of a container that ctr runs without a network.
func (h *house) benchStarts(b *testing.B, desk string) {
	var one, two, bare []float64
	for i := range benchRounds {
		for containers, out := range map[int]*[]float64{1: &one, 2: &two} {
			name := fmt.Sprintf("p%d-%d", containers, i)
			begin := time.Now()
			h.run(stamping(name, desk, containers))
			last := begin
			for k := range containers {
				if at := h.stamped(desk, fmt.Sprintf("%s.%d", name, k)); at.After(last) {
					last = at
				}
			}
			*out = append(*out, last.Sub(begin).Seconds())
		}
		name := fmt.Sprint("bare", i)
		args := []string{
			"-a", h.cfg.Containerd, "-n", "shoal", "run", "-d",
			"--mount", "type=bind,src=" + desk + ",dst=/desk,options=rbind:rw", image, name,
		}
		begin := time.Now()
		if out, err := exec.Command("ctr", append(args, stamp(name)...)...).CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		bare = append(bare, h.stamped(desk, name).Sub(begin).Seconds())
		h.bury(b, name)
	}
	ratio := func(of []float64) []float64 {
		out := slices.Clone(of)
		for i := range out {
			out[i] /= bare[i]
		}
		return out
	}
	ratio1, ratio2 := ratio(one), ratio(two) // reporting sorts
	testenv.Report(b, "ctr_run", "s", "ctr run of the same image without a network, call to first instruction", bare...)
	testenv.Report(b, "pod1_start", "s", "one container with the pod network, assigned to first instruction", one...)
	testenv.Report(b, "pod2_start", "s", "two containers, assigned to the first instruction of the later one", two...)
	testenv.Report(b, "pod1_start_ratio", "", "to ctr run of the same round", ratio1...)
	testenv.Report(b, "pod2_start_ratio", "", "to ctr run of the same round", ratio2...)
}

// bury ends a container that ctr started.
func (h *house) bury(b *testing.B, name string) {
	for _, args := range [][]string{{"task", "kill", "-s", "KILL", name}, {"task", "rm", "-f", name}, {"container", "rm", name}} {
		if out, err := exec.Command("ctr", append([]string{"-a", h.cfg.Containerd, "-n", "shoal"}, args...)...).CombinedOutput(); err != nil && args[0] == "container" {
			b.Fatalf("%v: %s", err, out)
		}
	}
}

// benchStops measures from the call that withdraws a pod until nothing of it is left.
func (h *house) benchStops(b *testing.B) {
	var seconds []float64
	for i := range benchRounds {
		p := pod(fmt.Sprint("obeys", i), "trap 'exit 0' TERM; sleep 1000 & wait")
		h.run(p)
		h.eventually(p, soon, "ready", ready)
		begin := time.Now()
		h.withdraw(p)
		h.eventually(p, soon, "gone", func(s corev1.PodStatus) bool { return s.Phase == "" })
		seconds = append(seconds, time.Since(begin).Seconds())
	}
	testenv.Report(b, "stop_s", "s", "pod that obeys SIGTERM, withdrawn to gone", seconds...)
}

// withdraw takes a pod out of the desired state, and asks for its removal.
func (h *house) withdraw(p runtime.Pod) {
	h.desired.Pods = slices.DeleteFunc(slices.Clone(h.desired.Pods), func(o runtime.Pod) bool { return o.Instance() == p.Instance() })
	h.desired.Remove = append(slices.Clone(h.desired.Remove), p.Instance())
	slices.Sort(h.desired.Remove)
	h.agent.Sync(h.desired)
}

// benchHundred starts a hundred pods at once.
func (h *house) benchHundred(b *testing.B, desk string) {
	h.removeAll()
	var pods []runtime.Pod
	for i := range 100 {
		pods = append(pods, stamping(fmt.Sprint("many", i), desk, 1))
	}
	begin := time.Now()
	h.run(pods...)
	last := begin
	for i := range pods {
		if at := h.stamped(desk, fmt.Sprintf("many%d.0", i)); at.After(last) {
			last = at
		}
	}
	testenv.Report(b, "pods100_per_s", "1/s", "100 pods at once, assigned to the first instruction of the last", 100/last.Sub(begin).Seconds())
}
