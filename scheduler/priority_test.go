package scheduler

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
)

// randomRanks draws a fleet that is too small for what is asked of it, and has it
// go on for a while.
func randomRanks(t *rapid.T, look func(m *model, before api.AssignmentSet)) *model {
	m := newModel()
	for i := range rapid.IntRange(1, 3).Draw(t, "nodes") {
		m.addNode(fmt.Sprintf("n%d", i+1), int64(rapid.IntRange(1, 3).Draw(t, "cpu")), int64(rapid.IntRange(1, 8).Draw(t, "pods")), "")
	}
	for range rapid.IntRange(2, 14).Draw(t, "steps") {
		switch rapid.IntRange(0, 4).Draw(t, "step") {
		case 0, 1:
			s := spec{
				kind: rapid.SampledFrom([]string{"Deployment", "ReplicaSet", "StatefulSet", "Pod"}).Draw(t, "kind"), history: 2,
				name:     rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "name"),
				replicas: int32(rapid.IntRange(0, 5).Draw(t, "replicas")), priority: int32(rapid.IntRange(0, 3).Draw(t, "priority")),
				cpu: rapid.SampledFrom([]string{"300m", "700m", "1500m"}).Draw(t, "cpu"), more: map[string]string{},
			}
			s.revision = fmt.Sprint("r-", s.cpu, "-", s.priority)
			m.commitSpec(s)
		case 2:
			m.obey()
		case 3:
			m.ready(rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "owner"), "", true)
		case 4:
			if err := m.settle(200); err != nil {
				t.Fatal(err)
			}
		}
		before := m.set
		m.schedule()
		look(m, before)
		m.now = m.now.Add(1e9)
	}
	return m
}

func (m *model) priority(p api.Pod) int32 { return m.set.Molds[p.MoldKey()].Priority }

// TestPreemptionGoesDownward: whoever is preempted goes for a pod of a higher
// priority, which waits for that very node.
func TestPreemptionGoesDownward(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		randomRanks(t, func(m *model, before api.AssignmentSet) {
			highest := map[string]int32{} // of those that wait for a node
			for _, u := range m.set.Pending {
				if u.Nominated != "" {
					highest[u.Nominated] = max(highest[u.Nominated], m.priority(u.Pod))
				}
			}
			for _, r := range m.set.Remove {
				if r.Reason != reasonPreempted || before.Removes(r.Assignment.Pod.Instance) {
					continue
				}
				if p := m.priority(r.Assignment.Pod); p >= highest[r.Assignment.Node] {
					t.Fatalf("%s of priority %d is preempted on %s, where nobody above it is to be:\n%s", r.Assignment.Pod, p, r.Assignment.Node, m.describe())
				}
			}
		})
	})
}

// TestNobodyStarvesBelow: once nothing changes any more no pod waits for a node on
// which it would fit, were it not for pods of lower priorities.
func TestNobodyStarvesBelow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := randomRanks(t, func(*model, api.AssignmentSet) {})
		for range 3 {
			if err := m.settle(300); err != nil {
				t.Fatal(err)
			}
			m.now = m.now.Add(forgetRemoval) // pods that no node ever had
		}
		for _, u := range m.set.Pending {
			mold := m.set.Molds[u.Pod.MoldKey()]
			for name, n := range m.nodes {
				cpu, pods := n.Allocatable[corev1.ResourceCPU], n.Allocatable[corev1.ResourcePods]
				free, places := cpu.MilliValue(), pods.Value()
				for _, a := range m.set.Pods {
					if a.Node == name && m.priority(a.Pod) >= mold.Priority {
						free -= m.set.Molds[a.Pod.MoldKey()].Requests[corev1.ResourceCPU]
						places--
					}
				}
				if places > 0 && free >= mold.Requests[corev1.ResourceCPU] {
					t.Fatalf("%s of priority %d waits (%s), and %s has room for it beside pods of its priority:\n%s", u.Pod.Identity, mold.Priority, u.Reason, name, m.describe())
				}
			}
		}
	})
}
