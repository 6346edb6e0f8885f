package main

import (
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/viper"

	"github.com/shoal-dev/shoal/daemon"
)

// A settings holds a command's flags until its configuration is loaded.
type settings struct {
	v    *viper.Viper
	file string
}

// addSettings adds the flags that name where the daemon keeps its things. Each
// flag stands for the setting of the given key.
func addSettings(cmd *cobra.Command, flags map[string]string) *settings {
	s := &settings{v: viper.New()}
	cmd.Flags().StringVar(&s.file, "config", "", "configuration file (default "+daemon.DefaultFile+" when it exists)")
	all := map[string]string{
		"state": "folder for what must survive a reboot",
		"run":   "folder for sockets and mounts",
	}
	maps.Copy(all, flags)
	for key, usage := range all {
		name := flagName(key)
		cmd.Flags().String(name, "", usage)
		// Bound by hand: an unset flag must not hide the file's value.
		cobra.OnInitialize(func() {
			if flag := cmd.Flags().Lookup(name); flag.Changed {
				s.v.Set(key, flag.Value.String())
			}
		})
	}
	return s
}

// flagName turns "repository.url" into "repository" and "network.podCIDR" into
// "pod-cidr": the last part of the key, or the first one for a URL.
func flagName(key string) string {
	parts := strings.Split(key, ".")
	name := parts[len(parts)-1]
	switch {
	case name == "url":
		return parts[0]
	case slices.Contains([]string{"log", "api", "containerd", "peer", "gossip"}, parts[0]):
		name = parts[0] + "-" + name
	}
	var out strings.Builder
	for i, r := range name {
		upper := r >= 'A' && r <= 'Z'
		if upper && i > 0 && (name[i-1] < 'A' || name[i-1] > 'Z') {
			out.WriteByte('-')
		}
		out.WriteString(strings.ToLower(string(r)))
	}
	return out.String()
}

func (s *settings) load() (daemon.Config, error) { return daemon.LoadConfig(s.v, s.file) }

// logger writes to standard error in the configured form. level may be changed
// while it is in use.
func logger(cfg daemon.Config, level *slog.LevelVar) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}
