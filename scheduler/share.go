package scheduler

import (
	"cmp"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"

	"github.com/shoal-dev/shoal/api"
)

// mostWaiting is how many pods of all workloads may wait for a node, beside those
// that the nodes have places for. Each that waits is remembered by every node and
// looked at in every pass.
const mostWaiting = 5000

// share bounds the pods of all workloads together: as many new ones as the nodes
// have places for, and some that wait. Where more are asked for, every workload
// gets what it asks for up to a number that is the same for all, and one at least, so
// that one with some zeros too many leaves the others theirs. What has a node is not touched, and
// DaemonSets are not counted: the number of nodes bounds them.
func (in *input) share(workloads []workload, pods map[api.Identity][]*pod) {
	room := int64(mostPods(in.nodes)) - waitingPods
	asked := int64(0)
	for i := range workloads {
		asked += int64(in.asks(&workloads[i]))
	}
	if asked <= room+mostWaiting {
		return
	}
	var claimants []claimant
	for i := range workloads {
		w := &workloads[i]
		placed := w.placed(pods[w.id])
		room -= int64(placed)
		if n := in.asks(w) - placed; n > 0 {
			claimants = append(claimants, claimant{w, placed, n})
		}
	}
	left := max(0, room) + mostWaiting
	slices.SortStableFunc(claimants, func(a, b claimant) int { return cmp.Compare(a.more, b.more) })
	for i, d := range claimants {
		gets := min(d.more, max(1, int(left/int64(len(claimants)-i))))
		left = max(0, left-int64(gets))
		d.grant(gets)
	}
}

// A claimant is a workload that wants pods beyond those that have nodes.
type claimant struct {
	w      *workload
	placed int
	more   int
}

// grant gives a workload some of what it asks for. A Job gets the rest when its
// pods have nodes.
func (d claimant) grant(n int) {
	switch w := d.w; {
	case w.id.Kind == "Job" || w.id.Kind == "CronJob":
		w.queue = min(w.queue, n)
	case n < d.more:
		want := d.placed + n
		w.beyond, w.want = w.beyond+w.want-want, want
	}
}

// asks is how many pods a workload asks for, those that it has included; 0 where
// they are bounded otherwise.
func (in *input) asks(w *workload) int {
	switch value := w.object.Value.(type) {
	case *appsv1.DaemonSet:
		return 0
	case *batchv1.Job:
		if run := in.facts.Jobs[w.id.String()]; run.Finished() && run.Revision == w.revision {
			return 0
		}
	case *batchv1.CronJob:
		spec := jobDefaults(value.Spec.JobTemplate.Spec)
		return min(piecesAtATime(&spec), waitingPods)
	}
	return w.want
}

// placed is how many of the wanted pods are taken for granted: those that have
// nodes, and, where pods are numbered, all before the last of them.
func (w *workload) placed(pods []*pod) int {
	n, last := 0, 0
	set, numbered := w.object.Value.(*appsv1.StatefulSet)
	for _, p := range pods {
		if p.node == "" || p.ended() {
			continue
		}
		n++
		if i, ok := ordinal(p.Slot, ""); ok && numbered {
			last = max(last, i-firstOrdinal(set)+1)
		}
	}
	return max(n, last)
}
