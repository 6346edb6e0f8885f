package place

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
)

// TestRecordIsEnough: pods that are known by what another node wrote of them go
// where those go whose spec is known, and weigh on others as much.
func TestRecordIsEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := randomTwin(t)
		other, err := NewFleet(p.oracle.nodes, spaces)
		if err != nil {
			t.Fatal(err)
		}
		cast := make([]*Template, len(p.templates))
		for k, template := range p.templates {
			raw, err := json.Marshal(template.Mold())
			if err != nil {
				t.Fatal(err)
			}
			var mold api.Mold
			if err := json.Unmarshal(raw, &mold); err != nil {
				t.Fatal(err)
			}
			if cast[k], err = Cast(mold); err != nil {
				t.Fatal(err)
			}
		}
		for _, b := range p.booked {
			other.Book(cast[b.template], b.node, 1)
		}
		for k, template := range p.templates {
			a, b := p.fleet.Place(Demand{Template: template}, 5), other.Place(Demand{Template: cast[k]}, 5)
			if !slices.Equal(a.Nodes, b.Nodes) || a.Reason != b.Reason {
				t.Fatalf("template %d: %v by its spec, %v by its record", k, a, b)
			}
		}
	})
}

// TestOneByOne: two replicas at once are placed as one after the other.
func TestOneByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := randomTwin(t)
		other := p.fresh(t, p.oracle.nodes, p.booked)
		template, n := one(t, "template", p.templates...), rapid.IntRange(1, 9).Draw(t, "replicas")
		all := p.fleet.Place(Demand{Template: template}, n)
		var each Placed
		for range n {
			one := other.Place(Demand{Template: template}, 1)
			each.Nodes, each.Reason = append(each.Nodes, one.Nodes...), one.Reason
		}
		if !slices.Equal(all.Nodes, each.Nodes) || all.Reason != each.Reason {
			t.Fatalf("%v at once, %v one by one", all, each)
		}
	})
}

// manyNodes are enough for limits to matter.
func manyNodes(n int) []Node {
	nodes := make([]Node, n)
	for i := range nodes {
		name := fmt.Sprintf("n%04d", i)
		nodes[i] = Node{Name: name, Labels: map[string]string{corev1.LabelHostname: name}, Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("64Gi"), corev1.ResourcePods: resource.MustParse("110"),
		}}
	}
	return nodes
}

func newTemplate(t *testing.T, spec corev1.PodSpec) *Template {
	t.Helper()
	template, err := Compile(api.Identity{Namespace: "default", Kind: "Deployment", Owner: "web"}, map[string]string{"app": "web"}, &spec)
	if err != nil {
		t.Fatal(err)
	}
	return template
}

func softSpec() corev1.PodSpec {
	return corev1.PodSpec{TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
	}}}
}

func TestMillionReplicas(t *testing.T) {
	f, err := NewFleet(manyNodes(1000), nil)
	if err != nil {
		t.Fatal(err)
	}
	placed := f.Place(Demand{Template: newTemplate(t, corev1.PodSpec{})}, 1_000_000)
	if len(placed.Nodes) != 110_000 || placed.Reason != "0/1000 nodes are available: 1000 Too many pods." {
		t.Errorf("%d placed, %s", len(placed.Nodes), placed.Reason)
	}
	if placed := f.Place(Demand{Template: newTemplate(t, corev1.PodSpec{})}, -1); len(placed.Nodes) > 0 || placed.Reason != "" {
		t.Errorf("fewer than none: %v", placed)
	}
}

