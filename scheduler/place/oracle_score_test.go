package place

import (
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	requests "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// scores returns the whole score of each node that passes.
func (o *oracle) scores(p oraclePod, feasible []Node) []int64 {
	out := make([]int64, len(feasible))
	points := make([]int64, len(feasible))
	add := func(to []int64, weight int64, from []int64) {
		for k := range to {
			to[k] += weight * from[k]
		}
	}
	add(points, 3, o.taintScores(p, feasible))
	add(points, 2, o.affinityScores(p, feasible))
	add(points, 2, o.podScores(p, feasible))
	switch soft := spreadsOf(p, corev1.ScheduleAnyway); {
	case len(p.spec.TopologySpreadConstraints) == 0 && p.workload.Owner != "":
		for k := range points {
			points[k] *= preference
		}
		add(points, -1, o.mateScores(p, feasible))
	case len(soft) > 0:
		add(points, 2, o.spreadScores(p, soft, feasible))
	}
	add(out, 1, points)
	for k, n := range feasible {
		out[k] += o.usageScore(p, n) + o.imageScore(p, n)
	}
	return out
}

func normalise(raw []int64) []int64 {
	most := slices.Max(append([]int64{0}, raw...))
	for k := range raw {
		if most > 0 {
			raw[k] = 100 * raw[k] / most
		}
	}
	return raw
}

func (o *oracle) taintScores(p oraclePod, feasible []Node) []int64 {
	raw := make([]int64, len(feasible))
	for k, n := range feasible {
		for _, t := range n.Taints {
			if t.Effect == corev1.TaintEffectPreferNoSchedule && !toleratedBy(p, t) {
				raw[k]++
			}
		}
	}
	raw = normalise(raw)
	for k := range raw {
		raw[k] = 100 - raw[k]
	}
	return raw
}

func (o *oracle) affinityScores(p oraclePod, feasible []Node) []int64 {
	raw := make([]int64, len(feasible))
	if p.spec.Affinity == nil || p.spec.Affinity.NodeAffinity == nil {
		return raw
	}
	terms, _ := nodeaffinity.NewPreferredSchedulingTerms(p.spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	for k, n := range feasible {
		raw[k] = terms.Score(object(n))
	}
	return normalise(raw)
}

func preferredTermsOf(p oraclePod) []corev1.WeightedPodAffinityTerm {
	var out []corev1.WeightedPodAffinityTerm
	if a := p.spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			out = append(out, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution...)
		}
		if a.PodAntiAffinity != nil {
			for _, w := range a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
				w.Weight = -w.Weight
				out = append(out, w)
			}
		}
	}
	return out
}

func (o *oracle) podScores(p oraclePod, feasible []Node) []int64 {
	raw := make([]int64, len(feasible))
	for k, n := range feasible {
		for _, other := range o.pods {
			for _, w := range preferredTermsOf(p) {
				if o.selects(p, w.PodAffinityTerm, other) && o.near(other, n, w.PodAffinityTerm.TopologyKey) {
					raw[k] += int64(w.Weight)
				}
			}
			for _, w := range preferredTermsOf(other) {
				if o.selects(other, w.PodAffinityTerm, p) && o.near(other, n, w.PodAffinityTerm.TopologyKey) {
					raw[k] += int64(w.Weight)
				}
			}
			together, _ := requiredTermsOf(other)
			for _, t := range together {
				if o.selects(other, t, p) && o.near(other, n, t.TopologyKey) {
					raw[k]++
				}
			}
		}
	}
	if len(raw) == 0 {
		return raw
	}
	least, most := slices.Min(raw), slices.Max(raw)
	for k := range raw {
		if raw[k] -= least; most > least {
			raw[k] = 100 * raw[k] / (most - least)
		}
	}
	return raw
}

// mateScores is what pods of the same workload count for by default.
func (o *oracle) mateScores(p oraclePod, feasible []Node) []int64 {
	raw := make([]int64, len(feasible))
	for k, n := range feasible {
		for _, other := range o.pods {
			if other.workload != p.workload || o.labels(other.node) == nil && !slices.ContainsFunc(o.nodes, func(n Node) bool { return n.Name == other.node }) {
				continue
			}
			if other.node == n.Name {
				raw[k] += perNode
			}
			here, has := n.Labels[corev1.LabelTopologyZone]
			there, also := o.labels(other.node)[corev1.LabelTopologyZone]
			if has == also && here == there {
				raw[k] += perZone
			}
		}
	}
	return raw
}

