package agent_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-dev/shoal/runtime/agent"
	"github.com/shoal-dev/shoal/runtime/evict"
)

// Allocatable is the capacity without reserves and hard eviction thresholds.
func TestAllocatable(t *testing.T) {
	policy, err := evict.Parse(evict.Settings{Hard: []string{"memory.available<100Mi", "nodefs.available<10%"}})
	if err != nil {
		t.Fatal(err)
	}
	capacity := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("8Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("100Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	for _, c := range []struct {
		resources         agent.Resources
		cpu, memory, disk string
	}{
		{agent.Resources{}, "1900m", "7936Mi", "100Gi"},
		{agent.Resources{Eviction: policy}, "1900m", "7836Mi", "90Gi"},
		{agent.Resources{Own: corev1.ResourceList{}, System: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m")}, Eviction: policy}, "1500m", "8092Mi", "90Gi"},
	} {
		got := c.resources.Allocatable(capacity)
		disk := got[corev1.ResourceEphemeralStorage]
		if got.Cpu().Cmp(resource.MustParse(c.cpu)) != 0 || got.Memory().Cmp(resource.MustParse(c.memory)) != 0 || disk.Cmp(resource.MustParse(c.disk)) != 0 || got.Pods().Value() != 110 {
			t.Errorf("%+v: got %v", c.resources, got)
		}
	}
}
