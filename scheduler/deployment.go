package scheduler

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-dev/shoal/api"
)

func expandDeployment(value *appsv1.Deployment, object api.Object) workload {
	w := newWorkload(object, &value.Spec.Template)
	w.setReplicas(value.Spec.Replicas)
	w.exclusive = w.annotated() || value.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType
	w.decide = func(w *workload, pods []*pod, in *input) change { return decideDeployment(w, value, pods, in) }
	return w
}

// decideDeployment follows Kubernetes' Deployment controller. The difference is
// that one call decides all that may happen now, where Kubernetes needs a round
// for each ReplicaSet.
func decideDeployment(w *workload, value *appsv1.Deployment, pods []*pod, in *input) change {
	known := in.facts.Rollouts[w.id.String()]
	c := stepDeployment(w, value, pods, known, in)
	if _, back := w.lastGood(*c.rollout); back && in.rollsBack() && !w.target.back {
		c = stepDeployment(w, value, pods, *c.rollout, in) // it has failed just now
	}
	return c
}

// stepDeployment decides with what is known of the rollout.
func stepDeployment(w *workload, value *appsv1.Deployment, pods []*pod, known api.Rollout, in *input) change {
	var c change
	if value.Spec.Paused && known.Revision == "" && len(pods) == 0 {
		c.rollout = &known // it was never rolled out, and is not while it is paused
		return c
	}
	w.target = w.rolloutTarget(value, pods, known, in)
	if w.exclusive {
		c.exclusiveDeployment(w, value, pods, known, in)
		return c
	}
	minReady := seconds(value.Spec.MinReadySeconds)
	if !w.target.back && w.rests(pods, minReady, in.now) {
		c.rollout = c.progress(w, value, pods, known, in)
		return c
	}
	all := in.muster(w, pods)
	live := c.replaceEnded(all.here)
	current, old := splitRevision(live, w.target.revision)
	b := deploymentBudget(value, all.want)
	if value.Spec.Paused && len(old) > 0 {
		rest, frozen := withoutSurge(live, current, old, b.surge), all
		frozen.want = min(all.want, max(all.want-(len(live)-len(rest)), len(rest)))
		c.scale(w, frozen, rest, w.target, level{floor: all.want - b.unavailable, moves: max(1, b.surge, b.unavailable), minReady: minReady}, in)
	} else {
		c.roll(w, all, current, old, w.target, b, minReady, in)
	}
	here := *w
	here.want = all.want
	c.rollout = c.progress(&here, value, live, known, in)
	return c
}

// withoutSurge returns the pods of a rollout that is paused but for those of the new
// template that are ahead of the old one in their slot: as many as the surge stay
// beside it, as they are.
func withoutSurge(live, current, old []*pod, surge int) []*pod {
	behind, ahead := map[string]bool{}, map[*pod]bool{}
	for _, p := range old {
		behind[p.Slot] = true
	}
	for _, p := range mostWanted(current) {
		if behind[p.Slot] && len(ahead) < surge {
			ahead[p], behind[p.Slot] = true, false
		}
	}
	return slices.DeleteFunc(slices.Clone(live), func(p *pod) bool { return ahead[p] })
}

// rests reports whether every slot has one available pod of the template in Git,
// and nothing keeps any from staying: then there is nothing to decide. Most of a
// fleet is so most of the time.
func (w *workload) rests(pods []*pod, minReady time.Duration, now time.Time) bool {
	if len(pods) != w.want {
		return false
	}
	for i, p := range pods {
		if ok, _ := p.available(minReady, now); !ok || p.node == "" || p.leaving || p.ended() || p.Revision != w.revision || i > 0 && pods[i-1].Slot == p.Slot {
			return false
		}
	}
	return true
}

