package main

import (
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-dev/shoal/daemon"
)

// defaultTokenLife is how long a token is good for when nothing else is said.
const defaultTokenLife = time.Hour

func initCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Found a fleet on this machine",
		Long: "Init founds a fleet whose first node is this machine: its keys, the authority\n" +
			"of its API, its address ranges and the repository that it follows. Other\n" +
			"machines join it with a token. \"shoal run\" does the same where no fleet is.",
		Example: "  shoal init --repository https://git.example.com/ops/fleet.git\n  shoal run",
		Args:    cobra.NoArgs,
	}
	s := addSettings(cmd, map[string]string{
		"node": "name of this node (default: the host name)", "repository.url": "Git repository that the fleet follows",
		"repository.ref": "branch or tag to follow", "repository.path": "folder in the repository",
		"network.podCIDR": "address range of this node's pods", "network.clusterCIDR": "address range of all pods",
		"network.serviceCIDR": "address range of Services", "network.dns": "address of the DNS server", "network.domain": "domain of the fleet's names",
		"peer.listen": "where other nodes reach this one", "peer.advertise": "host:port at which they do",
	})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		fleet, err := daemon.Init(cfg)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "founded fleet %s on node %s\n\nnext:\n  shoal run\n  shoal token create     # then, on another machine: shoal join ADDRESS --token TOKEN\n", fleet.ID, cfg.Node)
		return nil
	}
	return cmd
}

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Let machines join this fleet"}
	create := &cobra.Command{
		Use:   "create",
		Short: "Print a token with which one machine may join, once",
		Long: "Create makes a join token and prints it. It lets one machine in, until it\n" +
			"expires. Whoever holds it can join: hand it over as you would a password. It\n" +
			"needs a running daemon on a node that votes.",
		Args: cobra.NoArgs,
	}
	s := addSettings(create, nil)
	ttl := create.Flags().Duration("ttl", defaultTokenLife, "how long the token is good for")
	witness := create.Flags().Bool("witness", false, "the machine votes and runs no pods")
	create.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		form := map[string]string{"ttl": ttl.String()}
		if *witness {
			form["role"] = "witness"
		}
		token, err := daemon.NewClient(cfg.Socket()).Command(cmd.Context(), "/token", form)
		if err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), token)
		return nil
	}
	cmd.AddCommand(create)
	return cmd
}

func joinCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "join ADDRESS",
		Short: "Bring this machine into a fleet",
		Long: "Join brings this machine into the fleet of the node at ADDRESS (host or\n" +
			"host:port), which must be one of those that voted when the token was made. Run\n" +
			"the daemon afterwards; it needs no other setting than its own.",
		Example: "  shoal join 10.0.0.1 --token shoal1.eyJ...\n  shoal run",
		Args:    cobra.ExactArgs(1),
	}
	s := addSettings(cmd, map[string]string{
		"node": "name of this node (default: the host name)", "peer.listen": "where other nodes reach this one",
		"peer.advertise": "host:port at which they do",
	})
	token := cmd.Flags().String("token", "", "what \"shoal token create\" has printed")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		member, err := daemon.Join(cmd.Context(), cfg, args[0], *token)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "node %s has joined, its pods get addresses of %s\n\nnext:\n  shoal run\n", member.Name, member.PodCIDR)
		return nil
	}
	return cmd
}

func drainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Move this node's pods elsewhere, or take new ones again",
		Long: "Drain keeps new pods away from this node and moves those that run to others,\n" +
			"replacements first. Pods of DaemonSets stay. It holds over restarts, until\n" +
			"\"shoal drain --off\".",
		Args: cobra.NoArgs,
	}
	s := addSettings(cmd, nil)
	off := cmd.Flags().Bool("off", false, "take pods again")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		on := "true"
		if *off {
			on = "false"
		}
		_, err = daemon.NewClient(cfg.Socket()).Command(cmd.Context(), "/drain", map[string]string{"on": on})
		return err
	}
	return cmd
}

func removeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove NODE",
		Short: "Remove a node from the fleet, for good",
		Long: "Remove strikes a node off the roster: none of the others talks to it again,\n" +
			"whenever it comes back. Its machine can join anew after \"shoal reset\". It needs\n" +
			"a running daemon on a node that votes, other than the one to be removed.",
		Args: cobra.ExactArgs(1),
	}
	s := addSettings(cmd, nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		name, err := daemon.NewClient(cfg.Socket()).Command(cmd.Context(), "/remove", map[string]string{"node": url.QueryEscape(args[0])})
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "node %s was removed\n", name)
		return nil
	}
	return cmd
}
