package agent_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/agent"
	"github.com/shoal-dev/shoal/runtime/fence"
	"github.com/shoal-dev/shoal/runtime/fencer"
	"github.com/shoal-dev/shoal/runtime/runtimetest"
)

// warden is a fencer in memory, on an engine in memory.
type warden struct {
	mu      sync.Mutex
	engine  *runtimetest.Memory
	pods    map[string]fence.Pod
	lease   fence.Lease
	down    bool
	early   []string // containers that ran before their pod was held
	renewed int
}

var errDown = errors.New("no fencer")

func (w *warden) running(instance string) (ids []string) {
	held, _ := w.engine.List(context.Background())
	for _, c := range held {
		if c.Assignment.Pod.Instance == instance && c.State == runtime.ContainerRunning {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func (w *warden) Hold(_ context.Context, p fence.Pod) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return errDown
	}
	if _, held := w.pods[p.Instance]; !held {
		w.early = append(w.early, w.running(p.Instance)...)
	}
	w.pods[p.Instance] = p
	return nil
}

func (w *warden) Release(_ context.Context, instance string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pods, instance)
	return nil
}

func (w *warden) Renew(_ context.Context, l fence.Lease) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return nil, errDown
	}
	w.renewed++
	var pods []fence.Pod
	for _, p := range w.pods {
		pods = append(pods, p)
	}
	fenced := fence.Decide(fence.State{Lease: w.lease, Pods: pods}, fencer.Now()).Kill
	w.lease = w.lease.Newer(l)
	for _, instance := range fenced {
		for _, id := range w.running(instance) {
			w.engine.Crash(id, 137)
		}
	}
	return fenced, nil
}

func (w *warden) Held(context.Context) ([]fence.Pod, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []fence.Pod
	for _, p := range w.pods {
		out = append(out, p)
	}
	return out, nil
}

func (w *warden) Degraded() []string { return nil }

func (w *warden) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *warden) holds(instance string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, held := w.pods[instance]
	return held
}

// TestExclusive: a pod that must not run twice is held by the fencer before it
// starts, waits for its lease, says that it was fenced, and starts again when the
// lease is back; in a fleet of one none of this is.
func TestExclusive(t *testing.T) {
	dir := testenv.Dir(t)
	engine := runtimetest.NewMemory(image)
	w := &warden{engine: engine, pods: map[string]fence.Pod{"stranger": {Instance: "stranger", Group: "/memory/stranger"}}}
	var mu sync.Mutex
	var lease func() fence.Lease
	renew := func(f func() fence.Lease) { mu.Lock(); defer mu.Unlock(); lease = f }
	renew(func() fence.Lease { return fence.Lease{} })
	h := &house{t: t, desired: runtime.Desired{Known: true}, cfg: agent.Config{
		Node: "n1", StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"), Relist: 200 * time.Millisecond,
		Engine: engine, Network: &runtimetest.Network{}, Logs: &runtimetest.Logs{}, Fencer: w,
		Lease: func() fence.Lease { mu.Lock(); defer mu.Unlock(); return lease() },
	}}
	h.cfg.Record = h.record
	h.start()
	testenv.Eventually(t, soon, "what nobody knows is released", func() bool { return !w.holds("stranger") })

	p := pod("db", "", func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"sleep", "1000"} })
	p.Assignment.Node, p.Assignment.Claim = "n1", api.Claim{Epoch: 1, Index: 7}
	h.desired.Claims = map[string]api.ClaimHolder{p.Assignment.Pod.Identity.String(): {Claim: p.Assignment.Claim, Node: "n1"}}
	h.run(p)
	h.eventually(p, soon, "waits for a lease", waits(runtime.WaitingLease))
	renew(func() fence.Lease { return fence.Lease{Sent: fencer.Now()} })
	h.eventually(p, soon, "ready", ready)
	if !w.holds(p.Instance()) || len(w.early) > 0 {
		t.Errorf("held %v; ran before it was: %q", w.holds(p.Instance()), w.early)
	}

	gone := fencer.Now() - fence.Length // the last renewal was sent long ago
	w.set(func() { w.lease = fence.Lease{Sent: gone} })
	renew(func() fence.Lease { return fence.Lease{Sent: gone} })
	h.eventually(p, soon, "fenced", waits(runtime.WaitingFenced))
	if ids := w.running(p.Instance()); len(ids) > 0 {
		t.Errorf("it runs: %q", ids)
	}
	if state := h.agent.States().Pods[0]; state.Reason != "Fenced" {
		t.Errorf("the others are told %+v", state)
	}
	renew(func() fence.Lease { return fence.Lease{Sent: fencer.Now()} })
	back := h.eventually(p, soon, "ready again", ready)
	if last := back.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.Reason != "Fenced" {
		t.Errorf("its last end: %+v", last)
	}

	// Another node was given the claim.
	h.desired.Claims = map[string]api.ClaimHolder{p.Assignment.Pod.Identity.String(): {Claim: api.Claim{Epoch: 1, Index: 8}, Node: "n2"}}
	h.agent.Sync(h.desired)
	testenv.Eventually(t, soon, "it has ended", func() bool { return len(w.running(p.Instance())) == 0 })

	// No fencer, no start. And in a fleet of one it needs none.
	w.set(func() { w.down = true })
	h.desired.Claims = map[string]api.ClaimHolder{p.Assignment.Pod.Identity.String(): {Claim: p.Assignment.Claim, Node: "n1"}}
	h.agent.Sync(h.desired)
	testenv.Eventually(t, soon, "the node says that there is no fencer", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return slices.ContainsFunc(h.events, func(e string) bool { return strings.Contains(e, "FencerDown") })
	})
	testenv.Eventually(t, soon, "it does not start, and says why", func() bool {
		s := h.status(p)
		return len(s.ContainerStatuses) > 0 && s.ContainerStatuses[0].State.Waiting != nil && strings.Contains(fmt.Sprint(s.ContainerStatuses[0].State.Waiting), "no fencer")
	})
	h.desired.Alone = true
	h.agent.Sync(h.desired)
	h.eventually(p, soon, "ready, alone", ready)
	if w.holds(p.Instance()) {
		t.Error("it is still fenced")
	}
	w.set(func() { w.down = false })
	h.desired.Alone = false
	h.agent.Sync(h.desired)
	testenv.Eventually(t, soon, "in company it is fenced", func() bool { return w.holds(p.Instance()) })
	h.removeAll()
	if w.holds(p.Instance()) {
		t.Error("what is gone is still fenced")
	}
	h.stop()
}

