package place

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/scenario"
)

// TestScenarios runs every script in testdata. A script is a txtar archive: its
// comment says what it shows and where that is documented, "nodes" and "pods"
// what there is, "script" holds one command a line, and "want" the transcript.
//
// A node is a line: NAME [cpu=4] [memory=8Gi] [pods=110] [gpu=N] [zone=Z]
// [label:KEY=VALUE] [no:KEY] [taint:KEY=VALUE:EFFECT] [image:NAME=SIZE]
// [closed] [gone]. A namespace is a line "namespace NAME KEY=VALUE". Pods are
// YAML: a list of sketches. Commands:
//
//	book POD NODE [N]        they run there
//	release POD NODE [N]
//	place POD [N] [careful] [within=NODE,...] [volume=KEY:VALUE]
//	each POD NODE...         one on each of these nodes
//	move POD FROM TO,... [zones]  where it moves to
//	score POD                print the scores of the nodes that can be had
//	run POD NODE ID [AT]     one runs there since AT seconds and may be evicted
//	budget NAMESPACE KEY=VALUE|all|none N
//	preempt POD              print who would have to go
//	evict POD                and let it happen
func TestScenarios(t *testing.T) {
	scenario.Run(t, "testdata/*.txtar", func(t *testing.T, c scenario.Case) string {
		return newScene(t, c.Text("nodes"), c.Text("pods")).transcript(c.Text("script"))
	})
}

// A scene is a fleet that a script is about.
type scene struct {
	t         *testing.T
	fleet     *Fleet
	templates map[string]*Template
	running   []Running
	budgets   []Budget
	dirty     bool // the fleet does not know of them yet
}

// A sketch is a pod with as little written as possible.
type sketch struct {
	Name, Namespace, Owner, CPU, Memory, GPU, Storage, Image string
	Ports                                                    []string // IP:PORT/PROTOCOL
	Labels                                                   map[string]string
	Spec                                                     corev1.PodSpec
	Mold                                                     bool // its spec is not known any more
}

func newScene(t *testing.T, nodes, pods string) *scene {
	t.Helper()
	var list []Node
	spaces := map[string]map[string]string{}
	for line := range strings.Lines(nodes) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == "namespace":
			spaces[words[1]] = pairs(words[2:])
		default:
			list = append(list, parseNode(t, words))
		}
	}
	f, err := NewFleet(list, spaces)
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, fleet: f, templates: map[string]*Template{}}
	var sketches []sketch
	if err := yaml.UnmarshalStrict([]byte(pods), &sketches); err != nil {
		t.Fatal(err)
	}
	for i := range sketches {
		s.templates[sketches[i].Name] = sketches[i].compile(t)
	}
	return s
}

func pairs(words []string) map[string]string {
	out := map[string]string{}
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		out[key] = value
	}
	return out
}

func parseNode(t *testing.T, words []string) Node {
	t.Helper()
	n := Node{Name: words[0], Labels: map[string]string{corev1.LabelHostname: words[0]}, Allocatable: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		kind, name, _ := strings.Cut(key, ":")
		switch kind {
		case "cpu", "memory", "pods", "ephemeral-storage":
			n.Allocatable[corev1.ResourceName(kind)] = resource.MustParse(value)
		case "gpu":
			n.Allocatable["example.com/gpu"] = resource.MustParse(value)
		case "zone":
			n.Labels[corev1.LabelTopologyZone] = value
		case "label":
			n.Labels[name] = value
		case "no":
			delete(n.Labels, name)
		case "taint":
			value, effect, _ := strings.Cut(value, ":")
			n.Taints = append(n.Taints, corev1.Taint{Key: name, Value: value, Effect: corev1.TaintEffect(effect)})
		case "image":
			size := resource.MustParse(value)
			n.Images = append(n.Images, Image{Names: []string{name}, Size: size.Value()})
		case "closed":
			n.Closed = "node(s) were not heard of"
		case "gone":
			n.Closed, n.Gone = "node(s) were lost", true
		default:
			t.Fatalf("node %s: what is %s?", n.Name, word)
		}
	}
	return n
}

func (k *sketch) compile(t *testing.T) *Template {
	t.Helper()
	if len(k.Spec.Containers) == 0 {
		k.Spec.Containers = []corev1.Container{{Image: k.Image}}
	}
	c := &k.Spec.Containers[0]
	for name, value := range map[corev1.ResourceName]string{"cpu": k.CPU, "memory": k.Memory, "example.com/gpu": k.GPU, "ephemeral-storage": k.Storage} {
		if value == "" {
			continue
		}
		if c.Resources.Requests == nil {
			c.Resources.Requests = corev1.ResourceList{}
		}
		c.Resources.Requests[name] = resource.MustParse(value)
	}
	for _, port := range k.Ports {
		address, protocol, _ := strings.Cut(port, "/")
		ip, number, _ := strings.Cut(address, ":")
		n, err := strconv.ParseInt(number, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		c.Ports = append(c.Ports, corev1.ContainerPort{HostIP: ip, HostPort: int32(n), Protocol: corev1.Protocol(protocol)})
	}
	namespace := k.Namespace
	if namespace == "" {
		namespace = "default"
	}
	template, err := Compile(api.Identity{Namespace: namespace, Kind: "Deployment", Owner: k.Owner}, k.Labels, &k.Spec)
	if err == nil && k.Mold {
		template, err = Cast(template.Mold())
	}
	if err != nil {
		t.Fatalf("pod %s: %v", k.Name, err)
	}
	return template
}

func (s *scene) transcript(script string) string {
	var out strings.Builder
	for line := range strings.Lines(script) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		fmt.Fprintf(&out, "> %s\n", strings.TrimSpace(line))
		out.WriteString(s.do(words[0], words[1:]))
	}
	return out.String()
}

