package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
)

// scaled is a fleet with room for one autoscaled workload.
func scaled(t *rapid.T, options map[string]string) *model {
	m := newModel()
	m.addNode("n1", 1000, 1000, "")
	kind := rapid.SampledFrom([]string{"Deployment", "ReplicaSet", "ReplicationController", "StatefulSet"}).Draw(t, "kind")
	m.commitSpec(spec{kind: kind, name: "a", revision: "r1", replicas: int32(rapid.IntRange(1, 10).Draw(t, "replicas")), cpu: "100m", history: 2})
	options["target"] = kind + "/a"
	m.commitAutoscaler("a", options)
	return m
}

// turn lets five seconds go by.
func (m *model) turn() api.Autoscaling {
	m.schedule()
	m.obey()
	m.ready("a", "", true)
	m.now = m.now.Add(5 * time.Second)
	return m.facts.Autoscalers["ns/a"]
}

// Whatever its pods use, and whatever is known of that, an autoscaler stays
// within its bounds and its policies, and gives up nothing that was asked for
// within the window.
func TestAutoscalersKeepTheirLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		least := rapid.IntRange(1, 10).Draw(t, "min")
		most := least + rapid.IntRange(0, 20).Draw(t, "more")
		add, drop := rapid.IntRange(1, 6).Draw(t, "add"), rapid.IntRange(1, 6).Draw(t, "drop")
		period, window := rapid.SampledFrom([]int{15, 60, 120}).Draw(t, "period"), rapid.SampledFrom([]int{0, 60, 300}).Draw(t, "window")
		m := scaled(t, map[string]string{
			"min": strconv.Itoa(least), "max": strconv.Itoa(most), "cpu": "50", "downWindow": strconv.Itoa(window),
			"up": fmt.Sprintf("Pods:%d:%d", add, period), "down": fmt.Sprintf("Pods:%d:%d", drop, period),
		})
		m.turn() // the bounds hold at once
		was := m.turn()
		var ups, downs []api.Rescale
		for range rapid.IntRange(20, 80).Draw(t, "turns") {
			if rapid.IntRange(0, 3).Draw(t, "change") == 0 {
				m.demands["a"] = demand{
					each: int64(rapid.IntRange(0, 200).Draw(t, "each")), shared: int64(rapid.IntRange(0, 3000).Draw(t, "shared")),
					only: rapid.SampledFrom([]int{-1, -1, 0, 1, 3}).Draw(t, "only"),
				}
			}
			is := m.turn()
			if is.Replicas < int32(least) || is.Replicas > int32(most) {
				t.Fatalf("%d pods, the bounds are %d and %d", is.Replicas, least, most)
			}
			change := is.Replicas - was.Replicas
			if change > 0 {
				ups = append(ups, api.Rescale{At: is.Scaled, Pods: change})
			} else if change < 0 {
				downs = append(downs, api.Rescale{At: is.Scaled, Pods: -change})
				for _, up := range ups {
					if is.Scaled.Sub(up.At) < time.Duration(window)*time.Second {
						t.Fatalf("scaled down %s after it was scaled up, the window is %d s", is.Scaled.Sub(up.At), window)
					}
				}
			}
			up, down := within(ups, time.Duration(period)*time.Second, is.Scaled), within(downs, time.Duration(period)*time.Second, is.Scaled)
			if change > 0 && up-down > int64(add) || change < 0 && down-up > int64(drop) {
				t.Fatalf("within %d s %d pods were added and %d taken away; may be %d and %d", period, up, down, add, drop)
			}
			was = is
		}
	})
}

// Under a load that stays the same an autoscaler comes to rest, where the load
// is near its target or a bound keeps it.
func TestAutoscalersComeToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 12
		m := scaled(t, map[string]string{"max": strconv.Itoa(most), "cpu": "50"})
		load := int64(rapid.IntRange(0, 1200).Draw(t, "load"))
		m.demands["a"] = demand{shared: load, only: -1}
		for range 12 * 60 / 5 {
			m.turn()
		}
		rests := m.facts.Autoscalers["ns/a"].Replicas
		for range 6 * 60 / 5 {
			if is := m.turn(); is.Replicas != rests {
				t.Fatalf("a load of %d rested at %d pods and went on to %d", load, rests, is.Replicas)
			}
		}
		share := float64(load) / float64(rests)
		if share > 56 && rests < most || share < 44 && rests > 1 && float64(load)/float64(rests-1) < 49 {
			t.Fatalf("a load of %d rests at %d pods", load, rests)
		}
	})
}

// Nothing is kept without end.
func TestAutoscalersForget(t *testing.T) {
	m := newModel()
	m.addNode("n1", 1000, 1000, "")
	m.commitSpec(spec{kind: "Deployment", name: "a", revision: "r1", replicas: 5, cpu: "100m", history: 2})
	m.commitAutoscaler("a", map[string]string{"target": "Deployment/a", "max": "40", "cpu": "50", "upWindow": "0", "downWindow": "3600", "up": "Pods:100:1800"})
	for i := range 1500 {
		m.demands["a"] = demand{each: int64(i % 7 * 30), only: -1}
		m.turn()
	}
	is := m.facts.Autoscalers["ns/a"]
	if most := 3600/15 + 2; len(is.Advice) > most || len(is.Ups) > 1800/15 {
		t.Errorf("%d pieces of advice and %d changes are kept", len(is.Advice), len(is.Ups))
	}
}

