package scheduler

import (
	"fmt"
	"slices"
	"strings"
)

// runPlans runs the commands that foresee.
func (m *model) runPlans(command string) (string, bool) {
	switch command {
	case "plan":
		return describePlan(Foresee(m.snapshot(), m.board(), m.facts, m.now)), true
	case "base":
		m.base = m.snapshot()
	case "change":
		return describeBreaches(ForeseeChange(m.base, m.snapshot(), m.board(), m.facts, m.now)), true
	default:
		return "", false
	}
	return "", true
}

func describePlan(p Plan) string {
	var out strings.Builder
	for verb, steps := range map[string][]Step{"start": p.Start, "stop": p.Stop, "pending": p.Pending} {
		for _, s := range steps {
			fmt.Fprintf(&out, "%s %s: %s\n", verb, s.Pod, s.Reason)
		}
	}
	for _, s := range p.Move {
		fmt.Fprintf(&out, "move %s from %s to %s: %s\n", s.Pod, s.From, s.To, s.Reason)
	}
	lines := strings.SplitAfter(out.String(), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "") + fmt.Sprintf("%d stay\n", p.Stay)
}

// describeBreaches writes what a plan says of budgets and quotas.
func describeBreaches(p Plan) string {
	var out strings.Builder
	budgets := func(list []BudgetBreach) {
		for _, b := range list {
			fmt.Fprintf(&out, "budget %s: %d of %d healthy: %s%s\n", b.Budget, b.Healthy, b.Wants, b.Reason, map[bool]string{true: ", as before"}[b.Already])
		}
	}
	budgets(p.Budgets)
	for _, q := range p.Quotas {
		fmt.Fprintf(&out, "quota %s: %d wait, %d before: %s\n", q.Quota, q.Pods, q.Before, strings.Join(q.Resources, " "))
	}
	for _, l := range p.Losses {
		if len(l.Budgets) > 0 {
			fmt.Fprintf(&out, "without %s:\n", strings.Join(l.Nodes, " or "))
			budgets(l.Budgets)
		}
	}
	return out.String()
}
