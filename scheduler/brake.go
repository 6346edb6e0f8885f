package scheduler

import (
	"slices"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// The storm brake. A leader that is wrong about who is lost, or a fleet that is
// falling apart, must not start the whole fleet's pods again at once.
const (
	brakeWindow  = 30 * time.Second
	brakeLeast   = 10 // replacements that are always allowed in a window
	brakePercent = 20 // of all pods
	massPercent  = 55 // of all nodes lost in a window: look at oneself first
)

// A brake says how many pods may still be started in the place of lost ones.
type brake struct {
	limit   int // within a window
	recent  int // started within it before
	started int // now
	closed  string
	careful bool // several nodes are lost: leave a reserve
	opens   time.Time
}

// newBrake reads the brake from the memory of former starts. The limit is the
// largest of ten pods, a fifth of all, and all pods of one lost node; a pod and
// the one in its place count once.
func newBrake(in *input, kept []*pod, starts []placement) brake {
	if !slices.ContainsFunc(starts, func(s placement) bool { return s.pod.reason == reasonLost }) {
		return brake{}
	}
	identities := make(map[api.Identity]bool, len(kept))
	perNode := map[string]int{}
	most := 0
	for _, p := range kept {
		identities[p.Identity] = true
		if p.lost {
			perNode[p.node]++
			most = max(most, perNode[p.node])
		}
	}
	for _, s := range starts {
		identities[s.pod.Identity] = true
	}
	b := brake{limit: max(brakeLeast, len(identities)*brakePercent/100, most)}
	for _, r := range recentlyReplaced(in.facts.Replaced, in.now) {
		if b.recent == 0 {
			b.opens = r.At.Add(brakeWindow)
		}
		b.recent += r.Pods
	}
	lost := 0
	for i := range in.nodes {
		if in.nodes[i].status == api.NodeLost {
			lost++
		}
	}
	b.careful = lost >= 2
	if massLoss(in.nodes, in.board) {
		b.closed = waitsForCheck
	}
	return b
}

// refusal says why a pod may not be started in the place of a lost one.
func (b *brake) refusal() string {
	if b.closed != "" {
		return b.closed
	}
	return waitsForBrake
}

// may returns how many of a number of pods may be started in the place of lost
// ones.
func (b *brake) may(n int) int {
	if b.closed != "" {
		return 0
	}
	return max(0, min(n, b.limit-b.recent-b.started))
}

// recentlyReplaced drops what is older than a window.
func recentlyReplaced(known []api.Replacement, now time.Time) []api.Replacement {
	var out []api.Replacement
	for _, r := range known {
		if now.Sub(r.At) < brakeWindow {
			out = append(out, r)
		}
	}
	return out
}

// remember returns the memory of starts after those of this decision.
func (b *brake) remember(known []api.Replacement, now time.Time) []api.Replacement {
	out := recentlyReplaced(known, now)
	if b.started > 0 {
		out = append(out, api.Replacement{At: now, Pods: b.started})
	}
	return out
}

// massLoss reports whether so many nodes were lost within one window that the
// leader itself is more likely to be cut off than all of them to be dead, and
// it has not made sure since.
func massLoss(nodes []node, board api.Board) bool {
	health := healthByName(board)
	var lost []time.Time
	members := 0
	for i := range nodes {
		switch nodes[i].status {
		case api.NodeLeft:
			continue
		case api.NodeLost:
			lost = append(lost, health[nodes[i].info.Name].Since)
		}
		members++
	}
	slices.SortFunc(lost, time.Time.Compare)
	for i, from := range lost {
		last := i
		for last+1 < len(lost) && lost[last+1].Sub(from) <= brakeWindow {
			last++
		}
		if (last-i+1)*100 >= members*massPercent && board.ConnectivityChecked.Before(lost[last]) {
			return true
		}
	}
	return false
}

// wake is when more may be started, zero when nothing waits for that.
func (b *brake) wake(pending []api.Unplaced, now time.Time) time.Time {
	if !slices.ContainsFunc(pending, func(u api.Unplaced) bool { return u.Reason == waitsForBrake }) {
		return time.Time{}
	}
	if b.opens.IsZero() {
		return now.Add(brakeWindow)
	}
	return b.opens
}
