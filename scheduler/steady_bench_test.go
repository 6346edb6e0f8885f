package scheduler

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/testenv"
)

// steadyFleet is a fleet at rest: every pod runs and is ready.
func steadyFleet(b *testing.B, nodes, deployments, replicas int) (api.Snapshot, api.Board, api.Facts, time.Time) {
	b.Helper()
	m := newModel()
	for i := range nodes {
		m.addNode(fmt.Sprintf("n%05d", i), 64, 250, "")
	}
	for i := range deployments {
		m.commitSpec(spec{kind: "Deployment", name: fmt.Sprintf("web-%d", i), revision: "a", replicas: int32(replicas), cpu: "100m", history: 3, surge: "25%", unavailable: "25%"})
	}
	snapshot, board := m.snapshot(), m.board()
	d := Schedule(snapshot, board, api.Facts{}, Authority{Leader: "n00000", Quorate: true}, m.now)
	if len(d.Set.Pods) != deployments*replicas {
		b.Fatalf("%d pods have nodes: %v", len(d.Set.Pods), d.Set.Pending[:1])
	}
	records := make([]api.PodStates, nodes)
	index := map[string]int{}
	for i := range records {
		records[i] = api.PodStates{Node: board.Nodes[i].Name, Seq: api.Seq{N: 2}}
		index[records[i].Node] = i
	}
	for _, a := range d.Set.Pods {
		r := &records[index[a.Node]]
		r.Pods = append(r.Pods, api.PodState{
			Pod: a.Pod, Unit: a.Unit, Commit: a.Commit, Phase: corev1.PodRunning, Ready: true, Started: m.now, ReadyAt: m.now,
			IP: fmt.Sprintf("10.%d.%d.%d", 64+index[a.Node]/256, index[a.Node]%256, len(r.Pods)+2),
		})
	}
	board.Pods, board.Assigned = records, d.Set
	now := m.now.Add(time.Minute)
	d = Schedule(snapshot, board, d.Facts, Authority{Leader: "n00000", Quorate: true}, now)
	board.Assigned = d.Set
	return snapshot, board, d.Facts, now
}

// BenchmarkSteady takes a full pass over a fleet in which nothing changed, and
// what is kept of a pod: in memory, the assignments and facts of the scheduler,
// and as they travel.
func BenchmarkSteady(b *testing.B) {
	for _, nodes := range []int{100, 1000, 5000, 10000} {
		pods := 30 * nodes
		snapshot, board, facts, now := steadyFleet(b, nodes, pods/100, 100)
		var took []float64
		var d Decision
		for range 7 {
			runtime.GC()
			begin := time.Now()
			d = Schedule(snapshot, board, facts, Authority{Leader: "n00000", Quorate: true}, now)
			took = append(took, time.Since(begin).Seconds())
		}
		if len(d.Set.Pods) != pods || d.Facts.Seq != facts.Seq {
			b.Fatalf("%d pods, %d changes", len(d.Set.Pods), d.Facts.Seq-facts.Seq)
		}
		note := fmt.Sprintf("%d Deployments of 100", pods/100)
		testenv.Report(b, fmt.Sprintf("steady_%dn_%dp_s", nodes, pods), "s", note, took...)
		benchBalanced(b, snapshot, board, facts, now)
		if nodes != 5000 {
			continue
		}
		raw, err := json.Marshal(struct {
			Set   api.AssignmentSet
			Facts api.Facts
		}{d.Set, d.Facts})
		if err != nil {
			b.Fatal(err)
		}
		testenv.Report(b, "state_json_bytes_per_pod", "B", note, float64(len(raw))/float64(pods))
		var before, after runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools hold goes the second time
		runtime.ReadMemStats(&before)
		var copied struct {
			Set   api.AssignmentSet
			Facts api.Facts
		}
		if err := json.Unmarshal(raw, &copied); err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&after)
		testenv.Report(b, "state_bytes_per_pod", "B", note+"; assignments and facts in memory, as a follower has them", float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/float64(pods))
		for _, kept := range []any{raw, snapshot, board, facts, d} {
			runtime.KeepAlive(kept)
		}
		runtime.KeepAlive(copied)
	}
}

// BenchmarkSteadyMistakes takes passes over a fleet of which 200 Deployments want a
// million pods each: the first, which fills it, and one after that.
func BenchmarkSteadyMistakes(b *testing.B) {
	const nodes, deployments = 1000, 200
	m := newModel()
	for i := range nodes {
		m.addNode(fmt.Sprintf("n%05d", i), 64, 30, "")
	}
	for i := range deployments {
		m.commitSpec(spec{kind: "Deployment", name: fmt.Sprintf("web-%d", i), revision: "a", replicas: 1e6, cpu: "100m", history: 3, surge: "25%", unavailable: "25%"})
	}
	snapshot, board := m.snapshot(), m.board()
	var facts api.Facts
	for _, name := range []string{"first", "next"} {
		begin := time.Now()
		d := Schedule(snapshot, board, facts, Authority{Leader: "n00000", Quorate: true}, m.now)
		took := time.Since(begin).Seconds()
		if len(d.Set.Pods)+len(d.Set.Pending) > nodes*30+mostWaiting+deployments {
			b.Fatalf("%d pods have nodes, %d wait", len(d.Set.Pods), len(d.Set.Pending))
		}
		note := fmt.Sprintf("%d Deployments of a million: %d pods have nodes, %d wait", deployments, len(d.Set.Pods), len(d.Set.Pending))
		testenv.Report(b, fmt.Sprintf("mistakes_%dn_%s_s", nodes, name), "s", note, took)
		board.Assigned, facts = d.Set, d.Facts
	}
}

// benchBalanced takes a full pass over a fleet at rest that looks for a pod to be
// moved, where nothing is to be gained, and over one to which a node has come.
func benchBalanced(b *testing.B, snapshot api.Snapshot, board api.Board, facts api.Facts, now time.Time) {
	b.Helper()
	objects := slices.Collect(snapshot.Objects())
	objects = append(objects, api.Object{
		GVK: api.FleetKind, Value: &api.Fleet{ObjectMeta: metav1.ObjectMeta{Name: "home"}, Spec: api.FleetSpec{Rebalance: api.RebalanceGentle}},
	})
	snapshot = api.NewSnapshot(snapshot.Units, objects)
	facts.Balance = api.Balance{Calm: now.Add(-time.Hour)}
	facts = Schedule(snapshot, board, facts, Authority{Leader: "n00000", Quorate: true}, now).Facts // it has seen all objects
	nodes, pods := len(board.Nodes), len(board.Assigned.Pods)
	for _, name := range []string{"rest", "node"} {
		var took []float64
		var d Decision
		for range 7 {
			runtime.GC()
			begin := time.Now()
			d = Schedule(snapshot, board, facts, Authority{Leader: "n00000", Quorate: true}, now)
			took = append(took, time.Since(begin).Seconds())
		}
		if moves := len(d.Set.Pods) - pods; moves != map[string]int{"rest": 0, "node": 1}[name] {
			b.Fatalf("%s: %d moves", name, moves)
		}
		testenv.Report(b, fmt.Sprintf("balance_%s_%dn_%dp_s", name, nodes, pods), "s", "a pass that looks for a pod to be moved", took...)
		added := board.Nodes[0]
		added.Name = "new"
		added.Labels = map[string]string{corev1.LabelHostname: "new"}
		board.Nodes = append(slices.Clip(board.Nodes), added)
		board.Pods = append(slices.Clip(board.Pods), api.PodStates{Node: "new", Seq: api.Seq{N: 1}})
	}
}
