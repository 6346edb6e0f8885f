package scheduler

import (
	"fmt"
	"math"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-dev/shoal/api"
)

const (
	// warmUp is how long after its start a pod's processor time does not count
	// while the pod is not ready, or has become so since it was measured.
	// Source: Kubernetes, --horizontal-pod-autoscaler-cpu-initialization-period.
	warmUp = 5 * time.Minute
	// usageHolds is for how long a usage is believed. A node on which
	// autoscaled pods run tells it at least every minute.
	usageHolds = 3 * time.Minute
	// usageWindow is how long a measurement takes when its node does not say.
	usageWindow = 10 * time.Second
)

// A metric is one figure of an autoscaler, taken from the pods of its target.
// It is worked out as Kubernetes documents its algorithm, with these
// differences: a pod's processor time counts once the pod has been ready for a
// whole measurement, because a usage that did not change is not told again; and
// of a pod that is not ready, and is older than warmUp, it always counts,
// because nobody remembers whether it was ever ready.
// Source: Kubernetes, "Horizontal Pod Autoscaling: Algorithm details".
type metric struct {
	name      corev1.ResourceName
	container string // "" for all of a pod
	target    autoscalingv2.MetricTarget

	counted, unready, missing share
	old                       bool // there is a usage that is too old
	problem                   string
	// request is what each pod of a revision requests.
	request struct {
		revision string
		amount   int64
	}
}

// A share is what some of the pods use, and what they request; processor time in
// thousandths.
type share struct {
	pods            int
	used, requested int64
}

func (s *share) add(used, requested int64) {
	s.pods, s.used, s.requested = s.pods+1, s.used+used, s.requested+requested
}

func (s share) with(o share) share {
	return share{s.pods + o.pods, s.used + o.used, s.requested + o.requested}
}

// metricOf returns what a metric is about. Metrics that are not of resources are
// refused with their commit.
func metricOf(spec *autoscalingv2.MetricSpec) *metric {
	switch {
	case spec.Resource != nil:
		return &metric{name: spec.Resource.Name, target: spec.Resource.Target}
	case spec.ContainerResource != nil:
		return &metric{name: spec.ContainerResource.Name, container: spec.ContainerResource.Container, target: spec.ContainerResource.Target}
	}
	return &metric{problem: fmt.Sprintf("metrics of type %s are not served", spec.Type)}
}

func (m *metric) String() string {
	out := string(m.name) + " resource"
	if m.container != "" {
		out = string(m.name) + " container resource"
	}
	if m.target.Type == autoscalingv2.UtilizationMetricType {
		out += " utilization (percentage of request)"
	}
	return out
}

// look takes the figures from the pods.
func (m *metric) look(w *workload, pods []*pod, in *input) {
	if m.problem != "" {
		return
	}
	for _, p := range pods {
		if p.lost || p.ended() || p.state != nil && p.state.Stopping {
			continue
		}
		if m.target.Type == autoscalingv2.UtilizationMetricType && m.request.revision != p.Revision {
			request, missing := m.requestOf(w, p, in)
			if missing != "" {
				m.problem = fmt.Sprintf("container %s requests no %s", missing, m.name)
				return
			}
			m.request.revision, m.request.amount = p.Revision, request
		}
		value, window, known := m.usage(w, p, in)
		switch {
		case p.node == "" || p.state == nil || p.phase() == corev1.PodPending:
			m.unready.add(0, m.request.amount)
		case !known:
			m.missing.add(0, m.request.amount)
		case m.name == corev1.ResourceCPU && warming(p, window, in.now):
			m.unready.add(0, m.request.amount)
		default:
			m.counted.add(value, m.request.amount)
		}
	}
	switch {
	case m.counted.pods+m.unready.pods+m.missing.pods == 0:
		m.problem = "there are no pods"
	case m.counted.pods > 0:
	case m.old:
		m.problem = fmt.Sprintf("what is known of the usage of its pods is older than %s", usageHolds)
	case m.missing.pods > 0:
		m.problem = "no usage of its pods is known"
	default:
		m.problem = "none of its pods has been ready for long enough"
	}
}

// warming reports whether a pod's processor time says nothing yet.
func warming(p *pod, window time.Duration, now time.Time) bool {
	switch started := p.state.Started; {
	case started.IsZero():
		return true
	case started.After(now) || p.state.ReadyAt.After(now): // a clock went back, or is ahead
		return !p.ready()
	}
	return now.Before(p.state.Started.Add(warmUp)) && (!p.ready() || now.Before(p.state.ReadyAt.Add(window)))
}

// usage returns what a pod, or a container of it, uses.
func (m *metric) usage(w *workload, p *pod, in *input) (value int64, window time.Duration, known bool) {
	u, told := in.usageOf(p.node)
	if !told {
		return 0, 0, false
	}
	if in.now.Sub(u.Time) > usageHolds {
		m.old = true
		return 0, 0, false
	}
	list := u.Pods[p.Instance]
	if several, told := u.Containers[p.Instance]; m.container != "" && told {
		list = several[m.container]
	} else if m.container != "" && p.Revision == w.revision && !hasContainer(w, m.container) {
		list = nil
	}
	quantity, known := list[m.name]
	window = u.Window
	if window <= 0 {
		window = usageWindow
	}
	return m.number(quantity), window, known
}

func hasContainer(w *workload, name string) bool {
	return slices.ContainsFunc(w.template.Spec.Containers, func(c corev1.Container) bool { return c.Name == name })
}

