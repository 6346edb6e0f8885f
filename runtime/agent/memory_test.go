package agent_test

import (
	"context"
	"fmt"
	"math/rand"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/agent"
	"github.com/shoal-dev/shoal/runtime/runtimetest"
)

// TestChurn lets a hundred pods on an engine in memory crash, come and go, with
// the engine failing meanwhile and the agent restarted, and checks that all ends
// as desired and no goroutine is left.
func TestChurn(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir := testenv.Dir(t)
	engine, logs := runtimetest.NewMemory(image), &runtimetest.Logs{}
	cfg := agent.Config{
		Node: "n1", StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"),
		Engine: engine, Network: &runtimetest.Network{}, Logs: logs, Relist: 200 * time.Millisecond,
	}
	h := &house{t: t, cfg: cfg, desired: runtime.Desired{Known: true}}
	h.start()
	random := rand.New(rand.NewSource(1))
	var pods []runtime.Pod
	for i := range 100 {
		pods = append(pods, pod(fmt.Sprint("p", i), "", func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"sleep", "1000"} }))
	}
	h.run(pods...)
	for _, p := range pods {
		h.eventually(p, soon, "ready", ready)
	}
	for round := range 6 {
		held, err := engine.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range held {
			if random.Intn(10) == 0 && c.Attempt == 0 {
				engine.Crash(c.ID, int32(random.Intn(3)))
			}
		}
		for range 5 {
			i := random.Intn(len(pods))
			h.desired.Remove = sorted(append(h.desired.Remove, pods[i].Instance()))
			pods = without(pods, pods[i].Instance())
		}
		h.desired.Pods = pods
		h.agent.Sync(h.desired)
		switch round {
		case 1:
			engine.SetDown(true)
			time.AfterFunc(100*time.Millisecond, func() { engine.SetDown(false) })
		case 3:
			h.stop()
			h.start()
			h.agent.Sync(h.desired)
		}
		testenv.Eventually(t, soon, "only wanted pods are held", func() bool { return len(h.agent.States().Pods) == len(pods) })
		for _, p := range pods {
			h.eventually(p, soon, "ready", ready)
		}
	}
	held, err := engine.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	running := map[string]int{}
	for _, c := range held {
		if c.State == runtime.ContainerRunning {
			running[c.Assignment.Pod.Instance]++
		}
	}
	for _, p := range pods {
		if running[p.Instance()] != 1 {
			t.Errorf("%s runs %d times", p.Object.Name, running[p.Instance()])
		}
	}
	if len(running) != len(pods) {
		t.Errorf("%d pods run, %d are wanted", len(running), len(pods))
	}
	h.desired.Pods = nil
	for _, p := range pods {
		h.desired.Remove = sorted(append(h.desired.Remove, p.Instance()))
	}
	h.agent.Sync(h.desired)
	testenv.Eventually(t, soon, "all pods are gone", func() bool { return len(h.agent.States().Pods) == 0 })
	if open, _ := logs.Held(t.Context()); len(open) > 0 {
		t.Errorf("open logs: %q", open)
	}
	h.stop()
}
