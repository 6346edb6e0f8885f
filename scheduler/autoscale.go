package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-dev/shoal/api"
)

// autoscaleEvery is how often usage is looked at, and how long an autoscaler
// waits after it changed its mind: usage is told every ten seconds.
// Source: Kubernetes, --horizontal-pod-autoscaler-sync-period.
const autoscaleEvery = 15 * time.Second

// The conditions of an autoscaler that the message of an event may follow from.
const (
	ableToScale    = autoscalingv2.AbleToScale
	scalingActive  = autoscalingv2.ScalingActive
	scalingLimited = autoscalingv2.ScalingLimited
)

// An autoscaler decides how many pods one workload is to have. The number in Git
// is where it begins; from then on the number is in the facts, and nobody else
// writes it. Its clock is the calendar, which stands still in plans.
type autoscaler struct {
	in    *input
	value *autoscalingv2.HorizontalPodAutoscaler
	w     *workload // nil when the target is not there
	pods  []*pod
	rival string // another autoscaler of the same workload
	next  api.Autoscaling
	wake  time.Time
	// The metrics, once they were looked at.
	metrics []*metric
}

// autoscale decides how many pods the targets of all autoscalers are to have,
// and when to look again.
func (in *input) autoscale(snapshot api.Snapshot, workloads []workload, pods map[api.Identity][]*pod) (map[string]api.Autoscaling, time.Time) {
	list := in.autoscalers(snapshot, workloads, pods)
	if len(list) == 0 {
		return nil, time.Time{}
	}
	out := make(map[string]api.Autoscaling, len(list))
	var wake time.Time
	for _, a := range list {
		a.next.Replicas = a.live(list)
	}
	for _, a := range list {
		a.decide()
		out[a.key()] = a.next
		wake = earliest(wake, a.wake)
	}
	return out, wake
}

// autoscalers lists the HorizontalPodAutoscalers with their targets and what is
// remembered of them.
func (in *input) autoscalers(snapshot api.Snapshot, workloads []workload, pods map[api.Identity][]*pod) []*autoscaler {
	var list []*autoscaler
	targets := map[api.Identity]*workload{}
	owners := map[api.Identity]*autoscaler{}
	for value := range api.Of[*autoscalingv2.HorizontalPodAutoscaler](snapshot) {
		if len(list) == 0 {
			for i := range workloads {
				targets[workloads[i].id] = &workloads[i]
			}
		}
		a := &autoscaler{in: in, value: value}
		a.next = in.facts.Autoscalers[a.key()]
		id, scalable := a.target()
		if w := targets[id]; scalable && w != nil {
			a.w, a.pods = w, pods[id]
			if other := owners[id]; other != nil {
				a.rival, other.rival = other.key(), a.key()
			}
			owners[id] = a
		}
		if a.w == nil || a.next.Target != id {
			a.next = api.Autoscaling{Conditions: a.next.Conditions}
		}
		list = append(list, a)
	}
	return list
}

func (a *autoscaler) key() string { return a.value.Namespace + "/" + a.value.Name }

// target is the workload that the autoscaler is about, and whether workloads of
// its kind have a number of replicas.
func (a *autoscaler) target() (api.Identity, bool) {
	ref := a.value.Spec.ScaleTargetRef
	id := api.Identity{Namespace: a.value.Namespace, Kind: ref.Kind, Owner: ref.Name}
	group, err := schema.ParseGroupVersion(ref.APIVersion)
	switch ref.Kind {
	case "Deployment", "ReplicaSet", "StatefulSet":
		return id, err == nil && group.Group == "apps"
	case "ReplicationController":
		return id, err == nil && group.Group == ""
	}
	return id, false
}

// live is how many pods the target is to have so far. Who comes first finds what
// Git says, or more, where more are running: nothing is stopped because a memory
// was lost.
func (a *autoscaler) live(list []*autoscaler) int32 {
	if a.w == nil || a.w.want == 0 {
		return 0
	}
	best := a
	for _, other := range list {
		if other.w == a.w && (best.next.Target == api.Identity{} || other.next.Scaled.After(best.next.Scaled)) && other.next.Target != (api.Identity{}) {
			best = other
		}
	}
	if best.next.Target != (api.Identity{}) && best.next.Replicas > 0 {
		return best.next.Replicas
	}
	slots := map[string]bool{}
	for _, p := range a.pods {
		if !p.lost && !p.ended() {
			slots[p.Slot] = true
		}
	}
	return max(clamp(int64(a.w.want)), clamp(int64(len(slots))))
}

