package scheduler

import (
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/scheduler/place"
)

// A taint with the effect NoExecute ends what runs on its node and does not
// tolerate it: at once, or after the tolerationSeconds of the shortest of the
// tolerations that match. Only taints that a node has of its own count: what
// becomes of the pods of a node that is lost, or not ready, is decided otherwise.
// No budget has a say in it, and the pods of DaemonSets come and go with their
// DaemonSet's nodes.
// Source: Kubernetes, "Taints and Tolerations: Taint based Evictions".

// tainted is since when each node has each of its taints that end pods.
func tainted(known map[string]time.Time, nodes []node, now time.Time) map[string]time.Time {
	var out map[string]time.Time
	for i := range nodes {
		for j := range nodes[i].info.Taints {
			taint := &nodes[i].info.Taints[j]
			if taint.Effect != corev1.TaintEffectNoExecute {
				continue
			}
			if out == nil {
				out = map[string]time.Time{}
			}
			key := taintKey(&nodes[i], taint)
			out[key] = now
			if since, found := known[key]; found && !since.After(now) {
				out[key] = since
			}
		}
	}
	return out
}

func taintKey(n *node, taint *corev1.Taint) string {
	return n.info.Name + " " + taint.Key + "=" + taint.Value
}

// endsAt is when the taints of its node end a pod; false when they never do.
func (in *input) endsAt(w *workload, p *pod) (time.Time, bool) {
	n := in.node(p.node)
	if n == nil || p.lost || p.ended() {
		return time.Time{}, false
	}
	var first time.Time
	rules := in.rulesOf(w, p.Revision)
	for i := range n.info.Taints {
		taint := &n.info.Taints[i]
		if taint.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		seconds, endless := tolerance(rules.Tolerations, taint)
		if endless {
			continue
		}
		since := in.tainted[taintKey(n, taint)]
		if p.created.After(since) && !p.created.After(in.now) {
			since = p.created
		}
		first = earliest(first, since.Add(seconds))
	}
	return first, !first.IsZero()
}

// tolerance is for how long a pod with these tolerations stands a taint.
func tolerance(tolerations []corev1.Toleration, taint *corev1.Taint) (_ time.Duration, endless bool) {
	shortest, endless := time.Duration(0), false
	for i := range tolerations {
		if !place.Tolerates(tolerations[i:i+1], taint) {
			continue
		}
		seconds := tolerations[i].TolerationSeconds
		if seconds == nil {
			endless = endless || shortest == 0
			continue
		}
		if d := time.Duration(min(*seconds, int64(longestToleration/time.Second))) * time.Second; shortest == 0 || d < shortest {
			shortest, endless = d, false
		}
	}
	return shortest, endless
}

// longestToleration keeps sums of times within their range.
const longestToleration = 100 * 365 * 24 * time.Hour

// evict ends the pods of a workload that the taints of their nodes end, and
// returns the others. Those of Jobs are only marked: their Job has rules for it.
func (r *round) evict(w *workload, pods []*pod) []*pod {
	in := r.in
	if len(in.tainted) == 0 || w.id.Kind == "DaemonSet" || w.exclusive && !in.authority.Quorate {
		return pods
	}
	kept := make([]*pod, 0, len(pods))
	for _, p := range pods {
		at, ends := in.endsAt(w, p)
		switch {
		case !ends:
			kept = append(kept, p)
		case in.now.Before(at):
			r.wakeAt(at)
			kept = append(kept, p)
		case w.id.Kind == "Job" || w.id.Kind == "CronJob":
			p.evicted, p.granted = true, true
			kept = append(kept, p)
		default:
			in.charge(p)
			in.count(api.Removal{Assignment: p.assignment()}, p.state != nil)
			r.stops = append(r.stops, stop{p, reasonTainted})
		}
	}
	return kept
}

func sameTimes(a, b map[string]time.Time) bool { return maps.EqualFunc(a, b, time.Time.Equal) }
