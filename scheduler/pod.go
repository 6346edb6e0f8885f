package scheduler

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// A pod is one instance that exists: assigned, waiting for a node, or observed
// on one.
type pod struct {
	api.Pod
	node      string // "" while it waits for one
	unit      string
	commit    api.Commit
	claim     api.Claim
	created   time.Time
	reason    string
	cast      *cast         // what it means to others; nil for one without a node
	nominated string        // the node on which others go for it
	state     *api.PodState // what its node says of it; nil until it has said something
	lost      bool          // its node is gone: what is known of the pod is old
	stopped   bool          // it is told to stop now
	leaving   bool          // its node is drained, or it is moved
	moving    bool          // it is moved, see rebalance.go
	charged   bool          // to the budgets that select it
	evicted   bool          // a taint of its node ends it
	granted   bool          // its budgets let it leave its node
	// over is how it ended, when an earlier decision knew; its node may have
	// forgotten since.
	over corev1.PodPhase
}

// ready reports whether the pod serves.
func (p *pod) ready() bool { return p.state != nil && p.state.Ready && !p.state.Stopping && !p.lost }

// ended reports whether the pod is over and will not run again by itself.
func (p *pod) ended() bool {
	phase := p.phase()
	return phase == corev1.PodFailed || phase == corev1.PodSucceeded
}

// evictedByNode is the reason of a pod that its node ended for want of something.
const evictedByNode = "Evicted"

// wasEvicted reports whether its node ended the pod, for want of memory or disk.
func (p *pod) wasEvicted() bool {
	return p.state != nil && p.state.Phase == corev1.PodFailed && p.state.Reason == evictedByNode
}

// endedAt is when a pod that its node tells of has ended: when the last of its
// containers did, or, where none began, when it came. It is long ago where the
// clock of the node is ahead of this one.
func (p *pod) endedAt(now time.Time) time.Time {
	var at time.Time
	if p.state == nil {
		return at
	}
	for _, c := range p.state.Containers {
		if c.Ended != nil && c.Ended.Finished.After(at) {
			at = c.Ended.Finished
		}
	}
	if at.IsZero() {
		at = p.state.Started
	}
	if at.After(now) {
		return time.Time{}
	}
	return at
}

// phase is what is known of how far the pod is, "" when nothing is.
func (p *pod) phase() corev1.PodPhase {
	if p.over == "" && p.state != nil {
		return p.state.Phase
	}
	return p.over
}

// available reports whether the pod has been ready for minReady, and else when
// it will have been; a zero time means "not foreseeable".
// Source: Deployment.spec.minReadySeconds.
func (p *pod) available(minReady time.Duration, now time.Time) (bool, time.Time) {
	if !p.ready() {
		return false, time.Time{}
	}
	at := p.state.ReadyAt.Add(minReady)
	if minReady == 0 || !now.Before(at) {
		return true, time.Time{}
	}
	return false, at
}

// expandPod makes a workload of a bare pod. It has one slot without a name, and
// because its name is its owner's, a changed pod is stopped before the new one
// starts.
func expandPod(object api.Object) workload {
	w := newWorkload(object, templateOf(object))
	w.want = 1
	w.exclusive = w.annotated()
	w.decide = decidePod
	return w
}

// decidePod keeps one pod. On a node that is lost it is replaced, unless it had
// ended: a bare pod runs once.
func decidePod(w *workload, pods []*pod, in *input) change {
	var c change
	if w.exclusive {
		c.decideExclusive(w, pods, exclusivity{target: w.current(), replace: true, unavailable: 1}, in)
		return c
	}
	all := in.muster(w, pods)
	over := slices.ContainsFunc(all.lost, (*pod).ended)
	var current []*pod
	for _, p := range all.here {
		if p.Revision != w.revision {
			c.stop(p, reasonTemplate)
			continue
		}
		current = append(current, p)
	}
	current = mostWanted(current)
	for i, p := range current {
		switch {
		case i > 0:
			c.giveUpDouble(p, current, &level{available: 1}, in)
		case p.leaving && in.elsewhereNow(w, p) && in.couldLeave(p):
			c.stop(p, reasonDrained)
		}
	}
	if len(current) == 0 && len(c.stops) == 0 && len(all.waiting) == 0 && !over && in.going[w.id] == 0 {
		c.start("", w.current(), c.reasonOf("", 0, all.lost, reasonMissing))
	}
	return c
}