// decide brings the memory up to date.
func (a *autoscaler) decide() {
	least, most := a.bounds()
	now, current := a.in.calendar, a.next.Replicas
	if a.w == nil {
		a.set(ableToScale, false, "FailedGetScale", a.missing())
		return
	}
	a.next.Target = a.w.id
	if !a.able() {
		a.set(ableToScale, true, "SucceededGetScale", "the number of pods of the target is known")
	}
	switch {
	case a.w.exclusive && !a.in.authority.Quorate:
		a.wakeAt(now.Add(autoscaleEvery))
	case a.rival != "":
		a.set(scalingActive, false, "AmbiguousSelector", "HorizontalPodAutoscaler "+a.rival+" scales the same workload")
	case current == 0:
		a.set(scalingActive, false, "ScalingDisabled", "the workload asks for no pods in Git")
	case current > most:
		a.rescale(most, "Current number of replicas above Spec.MaxReplicas")
	case current < least:
		a.rescale(least, "Current number of replicas below Spec.MinReplicas")
	default:
		if until := a.rests(); now.Before(until) {
			a.wakeAt(until)
			return
		}
		a.follow(least, most)
	}
}

// able reports whether the autoscaler was known to have a target.
func (a *autoscaler) able() bool {
	return slices.ContainsFunc(a.next.Conditions, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool {
		return c.Type == ableToScale && c.Status == corev1.ConditionTrue
	})
}

func (a *autoscaler) wakeAt(t time.Time) { a.wake = earliest(a.wake, t) }

func (a *autoscaler) bounds() (least, most int32) {
	least = 1
	if a.value.Spec.MinReplicas != nil {
		least = max(1, *a.value.Spec.MinReplicas)
	}
	return least, max(least, a.value.Spec.MaxReplicas)
}

func (a *autoscaler) missing() string {
	ref := a.value.Spec.ScaleTargetRef
	if _, scalable := a.target(); !scalable {
		return fmt.Sprintf("%s of %s has no number of replicas that could be scaled", ref.Kind, ref.APIVersion)
	}
	return fmt.Sprintf("%s %s/%s is not in Git", ref.Kind, a.value.Namespace, ref.Name)
}

// rests is until when the autoscaler keeps what it decided last. A time in the
// future is that of a clock that went back.
func (a *autoscaler) rests() time.Time {
	last := a.next.Scaled
	if n := len(a.next.Advice); n > 0 && a.next.Advice[n-1].From.After(last) {
		last = a.next.Advice[n-1].From
	}
	if last.IsZero() || last.After(a.in.calendar) {
		return time.Time{}
	}
	return last.Add(autoscaleEvery)
}

// follow scales as the metrics ask for, as far as windows, policies and bounds
// allow.
func (a *autoscaler) follow(least, most int32) {
	now, current := a.in.calendar, a.next.Replicas
	a.wakeAt(now.Add(autoscaleEvery))
	up, down := paces(a.value)
	longest := max(up.longest(), down.longest())
	a.next.Ups, a.next.Downs = recent(a.next.Ups, longest, now), recent(a.next.Downs, longest, now)
	if len(a.next.Advice) == 0 {
		a.next.Advice = []api.Advice{{From: now, Replicas: current}}
	}
	desired, leader, ok := a.ask(current, up, down)
	if !ok {
		return
	}
	steadied := steady(a.next.Advice, current, desired, up, down, now)
	a.next.Advice = advised(a.next.Advice, desired, max(up.window, down.window), now)
	switch {
	case steadied < desired:
		a.set(ableToScale, true, "ScaleUpStabilized", "fewer pods were asked for within the stabilization window")
	case steadied > desired:
		a.set(ableToScale, true, "ScaleDownStabilized", "more pods were asked for within the stabilization window")
	default:
		a.set(ableToScale, true, "ReadyForNewScale", "nothing keeps from scaling")
	}
	target := a.limit(steadied, least, most, up, down)
	why := "All metrics below target"
	if target > current {
		why = leader + " above target"
	}
	if target != current {
		a.rescale(target, why)
	}
}

