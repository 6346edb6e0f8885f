package network

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
)

// Sweep removes what no longer belongs to any pod: sandboxes of instances that
// keep does not name, leases and cached results of networks that are gone. It
// returns what it removed, sorted.
func (n *Network) Sweep(ctx context.Context, keep func(instance string) bool) ([]string, error) {
	infos, err := n.List()
	if err != nil {
		return nil, err
	}
	var removed []string
	var errs []error
	for _, info := range infos {
		if keep(info.Instance) {
			continue
		}
		if err := n.Remove(ctx, info.Instance); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, info.Instance)
	}
	return removed, errors.Join(append(errs, n.sweepLeases())...)
}

// sweepLeases frees addresses whose sandbox is gone. host-local keeps a file
// per address whose first line is the container's ID.
func (n *Network) sweepLeases() error {
	leases, err := filepath.Glob(n.path("cni", "leases", "shoal", "*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, lease := range leases {
		name := filepath.Base(lease)
		if name == "lock" || strings.HasPrefix(name, "last_reserved_ip") {
			continue
		}
		owner, err := os.ReadFile(lease)
		if err != nil {
			continue
		}
		instance, _, _ := strings.Cut(strings.TrimSpace(string(owner)), "\r\n")
		instance, _, _ = strings.Cut(instance, "\n")
		if _, err := os.Stat(n.path("sandboxes", instance)); errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, os.Remove(lease))
		}
	}
	return errors.Join(errs...)
}

// Reset removes every sandbox, the bridge, the paths to other nodes and all files
// of the pod network.
func (n *Network) Reset(ctx context.Context) error {
	_, err := n.Sweep(ctx, func(string) bool { return false })
	errs := []error{err, CleanUp()}
	if link, err := netlink.LinkByName(n.cfg.Bridge); err == nil {
		errs = append(errs, netlink.LinkDel(link))
	}
	for _, dir := range []string{"sandboxes", "cni"} {
		errs = append(errs, os.RemoveAll(n.path(dir)))
	}
	return errors.Join(errs...)
}
