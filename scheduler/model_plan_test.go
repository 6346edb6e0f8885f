package scheduler

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
)

// relate has the pods of a template want to be with or apart from those of an owner,
// in domains of a label: "with=OWNER/LABEL", "apart=OWNER/LABEL".
func (s spec) relate(t *corev1.PodTemplateSpec) {
	terms := func(text string) []corev1.PodAffinityTerm {
		owner, key, given := strings.Cut(text, "/")
		if !given {
			return nil
		}
		return []corev1.PodAffinityTerm{{TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": owner}}}}
	}
	with, apart := terms(s.more["with"]), terms(s.more["apart"])
	if with == nil && apart == nil {
		return
	}
	t.Spec.Affinity = &corev1.Affinity{
		PodAffinity:     &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: with},
		PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: apart},
	}
}

// runPlans runs the commands that foresee.
func (m *model) runPlans(command string) (string, bool) {
	switch command {
	case "plan":
		return describePlan(m.foresee()), true
	case "base":
		m.base = m.snapshot()
	case "change":
		return describeBreaches(Foresee(m.base, m.snapshot(), m.board(), m.facts, m.now)), true
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

// foresee is the plan for a fleet of which it is not known what it follows, without
// what differs and what would be lost with a node.
func (m *model) foresee() Plan {
	p := Foresee(api.Snapshot{}, m.snapshot(), m.board(), m.facts, m.now)
	p.Objects, p.Losses = NoObjects(), []Loss{}
	return p
}
