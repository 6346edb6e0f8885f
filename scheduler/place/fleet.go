package place

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/shoal-dev/shoal/api"
)

// A Node is a machine that pods may be placed on.
type Node struct {
	Name        string
	Labels      map[string]string
	Taints      []corev1.Taint // its own, and those that follow from its state
	Allocatable corev1.ResourceList
	Images      []Image
	Closed      string // why nothing may be placed on it, whatever it is; "" when something may
	Gone        bool   // it counts as if it did not exist where pods are spread over domains
}

// An Image is one that a node has.
type Image struct {
	Names []string // every name that a pod may ask for it by
	Size  int64    // in bytes
}

// A Fleet is what pods are placed on: nodes, and what occupies them. It changes
// with every pod that is booked, released or placed; one goroutine may use it at
// a time.
type Fleet struct {
	nodes  []node // by name
	index  map[string]int32
	loads  []load
	extra  []extended // by node, beside the fixed resources
	taints [][]corev1.Taint

	spaces     map[string]labels.Set
	resources  map[corev1.ResourceName]int
	topologies map[string]*topology
	images     map[string][]holder
	layouts    map[*topology]*layout

	groups     []*group // every template that was booked or placed
	byTemplate map[*Template]*group
	byWorkload map[api.Identity][]*group
	byPair     map[pair][]*group
	pairTerms  map[pair][]groupTerm // terms of groups, by a label of what they select
	looseTerms []groupTerm

	evictable [][]candidate // by node, the most important first
	budgets   []budget
	limited   bool
	left      int64 // of the work that may be done in all, when limited
}

type node struct {
	object *corev1.Node // its name and labels, for the helpers
	closed string
	gone   bool
	taints int32 // which of the fleet's sets of taints
	ports  []portUse
	groups []groupSlot
}

type portUse struct {
	api.HostPort
	pods int32
}

// extended are amounts of resources that few nodes have.
type extended struct{ all, taken []int64 }

// A holder is a node that has an image.
type holder struct {
	node int32
	size int64
}

// A group is the pods of one template.
type group struct {
	id      int // its place among the groups
	t       *Template
	slots   []slot
	needs   []need
	lacking []corev1.ResourceName // what no node has any of

	// What is worked out when the group is placed first.
	tolerated []toleration // by set of taints
	required  *verdicts
	wanted    *verdicts
}

// A slot is how many pods of a group are on a node.
type slot struct{ node, count int32 }

// A groupSlot is where the pods of a node are counted.
type groupSlot struct {
	group *group
	slot  int32
}

