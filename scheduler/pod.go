package scheduler

import (
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
	requests  corev1.ResourceList
	hostPorts []api.HostPort
	state     *api.PodState // what its node says of it; nil until it has said something
}

// ready reports whether the pod serves.
func (p *pod) ready() bool { return p.state != nil && p.state.Ready && !p.state.Stopping }

// ended reports whether the pod is over and will not run again by itself.
func (p *pod) ended() bool {
	return p.state != nil && (p.state.Phase == corev1.PodFailed || p.state.Phase == corev1.PodSucceeded)
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
	w.decide = decidePod
	return w
}

func decidePod(w *workload, pods []*pod, in *input) change {
	var c change
	current := 0
	for _, p := range mostWanted(pods) {
		switch {
		case p.Revision != w.revision:
			c.stop(p, reasonTemplate)
		case current > 0:
			c.stop(p, reasonSurplus)
		default:
			current++
		}
	}
	if current == 0 && len(c.stops) == 0 && in.going[w.id] == 0 {
		c.start("", w.current(), reasonMissing)
	}
	return c
}