// TestExclusiveTwin: of two pods of one identity with the same good claim only the
// first runs, for as long as it is there, also when another daemon has taken it
// over; the second starts when the first is gone.
func TestExclusiveTwin(t *testing.T) {
	dir := testenv.Dir(t)
	engine := runtimetest.NewMemory(image)
	w := &warden{engine: engine, pods: map[string]fence.Pod{}}
	h := &house{t: t, desired: runtime.Desired{Known: true}, cfg: agent.Config{
		Node: "n1", StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"), Relist: 200 * time.Millisecond,
		Engine: engine, Network: &runtimetest.Network{}, Logs: &runtimetest.Logs{}, Fencer: w,
		Lease: func() fence.Lease { return fence.Lease{Sent: fencer.Now()} },
	}}
	h.cfg.Record = h.record
	h.start()
	first := pod("db", "", func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"sleep", "1000"} })
	first.Assignment.Node, first.Assignment.Claim = "n1", api.Claim{Epoch: 1, Index: 7}
	second := pod("db", "", func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"sleep", "1001"} })
	second.Assignment.Node, second.Assignment.Claim, second.Assignment.Pod.Identity = "n1", first.Assignment.Claim, first.Assignment.Pod.Identity
	if first.Instance() == second.Instance() {
		t.Fatal("they are the same")
	}
	h.desired.Claims = map[string]api.ClaimHolder{first.Assignment.Pod.Identity.String(): {Claim: first.Assignment.Claim, Node: "n1"}}
	h.run(first)
	h.eventually(first, soon, "ready", ready)
	h.run(second)
	h.eventually(second, soon, "waits", waits(runtime.WaitingLease))
	h.stop()
	h.start()
	h.agent.Sync(h.desired)
	h.eventually(first, soon, "ready as before", ready)
	h.eventually(second, soon, "waits still", waits(runtime.WaitingLease))
	if ids := w.running(second.Instance()); len(ids) > 0 {
		t.Errorf("both run: %q", ids)
	}
	h.desired.Pods = slices.DeleteFunc(slices.Clone(h.desired.Pods), func(p runtime.Pod) bool { return p.Instance() == first.Instance() })
	h.desired.Remove = []string{first.Instance()}
	h.agent.Sync(h.desired)
	h.eventually(second, soon, "ready once the first is gone", ready)
	h.removeAll()
	h.stop()
}
