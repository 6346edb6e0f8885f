package main

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-dev/shoal/daemon"
)

func resetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Remove every trace of Shoal from this machine",
		Long: "Reset stops and removes all pods, and removes images, mounts, namespaces, packet\n" +
			"rules, addresses and the state folder, the fleet's identity included. The daemon\n" +
			"must not be running. Nothing that is not Shoal's is touched.",
		Args: cobra.NoArgs,
	}
	s := addSettings(cmd, map[string]string{
		"containerd.address": "containerd's socket", "containerd.namespace": "containerd namespace of the pods",
		"network.plugins": "folder of the CNI plugins", "network.dns": "address of the DNS server",
	})
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		if !*yes {
			fmt.Fprintf(cmd.OutOrStdout(), "This removes all pods of this machine, their data and %s. Type yes to go on: ", cfg.State)
			line, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // no line is no "yes"
			if strings.TrimSpace(line) != "yes" {
				return errors.New("nothing was removed")
			}
		}
		if err := daemon.Reset(cmd.Context(), cfg); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), "removed every trace of Shoal")
		return nil
	}
	return cmd
}
