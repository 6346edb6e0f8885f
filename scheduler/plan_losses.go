package scheduler

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// mostLosses bounds how many nodes are lost on paper, one after the other: those
// with the most pods.
const mostLosses = 50

// A Loss is what the fleet would do if any one of some nodes died, and stayed
// away.
type Loss struct {
	Nodes []string `json:"nodes"` // each of them, with the same outcome
	// Elsewhere is how many pods would be started on other nodes; the most of
	// any of the nodes.
	Elsewhere int `json:"elsewhere"`
	// Missing are pods that would run nowhere until the node is back, or there
	// is room.
	Missing []Step `json:"missing"`
	// Budgets are met with the node, and not without it.
	Budgets []BudgetBreach `json:"budgets"`
}

// foreseeLosses lets each node die on paper.
func foreseeLosses(snapshot api.Snapshot, at rest) []Loss {
	pods := map[string]int{}
	for _, a := range at.board.Assigned.Pods {
		pods[a.Node]++
	}
	nodes := slices.SortedFunc(maps.Keys(pods), func(a, b string) int {
		if pods[a] != pods[b] {
			return pods[b] - pods[a]
		}
		return strings.Compare(a, b)
	})
	health, budgets := healthByName(at.board), at.guarded(snapshot)
	out := []Loss{}
	for _, name := range nodes[:min(len(nodes), mostLosses)] {
		if health[name].Gone() {
			continue
		}
		loss := foreseeLoss(snapshot, at, budgets, name)
		i := slices.IndexFunc(out, func(other Loss) bool {
			return slices.Equal(other.Missing, loss.Missing) && slices.Equal(other.Budgets, loss.Budgets)
		})
		if i < 0 {
			out = append(out, loss)
			continue
		}
		out[i].Nodes = append(out[i].Nodes, name)
		out[i].Elsewhere = max(out[i].Elsewhere, loss.Elsewhere)
	}
	for i := range out {
		slices.Sort(out[i].Nodes)
	}
	slices.SortFunc(out, func(a, b Loss) int { return strings.Compare(a.Nodes[0], b.Nodes[0]) })
	return out
}

func foreseeLoss(snapshot api.Snapshot, at rest, budgets guarded, name string) Loss {
	board := at.board
	died := at.now.Add(time.Minute)
	now := died.Add(time.Minute)
	board.ConnectivityChecked = now
	board.Health = slices.DeleteFunc(slices.Clone(board.Health), func(h api.NodeHealth) bool { return h.Node == name })
	board.Health = append(board.Health, api.NodeHealth{Node: name, Status: api.NodeLost, Since: died})
	board.Claims = maps.Clone(board.Claims)
	for id, holder := range board.Claims {
		if holder.Node == name {
			holder.Released = true // its lease is long over
			board.Claims[id] = holder
		}
	}
	after := comeToRest(snapshot, board, at.facts, now)

	loss := Loss{Nodes: []string{name}, Missing: []Step{}, Budgets: lostBudgets(budgets, snapshot, after)}
	before := make(map[string]bool, len(at.board.Assigned.Pods))
	for _, a := range at.board.Assigned.Pods {
		before[a.Pod.Instance] = true
	}
	runs := make(map[api.Identity]bool, len(before))
	for _, a := range after.board.Assigned.Pods {
		if a.Node == name {
			continue
		}
		runs[a.Pod.Identity] = true
		if !before[a.Pod.Instance] {
			loss.Elsewhere++
		}
	}
	waiting := map[api.Identity]bool{}
	for _, u := range at.board.Assigned.Pending {
		waiting[u.Pod.Identity] = true // with the node or without
	}
	for _, u := range after.board.Assigned.Pending {
		if !waiting[u.Pod.Identity] {
			waiting[u.Pod.Identity] = true
			loss.Missing = append(loss.Missing, Step{Pod: u.Pod.Identity.String(), Revision: u.Pod.Revision, Reason: u.Reason})
		}
	}
	for _, a := range after.board.Assigned.Pods {
		if id := a.Pod.Identity; a.Node == name && !runs[id] && !waiting[id] && a.Ended == "" && a.Pod.Kind != "DaemonSet" {
			loss.Missing = append(loss.Missing, Step{Pod: id.String(), Revision: a.Pod.Revision, Reason: waitsForNode})
		}
	}
	slices.SortFunc(loss.Missing, func(a, b Step) int { return strings.Compare(a.Pod, b.Pod) })
	return loss
}
