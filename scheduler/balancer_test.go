package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
)

// potential is what every move must make smaller, the first number before the
// second: pods of one workload on one node, and how unevenly full the nodes are.
func (f *fleet) potential() [2]int64 {
	var out [2]int64
	count := map[string]int64{}
	full := map[string]*fullness{}
	for _, n := range f.nodes {
		full[n.Name] = new(newFullness(n.Allocatable))
	}
	for _, a := range f.set.Pods {
		mold := f.set.Molds[a.Pod.MoldKey()]
		size := sizeOf(&mold)
		full[a.Node].taken[0] += size[0]
		full[a.Node].taken[1] += size[1]
		switch a.Pod.Kind {
		case "Deployment", "ReplicaSet", "ReplicationController":
			count[a.Pod.Workload().String()+" "+a.Node]++
		}
	}
	for _, n := range count {
		out[0] += n * n
	}
	for _, n := range full {
		out[1] += n.share(amounts{}) * n.share(amounts{})
	}
	return out
}

// The rules that a workload of the test may have.
var balanceRules = map[string]func(*corev1.PodSpec, string){
	"none": func(*corev1.PodSpec, string) {},
	"free": func(*corev1.PodSpec, string) {},
	"apart": func(s *corev1.PodSpec, app string) {
		s.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
		}}}}
	},
	"zones": func(s *corev1.PodSpec, app string) {
		s.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
		}}
	},
	"within": func(s *corev1.PodSpec, _ string) { s.NodeSelector = map[string]string{corev1.LabelTopologyZone: "a"} },
}

// randomMovable commits a workload that may be moved, mostly, and a budget perhaps.
func (f *fleet) randomMovable(t *rapid.T, name string) (rule string) {
	s := spec{
		kind: rapid.SampledFrom([]string{"Deployment", "Deployment", "ReplicaSet", "StatefulSet"}).Draw(t, "kind"), name: name, revision: "r",
		replicas: int32(rapid.IntRange(0, 6).Draw(t, "replicas")), cpu: rapid.SampledFrom([]string{"", "200m", "500m", "1500m"}).Draw(t, "cpu"),
		more: map[string]string{},
	}
	f.commitSpec(s)
	rule = rapid.SampledFrom([]string{"none", "free", "apart", "zones", "within"}).Draw(t, "rule")
	switch value := f.objects[s.kind+"/"+name].Value.(type) {
	case *appsv1.Deployment:
		balanceRules[rule](&value.Spec.Template.Spec, name)
	case *appsv1.ReplicaSet:
		balanceRules[rule](&value.Spec.Template.Spec, name)
	}
	if rule != "free" && rapid.Bool().Draw(t, "budget") {
		f.commitBudget(name, map[string]string{"min": fmt.Sprint(rapid.IntRange(0, 7).Draw(t, "min"))})
	}
	return rule
}

func (f *fleet) addZoned(t *rapid.T, name string) {
	f.addNode(name, int64(rapid.IntRange(2, 8).Draw(t, "cpu")), int64(rapid.IntRange(3, 30).Draw(t, "pods")), "")
	f.nodes[name].Labels[corev1.LabelTopologyZone] = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "zone")
}

// onNodes counts the pods of an owner by a label of their nodes.
func (f *fleet) onNodes(owner, label string) map[string]int {
	out := map[string]int{}
	for _, n := range f.nodes {
		out[n.Labels[label]] += 0
	}
	for _, a := range f.set.Pods {
		if a.Pod.Owner == owner && a.Pod.Kind != "StatefulSet" {
			out[f.nodes[a.Node].Labels[label]]++
		}
	}
	return out
}

func skew(count map[string]int) int {
	least, most := 1<<30, 0
	for _, n := range count {
		least, most = min(least, n), max(most, n)
	}
	return most - least
}

