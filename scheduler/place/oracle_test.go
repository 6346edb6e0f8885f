package place

import (
	"maps"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	requests "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/shoal-dev/shoal/api"
)

// An oracle places pods the slow way: one by one, asking every node about every
// pod of the fleet, straight from the words of the documentation. It shares
// nothing with the package but its weights.
type oracle struct {
	nodes  []Node // by name
	spaces map[string]map[string]string
	pods   []oraclePod
}

type oraclePod struct {
	workload api.Identity
	labels   map[string]string
	spec     *corev1.PodSpec
	node     string
}

// place returns the node for one more pod, "" when there is none, and puts the
// pod there.
func (o *oracle) place(p oraclePod, careful bool) string {
	var feasible []Node
	for _, n := range o.nodes {
		if o.passes(p, n, careful) {
			feasible = append(feasible, n)
		}
	}
	best, height := "", int64(0)
	for k, score := range o.scores(p, feasible) {
		if best == "" || score > height {
			best, height = feasible[k].Name, score
		}
	}
	if best != "" {
		p.node = best
		o.pods = append(o.pods, p)
	}
	return best
}

func (o *oracle) on(node string) []oraclePod {
	var out []oraclePod
	for _, p := range o.pods {
		if p.node == node {
			out = append(out, p)
		}
	}
	return out
}

func (o *oracle) labels(node string) map[string]string {
	for _, n := range o.nodes {
		if n.Name == node {
			return n.Labels
		}
	}
	return nil
}

func (o *oracle) passes(p oraclePod, n Node, careful bool) bool {
	return n.Closed == "" && (p.spec.NodeName == "" || p.spec.NodeName == n.Name) && matchesNode(p, n) && toleratesAll(p, n) &&
		o.roomFor(p, n, careful) && o.portsFor(p, n) && o.spreads(p, n) && o.friends(p, n)
}

func object(n Node) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.Labels}}
}

func matchesNode(p oraclePod, n Node) bool {
	ok, err := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: *p.spec}).Match(object(n))
	return err == nil && ok
}

func toleratedBy(p oraclePod, taint corev1.Taint) bool {
	for _, t := range p.spec.Tolerations {
		if (t.Effect == "" || t.Effect == taint.Effect) && (t.Key == "" || t.Key == taint.Key) && (t.Operator == corev1.TolerationOpExists || t.Key != "" && t.Value == taint.Value) {
			return true
		}
	}
	return false
}

func toleratesAll(p oraclePod, n Node) bool {
	return !slices.ContainsFunc(n.Taints, func(t corev1.Taint) bool {
		return t.Effect != corev1.TaintEffectPreferNoSchedule && !toleratedBy(p, t)
	})
}

func (o *oracle) roomFor(p oraclePod, n Node, careful bool) bool {
	want := requests.PodRequests(&corev1.Pod{Spec: *p.spec}, requests.PodResourcesOptions{})
	want[corev1.ResourcePods] = resource.MustParse("1")
	for name, quantity := range want {
		if quantity.IsZero() {
			continue
		}
		for _, other := range o.on(n.Name) {
			if name == corev1.ResourcePods {
				quantity.Add(resource.MustParse("1"))
				continue
			}
			quantity.Add(requests.PodRequests(&corev1.Pod{Spec: *other.spec}, requests.PodResourcesOptions{})[name])
		}
		all := n.Allocatable[name]
		if quantity.Cmp(all) > 0 || careful && quantity.MilliValue() > all.MilliValue()*Reserve/100 {
			return false
		}
	}
	return true
}

func portsOf(spec *corev1.PodSpec) []corev1.ContainerPort {
	var out []corev1.ContainerPort
	for _, c := range spec.Containers {
		for _, port := range c.Ports {
			if port.HostPort > 0 {
				out = append(out, port)
			}
		}
	}
	return out
}

func (o *oracle) portsFor(p oraclePod, n Node) bool {
	anywhere := func(ip string) bool { return ip == "" || ip == "0.0.0.0" }
	for _, other := range o.on(n.Name) {
		for _, a := range portsOf(other.spec) {
			for _, b := range portsOf(p.spec) {
				if a.HostPort == b.HostPort && a.Protocol == b.Protocol && (anywhere(a.HostIP) || anywhere(b.HostIP) || a.HostIP == b.HostIP) {
					return false
				}
			}
		}
	}
	return true
}

