package main

import (
	"fmt"
	"io"
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

func printPlan(w io.Writer, p scheduler.Plan) error {
	var b strings.Builder
	for _, l := range append(objectLines(p.Objects), podLines(p)...) {
		fmt.Fprintf(&b, "%s %s: %s\n", l.sign, l.what, l.why)
	}
	fmt.Fprintln(&b, summary(p))
	for _, l := range p.Losses {
		fmt.Fprintln(&b, lossLine(l))
		for _, s := range l.Missing {
			fmt.Fprintf(&b, "  ! %s: %s\n", s.Pod, s.Reason)
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
	if len(p.Losses) > 0 {
		fmt.Fprint(&b, "\nIf a node dies after that:\n\n")
	}
	for _, l := range p.Losses {
		fmt.Fprintf(&b, "- %s\n", cell(lossLine(l)))
		for i, s := range l.Missing {
			if i == mostRows {
				fmt.Fprintf(&b, "  - and %d more\n", len(l.Missing)-i)
				break
			}
			fmt.Fprintf(&b, "  - %s: %s\n", cell(s.Pod), cell(s.Reason))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cell escapes what would end a cell of a table, or begin something else.
var cell = strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;", "*", `\*`, "_", `\_`, "[", `\[`).Replace