// Moves come to an end, each makes the fleet better, one at a time, and none breaks a
// rule or a budget, or takes room that is not there.
func TestMovesEnd(t *testing.T) {
	moved := 0
	rapid.Check(t, func(t *rapid.T) {
		f := &fleet{model: newModel()}
		for i := range rapid.IntRange(1, 3).Draw(t, "nodes") {
			f.addZoned(t, fmt.Sprint("n", i+1))
		}
		f.commitSettings(api.FleetSpec{Rebalance: api.RebalanceGentle})
		rules := map[string]string{}
		for _, name := range []string{"a", "b", "c", "d"} {
			rules[name] = f.randomMovable(t, name)
		}
		if err := f.settle(200); err != nil {
			t.Fatal(err)
		}
		f.live(time.Hour) // until where they are first has nothing to be moved
		for i := range rapid.IntRange(1, 3).Draw(t, "added") {
			f.addZoned(t, fmt.Sprint("m", i+1))
		}
		f.live(30 * time.Second) // what waited has room
		moved += f.untilBalanced(t, rules)
		for owner, rule := range rules {
			if rule == "free" && len(f.set.Pending) == 0 && f.roomFor(owner) && skew(f.onNodes(owner, corev1.LabelHostname)) > 1 {
				t.Fatalf("%s is not spread:\n%s", owner, f.describe())
			}
		}
	})
	if moved == 0 {
		t.Error("nothing was moved")
	}
}

// untilBalanced goes on until the leader has nothing more to do.
func (f *fleet) untilBalanced(t *rapid.T, rules map[string]string) (moves int) {
	last, under := [2]int64{}, 0
	skews := map[string]int{}
	for range 600 {
		before := f.potential()
		for owner := range rules {
			if under > 0 {
				break // compared with how it was before the move
			}
			skews[owner] = skew(f.onNodes(owner, corev1.LabelTopologyZone))
		}
		known := len(f.set.Pods)
		f.checkBudgets(t)
		for _, a := range f.set.Pods {
			if a.Reason == reasonBalance && a.Created.Equal(f.now) && a.Pod.Instance == f.facts.Balance.Move.Pod.Instance && len(f.set.Pods) > known {
				moves++
				if under++; under > 1 || len(f.set.Remove) > 0 {
					t.Fatalf("two moves at a time:\n%s", f.describe())
				}
				if moves > 1 && slices.Compare(before[:], last[:]) >= 0 {
					t.Fatalf("a move made nothing better: %v, then %v:\n%s", last, before, f.describe())
				}
				last = before
			}
		}
		wake := f.schedule()
		f.check(t)
		if f.facts.Balance.Move.Old == "" {
			under = 0
		}
		for owner, rule := range rules {
			zones := f.onNodes(owner, corev1.LabelTopologyZone)
			switch {
			case rule == "apart" && under == 0 && slices.Max(append(values(f.onNodes(owner, corev1.LabelHostname)), 0)) > 1,
				rule == "within" && zones["b"] > 0,
				rule == "zones" && under == 0 && skew(zones) > max(1, skews[owner]):
				t.Fatalf("the rule %s of %s is broken:\n%s", rule, owner, f.describe())
			}
		}
		if f.step(); wake.IsZero() && len(f.set.Remove) == 0 && f.facts.Balance.Move.Old == "" {
			if after := f.potential(); moves > 0 && slices.Compare(after[:], last[:]) >= 0 {
				t.Fatalf("the last move made nothing better: %v, then %v:\n%s", last, after, f.describe())
			}
			return moves
		}
		if next := f.now.Add(time.Second); wake.After(next) && f.facts.Balance.Move.Old == "" {
			f.now = wake
		} else {
			f.now = next
		}
	}
	t.Fatalf("moves do not end:\n%s", f.describe())
	return 0
}

// step lets all pods do what they are told to, and get ready.
func (f *fleet) step() {
	f.obey()
	for _, s := range f.states {
		if !s.Ready {
			f.ready(s.Pod.Owner, s.Pod.Revision, true)
		}
	}
}

// roomFor reports whether every node has room for two more pods of an owner.
func (f *fleet) roomFor(owner string) bool {
	used := map[string]int64{}
	pods := map[string]int64{}
	size := int64(0)
	for _, a := range f.set.Pods {
		mold := f.set.Molds[a.Pod.MoldKey()]
		used[a.Node] += mold.Requests[corev1.ResourceCPU]
		pods[a.Node]++
		if strings.EqualFold(a.Pod.Owner, owner) {
			size = mold.Requests[corev1.ResourceCPU]
		}
	}
	for _, n := range f.nodes {
		if n.Allocatable.Cpu().MilliValue()-used[n.Name] < 2*size || n.Allocatable.Pods().Value()-pods[n.Name] < 2 {
			return false
		}
	}
	return true
}

func values(m map[string]int) []int {
	var out []int
	for _, n := range m { // for a maximum
		out = append(out, n)
	}
	return out
}