func (s *scene) do(command string, args []string) string {
	s.t.Helper()
	count := func(at int) int {
		if at < len(args) {
			if n, err := strconv.Atoi(args[at]); err == nil {
				return n
			}
		}
		return 1
	}
	switch command {
	case "book":
		s.fleet.Book(s.template(args[0]), args[1], count(2))
	case "release":
		s.fleet.Release(s.template(args[0]), args[1], count(2))
	case "place":
		return s.place(s.demand(args), count(1))
	case "each":
		var out strings.Builder
		for k, reason := range s.fleet.PlaceEach(s.demand(args[:1]), args[1:]) {
			if reason == "" {
				reason = "placed"
			}
			fmt.Fprintf(&out, "%s: %s\n", args[k+1], reason)
		}
		return out.String()
	case "move":
		return s.fleet.Move(s.demand(args[:1]), args[1], strings.Split(args[2], ","), slices.Contains(args[3:], "zones")) + "\n"
	case "score":
		return s.score(s.demand(args))
	case "run":
		s.dirty = true
		template := s.template(args[0])
		s.fleet.Book(template, args[1], 1)
		s.running = append(s.running, Running{
			ID: args[2], Node: args[1], Template: template, Priority: template.Priority(), Started: time.Unix(int64(count(3)), 0),
		})
	case "budget":
		s.dirty = true
		b := Budget{Namespace: args[0], Allowed: int32(count(2))}
		if args[1] != "none" {
			b.Selector = &metav1.LabelSelector{}
		}
		if strings.Contains(args[1], "=") {
			b.Selector.MatchLabels = pairs(args[1:2])
		}
		s.budgets = append(s.budgets, b)
	case "preempt", "evict":
		return s.preempt(s.demand(args), command == "evict")
	default:
		s.t.Fatalf("no command %s", command)
	}
	return ""
}

func (s *scene) template(name string) *Template {
	s.t.Helper()
	if s.templates[name] == nil {
		s.t.Fatalf("no pod %s", name)
	}
	return s.templates[name]
}

func (s *scene) demand(args []string) Demand {
	s.t.Helper()
	d := Demand{Template: s.template(args[0])}
	for _, arg := range args[1:] {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "careful":
			d.Careful = true
		case "within":
			d.Within = strings.Split(value, ",")
		case "volume":
			label, is, _ := strings.Cut(value, ":")
			d.Volumes = append(d.Volumes, &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: label, Operator: corev1.NodeSelectorOpIn, Values: []string{is}},
			}}}})
		}
	}
	return d
}

func (s *scene) place(d Demand, n int) string {
	placed := s.fleet.Place(d, n)
	out := strings.Join(placed.Nodes, " ")
	if out != "" {
		out += "\n"
	}
	if placed.Reason != "" {
		out += placed.Reason + "\n"
	}
	return out
}

// score prints what each part of the score says.
func (s *scene) score(d Demand) string {
	k := s.fleet.start(d).rank()
	if k.next() < 0 {
		return "none can be had\n"
	}
	var out strings.Builder
	for n, had := range k.had {
		i := int32(n)
		if !had {
			continue
		}
		l := &s.fleet.loads[i]
		fmt.Fprintf(&out, "%s: taints %d, nodes %d, pods %d", s.fleet.nodes[i].object.Name, k.clean(i), k.suits(i), k.draws(i))
		if k.crowd != nil {
			fmt.Fprintf(&out, ", spread %d", k.evenness(i))
		}
		image := int32(0)
		if k.images != nil {
			image = k.images[i]
		}
		fmt.Fprintf(&out, ", left %d, balance %d, images %d\n", k.left(l), k.balanced(l), image)
	}
	return out.String()
}

func (s *scene) preempt(d Demand, happens bool) string {
	s.t.Helper()
	if s.dirty {
		s.dirty = false
		if err := s.fleet.SetEvictable(s.running, s.budgets); err != nil {
			s.t.Fatal(err)
		}
	}
	before := fmt.Sprint(s.fleet.loads)
	eviction, reason := s.fleet.Preempt(d)
	if after := fmt.Sprint(s.fleet.loads); after != before {
		s.t.Errorf("asking changed the fleet from %s to %s", before, after)
	}
	if reason != "" {
		return reason + "\n"
	}
	out := eviction.Node + ":"
	for _, v := range eviction.Victims {
		out += " " + v.ID
	}
	if eviction.Violations > 0 {
		out += fmt.Sprintf(" (%d against a budget)", eviction.Violations)
	}
	if happens {
		s.fleet.Evict(eviction)
		s.fleet.Book(d.Template, eviction.Node, 1)
	}
	return out + "\n"
}
