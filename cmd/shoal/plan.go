package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-dev/shoal/daemon"
	"github.com/shoal-dev/shoal/scheduler"
)

func planCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan PATH",
		Short: "Show what a folder of manifests would start and stop",
		Long: "Plan checks a folder as `shoal check` does, and then shows what a fleet would do\n" +
			"if it were committed: which pods start and stop, and what does not fit and why.\n" +
			"It asks the daemon on this machine what runs now; without one, or with --empty,\n" +
			"it plans for an empty machine like this one. Nothing is changed.\n\n" +
			"The exit status is 0 when nothing would change, 3 when something would, and 1\n" +
			"when the folder has errors or a pod does not fit.",
		Args: cobra.ExactArgs(1),
	}
	s := addSettings(cmd, nil)
	output := addOutput(cmd)
	empty := cmd.Flags().Bool("empty", false, "plan for an empty machine like this one, whatever runs")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, err := output.json()
		if err != nil {
			return err
		}
		cfg, err := s.load()
		if err != nil {
			return err
		}
		snapshot, problems, err := readFolder(cmd, args[0])
		if err != nil {
			return err
		}
		if mistakes(problems) > 0 {
			if err := printProblems(cmd.ErrOrStderr(), args[0], snapshot, problems); err != nil {
				return err
			}
			return exitError(1)
		}
		decision := daemon.EmptyDecision(cfg)
		if !*empty {
			if live, err := daemon.NewClient(cfg.Socket()).Decision(cmd.Context()); err == nil {
				decision = live
			} else {
				fmt.Fprintln(cmd.ErrOrStderr(), "no daemon answers: planning for an empty machine like this one")
			}
		}
		plan := scheduler.Foresee(snapshot, decision.Board, decision.Facts, time.Now())
		if asJSON {
			err = json.NewEncoder(cmd.OutOrStdout()).Encode(plan)
		} else {
			err = printPlan(cmd.OutOrStdout(), plan)
		}
		switch {
		case err != nil:
			return err
		case len(plan.Pending) > 0:
			return exitError(1)
		case !plan.Empty():
			return exitError(3)
		}
		return nil
	}
	return cmd
}

func printPlan(w io.Writer, p scheduler.Plan) error {
	for _, list := range []struct {
		sign  string
		steps []scheduler.Step
	}{{"-", p.Stop}, {"+", p.Start}, {"!", p.Pending}} {
		for _, step := range list.steps {
			where := step.Node
			if where != "" {
				where = " on " + where
			}
			if _, err := fmt.Fprintf(w, "%s pod %s of %s%s: %s\n", list.sign, step.Revision, step.Pod, where, step.Reason); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintf(w, "%d pods start, %d stop, %d stay, %d do not fit\n", len(p.Start), len(p.Stop), p.Stay, len(p.Pending))
	return err
}
