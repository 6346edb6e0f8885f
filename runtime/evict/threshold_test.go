package evict_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-dev/shoal/runtime/evict"
)

func TestParse(t *testing.T) {
	got, err := evict.Parse(evict.Settings{
		Hard: []string{"memory.available<100Mi", "nodefs.available < 10%", "pid.available<0%"}, Soft: []string{"memory.available<1.5Gi"},
		SoftGrace: []string{"memory.available=1m30s"}, MinimumReclaim: []string{"memory.available=10Mi"}, MaxPodGrace: time.Minute, Transition: 5 * time.Minute,
	})
	want := evict.Policy{Thresholds: []evict.Threshold{
		{Signal: evict.Memory, Least: evict.Amount{Number: 100 << 20}, Reclaim: evict.Amount{Number: 10 << 20}},
		{Signal: evict.Memory, Least: evict.Amount{Number: 1536 << 20}, Grace: 90 * time.Second, Reclaim: evict.Amount{Number: 10 << 20}},
		{Signal: evict.NodeFS, Least: evict.Amount{Part: 0.1}},
	}, MaxPodGrace: time.Minute, Transition: 5 * time.Minute}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if got := got.Hard(evict.NodeFS, 1000); got != 100 {
		t.Errorf("10%% of 1000 is not %d", got)
	}
}

func TestParseMistakes(t *testing.T) {
	for _, c := range []struct {
		settings evict.Settings
		want     string
	}{
		{evict.Settings{Hard: []string{"memory.available=100Mi"}}, "evictionHard"},
		{evict.Settings{Hard: []string{"memory.free<100Mi"}}, "none of"},
		{evict.Settings{Hard: []string{"memory.available<1Gi", "memory.available<2Gi"}}, "twice"},
		{evict.Settings{Hard: []string{"memory.available<110%"}}, "percentage"},
		{evict.Settings{Hard: []string{"memory.available<-1"}}, "quantity"},
		{evict.Settings{Soft: []string{"memory.available<1Gi"}}, "no grace period"},
		{evict.Settings{SoftGrace: []string{"memory.available=soon"}}, "period"},
		{evict.Settings{MinimumReclaim: []string{"memory.available=x"}}, "evictionMinimumReclaim"},
		{evict.Settings{MaxPodGrace: -1}, "evictionMaxPodGracePeriod"},
		{evict.Settings{Transition: -1}, "evictionPressureTransitionPeriod"},
	} {
		if _, err := evict.Parse(c.settings); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %s", c.settings, err, c.want)
		}
	}
}