// NewFleet makes a fleet of nodes without pods. Namespaces are labels by name;
// one that is missing has no labels but its name. An error names a node that is
// there twice.
func NewFleet(nodes []Node, namespaces map[string]map[string]string) (*Fleet, error) {
	f := &Fleet{
		nodes: make([]node, len(nodes)), index: make(map[string]int32, len(nodes)), loads: make([]load, len(nodes)), extra: make([]extended, len(nodes)),
		spaces: make(map[string]labels.Set, len(namespaces)), resources: map[corev1.ResourceName]int{}, topologies: map[string]*topology{}, images: map[string][]holder{}, layouts: map[*topology]*layout{},
		byTemplate: map[*Template]*group{}, byWorkload: map[api.Identity][]*group{}, byPair: map[pair][]*group{}, pairTerms: map[pair][]groupTerm{},
	}
	for name, own := range namespaces {
		all := labels.Set{corev1.LabelMetadataName: name}
		maps.Copy(all, own)
		f.spaces[name] = all
	}
	ordered := slices.Clone(nodes)
	slices.SortFunc(ordered, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	f.nameResources(ordered)
	sets := map[string]int32{}
	for i := range ordered {
		if i > 0 && ordered[i].Name == ordered[i-1].Name {
			return nil, fmt.Errorf("make a fleet: two nodes are named %q", ordered[i].Name)
		}
		f.addNode(int32(i), &ordered[i], sets)
	}
	return f, nil
}

// nameResources gives every resource that a node has a place.
func (f *Fleet) nameResources(nodes []Node) {
	var others []corev1.ResourceName
	for i := range nodes {
		for name := range nodes[i].Allocatable {
			if !slices.Contains(fixedResources[:], name) && !slices.Contains(others, name) {
				others = append(others, name)
			}
		}
	}
	slices.Sort(others)
	for i, name := range append(fixedResources[:], others...) {
		f.resources[name] = i
	}
}

func (f *Fleet) addNode(i int32, from *Node, sets map[string]int32) {
	f.index[from.Name] = i
	f.nodes[i] = node{
		object: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: from.Name, Labels: from.Labels}},
		closed: from.Closed, gone: from.Gone,
	}
	f.extra[i] = extended{all: make([]int64, len(f.resources)-fixed), taken: make([]int64, len(f.resources)-fixed)}
	for name, quantity := range from.Allocatable {
		amount := min(amountOf(name, quantity), most-1)
		if r := f.resources[name]; r < fixed {
			f.loads[i].all[r] = amount
		} else {
			f.extra[i].all[r-fixed] = amount
		}
	}
	f.loads[i].all[pods] = min(f.loads[i].all[pods], mostPods-1)
	key := fmt.Sprint(from.Taints)
	set, known := sets[key]
	if !known {
		set = int32(len(f.taints))
		sets[key] = set
		f.taints = append(f.taints, slices.Clone(from.Taints))
	}
	f.nodes[i].taints = set
	for _, image := range from.Images {
		for _, name := range image.Names {
			name = imageName(name)
			if held := f.images[name]; len(held) == 0 || held[len(held)-1].node != i {
				f.images[name] = append(held, holder{node: i, size: min(max(image.Size, 0), most)})
			}
		}
	}
}

// Limit bounds the work that Place, PlaceEach and Preempt do together from now
// on, in steps of a few nanoseconds each: about one for each node that is looked
// at. What is refused because of it says so.
func (f *Fleet) Limit(steps int64) { f.limited, f.left = true, steps }

func (f *Fleet) namespaceLabels(name string) labels.Set {
	if own, declared := f.spaces[name]; declared {
		return own
	}
	return labels.Set{corev1.LabelMetadataName: name}
}

// Book notes that a node has pods of a template, also more than it has room for.
// Pods of a node that the fleet does not have are ignored.
func (f *Fleet) Book(t *Template, name string, count int) {
	if i, known := f.index[name]; known && count > 0 {
		f.book(f.group(t), i, int32(min(count, mostPods)))
	}
}

// Release takes back what was booked or placed, and never more than that.
func (f *Fleet) Release(t *Template, name string, count int) {
	i, known := f.index[name]
	if !known || count <= 0 {
		return
	}
	g := f.group(t)
	if s := f.nodes[i].slot(g); s >= 0 {
		f.book(g, i, -min(g.slots[s].count, int32(min(count, mostPods))))
	}
}

// Count returns how many pods of a template a node has.
func (f *Fleet) Count(t *Template, name string) int {
	g, i := f.byTemplate[t], f.index[name]
	if g == nil || int(i) >= len(f.nodes) || f.nodes[i].object.Name != name {
		return 0
	}
	if s := f.nodes[i].slot(g); s >= 0 {
		return int(g.slots[s].count)
	}
	return 0
}

func (n *node) slot(g *group) int32 {
	for _, s := range n.groups {
		if s.group == g {
			return s.slot
		}
	}
	return -1
}

// book adds pods of a group to a node; a negative number takes them away.
func (f *Fleet) book(g *group, i, count int32) {
	f.occupy(g, i, count)
	n := &f.nodes[i]
	if s := n.slot(g); s >= 0 {
		g.slots[s].count += count
		return
	}
	n.groups = append(n.groups, groupSlot{g, int32(len(g.slots))})
	g.slots = append(g.slots, slot{i, count})
}

