package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-dev/shoal/daemon"
)

// recoverWait is for how long the command waits for the daemon.
const recoverWait = 30 * time.Second

func recoverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Go on without voters that are gone for good",
		Long: "Recover lets a fleet go on that has lost most of its voters for good and so\n" +
			"cannot elect a leader: this node becomes the only voter, in a new epoch, and the\n" +
			"fleet chooses others as soon as it can. It writes a file that is signed with this\n" +
			"node's key; the daemon takes it up, now or when it is started. The other nodes\n" +
			"follow by themselves. What the lost voters agreed on and this node has not heard\n" +
			"of is lost: of the nodes that are left, use the one that knows most.",
		Example: "  shoal status                  # on each node that is left: who votes, who is lost\n  shoal recover --lost n2,n3",
		Args:    cobra.NoArgs,
	}
	s := addSettings(cmd, nil)
	lost := cmd.Flags().StringSlice("lost", nil, "the voters that are gone for good")
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		if os.Geteuid() != 0 {
			return errors.New("shoal recover needs root rights: it signs with the node's key (try sudo)")
		}
		plan, err := daemon.PlanRecovery(cfg, *lost)
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		fmt.Fprint(out, plan.Text)
		if !*yes {
			fmt.Fprint(out, "Type yes to go on: ")
			line, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // no line is no "yes"
			if strings.TrimSpace(line) != "yes" {
				return errors.New("nothing was done")
			}
		}
		if err := plan.Do(); err != nil {
			return err
		}
		if _, err := daemon.NewClient(cfg.Socket()).Status(cmd.Context()); err != nil {
			fmt.Fprintln(out, "the recovery is signed and waits for the daemon: start it (shoal run)")
			return nil
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), recoverWait)
		defer cancel()
		if err := plan.Wait(ctx); err != nil {
			return err
		}
		fmt.Fprintf(out, "the fleet goes on in epoch %d; see shoal status\n", plan.Epoch)
		return nil
	}
	return cmd
}
