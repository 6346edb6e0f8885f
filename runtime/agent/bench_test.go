package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// BenchmarkPodStart measures one pod with one container and the pod network,
// image present, from Sync to the container's first output to be ready.
func BenchmarkPodStart(b *testing.B) {
	h := newHouse(b)
	h.warm()
	b.ResetTimer()
	for i := range b.N {
		p := pod(fmt.Sprint("p", i), "exec sleep 1000")
		h.run(p)
		h.eventually(p, soon, "ready", ready)
	}
	b.StopTimer()
	h.removeAll()
}

// BenchmarkCtrRun measures the same container by containerd's own client,
// without a network.
func BenchmarkCtrRun(b *testing.B) {
	h := newHouse(b)
	h.warm()
	b.ResetTimer()
	for i := range b.N {
		out, err := exec.Command("ctr", "-a", h.cfg.Containerd, "-n", "shoal", "run", "-d", image, fmt.Sprint("bare", i), "sleep", "1000").CombinedOutput()
		if err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
}

// BenchmarkKilled measures from SIGKILL to the next attempt running.
func BenchmarkKilled(b *testing.B) {
	h := newHouse(b)
	h.warm()
	for i := range b.N {
		b.StopTimer()
		p := pod(fmt.Sprint("p", i), "exec sleep 1000")
		h.run(p)
		h.eventually(p, soon, "ready", ready)
		pid := h.pid(p)
		b.StartTimer()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			b.Fatal(err)
		}
		h.eventually(p, soon, "running again", func(s corev1.PodStatus) bool { return ready(s) && s.ContainerStatuses[0].RestartCount == 1 })
	}
	b.StopTimer()
	h.removeAll()
}

// BenchmarkFifty measures 50 pods at once, and what they cost when idle.
func BenchmarkFifty(b *testing.B) {
	h := newHouse(b)
	h.warm()
	for i := range b.N {
		b.StopTimer()
		first := len(h.desired.Pods)
		for k := range 50 {
			h.desired.Pods = append(h.desired.Pods, pod(fmt.Sprint("p", i, "-", k), "exec sleep 1000"))
		}
		b.StartTimer()
		h.agent.Sync(h.desired)
		for _, p := range h.desired.Pods[first:] {
			h.eventually(p, time.Minute, "ready", ready)
		}
		b.StopTimer()
		var before, after syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
		begin := time.Now()
		<-time.After(10 * time.Second)
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
		used := time.Duration(after.Utime.Nano() - before.Utime.Nano() + after.Stime.Nano() - before.Stime.Nano())
		b.ReportMetric(100*used.Seconds()/time.Since(begin).Seconds(), "idle-cpu-%")
		b.ReportMetric(rss(h.keeperPID()), "keeper-rss-MiB")
		b.ReportMetric(rss(os.Getpid()), "self-rss-MiB")
		gone := time.Now()
		h.removeAll()
		b.ReportMetric(time.Since(gone).Seconds(), "removed-s")
	}
}

func rss(pid int) float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		var kb float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kb); err == nil {
			return kb / 1024
		}
	}
	return 0
}

// warm runs one pod, so that the image is imported.
func (h *house) warm() {
	p := pod("warm", "exec sleep 1000")
	h.run(p)
	h.eventually(p, soon, "ready", ready)
}
