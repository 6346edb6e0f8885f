package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-dev/shoal/api"
)

// A demand is what the pods of one owner use.
type demand struct {
	each   int64 // thousandths of a processor of each pod
	shared int64 // and of all that are ready, in equal parts
	memory int64 // MiB of each
	only   int   // of how many pods it is known; below zero: all
}

// usage is what the nodes tell of the pods that run on them.
func (m *model) usage() []api.Usage {
	if m.usageAge < 0 {
		return nil
	}
	ready, told := map[string]int64{}, map[string]int{}
	for _, s := range m.states {
		if s.Ready {
			ready[s.Pod.Owner]++
		}
	}
	var out []api.Usage
	for _, name := range slices.Sorted(maps.Keys(m.nodes)) {
		u := api.Usage{Node: name, Time: m.now.Add(-m.usageAge), Window: 10 * time.Second, Pods: map[string]corev1.ResourceList{}}
		u.Containers = map[string]map[string]corev1.ResourceList{}
		for _, s := range m.on(name) {
			d, given := m.demands[s.Pod.Owner]
			if !given || d.only >= 0 && told[s.Pod.Owner] >= d.only || over(s) {
				continue
			}
			told[s.Pod.Owner]++
			milli := d.each
			if s.Ready && ready[s.Pod.Owner] > 0 {
				milli += d.shared / ready[s.Pod.Owner]
			}
			u.Pods[s.Pod.Instance] = corev1.ResourceList{
				corev1.ResourceCPU: *resource.NewMilliQuantity(milli, resource.DecimalSI), corev1.ResourceMemory: *resource.NewQuantity(d.memory<<20, resource.BinarySI),
			}
			u.Containers[s.Pod.Instance] = map[string]corev1.ResourceList{"c": u.Pods[s.Pod.Instance]}
		}
		out = append(out, u)
	}
	return out
}

// commitAutoscaler puts a HorizontalPodAutoscaler into Git: target=KIND/NAME, min,
// max, cpu and memory in percent, cpuValue and memoryValue, container=NAME:PERCENT,
// upWindow, downWindow, upChoose, downChoose, upTolerance, downTolerance, and
// policies up and down as Pods:4:15+Percent:100:15.
func (m *model) commitAutoscaler(name string, o map[string]string) {
	m.commit++
	kind, target, _ := strings.Cut(o["target"], "/")
	value := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}}
	value.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: kind, Name: target}
	if kind == "ReplicationController" {
		value.Spec.ScaleTargetRef.APIVersion = "v1"
	}
	if text, given := o["min"]; given {
		value.Spec.MinReplicas = new(int32(number(text, 1)))
	}
	value.Spec.MaxReplicas = int32(number(o["max"], 10))
	add := func(name corev1.ResourceName, target autoscalingv2.MetricTarget) {
		value.Spec.Metrics = append(value.Spec.Metrics, autoscalingv2.MetricSpec{
			Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: name, Target: target},
		})
	}
	percent := func(text string) autoscalingv2.MetricTarget {
		return autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: new(int32(number(text, 80)))}
	}
	average := func(text string) autoscalingv2.MetricTarget {
		return autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: new(resource.MustParse(text))}
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if text, given := o[string(name)]; given {
			add(name, percent(text))
		}
		if text, given := o[string(name)+"Value"]; given {
			add(name, average(text))
		}
	}
	if container, text, given := strings.Cut(o["container"], ":"); given {
		value.Spec.Metrics = append(value.Spec.Metrics, autoscalingv2.MetricSpec{
			Type:              autoscalingv2.ContainerResourceMetricSourceType,
			ContainerResource: &autoscalingv2.ContainerResourceMetricSource{Name: corev1.ResourceCPU, Container: container, Target: percent(text)},
		})
	}
	up, down := rules(o, "up"), rules(o, "down")
	if up != nil || down != nil {
		value.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: up, ScaleDown: down}
	}
	m.objects["HorizontalPodAutoscaler/"+name] = api.Object{
		GVK: schema.GroupVersionKind{Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler"}, Value: value,
		Source: api.Source{Unit: "main", Commit: m.hash(), File: name + ".yaml", Line: 1},
	}
}

func autoscalerOf(o api.Object) *autoscalingv2.HorizontalPodAutoscaler {
	return o.Value.(*autoscalingv2.HorizontalPodAutoscaler)
}

