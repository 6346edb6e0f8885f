package scheduler

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// bigFleet is a fleet at rest: 300 nodes and 10,000 pods.
func bigFleet(tb testing.TB) *model {
	tb.Helper()
	m := newModel()
	for i := range 300 {
		m.addNode(fmt.Sprintf("n%03d", i), 64, 110, "")
	}
	for i := range 200 {
		m.commitSpec(spec{kind: "Deployment", name: fmt.Sprintf("web-%d", i), revision: "a", replicas: 47, cpu: "100m", history: 3})
	}
	m.commitSpec(spec{kind: "DaemonSet", name: "agent", revision: "a", cpu: "100m"})
	m.commitSpec(spec{kind: "Deployment", name: "db", revision: "a", replicas: 300, recreate: true, cpu: "100m", history: 3})
	for range 2 {
		m.schedule()
		m.obey()
		for i := range 200 {
			m.ready(fmt.Sprintf("web-%d", i), "", true)
		}
		m.ready("agent", "", true)
		m.ready("db", "", true)
		m.now = m.now.Add(time.Minute)
	}
	if n := len(m.set.Pods); n != 10_000 {
		tb.Fatalf("%d pods", n)
	}
	return m
}

func BenchmarkScheduleNothing(b *testing.B) {
	m := bigFleet(b)
	snapshot, board := m.snapshot(), m.board()
	for b.Loop() {
		if d := Schedule(snapshot, board, m.facts, m.authority(), m.now); len(d.Set.Remove) > 0 {
			b.Fatal("something to do")
		}
	}
}

func BenchmarkScheduleLostNode(b *testing.B) {
	m := bigFleet(b)
	m.judge("n007", api.NodeLost)
	snapshot, board := m.snapshot(), m.board()
	for b.Loop() {
		if d := Schedule(snapshot, board, m.facts, m.authority(), m.now); len(d.Set.Pods) < 10_030 {
			b.Fatal("nothing is replaced")
		}
	}
}

func BenchmarkScheduleFirst(b *testing.B) {
	m := bigFleet(b)
	m.set, m.facts = api.AssignmentSet{}, api.Facts{}
	clear(m.states)
	snapshot, board := m.snapshot(), m.board()
	for b.Loop() {
		Schedule(snapshot, board, m.facts, m.authority(), m.now)
	}
}
