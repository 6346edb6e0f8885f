package scheduler

import (
	"maps"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// A Plan says what a fleet would have done once it has come to rest with a
// snapshot. Its JSON form is stable.
type Plan struct {
	Objects Objects `json:"objects"`
	Start   []Step  `json:"start"`
	Stop    []Step  `json:"stop"`
	Move    []Move  `json:"move"`
	Pending []Step  `json:"pending"` // wanted, and fits nowhere
	Stay    int     `json:"stay"`    // pods that are not touched
	// Budgets and Quotas are those that are broken after the change, or that it
	// breaks on the way.
	Budgets []BudgetBreach `json:"budgets"`
	Quotas  []QuotaBreach  `json:"quotas"`
	// Losses are what the fleet would do if one node died after that.
	Losses []Loss `json:"losses"`
}

// A Step is one pod that starts or stops. The pod is named by identity: what
// will be started has no name yet.
type Step struct {
	Pod      string `json:"pod"`
	Revision string `json:"revision"`
	Node     string `json:"node,omitempty"`
	Reason   string `json:"reason"`
}

// A Move is a pod that stops on one node and starts on another, though its
// template is the same.
type Move struct {
	Pod      string `json:"pod"`
	Revision string `json:"revision"`
	From     string `json:"from"`
	To       string `json:"to"`
	Reason   string `json:"reason"` // why it stops where it is
}

// Empty reports whether nothing would change.
func (p Plan) Empty() bool {
	return p.Objects.empty() && len(p.Start)+len(p.Stop)+len(p.Move)+len(p.Pending) == 0
}

// maxRounds bounds how long Foresee goes on: a rolling update takes a round for
// each step, and no workload has more steps than pods.
const maxRounds = 10_000

// Foresee foresees what a fleet would do when one snapshot takes the place of
// another: what is on the board comes to rest with the old one first, when that is
// known. What would happen if one of the nodes died after that is part of the plan.
//
// It runs the scheduler on paper until it comes to rest: pods start and become ready
// at once, and go when they are told to. What it finds is what the fleet would do if
// every new pod worked. The calendar stands still: no run of a CronJob becomes due and
// no Job is late. A Job whose first pods start has succeeded as a whole: what it
// starts after them is not foreseen.
func Foresee(old, snapshot api.Snapshot, board api.Board, facts api.Facts, now time.Time) Plan {
	first := rest{board: board, facts: facts, now: now}
	if old.Known() {
		first = comeToRest(old, board, facts, now)
	}
	last := comeToRest(snapshot, first.board, first.facts, first.now)
	p := compare(first.board.Assigned.Pods, last.board.Assigned, last.reasons)
	p.Budgets, p.Quotas = compareBudgets(old, snapshot, first, last), compareQuotas(first, last)
	p.Objects, p.Losses = compareObjects(old, snapshot), foreseeLosses(snapshot, last)
	return p
}

// A rest is a fleet that has nothing left to do.
type rest struct {
	board   api.Board
	facts   api.Facts
	now     time.Time
	reasons map[string]string // why pods were stopped on the way, by instance
	watch   watch
	excess  map[*quota]*excess // at the end
}

func comeToRest(snapshot api.Snapshot, board api.Board, facts api.Facts, now time.Time) rest {
	out := rest{reasons: map[string]string{}, watch: watch{}}
	board = reported(board)
	calendar := now
	for range maxRounds {
		d, in := granting(snapshot, &board, facts, now, calendar)
		set, next, wake := d.Set, d.Facts, d.settles
		for _, r := range set.Remove {
			out.reasons[r.Assignment.Pod.Instance] = r.Reason
		}
		out.watch.see(in, &set)
		out.excess = in.excess
		settled := len(set.Remove) == 0 && next.Seq == facts.Seq
		board, facts = obeyed(board, set, now), succeeded(set, next, calendar)
		if settled && wake.IsZero() {
			break
		}
		now = now.Add(time.Second)
		if wake.After(now) {
			now = wake
		}
	}
	out.board, out.facts, out.now = board, facts, now
	return out
}

// granting decides with a quorum that grants every claim at once.
func granting(snapshot api.Snapshot, board *api.Board, facts api.Facts, now, calendar time.Time) (Decision, *input) {
	var in *input
	decide := func() Decision {
		in = newInput(*board, facts, Authority{Leader: "plan", Quorate: true}, now)
		in.calendar, in.foreseen = calendar, true
		return schedule(snapshot, in)
	}
	d := decide()
	if len(d.Claims) > 0 {
		board.Claims = Grant(board.Claims, d.Claims)
		d = decide()
	}
	return d, in
}

// succeeded is the memory after the Jobs whose first pods have been given nodes
// have done all their work.
func succeeded(set api.AssignmentSet, facts api.Facts, at time.Time) api.Facts {
	facts.Jobs = maps.Clone(facts.Jobs)
	for _, a := range set.Pods {
		key := a.Pod.Workload().String()
		if run, known := facts.Jobs[key]; known && !run.Finished() {
			// A moment later, so that none has been over for long enough to go.
			run.End = api.JobEnd{Type: batchv1.JobComplete, Reason: batchv1.JobReasonCompletionsReached, At: at.Add(1)}
			facts.Jobs[key] = run
			facts.Seq++
		}
	}
	return facts
}

// reported is the board on which nodes that said nothing of their pods have
// none: on paper there is nothing to wait for.
func reported(board api.Board) api.Board {
	said := map[string]bool{}
	for _, record := range board.Pods {
		said[record.Node] = true
	}
	board.Pods = slices.Clone(board.Pods)
	for _, n := range board.Nodes {
		if !said[n.Name] {
			board.Pods = append(board.Pods, api.PodStates{Node: n.Name})
		}
	}
	return board
}

// obeyed is the board after the nodes did what a set says.
func obeyed(board api.Board, set api.AssignmentSet, now time.Time) api.Board {
	known := map[string]api.PodState{}
	for _, record := range board.Pods {
		for _, s := range record.Pods {
			known[s.Pod.Instance] = s
		}
	}
	gone := map[string]bool{}
	for _, h := range board.Health {
		gone[h.Node] = h.Gone()
	}
	records := map[string]*api.PodStates{}
	out := board
	out.Pods, out.Assigned = make([]api.PodStates, len(board.Nodes)), set
	for i, n := range board.Nodes {
		out.Pods[i] = api.PodStates{Node: n.Name, Seq: api.Seq{N: 1}}
		records[n.Name] = &out.Pods[i]
	}
	for _, a := range set.Pods {
		s, there := known[a.Pod.Instance]
		ended := a.Ended != "" || s.Phase == corev1.PodSucceeded || s.Phase == corev1.PodFailed
		if (!there || !s.Ready) && !ended && !gone[a.Node] {
			s = api.PodState{Pod: a.Pod, Unit: a.Unit, Commit: a.Commit, Phase: corev1.PodRunning, Ready: true, ReadyAt: now, Started: now}
		}
		if a.Pod.Kind == "Job" && !ended && !gone[a.Node] {
			s.Phase, s.Ready, s.ReadyAt = corev1.PodSucceeded, false, time.Time{}
		}
		if r := records[a.Node]; r != nil && (there || !gone[a.Node]) {
			r.Pods = append(r.Pods, s)
		}
	}
	out.Assigned.Remove = nil
	return out
}

func compare(former []api.Assignment, after api.AssignmentSet, reasons map[string]string) Plan {
	p := Plan{Start: []Step{}, Stop: []Step{}, Move: []Move{}, Pending: []Step{}, Budgets: []BudgetBreach{}, Quotas: []QuotaBreach{}, Losses: []Loss{}}
	p.Objects = NoObjects()
	before := make(map[string]bool, len(former))
	for _, a := range former {
		before[a.Pod.Instance] = true
	}
	var started []api.Assignment
	byPod := map[string][]int{} // started, by identity and revision
	for _, a := range after.Pods {
		if before[a.Pod.Instance] {
			delete(before, a.Pod.Instance)
			p.Stay++
			continue
		}
		key := a.Pod.Identity.String() + "@" + a.Pod.Revision
		byPod[key] = append(byPod[key], len(started))
		started = append(started, a)
	}
	moved := map[int]bool{}
	for _, a := range former {
		if !before[a.Pod.Instance] {
			continue
		}
		id, reason := a.Pod.Identity.String(), reasons[a.Pod.Instance]
		key := id + "@" + a.Pod.Revision
		if to := byPod[key]; len(to) > 0 && started[to[0]].Node != a.Node {
			p.Move = append(p.Move, Move{id, a.Pod.Revision, a.Node, started[to[0]].Node, reason})
			byPod[key], moved[to[0]] = to[1:], true
			continue
		}
		p.Stop = append(p.Stop, Step{id, a.Pod.Revision, a.Node, reason})
	}
	for i, a := range started {
		if !moved[i] {
			p.Start = append(p.Start, Step{a.Pod.Identity.String(), a.Pod.Revision, a.Node, a.Reason})
		}
	}
	for _, u := range after.Pending {
		p.Pending = append(p.Pending, Step{Pod: u.Pod.Identity.String(), Revision: u.Pod.Revision, Reason: u.Reason})
	}
	return p
}