// selects reports whether a pod's affinity term selects another pod.
func (o *oracle) selects(owner oraclePod, t corev1.PodAffinityTerm, other oraclePod) bool {
	inSpace := slices.Contains(t.Namespaces, other.workload.Namespace)
	if t.NamespaceSelector != nil {
		selector, _ := metav1.LabelSelectorAsSelector(t.NamespaceSelector)
		space := labels.Set{corev1.LabelMetadataName: other.workload.Namespace}
		maps.Copy(space, o.spaces[other.workload.Namespace])
		inSpace = inSpace || selector.Matches(space)
	} else if len(t.Namespaces) == 0 {
		inSpace = owner.workload.Namespace == other.workload.Namespace
	}
	selector, _ := metav1.LabelSelectorAsSelector(t.LabelSelector)
	if !inSpace || !selector.Matches(labels.Set(other.labels)) {
		return false
	}
	for _, key := range t.MatchLabelKeys {
		mine, has := owner.labels[key]
		if theirs, also := other.labels[key]; has && (!also || mine != theirs) {
			return false
		}
	}
	for _, key := range t.MismatchLabelKeys {
		mine, has := owner.labels[key]
		if theirs, also := other.labels[key]; has && also && mine == theirs {
			return false
		}
	}
	return true
}

func requiredTermsOf(p oraclePod) (together, apart []corev1.PodAffinityTerm) {
	if a := p.spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			together = a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		}
		if a.PodAntiAffinity != nil {
			apart = a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		}
	}
	return together, apart
}

// near reports whether a pod that runs is in the same domain as a node.
func (o *oracle) near(p oraclePod, n Node, key string) bool {
	there, has := o.labels(p.node)[key]
	here, also := n.Labels[key]
	return has && also && there == here
}

func (o *oracle) friends(p oraclePod, n Node) bool {
	together, apart := requiredTermsOf(p)
	for _, other := range o.pods {
		for _, t := range apart {
			if o.selects(p, t, other) && o.near(other, n, t.TopologyKey) {
				return false
			}
		}
		_, theirs := requiredTermsOf(other)
		for _, t := range theirs {
			if o.selects(other, t, p) && o.near(other, n, t.TopologyKey) {
				return false
			}
		}
	}
	return o.beside(p, n, together)
}

func (o *oracle) beside(p oraclePod, n Node, together []corev1.PodAffinityTerm) bool {
	all := func(other oraclePod) bool {
		return !slices.ContainsFunc(together, func(t corev1.PodAffinityTerm) bool { return !o.selects(p, t, other) })
	}
	anywhere := slices.ContainsFunc(o.pods, func(other oraclePod) bool {
		return all(other) && slices.ContainsFunc(together, func(t corev1.PodAffinityTerm) bool { _, has := o.labels(other.node)[t.TopologyKey]; return has })
	})
	for _, t := range together {
		if _, has := n.Labels[t.TopologyKey]; !has {
			return false
		}
		if !slices.ContainsFunc(o.pods, func(other oraclePod) bool { return all(other) && o.near(other, n, t.TopologyKey) }) && (anywhere || !all(p)) {
			return false
		}
	}
	return true
}

func spreadsOf(p oraclePod, when corev1.UnsatisfiableConstraintAction) []corev1.TopologySpreadConstraint {
	var out []corev1.TopologySpreadConstraint
	for _, c := range p.spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable == when {
			out = append(out, c)
		}
	}
	return out
}

// counted reports whether a constraint counts a pod.
func counted(p oraclePod, c corev1.TopologySpreadConstraint, other oraclePod) bool {
	selector, _ := metav1.LabelSelectorAsSelector(c.LabelSelector)
	for _, key := range c.MatchLabelKeys {
		if value, has := p.labels[key]; has && c.LabelSelector != nil {
			equal, _ := labels.NewRequirement(key, "in", []string{value})
			selector = selector.Add(*equal)
		}
	}
	return !selector.Empty() && other.workload.Namespace == p.workload.Namespace && selector.Matches(labels.Set(other.labels))
}

// counts reports whether a node's pods and domains count for a constraint.
func counts(p oraclePod, all []corev1.TopologySpreadConstraint, c corev1.TopologySpreadConstraint, n Node) bool {
	for _, each := range all {
		if _, has := n.Labels[each.TopologyKey]; !has {
			return false
		}
	}
	if n.Gone || (c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor) && !matchesNode(p, n) {
		return false
	}
	return c.NodeTaintsPolicy == nil || *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyIgnore || toleratesAll(p, n)
}

func (o *oracle) spreads(p oraclePod, n Node) bool {
	all := spreadsOf(p, corev1.DoNotSchedule)
	for _, c := range all {
		here, has := n.Labels[c.TopologyKey]
		if !has {
			return false
		}
		domains := map[string]int{}
		for _, other := range o.nodes {
			if counts(p, all, c, other) {
				domains[other.Labels[c.TopologyKey]] += 0
				for _, running := range o.on(other.Name) {
					if counted(p, c, running) {
						domains[other.Labels[c.TopologyKey]]++
					}
				}
			}
		}
		least := math.MaxInt
		for _, count := range domains {
			least = min(least, count)
		}
		if c.MinDomains != nil && len(domains) < int(*c.MinDomains) || len(domains) == 0 {
			least = 0
		}
		self := 0
		selector, _ := metav1.LabelSelectorAsSelector(c.LabelSelector)
		if counted(p, c, p) || selector.Empty() && c.LabelSelector != nil {
			self = 1
		}
		if domains[here]+self-least > int(c.MaxSkew) {
			return false
		}
	}
	return true
}
