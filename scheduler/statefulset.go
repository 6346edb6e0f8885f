package scheduler

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-dev/shoal/api"
)

// expandStatefulSet makes a workload of a StatefulSet. Its slots are ordinals, and
// its pods are exclusive: what has a name and data of its own must not run twice.
func expandStatefulSet(value *appsv1.StatefulSet, object api.Object) workload {
	w := newWorkload(object, &value.Spec.Template)
	w.setReplicas(value.Spec.Replicas)
	w.exclusive = true
	w.each = value.Spec.VolumeClaimTemplates
	w.decide = func(w *workload, pods []*pod, in *input) change {
		s := statefulSet{w: w, value: value, in: in, first: firstOrdinal(value), minReady: seconds(value.Spec.MinReadySeconds)}
		s.decide(pods)
		return s.c
	}
	return w
}

// firstOrdinal is that of the first pod. Source: StatefulSet.spec.ordinals.start.
func firstOrdinal(value *appsv1.StatefulSet) int {
	if value.Spec.Ordinals == nil {
		return 0
	}
	return int(value.Spec.Ordinals.Start)
}

// ordinal reads what begins with a prefix and ends in an ordinal.
func ordinal(text, prefix string) (int, bool) {
	digits, ok := strings.CutPrefix(text, prefix)
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil && n >= 0 && strconv.Itoa(n) == digits
}

// A statefulSet decides about one StatefulSet. Source: Kubernetes,
// "StatefulSets", and KEP-961 for maxUnavailable. It differs where a rollout
// could never go on: a pod of an old template that is not available is replaced
// whatever the others do, one at a time.
type statefulSet struct {
	w        *workload
	value    *appsv1.StatefulSet
	in       *input
	c        change
	rollout  api.Rollout
	first    int // ordinal
	minReady time.Duration

	*tenure
	pods        map[int]*pod // that have their slots, by ordinal
	condemned   []*pod       // beyond the wanted ordinals, the highest first
	unavailable int          // wanted ordinals without an available pod
	stopping    int          // wanted ordinals whose pods are on their way out
}

func (s *statefulSet) decide(pods []*pod) {
	s.tenure = s.c.tenure(s.w, pods, s.in)
	s.seat()
	s.recall()
	s.update()
	s.drain()
	s.shrink()
	s.fill()
	s.conclude()
	s.c.rollout = &s.rollout
}

// ordered reports whether one pod waits for another. Source:
// StatefulSet.spec.podManagementPolicy.
func (s *statefulSet) ordered() bool {
	return s.value.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
}

// seat sorts the pods by ordinals.
func (s *statefulSet) seat() {
	s.pods = map[int]*pod{}
	beyond := map[*pod]int{}
	for _, p := range s.held {
		n, ok := ordinal(p.Slot, "")
		switch {
		case ok && n >= s.first && n-s.first < s.w.want:
			s.pods[n] = p
		default: // whatever is no ordinal goes first
			beyond[p] = n
			s.condemned = append(s.condemned, p)
		}
	}
	slices.SortFunc(s.condemned, func(a, b *pod) int { return beyond[b] - beyond[a] })
	s.unavailable = s.w.want
	for _, p := range s.pods {
		if s.available(p) {
			s.unavailable--
		}
	}
	for slot := range s.busy {
		if n, ok := ordinal(slot, ""); ok && n >= s.first && n-s.first < s.w.want {
			s.stopping++
		}
	}
}

func (s *statefulSet) available(p *pod) bool {
	ok, at := p.available(s.minReady, s.in.now)
	s.c.wakeAt(at)
	return ok
}

// partition is the ordinal from which on pods get the new template; the others
// keep the current one. Source: StatefulSet.spec.updateStrategy.rollingUpdate.
func (s *statefulSet) partition() int {
	rolling := s.value.Spec.UpdateStrategy.RollingUpdate
	if s.value.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType || rolling == nil {
		return s.first
	}
	return s.first + int(valueOr(rolling.Partition, 0))
}

// most is how many pods may be unavailable because of a rollout or a drain.
func (s *statefulSet) most() int {
	rolling := s.value.Spec.UpdateStrategy.RollingUpdate
	if rolling == nil || rolling.MaxUnavailable == nil {
		return 1
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(rolling.MaxUnavailable, s.w.want, false)
	if err != nil {
		return 1
	}
	return max(1, n)
}

// update gives up pods of an old template, from the highest ordinal down.
func (s *statefulSet) update() {
	if s.value.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return
	}
	// In order, a rollout goes on when the number of pods is right.
	holds := s.ordered() && (len(s.condemned) > 0 || s.leavingBeyond())
	for n := s.first + s.w.want - 1; n >= s.partition(); n-- {
		p := s.pods[n]
		if p == nil || p.lost || p.Revision == s.w.revision {
			continue
		}
		if available := s.available(p); !available || !holds {
			s.giveUp(n, p, available, reasonSuperseded)
		}
	}
}