// occupy changes what is left on a node.
func (f *Fleet) occupy(g *group, i, count int32) {
	l := &f.loads[i]
	for _, need := range g.needs {
		if need.resource < fixed {
			l.taken[need.resource] += need.amount * int64(count)
		} else {
			f.extra[i].taken[need.resource-fixed] += need.amount * int64(count)
		}
	}
	l.taken[pods] += int64(count)
	l.weighed[cpu] += g.t.weighed[cpu] * int64(count)
	l.weighed[memory] += g.t.weighed[memory] * int64(count)
	for _, port := range g.t.mold.HostPorts {
		f.nodes[i].occupyPort(port, count)
	}
}

func (n *node) occupyPort(port api.HostPort, count int32) {
	for k := range n.ports {
		if n.ports[k].HostPort == port {
			if n.ports[k].pods += count; n.ports[k].pods == 0 {
				n.ports = slices.Delete(n.ports, k, k+1)
			}
			return
		}
	}
	n.ports = append(n.ports, portUse{port, count})
}

// occupies reports whether a port collides with one in use: the same port and
// protocol on the same address, or on all of them.
func (n *node) occupies(want api.HostPort) bool {
	for _, port := range n.ports {
		if port.Port == want.Port && port.Protocol == want.Protocol && (wildcard(port.IP) || wildcard(want.IP) || port.IP == want.IP) {
			return true
		}
	}
	return false
}

func wildcard(ip string) bool { return ip == "" || ip == "0.0.0.0" }

// group returns the group of a template, which the fleet knows from now on.
func (f *Fleet) group(t *Template) *group {
	if g := f.byTemplate[t]; g != nil {
		return g
	}
	g := &group{id: len(f.groups), t: t}
	for _, r := range t.requests {
		if place, has := f.resources[r.name]; has {
			g.needs = append(g.needs, need{place, r.amount})
		} else {
			g.lacking = append(g.lacking, r.name)
		}
	}
	f.byTemplate[t] = g
	f.groups = append(f.groups, g)
	if t.mold.Workload.Owner != "" {
		f.byWorkload[t.mold.Workload] = append(f.byWorkload[t.mold.Workload], g)
	}
	for key, value := range t.labels { // each into a list of its own: the order does not matter
		f.byPair[pair{key, value}] = append(f.byPair[pair{key, value}], g)
	}
	f.indexTerms(g)
	return g
}

// A groupTerm is a term of a group's pods, which may select a pod to be placed.
type groupTerm struct {
	group  *group
	term   *term
	apart  bool // required anti-affinity, else an attraction
	weight int64
}

// attraction is what required affinity of a pod that runs weighs in the score of
// one that it selects: kube-scheduler's hardPodAffinityWeight.
const attraction = 1

func (f *Fleet) indexTerms(g *group) {
	note := func(terms []term, apart bool, weight func(*term) int64) {
		for k := range terms {
			t := groupTerm{group: g, term: &terms[k], apart: apart, weight: weight(&terms[k])}
			if t.term.exact {
				f.pairTerms[t.term.pair] = append(f.pairTerms[t.term.pair], t)
			} else {
				f.looseTerms = append(f.looseTerms, t)
			}
		}
	}
	note(g.t.apart, true, func(*term) int64 { return 0 })
	note(g.t.together, false, func(*term) int64 { return attraction })
	note(g.t.preferred, false, func(t *term) int64 { return t.weight })
}

// selected calls visit for every group with pods that a term selects.
func (f *Fleet) selected(t *term, visit func(*group)) {
	groups := f.groups
	if t.exact {
		groups = f.byPair[t.pair]
	}
	for _, g := range groups {
		if len(g.slots) > 0 && t.selects(f, g.t) {
			visit(g)
		}
	}
}

// selecting calls visit for every term of pods that run which selects a
// template.
func (f *Fleet) selecting(t *Template, visit func(groupTerm)) {
	look := func(terms []groupTerm) {
		for _, term := range terms {
			if len(term.group.slots) > 0 && term.term.selects(f, t) {
				visit(term)
			}
		}
	}
	look(f.looseTerms)
	for key, value := range t.labels { // what is visited is added up: the order does not matter
		look(f.pairTerms[pair{key, value}])
	}
}
