package main

import (
	"log/slog"

	"github.com/fsnotify/fsnotify"
	"github.com/spf13/cobra"

	"github.com/shoal-dev/shoal/daemon"
)

func runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon on this machine",
		Long: "Run follows a Git repository and makes this machine run what it says, until it\n" +
			"is interrupted. Pods go on running then; the next run takes them over.\n\n" +
			"Every setting can stand in the configuration file, in the environment\n" +
			"(SHOAL_REPOSITORY_URL) or in a flag; a flag wins over the environment, and that\n" +
			"over the file.",
		Example: "  shoal run --repository /srv/fleet.git\n" +
			"  shoal run --repository https://git.example.com/ops/fleet.git --path clusters/home --token-file /etc/shoal/token",
		Args: cobra.NoArgs,
	}
	s := addSettings(cmd, map[string]string{
		"node": "name of this node (default: the host name)", "nodeLabels": "labels of this node, key=value, more with commas",
		"nodeTaints":                       "taints of this node, key=value:Effect or key:Effect, more with commas",
		"systemReserved":                   "what the system keeps of this machine, resource=quantity, more with commas",
		"kubeReserved":                     "what Shoal and containerd keep of it (default: a tenth, at most cpu=100m,memory=256Mi)",
		"evictionHard":                     "what has to be left of it, or pods are evicted: signal<quantity, more with commas",
		"evictionSoft":                     "what has to be left of it before long: signal<quantity, more with commas",
		"evictionSoftGracePeriod":          "for how long less may be left: signal=duration, more with commas",
		"evictionMinimumReclaim":           "how much more has to be left again: signal=quantity, more with commas",
		"evictionMaxPodGracePeriod":        "seconds that a pod has to end when evictionSoft evicts it",
		"evictionPressureTransitionPeriod": "for how long a node stays under pressure after its cause",
		"podPidsLimit":                     "processes of a pod; -1 for any number (default: an eighth of the machine's)",
		"repository.url":                   "Git repository to follow: a path or a URL",
		"repository.ref":                   "branch or tag to follow (default: the repository's HEAD)", "repository.path": "folder in the repository",
		"repository.poll": "how often to ask a remote repository for news", "repository.tokenFile": "file with a token for HTTPS",
		"repository.username": "user for HTTPS or SSH", "repository.passwordFile": "file with the user's password",
		"repository.caFile": "file with certificates to trust for HTTPS", "repository.sshKeyFile": "private key for SSH",
		"repository.knownHostsFile": "known hosts for SSH", "containerd.address": "containerd's socket",
		"containerd.namespace": "containerd namespace for pods", "containerd.registries": "folder of hosts.toml files, one folder per registry",
		"network.podCIDR": "address range of this node's pods", "network.clusterCIDR": "address range of all pods",
		"network.serviceCIDR": "address range of Services", "network.dns": "address of the DNS server", "network.domain": "domain of the fleet's names",
		"network.plugins": "folder of the CNI plugins", "network.resolvConf": "resolv.conf with the servers for outside names",
		"network.linkLocal": "true: pods reach 169.254.0.0/16 beyond the node, where clouds hand out credentials",
		"peer.listen":       "where other nodes reach this one", "peer.advertise": "host:port at which they do (default: the node's own address)",
		"gossip.listen": "where this node gossips, with TCP and UDP", "gossip.seeds": "host or host:port, more with commas: where to look for nodes that were lost",
		"api.listen": "where the read-only API answers", "log.level": "debug, info, warn or error", "log.format": "text or json",
	})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		cfg = daemon.Pinned(cfg)
		if err := cfg.Validate(); err != nil {
			return err
		}
		level := new(slog.LevelVar)
		log := logger(cfg, level)
		if err := cfg.SetLevel(level); err != nil {
			return err
		}
		changes := make(chan daemon.Config, 1)
		if s.v.ConfigFileUsed() != "" {
			s.v.OnConfigChange(func(fsnotify.Event) { reload(s, level, changes, log) })
			s.v.WatchConfig()
		}
		return daemon.Run(cmd.Context(), cfg, changes, version, log)
	}
	return cmd
}

// reload applies what may change while the daemon runs: the log level, and what
// the daemon takes of the newest configuration in changes. It is not called twice
// at a time.
func reload(s *settings, level *slog.LevelVar, changes chan daemon.Config, log *slog.Logger) {
	cfg, err := s.load()
	if err == nil {
		err = daemon.Pinned(cfg).Validate()
	}
	if err == nil {
		err = cfg.SetLevel(level)
	}
	if err != nil {
		log.Error("the changed configuration is not used", "reason", err)
		return
	}
	select { // nobody has looked at the one before
	case <-changes:
	default:
	}
	changes <- cfg
	log.Info("configuration was read again; all but log.level, nodeLabels and nodeTaints takes effect at the next start")
}
