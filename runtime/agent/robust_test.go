package agent_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/internal/testenv"
)

// TestForkBomb: a pod that makes processes without end gets no more than it may,
// and its neighbor goes on.
func TestForkBomb(t *testing.T) {
	h := newHouse(t)
	h.stop()
	h.cfg.Resources.PodPIDs = 40
	h.start()
	// The shell that cannot fork any more ends, and what it made stays.
	bomb := pod("bomb", "sh -c 'while :; do sleep 1000 & done'; exec sleep 1000")
	neighbor := pod("neighbor", "while :; do echo alive; sleep 1; done")
	h.run(bomb, neighbor)
	h.eventually(bomb, soon, "runs", ready)
	h.says(neighbor, "app", "alive")
	count := func(name string) int {
		b, err := os.ReadFile("/sys/fs/cgroup/pids/shoal/" + bomb.Instance() + "/" + name)
		if err != nil {
			return -1 // it is being made anew
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	testenv.Eventually(t, soon, "the bomb is full", func() bool { return count("pids.current") >= 36 })
	if n := count("pids.max"); n != 40 {
		t.Errorf("a pod may have %d processes", n)
	}
	if s := h.status(neighbor); s.Phase != corev1.PodRunning || s.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the neighbor: %+v", s)
	}
	if f := h.agent.Node(t.Context()); f.Allocatable.Memory().Cmp(*f.Capacity.Memory()) >= 0 {
		t.Errorf("nothing is reserved: %v of %v", f.Allocatable, f.Capacity)
	}
}
