package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/shoal-dev/shoal/scheduler"
)

// planLines are the lines of a plan: what happens, to what, and why.
type planLine struct{ sign, what, why string }

func objectLines(o scheduler.Objects) (out []planLine) {
	for _, list := range []struct {
		sign    string
		objects []scheduler.ObjectChange
	}{{"-", o.Removed}, {"~", o.Changed}, {"+", o.Added}} {
		for _, c := range list.objects {
			out = append(out, planLine{list.sign, c.Object, fmt.Sprintf("%s:%d", c.File, c.Line)})
		}
	}
	return out
}

func podLines(p scheduler.Plan) (out []planLine) {
	step := func(sign string, steps []scheduler.Step) {
		for _, s := range steps {
			where := ""
			if s.Node != "" {
				where = " on " + s.Node
			}
			out = append(out, planLine{sign, fmt.Sprintf("pod %s of %s%s", s.Revision, s.Pod, where), s.Reason})
		}
	}
	step("-", p.Stop)
	step("+", p.Start)
	for _, m := range p.Move {
		out = append(out, planLine{">", fmt.Sprintf("pod %s of %s from %s to %s", m.Revision, m.Pod, m.From, m.To), m.Reason})
	}
	step("!", p.Pending)
	return out
}

// guardLines are the budgets and quotas that are broken.
func guardLines(p scheduler.Plan) (out []planLine) {
	for _, b := range p.Budgets {
		out = append(out, budgetLine(b))
	}
	for _, q := range p.Quotas {
		why := "there is not enough of its " + strings.Join(q.Resources, ", ")
		if q.Before > 0 {
			why += fmt.Sprintf("; %d waited before the change", q.Before)
		}
		out = append(out, planLine{"!", fmt.Sprintf("ResourceQuota %s holds %d pods back", q.Quota, q.Pods), why})
	}
	return out
}

// budgetLine says how a budget is broken. Where no pods are counted there are no
// numbers.
func budgetLine(b scheduler.BudgetBreach) planLine {
	what, why := "PodDisruptionBudget "+b.Budget, b.Reason
	if b.Wants > 0 {
		what += fmt.Sprintf(" asks for %d healthy pods and has %d", b.Wants, b.Healthy)
	}
	if b.Already {
		why += "; so it was before the change"
	}
	return planLine{"!", what, why}
}

// summary counts what a plan does.
func summary(p scheduler.Plan) string {
	out := fmt.Sprintf("%d pods start, %d stop, %d stay, %d do not fit", len(p.Start), len(p.Stop), p.Stay, len(p.Pending))
	if len(p.Move) > 0 {
		out += fmt.Sprintf(", %d move", len(p.Move))
	}
	if o := p.Objects; len(o.Added)+len(o.Changed)+len(o.Removed) > 0 {
		out = fmt.Sprintf("%d objects added, %d changed, %d removed: ", len(o.Added), len(o.Changed), len(o.Removed)) + out
	}
	return out
}

// lossLine says what happens when one of some nodes dies.
func lossLine(l scheduler.Loss) string {
	who := l.Nodes[0]
	if len(l.Nodes) > 1 {
		who = "any one of " + strings.Join(l.Nodes, ", ")
	}
	if len(l.Missing) == 0 {
		return fmt.Sprintf("without %s everything runs, up to %d pods elsewhere", who, l.Elsewhere)
	}
	return fmt.Sprintf("without %s %d pods do not run", who, len(l.Missing))
}

// missingLines are what is missing without a node.
func missingLines(l scheduler.Loss) (out []planLine) {
	for _, s := range l.Missing {
		out = append(out, planLine{"!", s.Pod, s.Reason})
	}
	for _, b := range l.Budgets {
		out = append(out, budgetLine(b))
	}
	return out
}

func printPlan(w io.Writer, p scheduler.Plan) error {
	var b strings.Builder
	for _, l := range slices.Concat(objectLines(p.Objects), podLines(p), guardLines(p)) {
		fmt.Fprintf(&b, "%s %s: %s\n", l.sign, l.what, l.why)
	}
	fmt.Fprintln(&b, summary(p))
	for _, l := range p.Losses {
		fmt.Fprintln(&b, lossLine(l))
		for _, line := range missingLines(l) {
			fmt.Fprintf(&b, "  %s %s: %s\n", line.sign, line.what, line.why)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// mostRows bounds a table of Markdown: comments on pull requests have a limit.
const mostRows = 200

// printPlanMarkdown prints a plan as a comment on a pull request.
func printPlanMarkdown(w io.Writer, p scheduler.Plan) error {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s**\n", summary(p))
	table := func(head string, lines []planLine) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(&b, "\n| | %s | |\n|---|---|---|\n", head)
		for i, l := range lines {
			if i == mostRows {
				fmt.Fprintf(&b, "| | and %d more | |\n", len(lines)-i)
				break
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", l.sign, cell(l.what), cell(l.why))
		}
	}
	table("object", objectLines(p.Objects))
	table("pod", podLines(p))
	table("budget or quota", guardLines(p))
	if len(p.Losses) > 0 {
		fmt.Fprint(&b, "\nIf a node dies after that:\n\n")
	}
	for _, l := range p.Losses {
		fmt.Fprintf(&b, "- %s\n", cell(lossLine(l)))
		lines := missingLines(l)
		for i, line := range lines {
			if i == mostRows {
				fmt.Fprintf(&b, "  - and %d more\n", len(lines)-i)
				break
			}
			fmt.Fprintf(&b, "  - %s: %s\n", cell(line.what), cell(line.why))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cell escapes what would end a cell of a table, or begin something else.
var cell = strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;", "*", `\*`, "_", `\_`, "[", `\[`).Replace
