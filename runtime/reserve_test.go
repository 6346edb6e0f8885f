package runtime_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-dev/shoal/runtime"
)

func resources(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

// A small machine keeps a tenth for itself, a large one what the daemons need.
func TestUsualReserves(t *testing.T) {
	for _, c := range []struct{ capacity, cpu, memory string }{
		{"2 16Gi", "100m", "256Mi"}, {"1 2Gi", "100m", "214748364"}, {"500m 512Mi", "50m", "53687091"}, {"64 1Ti", "100m", "256Mi"},
	} {
		cpu, memory, _ := cut(c.capacity)
		got := runtime.UsualReserves(resources(cpu, memory))
		if got.Cpu().Cmp(resource.MustParse(c.cpu)) != 0 || got.Memory().Cmp(resource.MustParse(c.memory)) != 0 {
			t.Errorf("%s: got %s %s, want %s %s", c.capacity, got.Cpu(), got.Memory(), c.cpu, c.memory)
		}
	}
}

func cut(pair string) (first, second string, found bool) {
	for i := range pair {
		if pair[i] == ' ' {
			return pair[:i], pair[i+1:], true
		}
	}
	return pair, "", false
}

// "Allocatable is what is left": never less than nothing, and nothing that the
// machine does not have.
func TestWithout(t *testing.T) {
	got := runtime.Without(resources("2", "4Gi"), resources("500m", "1Gi"), resources("250m", "8Gi"), corev1.ResourceList{"pid": resource.MustParse("1000")})
	if len(got) != 2 || got.Cpu().String() != "1250m" || !got.Memory().IsZero() {
		t.Errorf("got %v", got)
	}
}

func TestParseReserves(t *testing.T) {
	got, err := runtime.ParseReserves([]string{"cpu=200m", " memory = 1Gi", "pid=1000"})
	if err != nil || len(got) != 3 || got.Memory().String() != "1Gi" {
		t.Errorf("got %v, %v", got, err)
	}
	for _, wrong := range []string{"cpu", "cpu=-1", "gpu=1", "memory=much"} {
		if got, err := runtime.ParseReserves([]string{wrong}); err == nil {
			t.Errorf("%s: got %v and no error", wrong, got)
		}
	}
}
