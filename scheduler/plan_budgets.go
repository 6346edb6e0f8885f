package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/shoal-dev/shoal/api"
)

// Why a plan names a PodDisruptionBudget. This is a closed list, but for one that
// cannot be worked out, which says why in the words of its status.
const (
	breachOnTheWay = "fewer pods are healthy on the way than it asks for"
	breachNever    = "it can never be met: it asks for more healthy pods than there are"
	breachUnmet    = "fewer pods are healthy than it asks for"
	breachFrozen   = "it lets no pod go, and none is replaced before it goes: a drain waits for ever"
	breachShared   = "more than one budget selects its pods: a drain waits for ever"
	breachNothing  = "no pod template has the labels that it selects"
	breachProblem  = "it cannot be worked out: "
	breachBriefly  = "fewer pods are healthy than it asks for until others have started elsewhere"
	breachForLong  = "fewer pods are healthy than it asks for until the node is back, or there is room"
)

// A BudgetBreach is a PodDisruptionBudget that is not held, or that cannot do what
// it is for. No budget keeps a change in Git from what it does, as in Kubernetes:
// this is for whoever reviews it.
type BudgetBreach struct {
	Budget  string `json:"budget"`  // "default/db"
	Wants   int    `json:"wants"`   // healthy pods, that it asks for
	Healthy int    `json:"healthy"` // how many there are; on the way, the fewest
	Reason  string `json:"reason"`
	// Already says that it was so before the change, and no better.
	Already bool `json:"already"`
}

// A watch follows how many pods of each budget are healthy while a fleet comes to
// rest. On paper a new pod is ready at once, so what counts is what is left in the
// moment in which pods are told to go: what starts then is not ready yet.
type watch map[string]*tide

type tide struct {
	began  int // healthy pods at the beginning
	lowest int // the fewest there were
	ebb    int // the fewest there were when some had been taken away; began when none were
}

func (w watch) see(in *input, set *api.AssignmentSet) {
	if len(in.guards.spaces) == 0 {
		return
	}
	serves := map[string]bool{}
	for _, record := range in.board.Pods {
		for i := range record.Pods {
			p := &pod{Pod: record.Pods[i].Pod, state: &record.Pods[i], lost: in.health[record.Node].Gone()}
			serves[p.Instance] = p.ready()
		}
	}
	before, after := map[*guard]int{}, map[*guard]int{}
	for i := range set.Pods {
		if a := &set.Pods[i]; serves[a.Pod.Instance] && a.Ended == "" {
			for _, g := range in.guardsOf(&pod{Pod: a.Pod}) {
				before[g]++
				after[g]++
			}
		}
	}
	for i := range set.Remove {
		if p := set.Remove[i].Assignment.Pod; serves[p.Instance] {
			for _, g := range in.guardsOf(&pod{Pod: p}) {
				before[g]++
			}
		}
	}
	for _, list := range in.guards.spaces {
		for _, g := range list {
			t, known := w[g.name()]
			if !known {
				t = &tide{before[g], after[g], before[g]}
				w[g.name()] = t
			}
			t.lowest = min(t.lowest, after[g])
			if after[g] < before[g] {
				t.ebb = min(t.ebb, after[g])
			}
		}
	}
}

func (g *guard) name() string { return g.value.Namespace + "/" + g.value.Name }

// guarded returns the budgets of a snapshot as they stand in a fleet at rest.
func (at rest) guarded(snapshot api.Snapshot) guarded {
	out := guarded{in: newInput(at.board, at.facts, Authority{Quorate: true}, at.now)}
	pods, _ := existing(out.in)
	out.workloads = expand(snapshot, out.in.nodes)
	out.in.applyScale(out.workloads, at.facts.Autoscalers)
	out.in.share(out.workloads, pods)
	out.in.setGuards(snapshot, out.workloads, pods)
	out.stuck, out.shared, out.selects = map[*guard]bool{}, map[*guard]bool{}, map[*guard]bool{}
	if len(out.in.guards.spaces) > 0 {
		for i := range out.workloads {
			out.look(&out.workloads[i], pods[out.workloads[i].id])
		}
	}
	return out
}

// guarded are budgets with what a plan asks of them.
type guarded struct {
	in        *input
	workloads []workload
	stuck     map[*guard]bool // some of its pods could never leave a node that is drained
	shared    map[*guard]bool // some of its pods are those of another one, too
	selects   map[*guard]bool // the pods of some workload, though there may be none now
}

