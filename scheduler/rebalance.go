package scheduler

import (
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/scheduler/place"
)

// When capacity returns, pods move to it, where the settings of the fleet ask for
// that: while nothing else happens, one at a time, the new one first. A move goes
// the way of a drain: its pod counts as one whose node is drained. What is moved,
// and where to, is in balancer.go.
const (
	calmTime   = time.Minute      // for how long nothing else must have happened
	restTime   = 30 * time.Second // between two moves
	moveTime   = 10 * time.Minute // for a new pod to become available, without a progress deadline
	failedTime = 10 * time.Minute // for which a workload is left alone that could not be moved
	rollTime   = 10 * time.Minute // after which the rollout of a StatefulSet counts as held
)

// followMove brings the memory of moves up to date, before anything is decided. A
// move is given up when its new pod is not available in its time, and when
// something else has happened to one of its pods.
func (in *input) followMove(workloads []workload, pods map[api.Identity][]*pod) {
	in.balances = in.settings.Rebalance == api.RebalanceGentle
	if !in.balances {
		return
	}
	in.balance = in.facts.Balance
	in.balance.Failed = maps.Clone(in.balance.Failed)
	maps.DeleteFunc(in.balance.Failed, func(_ string, f api.FailedMove) bool { return in.now.Sub(f.At) >= failedTime })
	m := in.balance.Move
	if m.Old == "" {
		return
	}
	id := m.Pod.Workload()
	var old, next *pod
	for _, p := range pods[id] {
		switch p.Instance {
		case m.Old:
			old = p
		case m.Pod.Instance:
			next = p
		}
	}
	i := slices.IndexFunc(workloads, func(w workload) bool { return w.id == id })
	if i < 0 || old == nil || next == nil || old.lost || next.lost || old.leaving || next.leaving || old.ended() || m.Pod.Revision != workloads[i].revision {
		in.endMove()
		return
	}
	w := &workloads[i]
	if next.ended() || !in.now.Before(m.Since.Add(w.moveTime())) {
		if in.balance.Failed == nil {
			in.balance.Failed = map[string]api.FailedMove{}
		}
		in.balance.Failed[id.String()] = api.FailedMove{Revision: m.Pod.Revision, At: in.now}
		in.endMove()
		return
	}
	in.moving = old
	old.leaving, old.moving = true, true
}

func (in *input) endMove() {
	in.moving, in.balance.Move, in.balance.Rest = nil, api.Move{}, in.now
}

// moveTime is how long a new pod of the workload may take to become available.
func (w *workload) moveTime() time.Duration {
	if value, ok := w.object.Value.(*appsv1.Deployment); ok && value.Spec.ProgressDeadlineSeconds != nil {
		return seconds(*value.Spec.ProgressDeadlineSeconds)
	}
	return moveTime + w.minReady()
}

// minReady is for how long a pod of the workload must be ready to be available.
func (w *workload) minReady() time.Duration {
	switch value := w.object.Value.(type) {
	case *appsv1.Deployment:
		return seconds(value.Spec.MinReadySeconds)
	case *appsv1.ReplicaSet:
		return seconds(value.Spec.MinReadySeconds)
	case *corev1.ReplicationController:
		return seconds(value.Spec.MinReadySeconds)
	}
	return 0
}

// rebalance ends the move that is under way once its old pod is told to go, and
// begins the next one when it is time.
func (r *round) rebalance(d *Decision, placed *placer, workloads []workload) {
	in := r.in
	if !in.balances {
		d.Facts.Balance = api.Balance{}
		return
	}
	if in.moving != nil && in.moving.stopped {
		in.endMove()
	}
	b := &in.balance
	switch calm := r.calm(d.Set.Remove); {
	case !calm:
		b.Calm = time.Time{}
	case b.Calm.IsZero():
		b.Calm = in.now
	}
	switch begin := latest(b.Calm.Add(calmTime), b.Rest.Add(restTime)); {
	case b.Move.Old != "":
		i := slices.IndexFunc(workloads, func(w workload) bool { return w.id == b.Move.Pod.Workload() })
		r.calendar = earliest(r.calendar, b.Move.Since.Add(workloads[i].moveTime()))
	case b.Calm.IsZero() || len(d.Set.Remove) > 0 || !in.authority.Quorate || in.foreseen:
	case in.now.Before(begin):
		r.calendar = earliest(r.calendar, begin)
	default:
		r.beginMove(placed, workloads)
	}
	for _, f := range b.Failed {
		r.calendar = earliest(r.calendar, f.At.Add(failedTime))
	}
	if len(b.Failed) == 0 {
		b.Failed = nil
	}
	d.Facts.Balance, d.Facts.Minted = *b, r.next.Minted
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// beginMove starts a pod in the place of one that had better be elsewhere, if there
// is any.
func (r *round) beginMove(placed *placer, workloads []workload) {
	in := r.in
	found, again := newBalancer(in, r.kept, workloads, func() *place.Fleet {
		if placed.book(nil) != nil {
			return nil
		}
		in.chargeAll(r.kept, nil)
		return placed.fleet
	}).find()
	if found.pod == nil {
		if again {
			r.calendar = earliest(r.calendar, in.now.Add(restTime))
		}
		return
	}
	r.next.Minted++
	next := in.mint(found.w, start{slot: found.pod.Slot, template: found.w.current(), reason: reasonBalance}, r.next.Minted)
	next.node, next.cast = found.node, found.pod.cast
	placed.placed = append(placed.placed, next)
	in.balance.Move = api.Move{Pod: next.Pod, Old: found.pod.Instance, Since: in.now}
	r.calendar = earliest(r.calendar, in.now.Add(found.w.moveTime()))
}

// calm reports whether nothing happens in the fleet but moves, and all its nodes are
// well.
func (r *round) calm(removals []api.Removal) bool {
	in := r.in
	// Jobs come and go all the time, and none of their pods moves.
	matters := func(p api.Pod, reason string) bool {
		return p.Kind != "Job" && p.Kind != "CronJob" && reason != reasonBalanced && reason != reasonUnmoved
	}
	if len(in.hindered) > 0 ||
		slices.ContainsFunc(r.starts, func(s placement) bool { return matters(s.pod.Pod, "") }) ||
		slices.ContainsFunc(r.stops, func(s stop) bool { return matters(s.pod.Pod, s.reason) }) ||
		slices.ContainsFunc(removals, func(d api.Removal) bool { return matters(d.Assignment.Pod, d.Reason) }) {
		return false
	}
	for name, back := range in.away {
		if !back.IsZero() || in.health[name].Status != api.NodeLeft {
			return false
		}
	}
	for i := range in.nodes {
		n := &in.nodes[i]
		if n.status != api.NodeLeft && (n.unusable() != "" || n.info.Draining || !isReady(n.info) || in.health[n.info.Name].Unstable) {
			return false
		}
	}
	finished := true
	for id, rollout := range r.next.Rollouts { // all of them: the order does not matter
		_, owner, _ := strings.Cut(id, "/")
		held := rollout.Started.Add(rollTime)
		switch set := strings.HasPrefix(owner, "StatefulSet/"); {
		case rollout.Complete, rollout.Failed, set && !in.now.Before(held):
			continue // one that has failed may stay so for as long as nobody commits
		case set: // a partition may hold it for as long as somebody likes
			r.calendar = earliest(r.calendar, held)
		}
		finished = false
	}
	return finished && !slices.ContainsFunc(r.kept, func(p *pod) bool { return p.lost })
}