// drain moves pods away from nodes that are drained.
func (s *statefulSet) drain() {
	for n := s.first + s.w.want - 1; n >= s.first; n-- {
		if p := s.pods[n]; p != nil && p.leaving && !p.lost && s.in.elsewhereNow(s.w, p) && s.in.couldLeave(p) {
			s.giveUp(n, p, s.available(p), reasonDrained)
		}
	}
}

// giveUp stops a pod, as far as not too many are missing then. One that is not
// available is not missed, but no more of them go at a time.
func (s *statefulSet) giveUp(n int, p *pod, available bool, reason string) {
	switch {
	case p.node == "":
	case !available && s.stopping < s.most():
		s.stopping++
	case available && s.unavailable < s.most():
		s.unavailable++
		s.stopping++
	default:
		return
	}
	s.stop(&s.c, p, reason)
	delete(s.pods, n)
}

// shrink gives up pods beyond the wanted number. In order, one goes after the
// other, and only while all that stay are available.
func (s *statefulSet) shrink() {
	for _, p := range s.condemned {
		if p.lost { // it may be running, and hears nothing
			if s.ordered() {
				return
			}
			continue
		}
		if s.ordered() && p.node != "" && (s.unavailable > 0 || s.leavingBeyond()) {
			return
		}
		s.stop(&s.c, p, reasonSurplus)
	}
}

// leavingBeyond reports whether a pod beyond the wanted number is on its way out.
func (s *statefulSet) leavingBeyond() bool {
	for slot := range s.busy {
		if n, ok := ordinal(slot, ""); ok && (n < s.first || n-s.first >= s.w.want) {
			return true
		}
	}
	return false
}

// fill starts the pods that are missing. In order, one starts after the other.
func (s *statefulSet) fill() {
	for n := s.first; n < s.first+s.w.want; n++ {
		p, slot := s.pods[n], strconv.Itoa(n)
		waits := p != nil && !s.available(p) || s.busy[slot]
		if p == nil && !s.busy[slot] {
			reason := reasonMissing
			if slices.ContainsFunc(s.lost, func(p *pod) bool { return p.Slot == slot }) {
				reason = reasonLost
			}
			s.c.start(slot, s.template(n), reason)
			waits = true
		}
		if waits && s.ordered() {
			return
		}
	}
}

// template is what the pod of an ordinal is made from.
func (s *statefulSet) template(n int) template {
	if n < s.partition() {
		for _, r := range s.rollout.History {
			if r.Revision == s.rollout.Current {
				return template{revision: r.Revision, unit: r.Unit, commit: r.Commit}
			}
		}
	}
	return s.w.current()
}

// recall brings the history up to date. A memory that was lost begins with what
// the first pod is made from.
func (s *statefulSet) recall() {
	known, git := s.in.facts.Rollouts[s.w.id.String()], s.w.current()
	if known.Revision == "" {
		known.Current = git.revision
		if p := s.lowest(); p != nil && p.Revision != git.revision {
			known.Current = p.Revision
			known.History = recordRevision(nil, template{revision: p.Revision, unit: p.unit, commit: p.commit}, nil, s.in.now)
		}
	}
	s.rollout = known
	if known.Revision == git.revision {
		return
	}
	s.rollout = newRollout(known, git, s.value.Spec.RevisionHistoryLimit, s.in.now)
}

// lowest is the pod with the lowest ordinal, nil when there is none.
func (s *statefulSet) lowest() *pod {
	if len(s.pods) == 0 {
		return nil
	}
	return s.pods[slices.Min(slices.Collect(maps.Keys(s.pods)))]
}

// conclude ends a rollout once all pods are of its template and available.
func (s *statefulSet) conclude() {
	if len(s.c.starts) > 0 || s.unavailable > 0 || len(s.condemned) > 0 {
		return
	}
	for _, p := range s.pods {
		if p.Revision != s.w.revision {
			return
		}
	}
	s.rollout.Complete, s.rollout.Current = true, s.rollout.Revision
}
