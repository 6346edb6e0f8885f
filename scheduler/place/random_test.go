package place

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
)

// A twin is a random fleet, and the same one as its oracle sees it.
type twin struct {
	fleet     *Fleet
	oracle    *oracle
	templates []*Template
	pods      []oraclePod // what each template was made from
	booked    []booking
}

type booking struct {
	template int
	node     string
}

var spaces = map[string]map[string]string{"red": {"team": "a"}, "blue": {"team": "b"}}

func maybe(t *rapid.T, what string) bool { return rapid.IntRange(0, 3).Draw(t, what) == 0 }

func one[T any](t *rapid.T, what string, of ...T) T { return rapid.SampledFrom(of).Draw(t, what) }

func randomNode(t *rapid.T, name string) Node {
	n := Node{Name: name, Labels: map[string]string{}, Allocatable: corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(int64(rapid.IntRange(0, 40).Draw(t, "cpu"))*100, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(int64(rapid.IntRange(0, 40).Draw(t, "memory"))*(100<<20), resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(int64(rapid.IntRange(1, 9).Draw(t, "pods")), resource.DecimalSI),
	}}
	if !maybe(t, "no host label") {
		n.Labels[corev1.LabelHostname] = one(t, "host", name, name, name, "shared")
	}
	if zone := one(t, "zone", "", "a", "b", "c"); zone != "" {
		n.Labels[corev1.LabelTopologyZone] = zone
	}
	if disk := one(t, "disk", "", "ssd", "hdd"); disk != "" {
		n.Labels["disk"] = disk
	}
	if maybe(t, "gpu") {
		n.Allocatable["example.com/gpu"] = resource.MustParse("2")
	}
	if maybe(t, "tainted") {
		n.Taints = append(n.Taints, corev1.Taint{Key: "k", Value: one(t, "value", "1", "2"), Effect: one(t, "effect", corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)})
	}
	if maybe(t, "disliked") {
		n.Taints = append(n.Taints, corev1.Taint{Key: "l", Effect: corev1.TaintEffectPreferNoSchedule})
	}
	if maybe(t, "has the image") {
		n.Images = []Image{{Names: []string{"img:1"}, Size: 900 << 20}}
	}
	if rapid.IntRange(0, 9).Draw(t, "gone") == 0 {
		n.Closed, n.Gone = "node(s) were lost", true
	}
	return n
}

func randomSelector(t *rapid.T) *metav1.LabelSelector {
	switch rapid.IntRange(0, 5).Draw(t, "selector") {
	case 0:
		return nil
	case 1:
		return &metav1.LabelSelector{}
	case 2:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: one(t, "key", "app", "absent"), Operator: one(t, "op", metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpIn), Values: []string{"x"}}}}
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": one(t, "app", "x", "y")}}
}

func randomTerm(t *rapid.T) corev1.PodAffinityTerm {
	term := corev1.PodAffinityTerm{TopologyKey: one(t, "topology", corev1.LabelHostname, corev1.LabelTopologyZone, "disk"), LabelSelector: randomSelector(t)}
	if maybe(t, "namespaces") {
		term.Namespaces = []string{one(t, "namespace", "red", "blue", "grey")}
	}
	if maybe(t, "namespace selector") {
		term.NamespaceSelector = one(t, "which", &metav1.LabelSelector{}, &metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}})
	}
	if term.LabelSelector != nil && maybe(t, "keys") {
		term.MatchLabelKeys = []string{one(t, "same", "rev", "absent")}
	} else if term.LabelSelector != nil && maybe(t, "other keys") {
		term.MismatchLabelKeys = []string{one(t, "other", "rev", "absent")}
	}
	return term
}

