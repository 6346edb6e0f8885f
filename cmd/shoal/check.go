package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gitsync"
)

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check PATH",
		Short: "Check manifests and print every problem with file and line",
		Long: "Check reads the manifests in a folder the way a node would, and prints every\n" +
			"problem as file:line: field: reason. It needs no daemon and no network.\n\n" +
			"The exit status is 0 when a node would accept the folder, 1 when it would not,\n" +
			"and 2 when the folder cannot be read. Warnings, about what is accepted and not\n" +
			"acted upon, do not change it.",
		Example: "  shoal check .\n  shoal check clusters/home --output json",
		Args:    cobra.ExactArgs(1),
	}
	output := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, err := output.json()
		if err != nil {
			return err
		}
		snapshot, problems, err := readFolder(cmd, args[0])
		if err != nil {
			return err
		}
		if asJSON {
			err = json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"objects": snapshot.Len(), "problems": problems})
		} else {
			err = printProblems(cmd.OutOrStdout(), args[0], snapshot, problems)
		}
		if err == nil && mistakes(problems) > 0 {
			return exitError(1)
		}
		return err
	}
	return cmd
}

// readFolder reads a folder as a node would read it from a commit.
func readFolder(cmd *cobra.Command, path string) (api.Snapshot, []api.Invalid, error) {
	dir, err := filepath.Abs(path)
	if err != nil {
		return api.Snapshot{}, nil, fmt.Errorf("check %s: %w", path, err)
	}
	return gitsync.Check(cmd.Context(), gitsync.Root(dir), dir)
}

func mistakes(problems []api.Invalid) int {
	n := 0
	for _, p := range problems {
		if !p.Warning {
			n++
		}
	}
	return n
}

func printProblems(w io.Writer, path string, snapshot api.Snapshot, problems []api.Invalid) error {
	for _, p := range problems {
		if _, err := fmt.Fprintln(w, p.Error()); err != nil {
			return err
		}
	}
	bad := mistakes(problems)
	verdict := fmt.Sprintf("%d objects, all good", snapshot.Len())
	switch {
	case bad > 0:
		verdict = fmt.Sprintf("%d errors, %d warnings: a node would refuse this", bad, len(problems)-bad)
	case len(problems) > 0:
		verdict = fmt.Sprintf("%d objects, %d warnings", snapshot.Len(), len(problems))
	}
	_, err := fmt.Fprintf(w, "%s: %s\n", path, verdict)
	return err
}
