package scheduler

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
)

// randomSpec draws a workload; few names, so that commits change each other's.
func randomSpec(t *rapid.T) spec {
	s := spec{
		kind: rapid.SampledFrom([]string{
			"Deployment", "Deployment", "Deployment", "ReplicaSet", "ReplicationController", "DaemonSet", "Pod", "Job", "Job", "CronJob",
			"StatefulSet", "StatefulSet", "StatefulSet", "PersistentVolumeClaim",
		}).Draw(t, "kind"),
		name:     rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"),
		revision: rapid.SampledFrom([]string{"r1", "r2", "r3", "bad1"}).Draw(t, "revision"),
		replicas: int32(rapid.IntRange(0, 6).Draw(t, "replicas")),
		surge:    rapid.SampledFrom([]string{"0", "1", "25%", "100%"}).Draw(t, "surge"), unavailable: rapid.SampledFrom([]string{"0", "1", "25%", "100%"}).Draw(t, "unavailable"),
		recreate: rapid.Bool().Draw(t, "recreate"), paused: rapid.Bool().Draw(t, "paused"),
		cpu:      rapid.SampledFrom([]string{"", "500m", "1500m"}).Draw(t, "cpu"),
		hostPort: int32(rapid.SampledFrom([]int{0, 0, 0, 80}).Draw(t, "hostPort")),
		minReady: int32(rapid.SampledFrom([]int{0, 0, 5}).Draw(t, "minReady")), deadline: int32(rapid.SampledFrom([]int{20, 600}).Draw(t, "deadline")), history: 2,
		more: randomJob(t),
	}
	// As in Git, a revision is the hash of what its pods are.
	randomVolumes(t, s.more)
	s.revision += fmt.Sprint("-", s.cpu, "-", s.hostPort, "-", s.recreate, "-", s.more["pvc"], "-", s.more["claims"])
	return s
}

// randomFleet draws a fleet in the middle of its work.
func randomFleet(t *rapid.T) *model {
	m := newModel()
	for i := range rapid.IntRange(1, 3).Draw(t, "nodes") {
		m.addNode(fmt.Sprintf("n%d", i+1), int64(rapid.IntRange(1, 4).Draw(t, "cpu")), int64(rapid.IntRange(1, 12).Draw(t, "pods")), "")
	}
	for range rapid.IntRange(1, 12).Draw(t, "steps") {
		m.randomStep(t)
		m.check(t)
	}
	return m
}

func (m *model) randomStep(t *rapid.T) {
	switch rapid.IntRange(0, 9).Draw(t, "step") {
	case 9:
		m.randomSettings(t)
	case 8:
		m.randomAutoscaler(t)
	case 0, 1:
		m.commitSpec(randomSpec(t))
	case 2:
		s := randomSpec(t)
		delete(m.objects, s.kind+"/"+s.name)
		m.commit++
	case 3:
		m.obey()
	case 4:
		m.ready(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "owner"), "", rapid.Bool().Draw(t, "ready"))
	case 5:
		for instance, s := range m.states {
			if s.Pod.Owner == "a" {
				s.Phase, s.Ready = corev1.PodFailed, false
				m.states[instance] = s
			}
		}
	case 6:
		m.schedule()
	case 7:
		for range 3 {
			m.schedule()
			m.obey()
			for _, owner := range []string{"a", "b", "c"} {
				m.ready(owner, "", true)
			}
		}
	}
	m.now = m.now.Add(1e9)
}

// check holds at every moment.
func (m *model) check(t *rapid.T) {
	m.schedule()
	used := map[string]int64{}
	pods := map[string]int64{}
	ports := map[string]string{}
	assignments := slices.Clone(m.set.Pods)
	for _, r := range m.set.Remove {
		assignments = append(assignments, r.Assignment)
	}
	seen := map[string]bool{}
	for _, a := range assignments {
		if seen[a.Pod.Instance] {
			t.Fatalf("instance %s is assigned or removed twice:\n%s", a.Pod.Instance, m.describe())
		}
		seen[a.Pod.Instance] = true
		if a.Ended != "" {
			continue // it occupies nothing
		}
		mold, kept := m.set.Molds[a.Pod.MoldKey()]
		if !kept {
			t.Fatalf("nothing is kept of what %s takes:\n%s", a.Pod, m.describe())
		}
		m.checkVolumes(t, a, mold)
		used[a.Node] += mold.Requests[corev1.ResourceCPU]
		pods[a.Node]++
		for _, p := range mold.HostPorts {
			key := fmt.Sprint(a.Node, p)
			if other, taken := ports[key]; taken {
				t.Fatalf("%s and %s have the same host port:\n%s", other, a.Pod, m.describe())
			}
			ports[key] = a.Pod.String()
		}
	}
	for name, n := range m.nodes {
		cpu, most := n.Allocatable[corev1.ResourceCPU], n.Allocatable[corev1.ResourcePods]
		if used[name] > cpu.MilliValue() || pods[name] > most.Value() {
			t.Fatalf("node %s has room for %s CPU and %s pods, and got %dm and %d:\n%s", name, cpu.String(), most.String(), used[name], pods[name], m.describe())
		}
	}
	for instance := range m.states {
		if !seen[instance] {
			t.Fatalf("instance %s runs and is neither assigned nor removed:\n%s", instance, m.describe())
		}
	}
}

