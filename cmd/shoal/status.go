package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/daemon"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the daemon on this machine follows, runs and complains about",
		Args:  cobra.NoArgs,
	}
	s := addSettings(cmd, nil)
	output := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		asJSON, err := output.json()
		if err != nil {
			return err
		}
		cfg, err := s.load()
		if err != nil {
			return err
		}
		status, err := daemon.NewClient(cfg.Socket()).Status(cmd.Context())
		if err != nil {
			return err
		}
		if asJSON {
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			return e.Encode(status)
		}
		return printStatus(cmd.OutOrStdout(), status, time.Now())
	}
	return cmd
}

func printStatus(out io.Writer, s daemon.Status, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "fleet\t%s\t\nnode\t%s\tshoal %s\n", s.Fleet, s.Node, s.Version)
	for _, u := range s.Units {
		printUnit(w, u, now)
	}
	for _, n := range s.Nodes {
		for _, c := range n.Conditions {
			if (c.Type == corev1.NodeReady) != (c.Status == corev1.ConditionTrue) {
				fmt.Fprintf(w, "alarm\t%s\t%s: %s\n", n.Name, c.Type, c.Message)
			}
		}
	}
	for _, alarm := range s.Alarms {
		fmt.Fprintf(w, "alarm\t\t%s\n", alarm)
	}
	if !s.Observed {
		fmt.Fprintf(w, "alarm\t%s\tthe pods of this machine have not been listed yet\n", s.Node)
	}
	ready := 0
	for _, p := range s.Pods {
		if p.Ready {
			ready++
		}
	}
	fmt.Fprintf(w, "pods\t%d of %d ready\t\n", ready, len(s.Pods))
	if err := w.Flush(); err != nil {
		return err
	}
	if ready == len(s.Pods) {
		return nil
	}
	fmt.Fprintln(out)
	w = tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "NAMESPACE\tPOD\tPHASE\tRESTARTS\tWHY")
	for _, p := range s.Pods {
		if p.Ready {
			continue
		}
		why := p.Reason
		if p.Message != "" {
			why += ": " + p.Message
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", p.Namespace, p.Name, p.Phase, p.Restarts, why)
	}
	return w.Flush()
}

func printUnit(w io.Writer, u api.UnitStatus, now time.Time) {
	where := u.URL
	if u.Ref != "" {
		where += " " + u.Ref
	}
	if u.Path != "" && u.Path != "." {
		where += " " + u.Path
	}
	fmt.Fprintf(w, "follows\t%s\t\n", where)
	if u.Accepted.Commit == "" {
		fmt.Fprintf(w, "in force\tnothing yet\t\n")
	} else {
		fmt.Fprintf(w, "in force\t%s\t%s (%s)\n", u.Accepted.Commit.Short(), u.Accepted.Subject, ago(u.InForce, now))
	}
	if u.Error != "" {
		fmt.Fprintf(w, "alarm\trepository\t%s\n", u.Error)
	}
	if bad := mistakes(u.Problems); bad > 0 {
		fmt.Fprintf(w, "alarm\t%s\trefused: %d errors\n", u.Tip.Commit.Short(), bad)
	}
	for _, p := range u.Problems {
		fmt.Fprintf(w, "\t\t%s\n", p.Error())
	}
}

func ago(t, now time.Time) string {
	if t.IsZero() {
		return "unknown since when"
	}
	return now.Sub(t).Round(time.Second).String() + " ago"
}
