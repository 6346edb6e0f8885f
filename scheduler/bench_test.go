package scheduler

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

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

// BenchmarkScheduleJobs is a pass over 1,000 Jobs that are over and 1,000
// CronJobs with four runs each, while nothing happens.
func BenchmarkScheduleJobs(b *testing.B) {
	m := newModel()
	for i := range 50 {
		m.addNode(fmt.Sprintf("n%02d", i), 64, 500, "")
	}
	for i := range 1000 {
		m.commitSpec(spec{kind: "Job", name: fmt.Sprintf("job-%d", i), revision: "a", more: map[string]string{"completions": "2", "parallelism": "2"}})
		m.commitSpec(spec{kind: "CronJob", name: fmt.Sprintf("cron-%d", i), revision: "a", more: map[string]string{"schedule": "0_*_*_*_*", "keep": "4", "zone": "Europe/Berlin"}})
	}
	for range 5 {
		for range 2 {
			m.schedule()
			m.obey()
			for instance, s := range m.states {
				s.Phase = corev1.PodSucceeded
				m.states[instance] = s
			}
		}
		m.schedule()
		m.now = m.now.Add(time.Hour)
	}
	m.schedule()
	m.now = m.now.Add(time.Minute)
	snapshot, board := m.snapshot(), m.board()
	raw, err := json.Marshal(m.facts)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if d := Schedule(snapshot, board, m.facts, m.authority(), m.now); len(d.Set.Pods) < 5000 {
			b.Fatalf("%d pods", len(d.Set.Pods))
		}
	}
	b.ReportMetric(float64(len(raw))/5000, "facts-bytes/run")
}
