package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/daemon"
	"github.com/shoal-dev/shoal/gitsync"
	"github.com/shoal-dev/shoal/scheduler"
)

// planFlags are what a plan is made from.
type planFlags struct {
	base, head string
	nodes      string
	empty      bool
	output     string
}

func planCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan [PATH]",
		Short: "Show what manifests would start, stop and move, before they are committed",
		Long: "Plan checks a folder as `shoal check` does, and then shows what a fleet would do\n" +
			"if it were committed: which objects differ, which pods start, stop and move, and\n" +
			"to where, what does not fit and why, which PodDisruptionBudgets and\n" +
			"ResourceQuotas that breaks, and what would be missing if a node died after\n" +
			"that. Nothing is changed.\n\n" +
			"The folder is read as it is on disk, or with --head as it is in a commit. The\n" +
			"fleet is the one that the daemon on this machine belongs to; with --nodes it is\n" +
			"made of the nodes in a file, as `kubectl get nodes -o yaml` prints them, and runs\n" +
			"what --base says, or nothing. That needs no daemon and no network.\n\n" +
			"The exit status is 0 when nothing would change, 3 when something would, 1 when\n" +
			"there are mistakes or a pod does not fit, and 2 when something cannot be read.",
		Example: "  shoal plan clusters/home\n" +
			"  shoal plan clusters/home --nodes nodes.yaml --base origin/main --head HEAD -o markdown",
		Args: cobra.MaximumNArgs(1),
	}
	s := addSettings(cmd, nil)
	var f planFlags
	cmd.Flags().StringVar(&f.base, "base", "", "the commit that the fleet runs now")
	cmd.Flags().StringVar(&f.head, "head", "", "the commit to plan for, instead of the folder on disk")
	cmd.Flags().StringVar(&f.nodes, "nodes", "", "plan for the nodes in this file, without a daemon")
	cmd.Flags().BoolVar(&f.empty, "empty", false, "plan for an empty machine like this one, whatever runs")
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "text, json or markdown")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		print, known := planPrinters[f.output]
		if !known {
			return fmt.Errorf("--output: %q is none of text, json and markdown", f.output)
		}
		cfg, err := s.load()
		if err != nil {
			return err
		}
		folder := "."
		if len(args) > 0 {
			folder = args[0]
		}
		plan, err := makePlan(cmd, cfg, folder, f)
		if err != nil {
			return err
		}
		switch err := print(cmd.OutOrStdout(), plan); {
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

// makePlan reads what there is to read, and foresees what comes of it. What a
// fleet that runs has in force is its base, where this repository has that commit.
func makePlan(cmd *cobra.Command, cfg daemon.Config, folder string, f planFlags) (scheduler.Plan, error) {
	head, err := readRevision(cmd, folder, f.head)
	if err != nil {
		return scheduler.Plan{}, err
	}
	fleet, live, err := fleetOf(cmd, cfg, f)
	if err != nil {
		return scheduler.Plan{}, err
	}
	var base api.Snapshot
	switch {
	case f.base != "":
		if base, err = readRevision(cmd, folder, f.base); err != nil {
			return scheduler.Plan{}, err
		}
	case live:
		base = inForce(cmd, cfg, folder)
	}
	plan := scheduler.Foresee(base, head, fleet.Board, fleet.Facts, time.Now())
	if live && !base.Known() {
		plan.Objects = scheduler.NoObjects() // what runs is known by its pods alone
	}
	return plan, nil
}

// inForce reads the folder at the commit that the daemon has in force; it is not
// known when the folder's repository does not have that commit.
func inForce(cmd *cobra.Command, cfg daemon.Config, folder string) api.Snapshot {
	status, err := daemon.NewClient(cfg.Socket()).Status(cmd.Context())
	if err == nil && len(status.Units) == 1 {
		var snapshot api.Snapshot
		var problems []api.Invalid
		if snapshot, problems, err = checkAt(cmd.Context(), folder, string(status.Units[0].Accepted.Commit)); err == nil && !api.Refused(problems) {
			return snapshot
		}
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "the commit in force is not in this repository: the plan shows pods, and no objects that differ (--base names a commit to compare with)")
	return api.Snapshot{}
}

// readRevision reads a folder at a revision, or as it is on disk when the revision
// is empty. Mistakes are printed and are an error.
func readRevision(cmd *cobra.Command, folder, revision string) (api.Snapshot, error) {
	snapshot, problems, err := checkAt(cmd.Context(), folder, revision)
	if err != nil {
		return api.Snapshot{}, err
	}
	if mistakes(problems) > 0 {
		name := folder
		if revision != "" {
			name += " at " + revision
		}
		if err := printProblems(cmd.ErrOrStderr(), name, snapshot, problems); err != nil {
			return api.Snapshot{}, err
		}
		return api.Snapshot{}, exitError(1)
	}
	return snapshot, nil
}

// checkAt checks a folder at a revision, or as it is on disk when the revision is
// empty.
func checkAt(ctx context.Context, folder, revision string) (api.Snapshot, []api.Invalid, error) {
	dir, err := filepath.Abs(folder)
	if err != nil {
		return api.Snapshot{}, nil, fmt.Errorf("plan for %s: %w", folder, err)
	}
	root := gitsync.Root(dir)
	if revision == "" {
		return gitsync.Check(ctx, root, dir)
	}
	inside, err := filepath.Rel(root, dir)
	if err != nil {
		return api.Snapshot{}, nil, fmt.Errorf("plan for %s: %w", folder, err)
	}
	return gitsync.CheckCommit(ctx, root, revision, inside)
}

// fleetOf returns the fleet to plan for, and whether it is the one that runs.
func fleetOf(cmd *cobra.Command, cfg daemon.Config, f planFlags) (fleet daemon.Decision, live bool, err error) {
	if f.nodes != "" {
		fleet, err = readInventory(f.nodes)
		return fleet, false, err
	}
	if !f.empty {
		fleet, err = daemon.NewClient(cfg.Socket()).Decision(cmd.Context())
		if err == nil {
			return fleet, true, nil
		}
		fmt.Fprintln(cmd.ErrOrStderr(), "no daemon answers: planning for an empty machine like this one (--nodes names others)")
	}
	return daemon.EmptyDecision(cfg), false, nil
}

// planPrinters print a plan, by the value of --output.
var planPrinters = map[string]func(io.Writer, scheduler.Plan) error{
	"text":     printPlan,
	"markdown": printPlanMarkdown,
	"json":     func(w io.Writer, p scheduler.Plan) error { return json.NewEncoder(w).Encode(p) },
}
