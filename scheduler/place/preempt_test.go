package place

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
)

// without returns the oracle's pods but some.
func (o *oracle) without(gone []Running, ids []string) *oracle {
	out := &oracle{nodes: o.nodes, spaces: o.spaces}
	for k, p := range o.pods {
		if !slices.ContainsFunc(gone, func(r Running) bool { return r.ID == ids[k] }) {
			out.pods = append(out.pods, p)
		}
	}
	return out
}

// preempt is the oracle's choice: every node by itself, from the documentation.
func (o *oracle) preempt(p oraclePod, priority int32, running []Running, ids []string, budgets []Budget) (string, []Running) {
	type choice struct {
		node    string
		victims []Running
		order   []int64
	}
	var best *choice
	for _, n := range o.nodes {
		var lower []Running
		for _, r := range running {
			if r.Node == n.Name && r.Priority < priority {
				lower = append(lower, r)
			}
		}
		slices.SortFunc(lower, func(a, b Running) int {
			return cmp.Or(cmp.Compare(b.Priority, a.Priority), a.Started.Compare(b.Started), strings.Compare(a.ID, b.ID))
		})
		var victims []Running
		violations := 0
		// What only others than victims could change is not tried.
		if !o.passes(p, n, false) {
			if len(lower) == 0 || !o.without(lower, ids).passes(p, n, false) || !o.beside(p, n, firstOf(requiredTermsOf(p))) {
				continue
			}
			victims = slices.Clone(lower)
			kept, free := violating(lower, budgets)
			for _, v := range append(slices.Clone(kept), free...) {
				less := slices.DeleteFunc(slices.Clone(victims), func(r Running) bool { return r.ID == v.ID })
				if o.without(less, ids).passes(p, n, false) {
					victims = less
				} else if slices.ContainsFunc(kept, func(r Running) bool { return r.ID == v.ID }) {
					violations++
				}
			}
		}
		c := &choice{n.Name, victims, []int64{int64(violations), math.MinInt64, 0, int64(len(victims)), 0}}
		for _, v := range victims {
			c.order[1] = max(c.order[1], int64(v.Priority))
			c.order[2] += int64(v.Priority) + 1<<31
		}
		first := int64(math.MaxInt64)
		for _, v := range victims {
			if int64(v.Priority) == c.order[1] {
				first = min(first, v.Started.Unix())
			}
		}
		c.order[4] = -first
		if best == nil || slices.Compare(c.order, best.order) < 0 {
			best = c
		}
	}
	if best == nil {
		return "", nil
	}
	return best.node, best.victims
}

func firstOf[T any](a, _ T) T { return a }

func violating(lower []Running, budgets []Budget) (kept, free []Running) {
	used := make([]int32, len(budgets))
	for _, v := range lower {
		violates := false
		for k, b := range budgets {
			selector, _ := metav1.LabelSelectorAsSelector(b.Selector)
			if b.Namespace != v.Template.Mold().Namespace || !selector.Matches(labels.Set(v.Template.Mold().Labels)) {
				continue
			}
			used[k]++
			violates = violates || used[k] > b.Allowed
		}
		if violates {
			kept = append(kept, v)
		} else {
			free = append(free, v)
		}
	}
	return kept, free
}

// TestPreemptIsWhatTheOracleSays, takes nobody of equal or higher priority, and
// makes room.
func TestPreemptIsWhatTheOracleSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := randomTwin(t)
		var running []Running
		var ids []string
		for k, b := range p.booked {
			ids = append(ids, fmt.Sprint("pod-", k))
			if maybe(t, "stays") {
				continue
			}
			running = append(running, Running{
				ID: ids[k], Node: b.node, Template: p.templates[b.template],
				Priority: int32(rapid.IntRange(-2, 4).Draw(t, "priority")), Started: time.Unix(int64(rapid.IntRange(0, 3).Draw(t, "started")), 0),
			})
		}
		var budgets []Budget
		for range rapid.IntRange(0, 2).Draw(t, "budgets") {
			budgets = append(budgets, Budget{Namespace: one(t, "namespace", "red", "blue"), Selector: randomSelector(t), Allowed: int32(rapid.IntRange(0, 2).Draw(t, "allowed"))})
		}
		if err := p.fleet.SetEvictable(running, budgets); err != nil {
			t.Fatal(err)
		}
		which := rapid.IntRange(0, len(p.templates)-1).Draw(t, "which")
		pod := p.pods[which]
		priority := int32(rapid.IntRange(0, 5).Draw(t, "own priority"))
		pod.spec.Priority = &priority
		template, err := Compile(pod.workload, pod.labels, pod.spec)
		if err != nil {
			t.Fatal(err)
		}
		got, reason := p.fleet.Preempt(Demand{Template: template})
		node, victims := p.oracle.preempt(pod, priority, running, ids, budgets)
		name := func(r Running) string { return r.ID }
		if got.Node != node || (reason == "") != (node != "") || !slices.Equal(each(got.Victims, name), each(victims, name)) {
			t.Fatalf("%v (%s), the oracle says %s: %v", got, reason, node, victims)
		}
		for _, v := range got.Victims {
			if v.Priority >= priority {
				t.Fatalf("%v goes for priority %d", v, priority)
			}
		}
		if node == "" {
			return
		}
		p.fleet.Evict(got)
		if why := p.fleet.PlaceEach(Demand{Template: template}, []string{node}); why[0] != "" {
			t.Fatalf("evicting %v made no room: %s", got, why[0])
		}
	})
}

func each[A, B any](list []A, f func(A) B) []B {
	var out []B
	for _, a := range list {
		out = append(out, f(a))
	}
	return out
}

func TestSetEvictableSaysWhatIsNotBooked(t *testing.T) {
	f, err := NewFleet([]Node{{Name: "n1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	web, err := Cast(api.Mold{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	f.Book(web, "n1", 1)
	one := Running{ID: "a", Node: "n1", Template: web}
	if err := f.SetEvictable([]Running{one}, nil); err != nil {
		t.Error(err)
	}
	two := one
	two.ID = "b"
	elsewhere := one
	elsewhere.Node = "n2"
	for _, list := range [][]Running{{one, two}, {elsewhere}, {{ID: "c", Node: "n1"}}} {
		if err := f.SetEvictable(list, nil); err == nil {
			t.Errorf("%v is evictable", list)
		}
	}
	if err := f.SetEvictable(nil, []Budget{{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"/": "/"}}}}); err == nil {
		t.Error("a budget that cannot be read is taken")
	}
}
