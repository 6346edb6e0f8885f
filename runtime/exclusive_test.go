package runtime_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
)

// claimed returns a pod that must not run twice, of node n1 by claim (1, index).
func claimed(index uint64) runtime.Pod {
	p := aPod("i1", corev1.RestartPolicyAlways, "app")
	p.Assignment.Node, p.Assignment.Claim = "n1", api.Claim{Epoch: 1, Index: index}
	return p
}

func holder(node string, index uint64) map[string]api.ClaimHolder {
	return map[string]api.ClaimHolder{"default/Pod/web": {Node: node, Claim: api.Claim{Epoch: 1, Index: index}}}
}

func TestExclusive(t *testing.T) {
	p := claimed(5)
	start := []string{
		"MountVolumes i1: the pod is assigned to this node", "CreateSandbox i1: the pod is assigned to this node",
		"StartContainer i1/app attempt 0: the pod is assigned to this node",
	}
	stop := []string{"StopContainer i1/app within 0s: another node was given the right to run the pod"}
	good, over := t0.Add(time.Second), t0
	for _, c := range []struct {
		name    string
		claims  map[string]api.ClaimHolder
		until   time.Time
		alone   bool
		running bool
		want    []string
	}{
		{name: "with claim and lease it starts", claims: holder("n1", 5), until: good, want: start},
		{name: "without a lease it waits", claims: holder("n1", 5)},
		{name: "with a lease that is over it waits", claims: holder("n1", 5), until: over},
		{name: "while nobody knows who holds the claim it waits", until: good},
		{name: "with the claim not yet heard of it waits", claims: holder("n2", 4), until: good},
		{name: "with another's claim it waits", claims: holder("n2", 5), until: good},
		{name: "with a newer claim it does not start", claims: holder("n2", 6), until: good},
		{name: "with a newer claim on the same node it does not start", claims: holder("n1", 6), until: good},
		{name: "in a fleet of one it starts", alone: true, want: start},
		{name: "the end of the lease stops nothing here", claims: holder("n1", 5), until: over, running: true},
		{name: "nor does not knowing", running: true},
		{name: "a newer claim does, at once", claims: holder("n2", 6), until: good, running: true, want: stop},
		{name: "but not in a fleet of one", claims: holder("n2", 6), alone: true, running: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			held := runtime.ObservedPod{Instance: "i1", Images: present("app")}
			if c.running {
				held = settled(p, running("app", 0))
			}
			d := runtime.Desired{Known: true, Pods: []runtime.Pod{p}, Claims: c.claims, Alone: c.alone, LeaseUntil: c.until}
			actions, wake := runtime.Decide(d, runtime.Observed{Known: true, Pods: []runtime.ObservedPod{held}}, t0)
			var got []string
			for _, a := range actions {
				got = append(got, a.String())
			}
			if diff := cmp.Diff(c.want, got); diff != "" || !wake.IsZero() {
				t.Errorf("wake %v, actions (-want +got):\n%s", wake, diff)
			}
		})
	}
}

// TestFencedStatus: what was fenced says so, is no crash, and starts again
// without a back-off.
func TestFencedStatus(t *testing.T) {
	p := claimed(5)
	fenced := exited("app", 3, 137, time.Second)
	fenced.Reason = runtime.EndedFenced
	held := settled(p, fenced)
	held.Images = present("app")
	d := runtime.Desired{Known: true, Pods: []runtime.Pod{p}, Claims: holder("n1", 5)}
	status := runtime.Status(d, held, corev1.PodStatus{}, t0.Add(2*time.Second))
	state := runtime.State(d, held, status)
	if state.Reason != "Fenced" || state.Ready || state.Claim != p.Assignment.Claim {
		t.Errorf("got %+v", state)
	}
	fresh := runtime.Status(d, runtime.ObservedPod{Instance: "i1"}, corev1.PodStatus{}, t0)
	if got := runtime.State(d, runtime.ObservedPod{Instance: "i1"}, fresh); got.Reason != "WaitingForLease" {
		t.Errorf("got %+v", got)
	}
	if got := runtime.NextCrashes(fenced); got != fenced.Crashes {
		t.Errorf("crashes: got %d after %d", got, fenced.Crashes)
	}
}