// ask returns how many pods the metrics ask for: the most that one does. Where
// one of several has no figure, nothing is given up.
func (a *autoscaler) ask(current int32, up, down pace) (desired int32, leader string, ok bool) {
	a.lookAt()
	problem, reason, unknown := "", "", 0
	for _, m := range a.metrics {
		n, known := m.replicas(current, up, down)
		switch {
		case known && (leader == "" || n > desired):
			desired, leader = n, m.String()
		case !known:
			unknown++
			if problem == "" {
				problem, reason = m.String()+": "+m.problem, "FailedGetResourceMetric"
				if m.container != "" {
					reason = "FailedGetContainerResourceMetric"
				}
			}
		}
	}
	if unknown == len(a.metrics) || unknown > 0 && desired < current {
		a.set(scalingActive, false, reason, problem)
		return 0, "", false
	}
	a.set(scalingActive, true, "ValidMetricFound", "a number of pods follows from "+leader)
	return desired, leader, true
}

// lookAt takes the figures from the pods.
func (a *autoscaler) lookAt() {
	a.metrics = nil
	for i := range a.value.Spec.Metrics {
		m := metricOf(&a.value.Spec.Metrics[i])
		m.look(a.w, a.pods, a.in)
		a.metrics = append(a.metrics, m)
	}
}

// limit keeps a number within policies and bounds.
func (a *autoscaler) limit(desired, least, most int32, up, down pace) int32 {
	now, current := a.in.calendar, a.next.Replicas
	highest, lowest := up.highest(current, a.next.Ups, a.next.Downs, now), down.lowest(current, a.next.Ups, a.next.Downs, now)
	switch {
	case desired > most && most <= highest:
		a.set(scalingLimited, true, "TooManyReplicas", "the metrics ask for more than maxReplicas")
		return most
	case desired > highest:
		a.set(scalingLimited, true, "ScaleUpLimit", "the metrics ask for more than may be added at a time")
		return highest
	case desired < least && least >= lowest:
		a.set(scalingLimited, true, "TooFewReplicas", "the metrics ask for less than minReplicas")
		return least
	case desired < lowest:
		a.set(scalingLimited, true, "ScaleDownLimit", "the metrics ask for less than may be left at a time")
		return lowest
	}
	a.set(scalingLimited, false, "DesiredWithinRange", "the metrics ask for what may be")
	return desired
}

// rescale changes the number.
func (a *autoscaler) rescale(to int32, why string) {
	now, current := a.in.calendar, a.next.Replicas
	if change := to - current; change > 0 {
		a.next.Ups = append(slices.Clone(a.next.Ups), api.Rescale{At: now, Pods: change})
	} else {
		a.next.Downs = append(slices.Clone(a.next.Downs), api.Rescale{At: now, Pods: -change})
	}
	a.next.Replicas, a.next.Was, a.next.Scaled, a.next.Why = to, current, now, why
	a.set(ableToScale, true, "SucceededRescale", "the number of pods was changed")
	a.wakeAt(now.Add(autoscaleEvery))
}

// set notes a condition. When it came to have its status is kept.
func (a *autoscaler) set(kind autoscalingv2.HorizontalPodAutoscalerConditionType, ok bool, reason, message string) {
	next := autoscalingv2.HorizontalPodAutoscalerCondition{
		Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(a.in.calendar.Truncate(time.Second)),
	}
	if ok {
		next.Status = corev1.ConditionTrue
	}
	list := slices.Clone(a.next.Conditions)
	i := slices.IndexFunc(list, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool { return c.Type == kind })
	if i < 0 {
		list = append(list, next)
	} else {
		if list[i].Status == next.Status {
			next.LastTransitionTime = list[i].LastTransitionTime
		}
		list[i] = next
	}
	slices.SortFunc(list, func(x, y autoscalingv2.HorizontalPodAutoscalerCondition) int {
		return strings.Compare(string(x.Type), string(y.Type))
	})
	a.next.Conditions = list
}

// applyScale gives workloads the number of pods that their autoscalers decided.
func (in *input) applyScale(workloads []workload, memory map[string]api.Autoscaling) {
	if len(memory) == 0 {
		return
	}
	most := mostPods(in.nodes)
	replicas := map[api.Identity]int32{}
	for _, m := range memory {
		replicas[m.Target] = m.Replicas
	}
	for i := range workloads {
		w := &workloads[i]
		if n, scaled := replicas[w.id]; scaled && w.want > 0 {
			w.want, w.beyond, w.scaled = int(n), 0, true
			w.bound(most)
		}
	}
}
