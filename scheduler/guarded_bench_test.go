package scheduler

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/testenv"
)

// BenchmarkSteadyGuarded is BenchmarkSteady with a PodDisruptionBudget and a
// HorizontalPodAutoscaler for each workload, all of them in one namespace.
func BenchmarkSteadyGuarded(b *testing.B) {
	const nodes, deployments = 5000, 1500
	bare, board, facts, now := steadyFleet(b, nodes, deployments, 100)
	m := newModel()
	for i := range deployments {
		name := fmt.Sprintf("web-%d", i)
		m.commitBudget(name, map[string]string{"max": "10%"})
		m.commitAutoscaler(name, map[string]string{"target": "Deployment/" + name, "max": "120", "cpu": "50"})
	}
	objects := slices.Collect(bare.Objects())
	for _, o := range m.objects {
		objects = append(objects, o)
	}
	snapshot := api.NewSnapshot(bare.Units, objects)
	for _, record := range board.Pods {
		u := api.Usage{Node: record.Node, Time: now, Pods: make(map[string]corev1.ResourceList, len(record.Pods))}
		for _, s := range record.Pods {
			u.Pods[s.Pod.Instance] = corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(50, resource.DecimalSI)}
		}
		board.Usage = append(board.Usage, u)
	}
	authority := Authority{Leader: "n00000", Quorate: true}
	facts = Schedule(snapshot, board, facts, authority, now).Facts
	now = now.Add(time.Minute)
	var took []float64
	for range 7 {
		runtime.GC()
		begin := time.Now()
		d := Schedule(snapshot, board, facts, authority, now)
		took = append(took, time.Since(begin).Seconds())
		if d.Facts.Seq != facts.Seq && len(took) > 1 {
			b.Fatalf("%d changes", d.Facts.Seq-facts.Seq)
		}
		facts = d.Facts
	}
	testenv.Report(b, fmt.Sprintf("steady_guarded_%dn_%dp_s", nodes, deployments*100), "s",
		fmt.Sprintf("%d Deployments of 100, each with a budget and an autoscaler that looks at its usage", deployments), took[1:]...)
}
