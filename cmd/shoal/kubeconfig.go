package main

import (
	"encoding/base64"
	"fmt"
	"net"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/shoal-dev/shoal/daemon"
)

func kubeconfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print a configuration with which kubectl reads this fleet",
		Long: "Kubeconfig makes a client certificate for the fleet's API and prints it as a\n" +
			"kubectl configuration. It needs root, and a state folder that a daemon has used.\n" +
			"On a machine that does not vote the daemon must run: a voter signs.",
		Example: "  shoal kubeconfig > ~/.kube/shoal && kubectl --kubeconfig ~/.kube/shoal get pods -A",
		Args:    cobra.NoArgs,
	}
	s := addSettings(cmd, map[string]string{"api.listen": "where the API answers"})
	user := cmd.Flags().String("user", "admin", "user in the certificate")
	groups := cmd.Flags().StringSlice("group", []string{"system:masters"}, "groups in the certificate")
	server := cmd.Flags().String("server", "", "address of the API (default: this machine and the configured port)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		credentials, err := daemon.ClientCredentials(cmd.Context(), cfg, *user, *groups)
		if err != nil {
			return err
		}
		address := *server
		if address == "" {
			host, port, err := net.SplitHostPort(cfg.API.Listen)
			if err != nil {
				return fmt.Errorf("api.listen: %w", err)
			}
			if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
				host = "127.0.0.1"
			}
			address = "https://" + net.JoinHostPort(host, port)
		}
		encode := base64.StdEncoding.EncodeToString
		out, err := yaml.Marshal(map[string]any{
			"apiVersion": "v1", "kind": "Config", "current-context": "shoal",
			"clusters": []any{map[string]any{"name": "shoal", "cluster": map[string]any{
				"server": address, "certificate-authority-data": encode(credentials.CA),
			}}},
			"users": []any{map[string]any{"name": *user, "user": map[string]any{
				"client-certificate-data": encode(credentials.Certificate), "client-key-data": encode(credentials.Key),
			}}},
			"contexts": []any{map[string]any{"name": "shoal", "context": map[string]any{"cluster": "shoal", "user": *user}}},
		})
		if err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
		_, err = cmd.OutOrStdout().Write(out)
		return err
	}
	return cmd
}