func (s *guarded) look(w *workload, pods []*pod) {
	in := s.in
	in.castOf(w, w.revision)
	for _, g := range in.guardsOf(&pod{Pod: api.Pod{Identity: w.id, Revision: w.revision}}) {
		s.selects[g] = true
	}
	coming := 0
	switch w.id.Kind {
	case "DaemonSet":
		return // nobody drains them
	case "Deployment", "ReplicaSet", "ReplicationController":
		if !w.exclusive {
			coming = 1 // another one starts first
		}
	}
	for _, p := range pods {
		if p.lost || p.ended() {
			continue
		}
		list := in.guardsOf(p)
		for _, g := range list {
			s.selects[g] = true
			s.shared[g] = s.shared[g] || len(list) > 1
			s.stuck[g] = s.stuck[g] || in.refusal(p, coming) != ""
		}
	}
}

// breaches returns the budgets that are broken in a fleet at rest, sorted by name.
func (s *guarded) breaches() []BudgetBreach {
	var out []BudgetBreach
	for _, list := range s.in.guards.spaces {
		for _, g := range list {
			if reason := s.breach(g); reason != "" {
				out = append(out, BudgetBreach{Budget: g.name(), Wants: g.desired, Healthy: g.healthy, Reason: reason})
			}
		}
	}
	return sortBreaches(out)
}

func (s *guarded) breach(g *guard) string {
	switch {
	case g.problem != "":
		return breachProblem + g.problem
	case !s.selects[g]:
		return breachNothing
	case g.pods == 0:
		return "" // none are wanted now, or all have done their work
	case g.desired > g.pods:
		return breachNever
	case g.healthy < g.desired:
		return breachUnmet
	case s.shared[g]:
		return breachShared
	case s.stuck[g]:
		return breachFrozen
	}
	return ""
}

func sortBreaches(list []BudgetBreach) []BudgetBreach {
	slices.SortFunc(list, func(a, b BudgetBreach) int {
		return cmp.Or(strings.Compare(a.Budget, b.Budget), strings.Compare(a.Reason, b.Reason))
	})
	return list
}

// compareBudgets lists the budgets that are broken after a change, and those that
// are met after it and were not all the way.
func compareBudgets(old, snapshot api.Snapshot, first, last rest) []BudgetBreach {
	former := map[string]BudgetBreach{}
	if old.Known() {
		before := first.guarded(old)
		for _, b := range before.breaches() {
			former[b.Budget] = b
		}
	}
	after := last.guarded(snapshot)
	out := append([]BudgetBreach{}, after.breaches()...)
	for i, b := range out {
		f, was := former[b.Budget]
		out[i].Already = was && f.Reason == b.Reason && f.Wants-f.Healthy >= b.Wants-b.Healthy
	}
	for _, list := range after.in.guards.spaces {
		for _, g := range list {
			t, seen := last.watch[g.name()]
			if seen && g.problem == "" && g.pods > 0 && g.spare >= 0 && t.ebb < min(g.desired, t.began) {
				out = append(out, BudgetBreach{Budget: g.name(), Wants: g.desired, Healthy: t.ebb, Reason: breachOnTheWay})
			}
		}
	}
	return sortBreaches(out)
}

// lostBudgets lists the budgets that are met in a fleet at rest, and are not when
// one of its nodes dies.
func lostBudgets(before guarded, snapshot api.Snapshot, after rest) []BudgetBreach {
	out := []BudgetBreach{}
	if len(before.in.guards.spaces) == 0 {
		return out
	}
	left := map[string]int{}
	recovered := after.guarded(snapshot)
	for _, list := range recovered.in.guards.spaces {
		for _, g := range list {
			left[g.name()] = g.healthy
		}
	}
	for _, namespace := range slices.Sorted(maps.Keys(before.in.guards.spaces)) {
		for _, g := range before.in.guards.spaces[namespace] {
			t, seen := after.watch[g.name()]
			if !seen || g.problem != "" || g.pods == 0 || g.spare < 0 || t.lowest >= g.desired {
				continue
			}
			b := BudgetBreach{Budget: g.name(), Wants: g.desired, Healthy: t.lowest, Reason: breachBriefly}
			if left[b.Budget] < g.desired {
				b.Healthy, b.Reason = left[b.Budget], breachForLong
			}
			out = append(out, b)
		}
	}
	return sortBreaches(out)
}