// randomAutoscaler puts an autoscaler into Git, or takes it out, or changes what
// is used.
func (m *model) randomAutoscaler(t *rapid.T) {
	owner := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "scaled")
	switch rapid.IntRange(0, 3).Draw(t, "scale") {
	case 0:
		delete(m.objects, "HorizontalPodAutoscaler/"+owner)
	case 1:
		m.demands[owner] = demand{each: int64(rapid.IntRange(0, 1500).Draw(t, "each")), only: rapid.SampledFrom([]int{-1, 0, 2}).Draw(t, "only")}
	default:
		m.commitAutoscaler(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "autoscaler"), map[string]string{
			"target": rapid.SampledFrom([]string{"Deployment/", "Deployment/", "ReplicaSet/", "StatefulSet/", "DaemonSet/"}).Draw(t, "target") + owner,
			"max":    strconv.Itoa(rapid.IntRange(1, 8).Draw(t, "max")), "cpu": "50",
		})
	}
}

// TestPaces: what policies allow, as Kubernetes documents it.
func TestPaces(t *testing.T) {
	now := time.Unix(10_000, 0)
	ago := func(s int, pods int32) api.Rescale {
		return api.Rescale{At: now.Add(-time.Duration(s) * time.Second), Pods: pods}
	}
	for _, c := range []struct {
		options         map[string]string
		current         int32
		ups, downs      []api.Rescale
		highest, lowest int32
	}{
		{nil, 1, nil, nil, 4, 0},
		{nil, 3, nil, nil, 6, 0},
		{map[string]string{"up": "Percent:100:15+Pods:4:15", "down": "Percent:100:15"}, 1, nil, nil, 5, 0},
		{map[string]string{"up": "Percent:100:15+Pods:4:15", "down": "Percent:100:15"}, 10, nil, nil, 20, 0},
		{map[string]string{"up": "Percent:50:60", "down": "Percent:10:60"}, 15, nil, nil, 23, 13},
		{map[string]string{"up": "Percent:50:60", "down": "Percent:10:60"}, 15, []api.Rescale{ago(30, 5)}, nil, 15, 9},
		{map[string]string{"up": "Percent:50:60", "down": "Percent:10:60"}, 15, []api.Rescale{ago(60, 5)}, nil, 23, 13},
		{map[string]string{"up": "Pods:4:60", "down": "Pods:4:60+Percent:10:60"}, 80, nil, []api.Rescale{ago(10, 3)}, 87, 74},
		{map[string]string{"up": "Pods:4:60", "down": "Pods:4:60+Percent:10:60", "downChoose": "Min"}, 80, nil, []api.Rescale{ago(10, 3)}, 87, 79},
		{map[string]string{"up": "Pods:4:60+Pods:1:60", "upChoose": "Min", "down": "Pods:4:60", "downChoose": "Disabled"}, 8, nil, nil, 9, 8},
		{map[string]string{"up": "Pods:4:60", "upChoose": "Disabled", "down": "Pods:100:60"}, 8, nil, nil, 8, 0},
		{map[string]string{"up": "Percent:2000000000:60"}, 2_000_000_000, nil, nil, 2147483647, 0},
	} {
		m := newModel()
		m.commitAutoscaler("a", c.options)
		up, down := paces(autoscalerOf(m.objects["HorizontalPodAutoscaler/a"]))
		if got := up.highest(c.current, c.ups, c.downs, now); got != c.highest {
			t.Errorf("%v: from %d up to %d, want %d", c.options, c.current, got, c.highest)
		}
		if got := down.lowest(c.current, c.ups, c.downs, now); got != c.lowest {
			t.Errorf("%v: from %d down to %d, want %d", c.options, c.current, got, c.lowest)
		}
	}
}

// TestScaleEvents: what autoscalers do and what keeps them is told, once.
func TestScaleEvents(t *testing.T) {
	m := newModel()
	m.addNode("n1", 100, 100, "")
	m.commitSpec(spec{kind: "Deployment", name: "a", revision: "r1", replicas: 2, cpu: "100m", history: 2})
	m.commitAutoscaler("a", map[string]string{"target": "Deployment/a", "cpu": "50"})
	m.turn()
	var got []string
	for range 20 {
		before := m.facts
		m.turn()
		for _, e := range scaleEvents("f", before, m.facts, m.now) {
			got = append(got, e.Regards.APIVersion+" "+e.Regards.Name+" "+e.Type+" "+e.Reason+": "+e.Message)
		}
		m.demands["a"] = demand{each: 75, only: -1}
		if len(m.states) > 2 {
			m.demands["a"] = demand{each: 50, only: -1}
		}
	}
	want := []string{"autoscaling/v2 a Normal SuccessfulRescale: New size: 3; reason: cpu resource utilization (percentage of request) above target"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if names := slices.Collect(maps.Keys(m.facts.Autoscalers)); !slices.Equal(names, []string{"ns/a"}) {
		t.Errorf("remembered are %v", names)
	}
}
