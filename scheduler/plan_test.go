package scheduler

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-dev/shoal/api"
)

func TestForesee(t *testing.T) {
	m := newModel()
	m.addNode("n1", 2, 110, "")
	m.commitSpec(spec{kind: "Deployment", name: "web", revision: "a", replicas: 2, history: 5})
	m.commitSpec(spec{kind: "Deployment", name: "old", revision: "a", replicas: 1, history: 5})
	m.commitSpec(spec{kind: "DaemonSet", name: "agent", revision: "a"})
	if err := m.settle(20); err != nil {
		t.Fatal(err)
	}
	if p := m.foresee(); !p.Empty() || p.Stay != 4 {
		t.Errorf("the plan for what runs is %+v, want nothing to do and 4 pods that stay", p)
	}
	delete(m.objects, "Deployment/old")
	m.commitSpec(spec{kind: "Deployment", name: "web", revision: "b", replicas: 3, minReady: 10, history: 5})
	m.commitSpec(spec{kind: "ReplicaSet", name: "big", revision: "a", replicas: 2, cpu: "1500m"})
	got := m.foresee()
	want := Plan{
		Objects: compareObjects(api.Snapshot{}, api.Snapshot{}), Move: []Move{}, Losses: []Loss{}, Budgets: []BudgetBreach{}, Quotas: []QuotaBreach{},
		Start: []Step{
			{"ns/Deployment/web[0]", "b", "n1", reasonRollout},
			{"ns/Deployment/web[1]", "b", "n1", reasonRollout},
			{"ns/Deployment/web[2]", "b", "n1", reasonRollout},
			{"ns/ReplicaSet/big[0]", "a", "n1", reasonMissing},
		},
		Stop: []Step{
			{"ns/Deployment/old[0]", "a", "n1", reasonGone},
			{"ns/Deployment/web[0]", "a", "n1", reasonSuperseded},
			{"ns/Deployment/web[1]", "a", "n1", reasonSuperseded},
		},
		Pending: []Step{{Pod: "ns/ReplicaSet/big[1]", Revision: "a", Reason: "0/1 nodes are available: 1 Insufficient cpu."}},
		Stay:    1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

// TestForeseeChange: a plan says which objects differ, which pods start, stop and
// move, and what would run nowhere if one node died after that.
func TestForeseeChange(t *testing.T) {
	m := newModel()
	for _, name := range []string{"n1", "n2", "n3"} {
		m.addNode(name, 2, 110, "")
	}
	m.commitSpec(spec{kind: "Deployment", name: "web", revision: "a", replicas: 3, cpu: "500m", history: 5})
	m.commitSpec(spec{kind: "Deployment", name: "old", revision: "a", replicas: 1, history: 5})
	m.commitSpec(spec{kind: "Deployment", name: "same", revision: "a", replicas: 1, history: 5})
	old, board := m.snapshot(), m.board()
	delete(m.objects, "Deployment/old")
	m.commitSpec(spec{kind: "Deployment", name: "same", revision: "a", replicas: 2, history: 5})
	m.commitSpec(spec{kind: "Deployment", name: "big", revision: "a", replicas: 3, cpu: "1500m", history: 5})
	m.commitSpec(spec{kind: "Deployment", name: "here", revision: "a", replicas: 1, hostname: "n1", history: 5})
	got := Foresee(old, m.snapshot(), board, m.facts, m.now)
	names := func(list []ObjectChange) (out []string) {
		for _, o := range list {
			out = append(out, o.Object)
		}
		return out
	}
	if diff := cmp.Diff([][]string{{"Deployment ns/big", "Deployment ns/here"}, {"Deployment ns/same"}, {"Deployment ns/old"}},
		[][]string{names(got.Objects.Added), names(got.Objects.Changed), names(got.Objects.Removed)}); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	pods := func(list []Step) (out []string) {
		for _, s := range list {
			out = append(out, s.Pod)
		}
		return out
	}
	if diff := cmp.Diff([][]string{{"ns/Deployment/big[0]", "ns/Deployment/big[1]", "ns/Deployment/big[2]", "ns/Deployment/here[0]", "ns/Deployment/same[1]"}, {"ns/Deployment/old[0]"}, nil},
		[][]string{pods(got.Start), pods(got.Stop), pods(got.Pending)}); diff != "" || got.Stay != 4 || len(got.Move) > 0 {
		t.Errorf("%d stay, %v move, pods (-want +got):\n%s", got.Stay, got.Move, diff)
	}
	// Every node is full: with it go its big pod and its web pod, and on one the
	// pod that no other node may have.
	for _, l := range got.Losses {
		want := 2
		if l.Nodes[0] == "n1" {
			want = 3
		}
		if len(l.Nodes) != 1 || len(l.Missing) != want {
			t.Errorf("without %v these are missing: %v", l.Nodes, pods(l.Missing))
		}
	}
	if len(got.Losses) != 3 {
		t.Errorf("losses: %+v", got.Losses)
	}
}
