package place

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	requests "k8s.io/component-helpers/resource"

	"github.com/shoal-dev/shoal/api"
)

// A Template is everything that placing needs to know of identical pods, made
// ready. It does not change and belongs to no fleet: keep it as long as the
// revision that it was made from.
type Template struct {
	mold     api.Mold
	labels   labels.Set
	requests []request
	weighed  [2]int64

	apart, together, preferred []term

	required   nodeTerms
	wanted     nodeTerms
	hard, soft []constraint
}

// A constraint is a topology spread constraint.
type constraint struct {
	term
	maxSkew, minDomains          int32
	honorsAffinity, honorsTaints bool
	counts                       bool // false when its selector is empty
	onNodes                      bool // of a soft one: counts on each node by itself
}

// Compile makes a template ready to be booked and placed. The workload names
// the namespace, and the pods that are spread over the nodes by default; one
// without an owner is not spread. Labels must be those of the pods, with
// pod-template-hash where a Deployment adds it: matchLabelKeys reads it. The
// spec must have Kubernetes' defaults. An error names the part that cannot be
// read.
func Compile(workload api.Identity, own map[string]string, spec *corev1.PodSpec) (*Template, error) {
	return Cast(newMold(workload, own, spec))
}

// RulesOf returns what a spec says of nodes. It shares what the spec points to.
func RulesOf(spec *corev1.PodSpec) api.NodeRules {
	r := api.NodeRules{
		Name: spec.NodeName, Selector: spec.NodeSelector, Tolerations: tolerations(spec), Spread: spec.TopologySpreadConstraints,
		Images: imagesOf(spec), Patient: spec.PreemptionPolicy != nil && *spec.PreemptionPolicy == corev1.PreemptNever,
	}
	if spec.Affinity != nil {
		r.Affinity = spec.Affinity.NodeAffinity
	}
	return r
}

// memoryToleration is that of pods which ask for processor time or memory: under
// memory pressure a node takes no others.
// Source: Kubernetes, "Taint Nodes by Condition".
var memoryToleration = corev1.Toleration{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}

// tolerations are those of a spec, and those that it gets for what it asks for.
func tolerations(spec *corev1.PodSpec) []corev1.Toleration {
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			for _, list := range []corev1.ResourceList{containers[i].Resources.Requests, containers[i].Resources.Limits} {
				if !list.Cpu().IsZero() || !list.Memory().IsZero() {
					return append(slices.Clip(spec.Tolerations), memoryToleration)
				}
			}
		}
	}
	return spec.Tolerations
}

// readRules makes ready what the mold says of nodes.
func (t *Template) readRules() error {
	r := &t.mold.Nodes
	var err error
	if t.required, err = requiredTerms(r); err != nil {
		return fmt.Errorf("compile required node affinity: %w", err)
	}
	if t.wanted, err = preferredTerms(r); err != nil {
		return fmt.Errorf("compile preferred node affinity: %w", err)
	}
	for i := range r.Spread {
		c, err := newConstraint(t.mold.Namespace, t.labels, &r.Spread[i])
		if err != nil {
			return fmt.Errorf("compile topology spread constraint %d: %w", i, err)
		}
		if r.Spread[i].WhenUnsatisfiable == corev1.ScheduleAnyway {
			t.soft = append(t.soft, c)
		} else {
			t.hard = append(t.hard, c)
		}
	}
	return nil
}

func newMold(workload api.Identity, own map[string]string, spec *corev1.PodSpec) api.Mold {
	pod := &corev1.Pod{Spec: *spec}
	weighed := requests.PodRequests(pod, requests.PodResourcesOptions{NonMissingContainerRequests: corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(100, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(200<<20, resource.BinarySI),
	}})
	r := api.Mold{
		Namespace: workload.Namespace, Workload: workload.Workload(), Labels: maps.Clone(own),
		Requests:  newAmounts(requests.PodRequests(pod, requests.PodResourcesOptions{})),
		Weighed:   Amounts{corev1.ResourceCPU: amountOf(corev1.ResourceCPU, weighed[corev1.ResourceCPU]), corev1.ResourceMemory: amountOf(corev1.ResourceMemory, weighed[corev1.ResourceMemory])},
		HostPorts: hostPorts(spec), Class: spec.PriorityClassName, Bounded: spec.ActiveDeadlineSeconds != nil, Nodes: RulesOf(spec),
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		list := newAmounts(c.Resources.Requests)
		if !lasting(spec, &c) || len(list) == 0 {
			continue
		}
		if r.Containers == nil {
			r.Containers = map[string]map[corev1.ResourceName]int64{}
		}
		r.Containers[c.Name] = list
	}
	if limits := newAmounts(requests.PodLimits(pod, requests.PodResourcesOptions{})); len(limits) > 0 {
		r.Limits = limits
	}
	if spec.Priority != nil {
		r.Priority = *spec.Priority
	}
	if spec.Affinity != nil && spec.Affinity.PodAffinity != nil {
		a := spec.Affinity.PodAffinity
		for i := range a.RequiredDuringSchedulingIgnoredDuringExecution {
			r.Together = append(r.Together, newTerm(&a.RequiredDuringSchedulingIgnoredDuringExecution[i], own, 0))
		}
		for i := range a.PreferredDuringSchedulingIgnoredDuringExecution {
			w := &a.PreferredDuringSchedulingIgnoredDuringExecution[i]
			r.Preferred = append(r.Preferred, newTerm(&w.PodAffinityTerm, own, w.Weight))
		}
	}
	if spec.Affinity != nil && spec.Affinity.PodAntiAffinity != nil {
		a := spec.Affinity.PodAntiAffinity
		for i := range a.RequiredDuringSchedulingIgnoredDuringExecution {
			r.Apart = append(r.Apart, newTerm(&a.RequiredDuringSchedulingIgnoredDuringExecution[i], own, 0))
		}
		for i := range a.PreferredDuringSchedulingIgnoredDuringExecution {
			w := &a.PreferredDuringSchedulingIgnoredDuringExecution[i]
			r.Preferred = append(r.Preferred, newTerm(&w.PodAffinityTerm, own, -w.Weight))
		}
	}
	return r
}

