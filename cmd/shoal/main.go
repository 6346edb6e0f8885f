// Command shoal turns Linux machines into a fleet that runs what a Git
// repository says. There is one file per subcommand.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // CronJobs have time zones, and machines may have no table of them

	"github.com/spf13/cobra"

	"github.com/shoal-dev/shoal/gitsync/render"
)

// version is set by the linker from the state of the source.
var version = "dev"

// An exitError ends the process with a status of its own, after the command
// has said all there is to say.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	if render.IsChild() {
		render.Main()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	var status exitError
	switch {
	case errors.As(err, &status):
		os.Exit(int(status))
	case err != nil:
		fmt.Fprintln(os.Stderr, "shoal: "+err.Error())
		os.Exit(2)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "shoal",
		Short: "Run what a Git repository says, on one machine or a fleet of them",
		Long: "Shoal turns Linux machines into a fleet that runs what a Git repository says.\n" +
			"Commit Kubernetes manifests; every node pulls and checks them itself, runs its\n" +
			"pods on containerd and routes its traffic. Any node answers kubectl, read-only.",
		SilenceErrors: true, SilenceUsage: true,
	}
	cmd.AddCommand(initCommand(), joinCommand(), tokenCommand(), runCommand(), drainCommand(), removeCommand(), recoverCommand(), checkCommand(), planCommand(), statusCommand(), kubeconfigCommand(), resetCommand(), versionCommand())
	return cmd
}
