package scheduler

import (
	"testing"

	"github.com/google/go-cmp/cmp"
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
	if p := Foresee(m.snapshot(), m.board(), m.facts, m.now); !p.Empty() || p.Stay != 4 {
		t.Errorf("the plan for what runs is %+v, want nothing to do and 4 pods that stay", p)
	}
	delete(m.objects, "Deployment/old")
	m.commitSpec(spec{kind: "Deployment", name: "web", revision: "b", replicas: 3, minReady: 10, history: 5})
	m.commitSpec(spec{kind: "ReplicaSet", name: "big", revision: "a", replicas: 2, cpu: "1500m"})
	got := Foresee(m.snapshot(), m.board(), m.facts, m.now)
	want := Plan{
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