// TestNeverWithoutRight: whatever is desired and held, an exclusive pod starts
// only with its own claim in force and a lease, or in a fleet of one; and is
// never stopped for want of a lease.
func TestNeverWithoutRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := claimed(rapid.Uint64Range(1, 3).Draw(t, "claim"))
		claim := rapid.Uint64Range(0, 3).Draw(t, "granted")
		d := runtime.Desired{
			Known: rapid.Bool().Draw(t, "known"), Alone: rapid.IntRange(0, 4).Draw(t, "alone") == 0, Pods: []runtime.Pod{p},
			Claims:     holder(fmt.Sprint("n", rapid.IntRange(1, 2).Draw(t, "node")), claim),
			LeaseUntil: t0.Add(time.Duration(rapid.IntRange(-2, 2).Draw(t, "lease")) * time.Second),
		}
		held := runtime.ObservedPod{Instance: "i1", Images: present("app")}
		switch rapid.IntRange(0, 2).Draw(t, "held") {
		case 1:
			held = settled(p, running("app", 0))
		case 2:
			held = settled(p, exited("app", 0, 137, 0))
			held.Images = present("app")
		}
		h := d.Claims["default/Pod/web"]
		entitled := d.Alone || h.Claim == p.Assignment.Claim && h.Node == "n1" && t0.Before(d.LeaseUntil)
		actions, _ := runtime.Decide(d, runtime.Observed{Known: true, Pods: []runtime.ObservedPod{held}}, t0)
		for _, a := range actions {
			switch {
			case a.Verb == runtime.StartContainer && !entitled:
				t.Fatalf("%s, of %+v with %+v until %s", a, p.Assignment.Claim, h, d.LeaseUntil)
			case a.Verb == runtime.StopContainer && (d.Alone || !p.Assignment.Claim.Less(h.Claim)):
				t.Fatalf("%s, of %+v with %+v", a, p.Assignment.Claim, h)
			case a.Verb == runtime.StopContainer && !strings.Contains(a.String(), "within 0s"):
				t.Fatalf("%s takes its time", a)
			}
		}
	})
}

// A pod starts once the ledger is known to bind its volumes to this node, and
// goes on with them whatever the ledger says later.
func TestPodsWaitForTheirVolumes(t *testing.T) {
	p := aPod("i1", corev1.RestartPolicyAlways, "app")
	p.Assignment.Node = "n1"
	p.Object.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
	}}}
	bound := func(node string) map[string]api.ClaimHolder {
		return map[string]api.ClaimHolder{"default/PersistentVolumeClaim/data": {Node: node, Claim: api.Claim{Epoch: 1, Index: 5}}}
	}
	for _, c := range []struct {
		name   string
		claims map[string]api.ClaimHolder
		ready  bool
		starts bool
	}{
		{name: "bound here", claims: bound("n1"), starts: true},
		{name: "bound elsewhere", claims: bound("n2")},
		{name: "not bound yet", claims: map[string]api.ClaimHolder{}},
		{name: "not known"},
		{name: "mounted before", ready: true, starts: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			held := runtime.ObservedPod{Instance: "i1", Images: present("app"), Volumes: runtime.Volumes{Ready: c.ready}}
			actions, _ := runtime.Decide(runtime.Desired{Known: true, Alone: true, Pods: []runtime.Pod{p}, Claims: c.claims}, runtime.Observed{Known: true, Pods: []runtime.ObservedPod{held}}, t0)
			if starts := len(actions) > 0; starts != c.starts {
				t.Errorf("it does %v", actions)
			}
		})
	}
}