func (o *oracle) spreadScores(p oraclePod, soft []corev1.TopologySpreadConstraint, feasible []Node) []int64 {
	complete := func(n Node) bool {
		return !slices.ContainsFunc(soft, func(c corev1.TopologySpreadConstraint) bool { _, has := n.Labels[c.TopologyKey]; return !has })
	}
	raw := make([]int64, len(feasible))
	sums := make([]float64, len(feasible))
	for _, c := range soft {
		domains := map[string]bool{}
		for _, n := range feasible {
			if complete(n) {
				domain := n.Labels[c.TopologyKey]
				if c.TopologyKey == corev1.LabelHostname {
					domain = n.Name
				}
				domains[domain] = true
			}
		}
		for k, n := range feasible {
			count := 0
			for _, other := range o.nodes {
				if c.TopologyKey == corev1.LabelHostname && other.Name != n.Name ||
					c.TopologyKey != corev1.LabelHostname && (other.Labels[c.TopologyKey] != n.Labels[c.TopologyKey] || !counts(p, soft, c, other)) {
					continue
				}
				for _, running := range o.on(other.Name) {
					if counted(p, c, running) {
						count++
					}
				}
			}
			sums[k] += float64(count)*math.Log(float64(len(domains)+2)) + float64(c.MaxSkew-1)
		}
	}
	least, most := int64(math.MaxInt64), int64(0)
	for k, n := range feasible {
		if complete(n) {
			raw[k] = int64(math.Round(sums[k]))
			least, most = min(least, raw[k]), max(most, raw[k])
		}
	}
	for k, n := range feasible {
		switch {
		case !complete(n):
			raw[k] = 0
		case most == 0:
			raw[k] = 100
		default:
			raw[k] = 100 * (most + least - raw[k]) / most
		}
	}
	return raw
}

func (o *oracle) usageScore(p oraclePod, n Node) int64 {
	weighed := requests.PodResourcesOptions{NonMissingContainerRequests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("200Mi"),
	}}
	least, resources := int64(0), int64(0)
	var before, after []float64
	var asked int64
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		all := n.Allocatable[name]
		if all.IsZero() {
			continue
		}
		plain := func(p oraclePod, options requests.PodResourcesOptions) int64 {
			q := requests.PodRequests(&corev1.Pod{Spec: *p.spec}, options)[name]
			if name == corev1.ResourceCPU {
				return q.MilliValue()
			}
			return q.Value()
		}
		total := all.Value()
		if name == corev1.ResourceCPU {
			total = all.MilliValue()
		}
		used, real := plain(p, weighed), int64(0)
		for _, other := range o.on(n.Name) {
			used += plain(other, weighed)
			real += plain(other, requests.PodResourcesOptions{})
		}
		least += max(0, 100*(total-used)/total)
		resources++
		before = append(before, min(1, float64(real)/float64(total)))
		after = append(after, min(1, float64(real+plain(p, requests.PodResourcesOptions{}))/float64(total)))
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		q := requests.PodRequests(&corev1.Pod{Spec: *p.spec}, requests.PodResourcesOptions{})[name]
		asked += q.MilliValue()
	}
	score := int64(0)
	if resources > 0 {
		score = least / resources
	}
	if asked > 0 {
		score += 50 + (50+even(after)-even(before))/2
	}
	return score
}

func even(shares []float64) int64 {
	if len(shares) < 2 {
		return 100
	}
	return int64((1 - math.Abs(shares[0]-shares[1])/2) * 100)
}

func (o *oracle) imageScore(p oraclePod, n Node) int64 {
	size := func(n Node, name string) int64 {
		for _, image := range n.Images {
			if slices.Contains(image.Names, name) || slices.Contains(image.Names, strings.TrimSuffix(name, ":latest")) {
				return image.Size
			}
		}
		return 0
	}
	sum := int64(0)
	for _, c := range p.spec.Containers {
		holders := 0
		for _, other := range o.nodes {
			if size(other, c.Image) > 0 {
				holders++
			}
		}
		sum += int64(float64(size(n, c.Image)) * (float64(holders) / float64(len(o.nodes))))
	}
	highest := int64(len(p.spec.Containers)) * 1000 << 20
	return 100 * (min(max(sum, 23<<20), highest) - 23<<20) / (highest - 23<<20)
}
