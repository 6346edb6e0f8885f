package place

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// Reserve is how full, in percent, the pods of a careful demand may make a node.
const Reserve = 80

// A Demand is what is to be placed.
type Demand struct {
	Template *Template
	Careful  bool // leave the reserve
	// Volumes are what nodes must be for the volumes that the pods are bound to;
	// all of them hold.
	Volumes []*corev1.NodeSelector
	// Within are the only nodes that the pods' volumes can be reached from; nil
	// when all are.
	Within []string
}

// A run is the placing of one demand.
type run struct {
	f       *Fleet
	g       *group
	t       *Template
	careful bool
	within  []bool // nil for all nodes
	volumes []*verdicts
	rules   rules
	steps   int64
}

// An obstacle keeps a pod from a node.
type obstacle uint8

const (
	fits obstacle = iota
	closed
	otherName
	otherLabels
	tainted
	otherVolume
	// What follows can change while pods are placed or released.
	tooManyPods
	insufficient
	portTaken
	unlabelled
	skewed
	notTogether
	notApart
	shunned
	reserved
)

// helped reports whether removing pods of the node could help.
// Source: kube-scheduler preempts only on nodes whose obstacle is not said to be
// unresolvable.
func (o obstacle) helped() bool {
	return o >= tooManyPods && o != unlabelled && o != notTogether
}

func (f *Fleet) start(d Demand) *run {
	r := &run{f: f, g: f.group(d.Template), t: d.Template, careful: d.Careful}
	f.admit(r.g)
	for _, selector := range d.Volumes {
		if selector != nil {
			r.volumes = append(r.volumes, f.newVerdicts(volumeTerms(selector)))
		}
	}
	if d.Within != nil {
		r.within = make([]bool, len(f.nodes))
		for _, name := range d.Within {
			if i, known := f.index[name]; known {
				r.within[i] = true
			}
		}
	}
	r.newRules()
	return r
}

// admit works out, when a group is placed first, what does not change.
func (f *Fleet) admit(g *group) {
	if g.tolerated != nil {
		return
	}
	g.tolerated = make([]toleration, len(f.taints))
	for set, taints := range f.taints {
		g.tolerated[set] = tolerates(g.t.mold.Nodes.Tolerations, taints)
	}
	g.required = f.newVerdicts(g.t.required)
	g.wanted = f.newVerdicts(g.t.wanted)
}

// A toleration is what a pod makes of a set of taints.
type toleration struct {
	refused  int   // the first taint that keeps the pod away; -1 for none
	disliked int32 // how many others it had better avoid
}

func tolerates(tolerations []corev1.Toleration, taints []corev1.Taint) toleration {
	out := toleration{refused: -1}
	for k := range taints {
		taint := &taints[k]
		if Tolerates(tolerations, taint) {
			continue
		}
		switch taint.Effect {
		case corev1.TaintEffectPreferNoSchedule:
			out.disliked++
		case corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute:
			if out.refused < 0 {
				out.refused = k
			}
		}
	}
	return out
}

// Tolerates reports whether one of the tolerations matches a taint.
func Tolerates(tolerations []corev1.Toleration, taint *corev1.Taint) bool {
	return slices.ContainsFunc(tolerations, func(t corev1.Toleration) bool { return tolerated(&t, taint) })
}

// tolerated reports whether a toleration matches a taint.
// Source: Kubernetes, "Taints and Tolerations"; for Lt and Gt KEP-5471: the
// taint's value is less, or more, than that of the toleration, both as numbers.
func tolerated(t *corev1.Toleration, taint *corev1.Taint) bool {
	if taint.Effect == corev1.TaintEffectNoExecute && t.TolerationSeconds != nil && *t.TolerationSeconds <= 0 {
		return false // it would be ended at once
	}
	if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
		return false
	}
	if t.Operator == corev1.TolerationOpExists {
		return true
	}
	if t.Key == "" {
		return false
	}
	switch t.Operator {
	case "", corev1.TolerationOpEqual:
		return t.Value == taint.Value
	case corev1.TolerationOpLt, corev1.TolerationOpGt:
		limit, value, ok := numbers(t.Value, taint.Value)
		return ok && (t.Operator == corev1.TolerationOpLt && value < limit || t.Operator == corev1.TolerationOpGt && value > limit)
	}
	return false
}

// numbers reads decimal numbers as they are usually written: without leading
// zeros or a plus sign.
func numbers(a, b string) (x, y int64, ok bool) {
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	return x, y, errX == nil && errY == nil && strconv.FormatInt(x, 10) == a && strconv.FormatInt(y, 10) == b
}

// still says what keeps the pod from a node whatever runs; fits for nothing.
func (r *run) still(i int32) obstacle {
	n := &r.f.nodes[i]
	switch {
	case n.closed != "":
		return closed
	case r.t.mold.Nodes.Name != "" && r.t.mold.Nodes.Name != n.object.Name:
		return otherName
	case r.g.required != nil && r.g.required.of(r.f, i) == 0:
		return otherLabels
	case r.g.tolerated[n.taints].refused >= 0:
		return tainted
	case r.within != nil && !r.within[i]:
		return otherVolume
	}
	for _, v := range r.volumes {
		if v.of(r.f, i) == 0 {
			return otherVolume
		}
	}
	return fits
}

// moving says what keeps the pod from a node now; fits for nothing.
func (r *run) moving(i int32) obstacle {
	if o := r.lack(i); o != fits {
		return o
	}
	return r.rules.refuse(i)
}

// lack says what the node has too little of; fits for nothing.
func (r *run) lack(i int32) obstacle {
	l := &r.f.loads[i]
	if l.taken[pods] >= l.all[pods] {
		return tooManyPods
	}
	if len(r.g.lacking) > 0 {
		return insufficient
	}
	for k := range r.g.needs {
		if all, taken := r.f.room(i, r.g.needs[k].resource); taken+r.g.needs[k].amount > all {
			return insufficient
		}
	}
	if len(r.t.mold.HostPorts) > 0 && slices.ContainsFunc(r.t.mold.HostPorts, r.f.nodes[i].occupies) {
		return portTaken
	}
	if r.careful && r.fills(i) {
		return reserved
	}
	return fits
}

// room returns what a node has of a resource, and what is taken.
func (f *Fleet) room(i int32, resource int) (all, taken int64) {
	if resource < fixed {
		return f.loads[i].all[resource], f.loads[i].taken[resource]
	}
	return f.extra[i].all[resource-fixed], f.extra[i].taken[resource-fixed]
}

// fills reports whether the pod would take from a node what is kept in reserve.
func (r *run) fills(i int32) bool {
	if all, taken := r.f.room(i, pods); beyondReserve(all, taken, 1) {
		return true
	}
	return slices.ContainsFunc(r.g.needs, func(n need) bool {
		all, taken := r.f.room(i, n.resource)
		return beyondReserve(all, taken, n.amount)
	})
}
