package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
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
	printLeader(w, s)
	for _, u := range s.Units {
		printUnit(w, u, now)
	}
	printAlarms(w, s, now)
	s.Pods = slices.DeleteFunc(slices.Clone(s.Pods), done)
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
	if len(s.Nodes) > 1 {
		if err := printNodes(out, s, now); err != nil {
			return err
		}
	}
	if ready == len(s.Pods) {
		return nil
	}
	return printWaiting(out, s.Pods)
}

// done reports whether a pod has done its work: nothing is wrong with it.
func done(p daemon.PodStatus) bool { return p.Phase == string(corev1.PodSucceeded) }

// printAlarms says what is wrong with nodes, and what the fleet complains about.
func printAlarms(w io.Writer, s daemon.Status, now time.Time) {
	gone := map[string]bool{}
	for _, h := range s.Health {
		gone[h.Node] = h.Gone()
		if h.Status != api.NodeAlive {
			fmt.Fprintf(w, "alarm\t%s\tthe node is %s since %s\n", h.Node, strings.ToLower(string(h.Status)), ago(h.Since, now))
		}
		if h.Unstable {
			fmt.Fprintf(w, "alarm\t%s\tthe node comes and goes: it gets no new pods for a while\n", h.Node)
		}
	}
	for _, n := range s.Nodes {
		for _, c := range n.Conditions {
			if gone[n.Name] {
				break // what it said last says nothing any more
			}
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
}

// printWaiting lists pods that are not ready, and why.
func printWaiting(out io.Writer, pods []daemon.PodStatus) error {
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "NAMESPACE\tPOD\tPHASE\tRESTARTS\tWHY")
	for _, p := range pods {
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

// printLeader says who leads, and with what right.
func printLeader(w io.Writer, s daemon.Status) {
	switch {
	case s.Leader == "":
		fmt.Fprintf(w, "alarm\t\tnobody leads: pods run on, nothing is placed or moved\n")
	case s.Quorate:
		fmt.Fprintf(w, "leader\t%s\tquorate, epoch %d, term %d, heard %s ago\n", s.Leader, s.Epoch, s.Term, s.Heard.Round(time.Millisecond))
	default:
		fmt.Fprintf(w, "leader\t%s\tacting, heard %s ago\n", s.Leader, s.Heard.Round(time.Millisecond))
		fmt.Fprintf(w, "alarm\t\tmost of the nodes that vote (%s) are out of reach: exclusive pods wait and no node can join; if they are gone for good see shoal recover (this node knows entry %d)\n", strings.Join(s.Voters, ", "), s.Entry)
	}
}

// printNodes lists the members of the fleet.
func printNodes(out io.Writer, s daemon.Status, now time.Time) error {
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSTATE\tROLE\tADDRESS\tCPU\tMEMORY\tPODS\tREADY\tCOMMIT\tBEHIND")
	health := api.Board{Health: s.Health}
	for _, n := range s.Nodes {
		h := health.HealthOf(n.Name)
		state := string(h.Status)
		if n.Draining {
			state += ",Draining"
		}
		role := "-"
		if slices.Contains(s.Voters, n.Name) {
			role = "voter"
		}
		if n.Name == s.Leader {
			role = "leader"
		}
		address := "-"
		for _, a := range n.Addresses {
			if a.Type == corev1.NodeInternalIP {
				address = a.Address
			}
		}
		pods, ready := 0, 0
		for _, p := range s.Pods {
			if p.Node != n.Name {
				continue
			}
			pods++
			if p.Ready && !h.Gone() {
				ready++
			}
		}
		commit, behind := "-", ""
		for _, u := range s.Units {
			commit = n.Units[u.Unit].Short()
			if u.Accepted.Commit != "" && n.Units[u.Unit] != u.Accepted.Commit {
				behind = "since " + ago(u.InForce, now)
			}
		}
		cpu, memory := usageOf(s.Usage, n.Name, h.Gone())
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", n.Name, state, role, address, cpu, memory, pods, ready, commit, behind)
	}
	return w.Flush()
}

// usageOf returns what a node uses, as far as it is known.
func usageOf(all []api.Usage, node string, gone bool) (cpu, memory string) {
	for _, u := range all {
		if u.Node == node && !gone && u.Used != nil {
			return u.Used.Cpu().String(), u.Used.Memory().String()
		}
	}
	return "-", "-"
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
		fmt.Fprintf(w, "alarm\t%s\trefused: %d mistake(s)\n", u.Tip.Commit.Short(), bad)
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