// checkAvailability: a Deployment that rolls never stops available pods below
// its floor. Pods that fail by themselves are not the scheduler's doing, so the
// check is on what one decision takes away.
func (m *model) checkAvailability(t *rapid.T) {
	before := m.board()
	set := Schedule(m.snapshot(), before, m.facts, m.authority(), m.now).Set
	for _, w := range expand(m.snapshot(), newNodes(before)) {
		if w.id.Kind != "Deployment" {
			continue
		}
		s := m.objects["Deployment/"+w.id.Owner]
		d := deploymentOf(s)
		if d.Spec.Strategy.Type == "Recreate" || d.Spec.Paused {
			continue
		}
		floor := w.want - deploymentBudget(d, w.want).unavailable
		had, kept := 0, 0
		for _, a := range before.Assigned.Pods {
			if a.Pod.Workload() != w.id {
				continue
			}
			p := &pod{Pod: a.Pod}
			if state, there := m.states[a.Pod.Instance]; there {
				p.state = &state
			}
			if ok, _ := p.available(seconds(d.Spec.MinReadySeconds), m.now); ok && !p.ended() {
				had++
				if !set.Removes(a.Pod.Instance) {
					kept++
				}
			}
		}
		if kept < had && kept < floor {
			t.Fatalf("%s keeps %d of %d available pods, its floor is %d:\n%s", w.id, kept, had, floor, m.describe())
		}
	}
}

func TestOrderOfInputsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := randomFleet(t)
		board := m.board()
		want := encode(t, m.snapshot(), board, m)
		slices.Reverse(board.Nodes)
		slices.Reverse(board.Pods)
		slices.Reverse(board.Assigned.Pods)
		for i := range board.Pods {
			slices.Reverse(board.Pods[i].Pods)
		}
		if got := encode(t, m.snapshot(), board, m); got != want {
			t.Fatalf("another order of the same inputs:\n%s\nwant\n%s", got, want)
		}
	})
}

func deploymentOf(o api.Object) *appsv1.Deployment { return o.Value.(*appsv1.Deployment) }

func encode(t *rapid.T, snapshot api.Snapshot, board api.Board, m *model) string {
	raw, err := json.MarshalIndent(Schedule(snapshot, board, m.facts, m.authority(), m.now), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestASecondDecisionDecidesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := randomFleet(t)
		m.schedule()
		board := m.board()
		once := encode(t, m.snapshot(), board, m)
		d := Schedule(m.snapshot(), board, m.facts, m.authority(), m.now)
		board.Assigned, m.facts = d.Set, d.Facts
		if twice := encode(t, m.snapshot(), board, m); twice != once {
			t.Fatalf("the second decision differs:\n%s\nthe first\n%s", twice, once)
		}
	})
}

func TestItSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := randomFleet(t)
		for range 60 {
			if err := m.settle(60); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestUnknownDesireChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := randomFleet(t)
		want := m.describe()
		m.known = false
		m.schedule()
		if got := m.describe(); got != want {
			t.Fatalf("unknown desire changed\n%s\nto\n%s", want, got)
		}
	})
}

func TestInputsAreNotWrittenTo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := randomFleet(t)
		board, facts := m.board(), m.facts
		before, _ := json.Marshal([]any{board, facts}) // these always marshal
		Schedule(m.snapshot(), board, facts, m.authority(), m.now)
		after, _ := json.Marshal([]any{board, facts})
		if string(before) != string(after) {
			t.Fatalf("Schedule changed its inputs from\n%s\nto\n%s", before, after)
		}
	})
}

func TestRollingUpdateKeepsItsFloor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel()
		m.addNode("n1", 64, 110, "")
		s := randomSpec(t)
		delete(s.more, "pvc")
		s.kind, s.name, s.revision, s.replicas, s.cpu, s.hostPort = "Deployment", "a", "r1", int32(rapid.IntRange(1, 8).Draw(t, "replicas")), "", 0
		s.paused, s.recreate = false, false
		m.commitSpec(s)
		if err := m.settle(50); err != nil {
			t.Fatal(err)
		}
		m.now = m.now.Add(time.Minute)
		for range rapid.IntRange(2, 20).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				s.revision = rapid.SampledFrom([]string{"r1", "r2", "bad1"}).Draw(t, "revision") + "-" + s.cpu
				m.commitSpec(s)
			case 1:
				m.obey()
			case 2:
				m.ready("a", rapid.SampledFrom([]string{"r1", "r2"}).Draw(t, "whose"), true)
			case 3:
				m.now = m.now.Add(4 * time.Second)
			}
			m.checkAvailability(t)
			m.check(t)
		}
	})
}
