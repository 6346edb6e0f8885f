package gossip

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-dev/shoal/api"
)

// TestUsageSpreads: usage reaches all within some seconds, wakes nobody, and
// costs little.
func TestUsageSpreads(t *testing.T) {
	w := newNetwork(t, 10, 1)
	w.raft(0, 1)
	w.follow(3*time.Second, 0)
	w.agree(10 * time.Second)
	w.run(5 * time.Second)
	mark := w.nodes[9].Mark()
	clear(w.bytes)
	w.run(time.Minute)
	quiet := w.bytes["id004"]
	clear(w.bytes)
	told := func(round int) {
		for i, s := range w.nodes {
			u := api.Usage{Node: s.peer.Name, Used: corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(int64(100*round+i), resource.DecimalSI)}, Pods: map[string]corev1.ResourceList{}}
			for p := range 10 {
				u.Pods[s.peer.Name+"-pod-"+string(rune('a'+p))] = corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(int64(round+p), resource.DecimalSI)}
			}
			if err := s.SetOwn(w.now, Usage, u); err != nil {
				t.Fatal(err)
			}
		}
	}
	for round := range 6 {
		told(round)
		w.run(10 * time.Second)
	}
	t.Logf("a follower sends %d bytes a second, and %d while nothing changes", w.bytes["id004"]/60, quiet/60)
	for _, s := range w.nodes {
		all := s.Board().Usage
		if len(all) != 10 || slices.ContainsFunc(all, func(u api.Usage) bool { return u.Used.Cpu().MilliValue() < 500 || len(u.Pods) != 10 }) {
			t.Errorf("%s knows of the usage of %d nodes", s.peer.Name, len(all))
		}
	}
	if w.nodes[9].Mark() != mark {
		t.Error("usage woke somebody")
	}
}
