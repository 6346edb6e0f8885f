package scheduler

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/shoal-dev/shoal/api"
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

// A tenure is who has the slots of an exclusive workload.
type tenure struct {
	held []*pod // one in each slot
	lost []*pod // surely gone with their nodes: their slots may be filled elsewhere
	// busy are the slots in which a pod that was told to go may still run.
	busy    map[string]bool
	leaving bool // pods that nothing may be started before, with Recreate
}

// tenure finds out who has the slots of a workload, and stops whoever else is
// there: pods whose identity another node was given, and pods that have ended.
func (c *change) tenure(w *workload, pods []*pod, in *input) *tenure {
	t := &tenure{busy: in.blockedSlots(w.id)}
	t.leaving = len(t.busy) > 0
	taken := map[string]bool{}
	for _, p := range mostClaimed(pods) {
		holder, granted := in.board.Claims[p.Identity.String()]
		switch {
		case p.lost && granted && (holder.Released || holder.Node != p.node) && in.elsewhere(w, p):
			t.lost = append(t.lost, p)
		case p.node != "" && !p.lost && granted && holder.Node != p.node && p.claim.Less(holder.Claim):
			t.stop(c, p, reasonOutclaimed)
		case p.ended() && !p.lost && w.id.Kind != "Pod":
			t.stop(c, p, reasonEnded)
			c.ended++
		case taken[p.Slot]:
			if !p.lost {
				t.stop(c, p, reasonSurplus)
			}
		default:
			taken[p.Slot] = true
			t.held = append(t.held, p)
		}
	}
	return t
}

// stop tells a pod to go. Its slot is busy until it is gone.
func (t *tenure) stop(c *change, p *pod, reason string) {
	c.stop(p, reason)
	if p.node != "" {
		t.busy[p.Slot] = true
	}
}

// decideExclusive decides about a workload whose pods are exclusive. The caller
// has made sure that the leader has a quorum.
func (c *change) decideExclusive(w *workload, pods []*pod, x exclusivity, in *input) (held []*pod) {
	t := c.tenure(w, pods, in)
	t.surplus(c, w.want)
	t.roll(c, w, x, in)
	if x.replace && x.together && (t.leaving || slices.ContainsFunc(t.held, func(p *pod) bool { return p.Revision != x.target.revision })) {
		return t.held
	}
	for i, slot := range freeSlotsOf(w, w.want-len(t.held), t.held) {
		if !t.busy[slot] {
			c.start(slot, x.target, c.reasonOf(slot, i, t.lost, reasonMissing))
		}
	}
	return t.held
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

// surplus gives up pods beyond the wanted number.
func (t *tenure) surplus(c *change, want int) {
	surplus := len(t.held) - want
	if surplus <= 0 {
		return
	}
	var kept []*pod
	for _, p := range leastWanted(t.held) {
		if surplus > 0 && !p.lost {
			t.stop(c, p, reasonSurplus)
			surplus--
			continue
		}
		kept = append(kept, p)
	}
	t.held = kept
}

// roll stops pods of an old template, and pods on nodes that are drained. The new
// ones start when the old ones are gone.
func (t *tenure) roll(c *change, w *workload, x exclusivity, in *input) {
	spare := x.unavailable - (w.want - c.countAvailable(t.held, x.minReady, in.now))
	var kept []*pod
	for _, p := range leastWanted(t.held) {
		old := x.replace && p.Revision != x.target.revision
		ready, _ := p.available(x.minReady, in.now)
		reason := ""
		switch {
		case p.lost:
		case old && x.together && !x.target.back:
			reason = reasonRecreate
		case old && (x.together || !ready || spare > 0):
			reason = x.target.ousts()
		case p.leaving && (!ready || spare > 0) && in.elsewhereNow(w, p) && in.couldLeave(p):
			reason = reasonDrained
		}
		if reason == "" {
			kept = append(kept, p)
			continue
		}
		t.stop(c, p, reason)
		switch {
		case old && x.together:
			t.leaving = t.leaving || p.node != ""
		case ready:
			spare--
		}
	}
	t.held = kept
}

// countAvailable returns how many pods are available, and has another decision
// made when more of them will be.
func (c *change) countAvailable(pods []*pod, minReady time.Duration, now time.Time) int {
	n := 0
	for _, p := range pods {
		ok, at := p.available(minReady, now)
		c.wakeAt(at)
		if ok {
			n++
		}
	}
	return n
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
func (c *change) exclusiveDeployment(w *workload, value *appsv1.Deployment, pods []*pod, known api.Rollout, in *input) {
	x := exclusivity{
		target: w.target, replace: !value.Spec.Paused,
		together:    value.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType,
		unavailable: max(1, deploymentBudget(value, w.want).unavailable), minReady: seconds(value.Spec.MinReadySeconds),
	}
	held := c.decideExclusive(w, pods, x, in)
	c.rollout = c.progress(w, value, held, known, in)
}
