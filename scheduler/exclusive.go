package scheduler

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
)

// exclusivity says how a workload treats its exclusive pods. Of one identity
// only one instance may run, so nothing is started before what it replaces is
// known to be gone: either its node says so, or the board does, by releasing
// the claim of a node that is lost.
type exclusivity struct {
	target      template
	replace     bool // whether a changed template replaces pods
	together    bool // Recreate: all old pods go before a new one starts
	unavailable int  // how many pods may be given up at a time otherwise
	minReady    time.Duration
}

// decideExclusive decides about a workload whose pods are exclusive. The caller
// has made sure that the leader has a quorum.
func (c *change) decideExclusive(w *workload, pods []*pod, x exclusivity, in *input) (held []*pod) {
	busy := in.blockedSlots(w.id)
	leaving := len(busy) > 0 // pods that nothing may be started before, with Recreate
	stop := func(p *pod, reason string) {
		c.stop(p, reason)
		leaving = leaving || reason == reasonRecreate && p.node != ""
		if p.node != "" {
			busy[p.Slot] = true
		}
	}
	var lost []*pod
	elsewhere := in.elsewhere(w)
	for _, p := range mostClaimed(pods) {
		holder, granted := in.board.Claims[p.Identity.String()]
		switch {
		case p.lost && elsewhere && granted && (holder.Released || holder.Node != p.node):
			lost = append(lost, p)
		case p.node != "" && !p.lost && granted && holder.Node != p.node && p.claim.Less(holder.Claim):
			stop(p, reasonOutclaimed)
		case p.ended() && !p.lost && w.id.Kind != "Pod":
			stop(p, reasonEnded)
			c.ended++
		case slices.ContainsFunc(held, func(h *pod) bool { return h.Slot == p.Slot }):
			if !p.lost {
				stop(p, reasonSurplus)
			}
		default:
			held = append(held, p)
		}
	}
	held = c.exclusiveSurplus(held, w.want, stop)
	held = c.exclusiveRollout(w, held, x, in, stop)
	if x.replace && x.together && (leaving || slices.ContainsFunc(held, func(p *pod) bool { return p.Revision != x.target.revision })) {
		return held
	}
	for i, slot := range freeSlotsOf(w, w.want-len(held), held) {
		if !busy[slot] {
			c.start(slot, x.target, c.reasonOf(slot, i, lost, reasonMissing))
		}
	}
	return held
}

// mostClaimed orders pods by their claims, the highest first, then as
// mostWanted does.
func mostClaimed(pods []*pod) []*pod {
	out := mostWanted(pods)
	slices.SortStableFunc(out, func(a, b *pod) int {
		return before(b.claim.Less(a.claim), a.claim.Less(b.claim))
	})
	return out
}

// exclusiveSurplus gives up pods beyond the wanted number.
func (c *change) exclusiveSurplus(held []*pod, want int, stop func(*pod, string)) []*pod {
	surplus := len(held) - want
	if surplus <= 0 {
		return held
	}
	var kept []*pod
	for _, p := range leastWanted(held) {
		if surplus > 0 && !p.lost {
			stop(p, reasonSurplus)
			surplus--
			continue
		}
		kept = append(kept, p)
	}
	return kept
}

// exclusiveRollout stops pods of an old template, and pods on nodes that are
// drained, and returns the others. The new ones start when the old ones are
// gone.
func (c *change) exclusiveRollout(w *workload, held []*pod, x exclusivity, in *input, stop func(*pod, string)) []*pod {
	available := 0
	for _, p := range held {
		ok, at := p.available(x.minReady, in.now)
		c.wakeAt(at)
		if ok {
			available++
		}
	}
	spare := x.unavailable - (w.want - available)
	var kept []*pod
	for _, p := range leastWanted(held) {
		old := x.replace && p.Revision != x.target.revision
		ready, _ := p.available(x.minReady, in.now)
		switch {
		case p.lost:
			kept = append(kept, p)
		case old && x.together:
			stop(p, reasonRecreate)
		case old && (!ready || spare > 0):
			stop(p, reasonSuperseded)
			if ready {
				spare--
			}
		case p.leaving && (!ready || spare > 0) && in.elsewhereNow(w) && in.couldLeave(p):
			stop(p, reasonDrained)
			if ready {
				spare--
			}
		default:
			kept = append(kept, p)
		}
	}
	return kept
}

// freeSlotsOf is freeSlots for any kind: a bare pod has one slot without a name.
func freeSlotsOf(w *workload, n int, inUse []*pod) []string {
	if w.id.Kind == "Pod" {
		return []string{""}[:max(0, min(n, 1))]
	}
	return freeSlots(n, inUse)
}

// exclusiveDeployment decides about a Deployment whose pods are exclusive:
// because its strategy is Recreate, or because it says so.
func (c *change) exclusiveDeployment(w *workload, value *appsv1.Deployment, pods []*pod, in *input) {
	x := exclusivity{
		target: w.rolloutTarget(value, pods, in.facts.Rollouts[w.id.String()]), replace: !value.Spec.Paused,
		together:    value.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType,
		unavailable: max(1, deploymentBudget(value, w.want).unavailable), minReady: seconds(value.Spec.MinReadySeconds),
	}
	held := c.decideExclusive(w, pods, x, in)
	c.rollout = c.progress(w, value, held, x.target, x.minReady, in)
}
