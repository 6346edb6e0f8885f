package place

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/shoal-dev/shoal/api"
)

// nodeTerms ask nodes about their labels, by the helpers that kube-scheduler
// uses. The keys are all that the answer depends on, unless it depends on fields,
// which is to say on the name.
type nodeTerms struct {
	ask    func(*corev1.Node) int32 // nil when there is nothing to ask
	keys   []string
	byName bool
}

func requiredTerms(r *api.NodeRules) (nodeTerms, error) {
	var selector *corev1.NodeSelector
	if r.Affinity != nil {
		selector = r.Affinity.RequiredDuringSchedulingIgnoredDuringExecution
	}
	if selector == nil && len(r.Selector) == 0 {
		return nodeTerms{}, nil
	}
	if selector != nil {
		if _, err := nodeaffinity.NewNodeSelector(selector); err != nil {
			return nodeTerms{}, err
		}
	}
	affinity := nodeaffinity.NewRequiredNodeAffinity(r.Selector, &corev1.Affinity{NodeAffinity: r.Affinity})
	n := nodeTerms{keys: slices.Collect(maps.Keys(r.Selector)), ask: func(node *corev1.Node) int32 {
		if ok, err := affinity.Match(node); err == nil && ok {
			return 1
		}
		return 0
	}}
	if selector != nil {
		n.note(selector.NodeSelectorTerms...)
	}
	return n.ready(), nil
}

func preferredTerms(r *api.NodeRules) (nodeTerms, error) {
	if r.Affinity == nil || len(r.Affinity.PreferredDuringSchedulingIgnoredDuringExecution) == 0 {
		return nodeTerms{}, nil
	}
	terms := r.Affinity.PreferredDuringSchedulingIgnoredDuringExecution
	preferred, err := nodeaffinity.NewPreferredSchedulingTerms(terms)
	if err != nil {
		return nodeTerms{}, err
	}
	n := nodeTerms{ask: func(node *corev1.Node) int32 { return int32(min(preferred.Score(node), 1<<20)) }}
	for i := range terms {
		n.note(terms[i].Preference)
	}
	return n.ready(), nil
}

// volumeTerms asks whether a volume can be reached from a node.
func volumeTerms(selector *corev1.NodeSelector) nodeTerms {
	lazy := nodeaffinity.NewLazyErrorNodeSelector(selector)
	n := nodeTerms{ask: func(node *corev1.Node) int32 {
		if ok, err := lazy.Match(node); err == nil && ok {
			return 1
		}
		return 0
	}}
	n.note(selector.NodeSelectorTerms...)
	return n.ready()
}

func (n *nodeTerms) note(terms ...corev1.NodeSelectorTerm) {
	for i := range terms {
		n.byName = n.byName || len(terms[i].MatchFields) > 0
		for _, r := range terms[i].MatchExpressions {
			n.keys = append(n.keys, r.Key)
		}
	}
}

func (n *nodeTerms) ready() nodeTerms {
	slices.Sort(n.keys)
	n.keys = slices.Compact(n.keys)
	return *n
}

// mostClasses is how many classes of nodes the answers are kept of.
const mostClasses = 1 << 12

// verdicts are the answers of nodes. Nodes whose labels have the same values
// for all keys that matter are one class, which is asked once.
type verdicts struct {
	ask    func(*corev1.Node) int32
	labels []*topology
	known  []int32 // by class, plus one; nil when every node is asked
}

func (f *Fleet) newVerdicts(terms nodeTerms) *verdicts {
	if terms.ask == nil {
		return nil
	}
	v := &verdicts{ask: terms.ask}
	classes := 1
	for _, key := range terms.keys {
		topo := f.topology(key)
		v.labels = append(v.labels, topo)
		if classes *= topo.domains() + 1; classes > mostClasses {
			break
		}
	}
	if !terms.byName && classes <= mostClasses {
		v.known = make([]int32, classes)
	}
	return v
}

// of returns the answer of a node.
func (v *verdicts) of(f *Fleet, i int32) int32 {
	if v.known == nil {
		return v.ask(f.nodes[i].object)
	}
	class := 0
	for _, topo := range v.labels {
		class = class*(topo.domains()+1) + int(topo.of[i]+1)
	}
	if v.known[class] == 0 {
		v.known[class] = v.ask(f.nodes[i].object) + 1
	}
	return v.known[class] - 1
}
