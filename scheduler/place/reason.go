package place

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Sentences of a whole demand.
const (
	noNodes        = "no nodes available to schedule pods"
	unknownPod     = "the template of the pod is not known"
	noWorkLeft     = "the work that is allowed for one pass is used up"
	neverPreempts  = "preemption: not eligible due to preemptionPolicy=Never."
	noVictims      = "No preemption victims found for incoming pod"
	notHelpful     = "Preemption is not helpful for scheduling"
	notLookedAt    = "node(s) were not looked at: " + noWorkLeft
	volumeConflict = "node(s) didn't match PersistentVolume's node affinity"
)

// sentence says an obstacle in kube-scheduler's words. Which resources are
// insufficient is said by refusals.
func (r *run) sentence(o obstacle, i int32) string {
	switch o {
	case closed:
		return r.f.nodes[i].closed
	case otherName:
		return "node(s) didn't match the requested node name"
	case otherLabels:
		return "node(s) didn't match Pod's node affinity/selector"
	case tainted:
		set := r.f.nodes[i].taints
		taint := &r.f.taints[set][r.g.tolerated[set].refused]
		if taint.Key == corev1.TaintNodeUnschedulable {
			return "node(s) were unschedulable"
		}
		return fmt.Sprintf("node(s) had untolerated taint(s) {%s: %s}", taint.Key, taint.Value)
	case otherVolume:
		return volumeConflict
	case unlabelled:
		return "node(s) didn't match pod topology spread constraints (missing required label)"
	case skewed:
		return "node(s) didn't match pod topology spread constraints"
	case notTogether:
		return "node(s) didn't match pod affinity rules"
	case notApart:
		return "node(s) didn't match pod anti-affinity rules"
	case shunned:
		return "node(s) didn't satisfy existing pods anti-affinity rules"
	case reserved:
		return fmt.Sprintf("node(s) would be filled by more than %d %%", Reserve)
	}
	return ""
}

// refusals lists why the pod does not fit on a node now: what is wrong with the
// node itself, else everything that it has too little of, else the first rule.
func (r *run) refusals(i int32) []string {
	if o := r.still(i); o != fits {
		return []string{r.sentence(o, i)}
	}
	var out []string
	if all, taken := r.f.room(i, pods); taken >= all {
		out = append(out, "Too many pods")
	}
	for _, name := range r.g.lacking {
		out = append(out, "Insufficient "+string(name))
	}
	for _, q := range r.t.requests {
		if resource, has := r.f.resources[q.name]; has {
			if all, taken := r.f.room(i, resource); taken+q.amount > all {
				out = append(out, "Insufficient "+string(q.name))
			}
		}
	}
	if slices.ContainsFunc(r.t.mold.HostPorts, r.f.nodes[i].occupies) {
		out = append(out, "node(s) didn't have free ports for the requested pod ports")
	}
	if len(out) > 0 {
		return out
	}
	if o := r.rules.refuse(i); o != fits {
		return []string{r.sentence(o, i)}
	}
	if r.careful && r.fills(i) {
		return []string{r.sentence(reserved, i)}
	}
	return nil
}

// explain says why the pod fits on none of some nodes: how many there are, and
// for each obstacle how many it is on.
func (r *run) explain(nodes []int32) string {
	count := map[string]int{}
	for _, i := range nodes {
		for _, reason := range r.refusals(i) {
			count[reason]++
		}
	}
	r.steps += int64(len(nodes))
	return tally(len(nodes), count)
}

func tally(nodes int, count map[string]int) string {
	parts := make([]string, 0, len(count))
	for reason, n := range count {
		parts = append(parts, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		return noNodes
	}
	return fmt.Sprintf("0/%d nodes are available: %s.", nodes, strings.Join(parts, ", "))
}
