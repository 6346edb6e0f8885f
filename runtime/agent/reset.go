package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shoal-dev/shoal/runtime/containerd"
	"github.com/shoal-dev/shoal/runtime/fencer"
	"github.com/shoal-dev/shoal/runtime/logs"
	"github.com/shoal-dev/shoal/runtime/network"
	"github.com/shoal-dev/shoal/runtime/volume"
)

// Reset removes from this machine everything that an agent with this
// configuration made, whoever ran and however it ended: containers, images and
// the containerd namespace, sandboxes and the bridge, volumes and mounts,
// cgroups, logs, the keeper, records. No agent may run meanwhile. It goes on
// after an error and returns all of them. Archives in the images folder stay.
func Reset(ctx context.Context, cfg Config) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	var errs []error
	step := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	engine, err := containerd.New(containerd.Config{
		Address: cfg.Containerd, Namespace: cfg.Namespace, RunDir: cfg.RunDir,
	})
	if err != nil {
		return err
	}
	defer engine.Close() //nolint:errcheck // everything that mattered is done
	step("stop the fencer", fencer.Stop(cfg.RunDir))
	step("remove containers and images", engine.Reset(ctx))
	for _, dir := range []string{filepath.Join(cfg.StateDir, "pods"), filepath.Join(cfg.RunDir, "pods")} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			step("remove cgroups", engine.RemovePod(e.Name()))
		}
	}

	net, err := network.New(network.Config{
		RunDir: cfg.RunDir, PluginDir: cfg.PluginDirs, Bridge: cfg.Bridge, PodCIDR: cfg.PodCIDR,
	})
	if err != nil {
		step("read the pod network", err)
	} else {
		step("remove the pod network", net.Reset(ctx))
	}
	step("stop the keeper", logs.StopKeeper(cfg.RunDir))
	for _, dir := range []string{filepath.Join(cfg.StateDir, "pods"), filepath.Join(cfg.RunDir, "pods")} {
		step("remove "+dir, volume.RemoveUnmounted(dir))
	}
	for _, dir := range []string{
		filepath.Join(cfg.StateDir, "logs"), filepath.Join(cfg.StateDir, "bin"),
		filepath.Join(cfg.RunDir, "fifo"), filepath.Join(cfg.RunDir, "exec"),
		filepath.Join(cfg.RunDir, "keeper.sock"), filepath.Join(cfg.RunDir, "keeper.sock.lock"),
		filepath.Join(cfg.RunDir, "fencer.sock"), filepath.Join(cfg.RunDir, "fencer.sock.lock"),
	} {
		step("remove "+dir, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}