func randomAffinity(t *rapid.T) *corev1.Affinity {
	a := &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{}, PodAffinity: &corev1.PodAffinity{}, PodAntiAffinity: &corev1.PodAntiAffinity{}}
	if maybe(t, "required node") {
		r := corev1.NodeSelectorRequirement{Key: "disk", Operator: one(t, "operator", corev1.NodeSelectorOpNotIn, corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist)}
		if r.Operator == corev1.NodeSelectorOpNotIn {
			r.Values = []string{"hdd"}
		}
		a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{r}}},
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "preferred nodes") {
		a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution = append(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution, corev1.PreferredSchedulingTerm{
			Weight:     int32(rapid.IntRange(1, 100).Draw(t, "weight")),
			Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{one(t, "disk", "ssd", "hdd")}}}},
		})
	}
	weighted := func() corev1.WeightedPodAffinityTerm {
		return corev1.WeightedPodAffinityTerm{Weight: int32(rapid.IntRange(1, 100).Draw(t, "weight")), PodAffinityTerm: randomTerm(t)}
	}
	if maybe(t, "together") {
		a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution = append(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, randomTerm(t))
		if maybe(t, "twice") {
			a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution = append(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, randomTerm(t))
		}
	}
	if maybe(t, "apart") {
		a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution = append(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, randomTerm(t))
	}
	if maybe(t, "attracted") {
		a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution = append(a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, weighted())
	}
	if maybe(t, "repelled") {
		a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution = append(a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, weighted())
	}
	return a
}

func randomSpread(t *rapid.T) corev1.TopologySpreadConstraint {
	c := corev1.TopologySpreadConstraint{
		MaxSkew: int32(rapid.IntRange(1, 3).Draw(t, "skew")), TopologyKey: one(t, "topology", corev1.LabelHostname, corev1.LabelTopologyZone),
		WhenUnsatisfiable: one(t, "when", corev1.DoNotSchedule, corev1.ScheduleAnyway), LabelSelector: randomSelector(t),
	}
	if c.WhenUnsatisfiable == corev1.DoNotSchedule && maybe(t, "min domains") {
		c.MinDomains = new(int32(rapid.IntRange(1, 4).Draw(t, "domains")))
	}
	if maybe(t, "affinity policy") {
		c.NodeAffinityPolicy = new(corev1.NodeInclusionPolicyIgnore)
	}
	if maybe(t, "taints policy") {
		c.NodeTaintsPolicy = new(corev1.NodeInclusionPolicyHonor)
	}
	if c.LabelSelector != nil && maybe(t, "keys") {
		c.MatchLabelKeys = []string{"rev"}
	}
	return c
}

func randomPod(t *rapid.T) oraclePod {
	p := oraclePod{
		workload: api.Identity{Namespace: one(t, "namespace", "red", "blue", "grey"), Kind: "Deployment", Owner: one(t, "owner", "", "one", "two")},
		labels:   map[string]string{"app": one(t, "app", "x", "y"), "rev": one(t, "rev", "1", "2")},
	}
	c := corev1.Container{Image: one(t, "image", "img:1", "other"), Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{}}}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if amount := rapid.IntRange(0, 8).Draw(t, string(name)); amount > 0 {
			c.Resources.Requests[name] = *resource.NewMilliQuantity(int64(amount)*100_000, resource.DecimalSI)
			if name == corev1.ResourceCPU {
				c.Resources.Requests[name] = *resource.NewMilliQuantity(int64(amount)*100, resource.DecimalSI)
			}
			if name == corev1.ResourceMemory {
				c.Resources.Requests[name] = *resource.NewQuantity(int64(amount)*(50<<20), resource.BinarySI)
			}
		}
	}
	if rapid.IntRange(0, 7).Draw(t, "gpu") == 0 {
		c.Resources.Requests["example.com/gpu"] = resource.MustParse("1")
	}
	if rapid.IntRange(0, 5).Draw(t, "port") == 0 {
		c.Ports = []corev1.ContainerPort{{HostPort: 80, Protocol: corev1.ProtocolTCP, HostIP: one(t, "ip", "", "10.0.0.1", "10.0.0.2")}}
	}
	p.spec = &corev1.PodSpec{Containers: []corev1.Container{c}, Affinity: randomAffinity(t)}
	if maybe(t, "tolerates") {
		p.spec.Tolerations = []corev1.Toleration{one(t, "toleration", corev1.Toleration{Operator: corev1.TolerationOpExists}, corev1.Toleration{Key: "k", Operator: corev1.TolerationOpEqual, Value: "1"}, corev1.Toleration{Key: "k", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule})}
	}
	if maybe(t, "selects nodes") {
		p.spec.NodeSelector = map[string]string{"disk": "ssd"}
	}
	if rapid.IntRange(0, 9).Draw(t, "named") == 0 {
		p.spec.NodeName = "n2"
	}
	for range rapid.IntRange(0, 2).Draw(t, "constraints") {
		p.spec.TopologySpreadConstraints = append(p.spec.TopologySpreadConstraints, randomSpread(t))
	}
	return p
}