// TestWorkIsLimited: what every placement changes everything for ends too, and
// says why.
func TestWorkIsLimited(t *testing.T) {
	f, err := NewFleet(manyNodes(100), nil)
	if err != nil {
		t.Fatal(err)
	}
	web := newTemplate(t, softSpec())
	f.Limit(100 * 100)
	first := f.Place(Demand{Template: web}, 1_000_000)
	if first.Reason != noWorkLeft || len(first.Nodes) == 0 || len(first.Nodes) > 100 {
		t.Errorf("%d placed, %s", len(first.Nodes), first.Reason)
	}
	if second := f.Place(Demand{Template: web}, 1); second.Reason != noWorkLeft || len(second.Nodes) > 0 {
		t.Errorf("then %v", second)
	}
	if reasons := f.PlaceEach(Demand{Template: web}, []string{"n0001"}); reasons[0] != noWorkLeft {
		t.Errorf("then %v", reasons)
	}
	if _, reason := f.Preempt(Demand{Template: web}); reason != noWorkLeft {
		t.Errorf("then %s", reason)
	}
	f.Limit(math.MaxInt64)
	if again := f.Place(Demand{Template: web}, 1); again.Reason != "" {
		t.Errorf("with more allowed: %v", again)
	}
	big := int64(math.MaxInt32)
	huge := newTemplate(t, corev1.PodSpec{Priority: new(int32(1)), Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": *resource.NewQuantity(big, resource.DecimalSI)}}}}})
	f.Limit(150)
	if _, reason := f.Preempt(Demand{Template: huge}); !strings.Contains(reason, "were not looked at") && reason != "preemption: 0/100 nodes are available: 100 No preemption victims found for incoming pod." {
		t.Errorf("preempting says %s", reason)
	}
}

func TestBookIsExact(t *testing.T) {
	f, err := NewFleet(manyNodes(2), nil)
	if err != nil {
		t.Fatal(err)
	}
	web := newTemplate(t, corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{HostPort: 80}}, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"memory": resource.MustParse("9E")}}}}})
	f.Book(web, "n0000", 8000)
	f.Book(web, "elsewhere", 3)
	f.Book(web, "n0000", -3)
	if n := f.Count(web, "n0000"); n != 8000 || f.Count(web, "n0001") != 0 || f.Count(web, "elsewhere") != 0 {
		t.Errorf("%d are booked", n)
	}
	if reasons := f.PlaceEach(Demand{Template: newTemplate(t, corev1.PodSpec{})}, []string{"n0000", "n0001"}); reasons[0] == "" || reasons[1] != "" {
		t.Errorf("a node that is full to the brim says %v", reasons)
	}
	f.Release(newTemplate(t, corev1.PodSpec{}), "n0001", 1) // another template of the same content: not what was booked
	f.Release(web, "n0000", 5000)
	f.Release(web, "n0000", 5000)
	f.Release(web, "elsewhere", 1)
	f.Release(web, "n0001", 1)
	if f.loads[0] != (load{all: f.loads[1].all}) || len(f.nodes[0].ports) > 0 {
		t.Errorf("after all is released: %v %v", f.loads[0], f.nodes[0].ports)
	}
}

// TestManyClasses: nodes whose labels have too many values to remember the
// answers are asked one by one.
func TestManyClasses(t *testing.T) {
	nodes := manyNodes(100)
	selector := map[string]string{}
	for i := range nodes {
		for _, key := range []string{"rack", "row", "seat"} {
			nodes[i].Labels[key] = fmt.Sprint(key, i)
			selector[key] = fmt.Sprint(key, 42)
		}
	}
	nodes[43].Labels["rack"], nodes[43].Labels["row"] = selector["rack"], selector["row"]
	f, err := NewFleet(nodes, nil)
	if err != nil {
		t.Fatal(err)
	}
	placed := f.Place(Demand{Template: newTemplate(t, corev1.PodSpec{NodeSelector: selector})}, 2)
	if !slices.Equal(placed.Nodes, []string{"n0042", "n0042"}) {
		t.Errorf("placed on %v: %s", placed.Nodes, placed.Reason)
	}
}

func TestNodesWithOneName(t *testing.T) {
	if _, err := NewFleet([]Node{{Name: "a"}, {Name: "b"}, {Name: "a"}}, nil); err == nil || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("got %v", err)
	}
}

// TestCompileNamesWhatItCannotRead: Git's manifests are checked before, what
// other nodes write is not.
func TestCompileNamesWhatItCannotRead(t *testing.T) {
	bad := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Like", Values: []string{"w*"}}}}
	term := corev1.PodAffinityTerm{TopologyKey: "zone", LabelSelector: bad}
	nodes := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "cores", Operator: corev1.NodeSelectorOpGt, Values: []string{"many"}}}}
	for want, spec := range map[string]corev1.PodSpec{
		"compile term 0 of required pod affinity":      {Affinity: &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}}},
		"compile term 0 of required pod anti-affinity": {Affinity: &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}}},
		"compile term 0 of preferred pod affinity":     {Affinity: &corev1.Affinity{PodAffinity: &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{PodAffinityTerm: corev1.PodAffinityTerm{NamespaceSelector: bad}}}}}},
		"compile required node affinity":               {Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{nodes}}}}},
		"compile preferred node affinity":              {Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1, Preference: nodes}}}}},
		"compile topology spread constraint 0":         {TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{TopologyKey: "zone", LabelSelector: bad}}},
	} {
		if _, err := Compile(api.Identity{}, nil, &spec); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}
