package place

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/shoal-dev/shoal/api"
)

// newTerm makes the term of a mold from that of a pod.
// Source: KEP-3633, "Introduce MatchLabelKeys and MismatchLabelKeys to
// PodAffinity and PodAntiAffinity": keys that the pod has no label for are
// ignored, and so are all keys when there is no selector.
func newTerm(from *corev1.PodAffinityTerm, own map[string]string, weight int32) api.MoldTerm {
	return api.MoldTerm{
		TopologyKey:       from.TopologyKey,
		Selector:          withKeys(from.LabelSelector, own, from.MatchLabelKeys, from.MismatchLabelKeys),
		Namespaces:        slices.Clone(from.Namespaces),
		NamespaceSelector: from.NamespaceSelector.DeepCopy(),
		Weight:            weight,
	}
}

// withKeys adds to a selector that some labels are the same as the template's,
// and that others are not.
func withKeys(selector *metav1.LabelSelector, own map[string]string, same, other []string) *metav1.LabelSelector {
	out := selector.DeepCopy()
	if out == nil {
		return nil
	}
	add := func(keys []string, operator metav1.LabelSelectorOperator) {
		for _, key := range keys {
			if value, has := own[key]; has {
				out.MatchExpressions = append(out.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: operator, Values: []string{value}})
			}
		}
	}
	add(same, metav1.LabelSelectorOpIn)
	add(other, metav1.LabelSelectorOpNotIn)
	return out
}

// A pair is a label and its value.
type pair struct{ key, value string }

// A term is an api.MoldTerm made ready: what it selects is found by a label where the
// selector names the value of one.
type term struct {
	key        string // of the topology
	selector   labels.Selector
	namespaces []string
	spaces     labels.Selector // of namespaces by their labels; nil for none
	pair       pair
	exact      bool // only pods with the pair are selected
	weight     int64
}

func compileTerm(namespace string, from api.MoldTerm) (term, error) {
	selector, err := metav1.LabelSelectorAsSelector(from.Selector)
	if err != nil {
		return term{}, fmt.Errorf("read its selector: %w", err)
	}
	t := term{key: from.TopologyKey, selector: selector, namespaces: from.Namespaces, weight: int64(from.Weight)}
	if from.NamespaceSelector != nil {
		if t.spaces, err = metav1.LabelSelectorAsSelector(from.NamespaceSelector); err != nil {
			return term{}, fmt.Errorf("read its selector of namespaces: %w", err)
		}
	} else if len(from.Namespaces) == 0 {
		t.namespaces = []string{namespace}
	}
	t.pair, t.exact = exactPair(selector)
	return t, nil
}

func compileTerms(namespace, what string, from []api.MoldTerm) ([]term, error) {
	out := make([]term, len(from))
	for i := range from {
		var err error
		if out[i], err = compileTerm(namespace, from[i]); err != nil {
			return nil, fmt.Errorf("compile term %d of %s: %w", i, what, err)
		}
	}
	return out, nil
}

// exactPair returns a label that everything selected has, with its value.
func exactPair(selector labels.Selector) (pair, bool) {
	requirements, _ := selector.Requirements()
	for _, r := range requirements {
		switch r.Operator() {
		case selection.In, selection.Equals, selection.DoubleEquals:
			if values := r.ValuesUnsorted(); len(values) == 1 {
				return pair{r.Key(), values[0]}, true
			}
		}
	}
	return pair{}, false
}

// selects reports whether the pods of a template are selected. A namespace that
// nobody declared has no labels but its name.
func (t *term) selects(f *Fleet, other *Template) bool {
	if !slices.Contains(t.namespaces, other.mold.Namespace) {
		if t.spaces == nil || !t.spaces.Matches(f.namespaceLabels(other.mold.Namespace)) {
			return false
		}
	}
	return t.selector.Matches(other.labels)
}