// lasting reports whether a container runs as long as its pod: it is one of the
// pod's own, or a sidecar.
func lasting(spec *corev1.PodSpec, c *corev1.Container) bool {
	own := slices.ContainsFunc(spec.Containers, func(o corev1.Container) bool { return o.Name == c.Name })
	return own || c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// Cast makes a template of what was kept of it, as good as the one that the mold
// was taken from. An error names the part that cannot be read.
func Cast(r api.Mold) (*Template, error) {
	t := &Template{mold: r, labels: r.Labels, requests: Amounts(r.Requests).sorted()}
	t.weighed = [2]int64{min(max(r.Weighed[corev1.ResourceCPU], 0), most), min(max(r.Weighed[corev1.ResourceMemory], 0), most)}
	var err error
	if t.apart, err = compileTerms(r.Namespace, "required pod anti-affinity", r.Apart); err != nil {
		return nil, err
	}
	if t.together, err = compileTerms(r.Namespace, "required pod affinity", r.Together); err != nil {
		return nil, err
	}
	if t.preferred, err = compileTerms(r.Namespace, "preferred pod affinity", r.Preferred); err != nil {
		return nil, err
	}
	if err := t.readRules(); err != nil {
		return nil, err
	}
	return t, nil
}

// Mold returns all that is known of the template's pods. It shares its slices and
// maps with the template: read only.
func (t *Template) Mold() api.Mold { return t.mold }

// Priority returns the priority of the template's pods.
func (t *Template) Priority() int32 { return t.mold.Priority }

// newConstraint reads a topology spread constraint.
// Source: Kubernetes, "Pod Topology Spread Constraints": minDomains is 1,
// nodeAffinityPolicy Honor and nodeTaintsPolicy Ignore when they are not set;
// keys of matchLabelKeys that the pod has no label for are ignored. That a
// selector which is empty counts no pods is what kube-scheduler does.
func newConstraint(namespace string, own labels.Set, from *corev1.TopologySpreadConstraint) (constraint, error) {
	t, err := compileTerm(namespace, api.MoldTerm{TopologyKey: from.TopologyKey, Selector: withKeys(from.LabelSelector, own, from.MatchLabelKeys, nil)})
	if err != nil {
		return constraint{}, err
	}
	c := constraint{term: t, maxSkew: from.MaxSkew, minDomains: 1, honorsAffinity: true, counts: !t.selector.Empty()}
	if from.MinDomains != nil {
		c.minDomains = *from.MinDomains
	}
	if from.NodeAffinityPolicy != nil {
		c.honorsAffinity = *from.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor
	}
	if from.NodeTaintsPolicy != nil {
		c.honorsTaints = *from.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor
	}
	c.onNodes = from.WhenUnsatisfiable == corev1.ScheduleAnyway && from.TopologyKey == corev1.LabelHostname
	return c, nil
}

func hostPorts(spec *corev1.PodSpec) []api.HostPort {
	var out []api.HostPort
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for _, c := range containers {
			for _, p := range c.Ports {
				if p.HostPort > 0 {
					out = append(out, api.HostPort{Protocol: cmp.Or(p.Protocol, corev1.ProtocolTCP), IP: p.HostIP, Port: p.HostPort})
				}
			}
		}
	}
	return out
}

// imagesOf lists the images that a pod needs, one for each container and each
// volume made of one.
func imagesOf(spec *corev1.PodSpec) []string {
	var out []string
	for _, c := range spec.InitContainers {
		out = append(out, imageName(c.Image))
	}
	for _, c := range spec.Containers {
		out = append(out, imageName(c.Image))
	}
	for _, v := range spec.Volumes {
		if v.Image != nil {
			out = append(out, imageName(v.Image.Reference))
		}
	}
	return out
}

// imageName adds the tag that a name without one means.
func imageName(name string) string {
	if strings.LastIndexByte(name, ':') <= strings.LastIndexByte(name, '/') {
		return name + ":latest"
	}
	return name
}