// rolloutTarget is the template the Deployment moves to: the one in Git; or, while
// it is paused before a rollout began, the one that was in force; or, when the
// fleet rolls back what fails, the last one that worked.
func (w *workload) rolloutTarget(value *appsv1.Deployment, pods []*pod, known api.Rollout, in *input) template {
	git := w.current()
	if back, found := w.lastGood(known); found && in.rollsBack() {
		return back
	}
	if !value.Spec.Paused || known.Revision == "" || known.Revision == git.revision {
		return git
	}
	for _, p := range pods {
		if p.Revision == git.revision {
			return git // paused in the middle of the rollout
		}
	}
	if back, found := worked(known); known.Back && found {
		return back // not the one that failed: nothing runs it any more
	}
	last := known.History[len(known.History)-1]
	return template{revision: last.Revision, unit: last.Unit, commit: last.Commit}
}

// rollsBack reports whether the fleet is to roll back what fails.
func (in *input) rollsBack() bool { return in.settings.OnFailedRollout == api.FailedRolloutBack }

// lastGood is the template to go back to when the rollout of the one in Git has
// failed; false when it has not, or when none ever worked. A commit that changes the template
// begins a rollout of its own.
func (w *workload) lastGood(known api.Rollout) (template, bool) {
	if !known.Failed || known.Revision != w.revision || known.Current == w.revision {
		return template{}, false
	}
	return worked(known)
}

// worked is the last template of which a rollout was complete.
func worked(known api.Rollout) (template, bool) {
	for _, r := range known.History {
		if r.Revision == known.Current {
			return template{revision: r.Revision, unit: r.Unit, commit: r.Commit, back: true}, true
		}
	}
	return template{}, false
}

// A budget says how far a rolling update may stray from the wanted number.
type budget struct{ surge, unavailable int }

// deploymentBudget resolves maxSurge and maxUnavailable: a percentage of surge
// is rounded up, one of unavailability down, and when both are zero one pod may
// be unavailable. Source: Deployment.spec.strategy.rollingUpdate.
func deploymentBudget(value *appsv1.Deployment, want int) budget {
	quarter := intstr.FromString("25%")
	surge, unavailable := &quarter, &quarter
	if rolling := value.Spec.Strategy.RollingUpdate; rolling != nil {
		surge, unavailable = rolling.MaxSurge, rolling.MaxUnavailable
	}
	s, _ := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(surge, quarter), want, true)
	u, _ := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(unavailable, quarter), want, false)
	if s == 0 && u == 0 {
		u = 1
	}
	return budget{surge: s, unavailable: min(u, want)}
}

// roll does one step of a rolling update, or of plain scaling when there are no
// old pods.
func (c *change) roll(w *workload, all crew, current, old []*pod, target template, b budget, minReady time.Duration, in *input) {
	available := func(pods []*pod) int {
		n := 0
		for _, p := range pods {
			ok, at := p.available(minReady, in.now)
			c.wakeAt(at)
			if ok {
				n++
			}
		}
		return n
	}
	floor := all.want - b.unavailable
	each := c.oneEach(w, current, &level{
		available: available(current) + available(old), floor: floor, moves: max(1, b.surge, b.unavailable), minReady: minReady,
	}, target, in)
	if surplus := len(each) - all.want; surplus > 0 {
		ranked := leastWanted(each)
		c.giveUp(ranked[:surplus], current)
		each = ranked[surplus:]
	}
	total := len(each) + len(old)
	starts := max(0, min(all.want-len(each), all.want+b.surge-total))
	reason := reasonMissing
	if len(old) > 0 {
		reason = target.starts()
	}
	for i, slot := range freeSlots(starts, slices.Concat(each, all.waiting)) {
		c.start(slot, target, c.reasonOf(slot, i, all.lost, reason))
	}
	if len(old) == 0 {
		return
	}

	currentAvailable := available(each)
	// New pods that are not available yet, those just started among them,
	// are not counted on.
	may := total - floor - (len(each) - currentAvailable)
	stopped := 0
	ranked := leastWanted(old)
	for _, p := range ranked {
		if ok, _ := p.available(minReady, in.now); !ok && stopped < may {
			c.stop(p, target.ousts())
			stopped++
		}
	}
	spare := min(available(old)+currentAvailable-floor, may-stopped)
	for _, p := range ranked {
		if ok, _ := p.available(minReady, in.now); ok && spare > 0 {
			c.stop(p, target.ousts())
			spare--
		}
	}
}
