package place

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/testenv"
)

// benchNodes are machines in three zones, some of them with a taint or a disk.
func benchNodes(n int) []Node {
	all := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("256Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"), corev1.ResourcePods: resource.MustParse("250"),
	}
	nodes := make([]Node, n)
	for i := range nodes {
		name := fmt.Sprintf("node-%05d", i)
		nodes[i] = Node{Name: name, Allocatable: all, Labels: map[string]string{
			corev1.LabelHostname: name, corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i%3), "disk": []string{"ssd", "hdd"}[i%2],
		}}
		if i%10 == 0 {
			nodes[i].Taints = []corev1.Taint{{Key: "dedicated", Value: "db", Effect: corev1.TaintEffectNoSchedule}}
		}
		if i%7 == 0 {
			nodes[i].Taints = append(nodes[i].Taints, corev1.Taint{Key: "old", Effect: corev1.TaintEffectPreferNoSchedule})
		}
		if i%4 == 0 {
			nodes[i].Images = []Image{{Names: []string{"registry/app:1"}, Size: 300 << 20}}
		}
	}
	return nodes
}

func benchSpec() *corev1.PodSpec {
	return &corev1.PodSpec{Containers: []corev1.Container{{Image: "registry/app:1", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi"),
	}}}}}
}

// A workload makes the k-th Deployment of a benchmark.
type workload func(app string, k int) *corev1.PodSpec

func basic(string, int) *corev1.PodSpec { return benchSpec() }

func ownSelector(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

func antiAffinity(app string, _ int) *corev1.PodSpec {
	spec := benchSpec()
	spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
		{TopologyKey: corev1.LabelHostname, LabelSelector: ownSelector(app)},
	}}}
	return spec
}

func spread(app string, _ int) *corev1.PodSpec {
	spec := benchSpec()
	spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{
		{MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: ownSelector(app)},
		{MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: ownSelector(app)},
	}
	return spec
}

// mixed uses every rule, some in each Deployment.
func mixed(app string, k int) *corev1.PodSpec {
	spec := benchSpec()
	switch k % 5 {
	case 0:
		spec = antiAffinity(app, k)
	case 1:
		spec = spread(app, k)
	case 2:
		spec.Affinity = &corev1.Affinity{
			PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelTopologyZone, LabelSelector: ownSelector(app)}}},
			PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{
				{Weight: 100, PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: ownSelector(app)}},
			}},
		}
	case 3:
		spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: int32(8000 + k%50), Protocol: corev1.ProtocolTCP}}
		spec.Tolerations = []corev1.Toleration{{Key: "dedicated", Operator: corev1.TolerationOpExists}}
	}
	if spec.Affinity == nil {
		spec.Affinity = &corev1.Affinity{}
	}
	spec.Affinity.NodeAffinity = &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{
		{Weight: 50, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{"ssd"}}}}},
	}}
	if k%3 == 0 {
		spec.NodeSelector = map[string]string{"disk": "ssd"}
	}
	return spec
}

func compileBench(b *testing.B, make workload, app string, k int) *Template {
	b.Helper()
	t, err := Compile(api.Identity{Namespace: fmt.Sprint("team-", k%20), Kind: "Deployment", Owner: app}, map[string]string{"app": app}, make(app, k))
	if err != nil {
		b.Fatal(err)
	}
	return t
}

// benchFleet has ten pods on every node, of Deployments of some replicas each.
func benchFleet(b *testing.B, make workload, nodes, replicas int) *Fleet {
	b.Helper()
	list := benchNodes(nodes)
	f, err := NewFleet(list, nil)
	if err != nil {
		b.Fatal(err)
	}
	for k := range 10 * nodes / replicas {
		t := compileBench(b, make, fmt.Sprint("old-", k), k)
		for i := range replicas {
			f.Book(t, list[(k*replicas+i)*7%nodes].Name, 1)
		}
	}
	return f
}

// BenchmarkPlace prints how many pods are placed in a second on a fleet that has
// ten pods on every node, as JSON lines. It measures three times, whatever
// -benchtime says.
func BenchmarkPlace(b *testing.B) {
	kinds := []struct {
		name            string
		make            workload
		count, replicas int
	}{{"basic", basic, 100, 100}, {"antiaffinity", antiAffinity, 100, 100}, {"spread", spread, 100, 100}, {"mixed", mixed, 1000, 10}}
	for _, kind := range kinds {
		for _, nodes := range []int{100, 1000, 5000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", kind.name, nodes), func(b *testing.B) {
				var rates []float64
				for range 3 {
					f := benchFleet(b, kind.make, nodes, kind.replicas)
					start, placed := time.Now(), 0
					for k := range kind.count {
						placed += len(f.Place(Demand{Template: compileBench(b, kind.make, fmt.Sprint("new-", k), k)}, kind.replicas).Nodes)
					}
					rates = append(rates, float64(placed)/time.Since(start).Seconds())
					if placed < 9_000 && nodes >= 1000 {
						b.Fatalf("%d placed only", placed)
					}
				}
				testenv.Report(b, fmt.Sprintf("place_%s_%dn_pods_per_s", kind.name, nodes), "1/s", "in memory, one core", rates...)
			})
		}
	}
}

// BenchmarkPlaceFleet prints what it takes to make a fleet of 5,000 nodes and
// 150,000 pods of 1,500 Deployments of what is known, how much memory it is, and
// what it takes to find room for an important pod in it when it is full.
func BenchmarkPlaceFleet(b *testing.B) {
	const nodes, pods = 5000, 150_000
	list := benchNodes(nodes)
	for i := range list {
		list[i].Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3"), corev1.ResourceMemory: resource.MustParse("256Gi"), corev1.ResourcePods: resource.MustParse("110")}
	}
	var templates []*Template
	for k := range pods / 100 {
		templates = append(templates, compileBench(b, basic, fmt.Sprint("app-", k), k))
	}
	spec := benchSpec()
	spec.Priority = new(int32(100))
	spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	important, err := Compile(api.Identity{Namespace: "team-0", Kind: "Deployment", Owner: "important"}, nil, spec)
	if err != nil {
		b.Fatal(err)
	}
	var took, bytes, preempted []float64
	for range 3 {
		before := heap()
		start := time.Now()
		f, err := NewFleet(list, nil)
		if err != nil {
			b.Fatal(err)
		}
		var running []Running
		for i := range pods {
			f.Book(templates[i/100], list[i*7%nodes].Name, 1)
		}
		took = append(took, time.Since(start).Seconds())
		bytes = append(bytes, (heap()-before)/pods)
		for i := range pods {
			running = append(running, Running{ID: fmt.Sprint(i), Node: list[i*7%nodes].Name, Template: templates[i/100], Priority: int32(i % 50), Started: time.Unix(int64(i), 0)})
		}
		if err := f.SetEvictable(running, nil); err != nil {
			b.Fatal(err)
		}
		start = time.Now()
		e, reason := f.Preempt(Demand{Template: important})
		if reason != "" || len(e.Victims) != 1 {
			b.Fatal(e, reason)
		}
		preempted = append(preempted, time.Since(start).Seconds())
	}
	testenv.Report(b, "place_fleet_5000n_150000p", "s", "nodes and pods are booked anew", took...)
	testenv.Report(b, "place_bytes_per_pod", "B", "of a fleet of 5,000 nodes and 150,000 pods, nodes included", bytes...)
	testenv.Report(b, "preempt_5000n_150000p", "s", "one pod on a full fleet", preempted...)
}

func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
