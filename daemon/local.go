package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	goruntime "runtime"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gossip/identity"
	"github.com/shoal-dev/shoal/policy/dns"
	"github.com/shoal-dev/shoal/policy/iptables"
	"github.com/shoal-dev/shoal/runtime/agent"
)

// What the commands need that work without a running daemon.

// SetLevel sets the configured log level.
func (c Config) SetLevel(v *slog.LevelVar) error {
	level, err := c.Log.level()
	if err == nil {
		v.Set(level)
	}
	return err
}

// OpenIdentity reads the identity of the fleet that this machine's state folder
// belongs to. It never makes one.
func OpenIdentity(cfg Config) (*identity.Identity, error) {
	if _, err := os.Stat(cfg.identityDir()); err != nil {
		return nil, fmt.Errorf("no fleet lives in %s (start it with shoal run, and be root): %w", cfg.State, err)
	}
	return identity.Read(cfg.identityDir())
}

// EmptyDecision stands for an empty machine of this one's size.
func EmptyDecision(cfg Config) Decision {
	var info unix.Sysinfo_t
	_ = unix.Sysinfo(&info) // it fails on a bad pointer only
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(goruntime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(int64(info.Totalram)*int64(info.Unit), resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(110, resource.DecimalSI),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
	}
	marks, _ := cfg.Marks() // what is wrong in it is said when the daemon starts
	resources, _ := cfg.Resources()
	return Decision{Board: api.Board{Nodes: []api.NodeInfo{{
		Name: cfg.Node, Labels: marks.labels(found(cfg.Node, goruntime.GOARCH)), Taints: marks.Taints, Capacity: capacity, Allocatable: resources.Allocatable(capacity),
	}}}}
}

// Reset removes every trace of Shoal from this machine and its network
// namespace: pods, images, mounts, namespaces, cgroups, packet rules, addresses
// and both folders. A daemon must not be running on the state folder. It goes
// on after an error and reports all of them.
func Reset(ctx context.Context, cfg Config) error {
	if os.Geteuid() != 0 {
		return errors.New("shoal reset needs root rights (try sudo)")
	}
	if err := cfg.validateNetwork(); err != nil {
		return err
	}
	if _, err := os.Stat(cfg.State); err == nil {
		unlock, err := lock(cfg.State)
		if err != nil {
			return err
		}
		defer unlock()
	}
	errs := []error{
		agent.Reset(ctx, agent.Config{
			Node: cfg.Node, StateDir: cfg.State, RunDir: cfg.Run, Containerd: cfg.Containerd.Address, Namespace: cfg.Containerd.Namespace,
			PodCIDR: cfg.ranges().pods, PluginDirs: []string{cfg.Network.Plugins},
		}),
		iptables.CleanUp(ctx),
		dns.CleanUp(cfg.ranges().dns),
	}
	// The folders go last and only when nothing is left that they describe: a
	// second reset must find what the first one could not remove.
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(cfg.Run), os.RemoveAll(cfg.State))
}