// number is a quantity in the unit in which it is counted.
func (m *metric) number(q resource.Quantity) int64 {
	if m.name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

// usageOf returns the usage that a node told last.
func (in *input) usageOf(node string) (*api.Usage, bool) {
	if in.usage == nil {
		in.usage = make(map[string]*api.Usage, len(in.board.Usage))
		for i := range in.board.Usage {
			in.usage[in.board.Usage[i].Node] = &in.board.Usage[i]
		}
	}
	u, told := in.usage[node]
	return u, told
}

// requestOf returns what the containers of a pod request, or the name of one that
// requests nothing. Of a revision that is not in Git any more its sum is known.
func (m *metric) requestOf(w *workload, p *pod, in *input) (_ int64, missing string) {
	if p.Revision != w.revision {
		if c := in.castOf(w, p.Revision); c.mold != nil {
			amount := c.mold.Requests[m.name]
			if m.container != "" {
				amount = c.mold.Containers[m.container][m.name]
			}
			if amount > 0 {
				return amount, ""
			}
		}
	}
	sum := int64(0)
	found := m.container == ""
	add := func(c *corev1.Container) {
		if m.container != "" && c.Name != m.container {
			return
		}
		found = true
		request, given := c.Resources.Requests[m.name]
		if !given && missing == "" {
			missing = c.Name
		}
		sum += m.number(request)
	}
	spec := &w.template.Spec
	for i := range spec.Containers {
		add(&spec.Containers[i])
	}
	for i := range spec.InitContainers {
		if policy := spec.InitContainers[i].RestartPolicy; policy != nil && *policy == corev1.ContainerRestartPolicyAlways {
			add(&spec.InitContainers[i])
		}
	}
	if !found {
		return 0, m.container
	}
	return sum, missing
}

// ratio is how the usage of pods relates to the target, with what kubectl shows
// of it. It is false when nothing can be said.
func (m *metric) ratio(of share) (ratio float64, percent *int32, average int64, ok bool) {
	if of.pods == 0 {
		return 0, nil, 0, false
	}
	average = of.used / int64(of.pods)
	if m.target.Type == autoscalingv2.UtilizationMetricType {
		if of.requested <= 0 || m.target.AverageUtilization == nil || *m.target.AverageUtilization <= 0 {
			return 0, nil, 0, false
		}
		percent := clamp(of.used * 100 / of.requested)
		return float64(percent) / float64(*m.target.AverageUtilization), &percent, average, true
	}
	if m.target.AverageValue == nil || m.number(*m.target.AverageValue) <= 0 {
		return 0, nil, 0, false
	}
	return float64(average) / float64(m.number(*m.target.AverageValue)), nil, average, true
}

// replicas returns how many pods the metric asks for. Pods of which nothing is
// known are taken to use all of what they are meant to when that keeps pods, and
// nothing when more would be started; pods that are not ready yet to use nothing
// then.
func (m *metric) replicas(current int32, up, down pace) (int32, bool) {
	ratio, _, _, ok := m.ratio(m.counted)
	if m.problem != "" || !ok {
		return 0, false
	}
	near := func(ratio float64) bool { return 1-down.tolerance <= ratio && ratio <= 1+up.tolerance }
	grows := ratio > 1 && m.unready.pods > 0
	if !grows && m.missing.pods == 0 {
		if near(ratio) {
			return current, true
		}
		return times(ratio, m.counted.pods), true
	}
	all := m.counted
	switch {
	case ratio < 1:
		all = all.with(m.full(m.missing))
	case ratio > 1:
		all = all.with(m.missing)
	}
	if grows {
		all = all.with(m.unready)
	}
	next, _, _, ok := m.ratio(all)
	if !ok {
		return 0, false
	}
	if near(next) || ratio < 1 && next > 1 || ratio > 1 && next < 1 {
		return current, true
	}
	n := times(next, all.pods)
	if next < 1 && n > current || next > 1 && n < current {
		return current, true
	}
	return n, true
}

// full are pods of which nothing is known with what they are taken to use at most.
func (m *metric) full(of share) share {
	of.used = int64(of.pods) * m.number(valueOr(m.target.AverageValue, resource.Quantity{}))
	if m.target.Type == autoscalingv2.UtilizationMetricType {
		of.used = of.requested * int64(max(100, *m.target.AverageUtilization)) / 100
	}
	return of
}

func times(ratio float64, pods int) int32 {
	return clamp(int64(min(math.Ceil(ratio*float64(pods)), math.MaxInt32)))
}

// status is the metric as kubectl shows it, the zero one while it is not known.
func (m *metric) status() autoscalingv2.MetricStatus {
	_, percent, average, ok := m.ratio(m.counted)
	if m.problem != "" || !ok {
		return autoscalingv2.MetricStatus{}
	}
	current := autoscalingv2.MetricValueStatus{AverageUtilization: percent, AverageValue: resource.NewQuantity(average, resource.BinarySI)}
	if m.name == corev1.ResourceCPU {
		current.AverageValue = resource.NewMilliQuantity(average, resource.DecimalSI)
	}
	if m.container != "" {
		return autoscalingv2.MetricStatus{Type: autoscalingv2.ContainerResourceMetricSourceType, ContainerResource: &autoscalingv2.ContainerResourceMetricStatus{
			Name: m.name, Container: m.container, Current: current,
		}}
	}
	return autoscalingv2.MetricStatus{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricStatus{Name: m.name, Current: current}}
}