func randomTwin(t *rapid.T) *twin {
	o := &oracle{spaces: spaces}
	for i := range rapid.IntRange(1, 7).Draw(t, "nodes") {
		o.nodes = append(o.nodes, randomNode(t, fmt.Sprintf("n%d", i+1)))
	}
	p := &twin{oracle: o}
	for range rapid.IntRange(1, 4).Draw(t, "templates") {
		pod := randomPod(t)
		template, err := Compile(pod.workload, pod.labels, pod.spec)
		if err != nil {
			t.Fatal(err)
		}
		p.templates, p.pods = append(p.templates, template), append(p.pods, pod)
	}
	for range rapid.IntRange(0, 8).Draw(t, "running") {
		p.booked = append(p.booked, booking{rapid.IntRange(0, len(p.templates)-1).Draw(t, "template"), one(t, "on", o.nodes...).Name})
	}
	p.fleet = p.fresh(t, o.nodes, p.booked)
	for _, b := range p.booked {
		pod := p.pods[b.template]
		pod.node = b.node
		o.pods = append(o.pods, pod)
	}
	return p
}

func (p *twin) fresh(t *rapid.T, nodes []Node, booked []booking) *Fleet {
	f, err := NewFleet(nodes, spaces)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range booked {
		f.Book(p.templates[b.template], b.node, 1)
	}
	return f
}

// TestPlaceIsWhatTheOracleSays: placing many replicas at once, with what changes
// brought up to date, is what looking at everything again for each one gives.
func TestPlaceIsWhatTheOracleSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := randomTwin(t)
		for range rapid.IntRange(1, 5).Draw(t, "demands") {
			which, n := rapid.IntRange(0, len(p.templates)-1).Draw(t, "which"), rapid.IntRange(1, 9).Draw(t, "replicas")
			careful := maybe(t, "careful")
			got := p.fleet.Place(Demand{Template: p.templates[which], Careful: careful}, n)
			var want []string
			for len(want) < n {
				node := p.oracle.place(p.pods[which], careful)
				if node == "" {
					break
				}
				want = append(want, node)
			}
			if !slices.Equal(got.Nodes, want) || (got.Reason == "") != (len(want) == n) {
				t.Fatalf("placed on %v (%s), the oracle says %v", got.Nodes, got.Reason, want)
			}
		}
	})
}

// TestOrderDoesNotMatter: neither that of the nodes nor that of the bookings,
// nor does it matter what was booked and released again.
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := randomTwin(t)
		other := p.fresh(t, rapid.Permutation(p.oracle.nodes).Draw(t, "nodes"), rapid.Permutation(p.booked).Draw(t, "bookings"))
		for range rapid.IntRange(0, 3).Draw(t, "detours") {
			template, node := one(t, "template", p.templates...), one(t, "node", p.oracle.nodes...).Name
			other.Book(template, node, 2)
			other.Release(template, node, 2)
		}
		for k, template := range p.templates {
			a, b := p.fleet.Place(Demand{Template: template}, 5), other.Place(Demand{Template: template}, 5)
			if !slices.Equal(a.Nodes, b.Nodes) || a.Reason != b.Reason {
				t.Fatalf("template %d: %v in one order, %v in another", k, a, b)
			}
		}
	})
}

// TestPlaceEachIsPlace: a node that is named gets a replica exactly when it
// could get one among all.
func TestPlaceEachIsPlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := randomTwin(t)
		template := one(t, "template", p.templates...)
		which := slices.Index(p.templates, template)
		var names []string
		for _, n := range p.oracle.nodes {
			names = append(names, n.Name)
		}
		order := rapid.Permutation(names).Draw(t, "order")
		for k, reason := range p.fleet.PlaceEach(Demand{Template: template}, order) {
			n := p.oracle.nodes[slices.IndexFunc(p.oracle.nodes, func(n Node) bool { return n.Name == order[k] })]
			if want := p.oracle.passes(p.pods[which], n, false); want != (reason == "") {
				t.Fatalf("%s: %q, the oracle says %t", n.Name, reason, want)
			}
			if reason == "" {
				pod := p.pods[which]
				pod.node = n.Name
				p.oracle.pods = append(p.oracle.pods, pod)
			}
		}
	})
}