func rules(o map[string]string, direction string) *autoscalingv2.HPAScalingRules {
	out, given := &autoscalingv2.HPAScalingRules{}, false
	if text, said := o[direction+"Window"]; said {
		out.StabilizationWindowSeconds, given = new(int32(number(text, 0))), true
	}
	if text, said := o[direction+"Choose"]; said {
		out.SelectPolicy, given = new(autoscalingv2.ScalingPolicySelect(text)), true
	}
	if text, said := o[direction+"Tolerance"]; said {
		out.Tolerance, given = new(resource.MustParse(text)), true
	}
	for text := range strings.FieldsFuncSeq(o[direction], func(r rune) bool { return r == '+' }) {
		parts := strings.Split(text, ":")
		given = true
		out.Policies = append(out.Policies, autoscalingv2.HPAScalingPolicy{
			Type: autoscalingv2.HPAScalingPolicyType(parts[0]), Value: int32(number(parts[1], 1)), PeriodSeconds: int32(number(parts[2], 15)),
		})
	}
	if !given {
		return nil
	}
	return out
}

// runAutoscalers runs the commands that concern HorizontalPodAutoscalers.
func (m *model) runAutoscalers(command string, args []string) (string, bool) {
	switch command {
	case "hpa":
		m.commitAutoscaler(args[0], pairs(args[1:]))
	case "use":
		o := pairs(args[1:])
		m.demands[args[0]] = demand{each: number(o["each"], 0), shared: number(o["shared"], 0), memory: number(o["memory"], 0), only: int(number(o["only"], -1))}
	case "usage":
		m.usageAge = map[string]time.Duration{"none": -1, "old": time.Hour}[args[0]]
	case "hpas":
		return m.describeAutoscalers(), true
	case "go":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			return err.Error(), true
		}
		return m.goOn(d), true
	default:
		return "", false
	}
	return "", true
}

// goOn lets the fleet live for a while: it decides every five seconds, and pods
// become ready in between. It returns how many pods autoscaled workloads were to
// have, and when that changed.
func (m *model) goOn(d time.Duration) string {
	var out strings.Builder
	began, last := m.now, ""
	for end := m.now.Add(d); !m.now.After(end); m.now = m.now.Add(5 * time.Second) {
		m.schedule()
		m.obey()
		for _, s := range m.states {
			if !strings.HasPrefix(s.Pod.Revision, "bad") {
				m.ready(s.Pod.Owner, s.Pod.Revision, true)
			}
		}
		var now []string
		for _, name := range slices.Sorted(maps.Keys(m.facts.Autoscalers)) {
			now = append(now, fmt.Sprintf("%s %d", strings.TrimPrefix(name, "ns/"), m.facts.Autoscalers[name].Replicas))
		}
		if text := strings.Join(now, ", "); text != last {
			fmt.Fprintf(&out, "after %s: %s\n", m.now.Sub(began), text)
			last = text
		}
	}
	return out.String()
}

func (m *model) describeAutoscalers() string {
	var out strings.Builder
	for _, object := range m.shown() {
		h, ok := object.(*autoscalingv2.HorizontalPodAutoscaler)
		if !ok {
			continue
		}
		s := h.Status
		fmt.Fprintf(&out, "%s: %d pods, %d wanted", h.Name, s.CurrentReplicas, s.DesiredReplicas)
		for _, metric := range s.CurrentMetrics {
			name, current := corev1.ResourceName(""), autoscalingv2.MetricValueStatus{}
			switch {
			case metric.Resource != nil:
				name, current = metric.Resource.Name, metric.Resource.Current
			case metric.ContainerResource != nil:
				name, current = metric.ContainerResource.Name+" of "+corev1.ResourceName(metric.ContainerResource.Container), metric.ContainerResource.Current
			}
			if name == "" {
				continue
			}
			fmt.Fprintf(&out, ", %s %s", name, current.AverageValue)
			if current.AverageUtilization != nil {
				fmt.Fprintf(&out, " %d%%", *current.AverageUtilization)
			}
		}
		out.WriteString("\n")
		for _, c := range s.Conditions {
			fmt.Fprintf(&out, "  %s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
		}
	}
	return out.String()
}
