package scheduler

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
)

// randomBudget puts a PodDisruptionBudget into Git, or takes one out.
func (f *fleet) randomBudget(t *rapid.T) {
	name := rapid.SampledFrom([]string{"a", "b", "c", "all"}).Draw(t, "budget")
	if rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
		delete(f.objects, "PodDisruptionBudget/"+name)
		return
	}
	o := map[string]string{rapid.SampledFrom([]string{"min", "max"}).Draw(t, "bound"): rapid.SampledFrom([]string{"0", "1", "2", "3", "50%", "100%"}).Draw(t, "amount")}
	if name == "all" {
		o["app"] = "*"
	}
	if rapid.Bool().Draw(t, "always") {
		o["always"] = "true"
	}
	f.commitBudget(name, o)
}

// guardsNow are the budgets as the board shows them, with the pods.
func (f *fleet) guardsNow() (*input, map[string]*pod) {
	in := newInput(f.board(), f.facts, f.authority(), f.now)
	snapshot := f.snapshot()
	pods, _ := existing(in)
	in.setGuards(snapshot, expand(snapshot, in.nodes), pods)
	byInstance := map[string]*pod{}
	for _, list := range pods {
		for _, p := range list {
			byInstance[p.Instance] = p
		}
	}
	return in, byInstance
}

// checkBudgets decides, and fails when what the fleet takes away of its own will
// leaves a budget with too few healthy pods, all that goes counted.
func (f *fleet) checkBudgets(t *rapid.T) {
	in, pods := f.guardsNow()
	before := f.set
	f.schedule()
	for _, list := range in.guards.spaces {
		for _, g := range list {
			gone, willing := 0, ""
			for _, r := range f.set.Remove {
				p := pods[r.Assignment.Pod.Instance]
				if before.Removes(r.Assignment.Pod.Instance) || p == nil || !p.ready() || !slices.Contains(in.guardsOf(p), g) || r.Reason == reasonPreempted {
					continue
				}
				gone++
				if voluntary(r.Reason) {
					willing = fmt.Sprintf("%s: %s", p.Identity, r.Reason)
				}
			}
			if willing != "" && (g.healthy-gone < g.desired || g.problem != "") {
				t.Fatalf("%s wants %d healthy pods %s, there were %d, and %d go, one because the fleet wants it (%s):\n%s",
					g, g.desired, g.problem, g.healthy, gone, willing, f.describe())
			}
		}
	}
}

// Whatever happens, the fleet takes no pod away of its own will that a
// PodDisruptionBudget wants to stay.
func TestBudgetsHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := &fleet{model: newModel()}
		for _, name := range []string{"n1", "n2", "n3"} {
			f.addNode(name, 64, 100, "")
		}
		for _, name := range []string{"a", "b", "c"} {
			f.randomGuarded(t, name)
		}
		if rapid.Bool().Draw(t, "rebalance") {
			f.commitSettings(api.FleetSpec{Rebalance: api.RebalanceGentle})
		}
		if err := f.settle(200); err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(5, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 8).Draw(t, "kind") {
			case 0:
				f.randomFault(t)
			case 1:
				f.randomBudget(t)
			case 2, 3:
				n := f.nodes[f.randomNode(t)]
				n.Draining = !n.Draining
				f.nodes[n.Name] = n
			case 8:
				f.runBudgets(rapid.SampledFrom([]string{"taint", "untaint", "untaint"}).Draw(t, "taint"), []string{f.randomNode(t), "gpu"})
			case 4:
				f.randomGuarded(t, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"))
			default:
				f.obey()
				for _, owner := range []string{"a", "b", "c"} {
					f.ready(owner, "", rapid.IntRange(0, 9).Draw(t, "sick") > 0)
				}
			}
			f.checkBudgets(t)
			f.now = f.now.Add(time.Duration(rapid.SampledFrom([]int{1, 5, 40, 40, 70}).Draw(t, "seconds")) * time.Second)
		}
	})
}

// randomGuarded commits a workload that there is room for, and a budget perhaps.
func (f *fleet) randomGuarded(t *rapid.T, name string) {
	s := randomSpec(t)
	s.name, s.cpu, s.hostPort, s.paused = name, "", 0, false
	s.kind = rapid.SampledFrom([]string{"Deployment", "ReplicaSet", "StatefulSet", "Pod", "Job"}).Draw(t, "guarded")
	delete(s.more, "claims") // volumes tie pods to their nodes
	delete(s.more, "pvc")
	s.more["tolerates"] = rapid.SampledFrom([]string{"", "gpu:30", "gpu"}).Draw(t, "tolerates")
	s.revision, s.exclusive = rapid.SampledFrom([]string{"r1", "r2"}).Draw(t, "template"), rapid.Bool().Draw(t, "exclusive")
	f.commitSpec(s)
	f.randomBudget(t)
}

// A fleet with budgets that can be met is drained in the end, and says why where
// it cannot be.
func TestDrainsEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := &fleet{model: newModel()}
		for _, name := range []string{"n1", "n2", "n3"} {
			f.addNode(name, 64, 100, "")
		}
		for _, name := range []string{"a", "b", "c"} {
			f.randomGuarded(t, name)
		}
		if err := f.settle(100); err != nil {
			t.Fatal(err)
		}
		n := f.nodes["n1"]
		n.Draining = true
		f.nodes["n1"] = n
		for range 20 { // a pod at a time, where they must be ready for a while
			if err := f.settle(200); err != nil {
				t.Fatal(err)
			}
			f.now = f.now.Add(time.Minute)
		}
		for _, a := range f.set.Pods {
			if _, said := f.facts.Hindered[a.Pod.Instance]; a.Node == "n1" && !said {
				t.Fatalf("%s stays on n1, and nothing says why:\n%s", a.Pod, f.describe())
			}
		}
	})
}

// TestBudgetReasons: what a node that is drained waits for is told once.
func TestBudgetReasons(t *testing.T) {
	pod := api.Pod{Identity: api.Identity{Namespace: "ns", Kind: "Deployment", Owner: "db", Slot: "0"}, Revision: "r", Instance: "i"}
	other := pod
	other.Slot, other.Instance = "1", "j"
	const why = "PodDisruptionBudget ns/db allows no disruption"
	facts := api.Facts{Hindered: map[string]api.Hindrance{"i": {Pod: pod, Node: "n1", Reason: why}, "j": {Pod: other, Node: "n1", Reason: why}}}
	if got := Hindrances(facts); len(got) != 1 || got[0] != "drain of n1 waits: "+why {
		t.Errorf("got %q", got)
	}
	if got := drainEvents("f", api.Facts{}, facts, time.Unix(1, 0)); len(got) != 3 || got[1].Regards.Kind != "Node" || got[0].Regards.Name != pod.Name() {
		t.Errorf("got %v", got)
	}
	if got := drainEvents("f", facts, facts, time.Unix(1, 0)); len(got) != 0 {
		t.Errorf("told again: %v", got)
	}
}
