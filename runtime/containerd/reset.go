package containerd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/shoal-dev/shoal/runtime"
)

// Sweep removes root file systems whose container was never made: a daemon that
// was killed between the two leaves them. inUse reports the IDs that are about
// to become containers.
func (e *Engine) Sweep(ctx context.Context, inUse func(id string) bool) error {
	ctx = e.ctx(ctx)
	all, err := e.client.ContainerService().List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", translate(err))
	}
	have := map[string]bool{}
	for _, c := range all {
		have[c.SnapshotKey] = true
	}
	var surplus []string
	err = e.snapshots().Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindActive && info.Labels["containerd.io/gc.root"] != "" &&
			!have[info.Name] && !inUse(info.Name) {
			surplus = append(surplus, info.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list snapshots: %w", translate(err))
	}
	var errs []error
	for _, name := range surplus {
		errs = append(errs, ignoreNotFound(translate(e.snapshots().Remove(ctx, name))))
	}
	return errors.Join(errs...)
}

// Reset removes every container, image, snapshot and lease of the namespace,
// then the namespace and its cgroups.
func (e *Engine) Reset(ctx context.Context) error {
	ctx = e.ctx(ctx)
	all, err := e.client.ContainerService().List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", translate(err))
	}
	var errs []error
	instances := map[string]bool{}
	for _, c := range all {
		errs = append(errs, e.Remove(ctx, c.ID))
		if instance := c.Labels[labelInstance]; instance != "" {
			instances[instance] = true
		}
	}
	for _, instance := range slices.Sorted(maps.Keys(instances)) {
		errs = append(errs, e.RemovePod(instance))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	stored, err := e.client.ImageService().List(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", translate(err))
	}
	held, err := e.client.LeasesService().List(ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", translate(err))
	}
	for _, l := range held {
		errs = append(errs, ignoreNotFound(translate(e.client.LeasesService().Delete(ctx, l))))
	}
	if err := e.Sweep(ctx, func(string) bool { return false }); err != nil {
		errs = append(errs, err)
	}
	for _, s := range stored {
		errs = append(errs, ignoreNotFound(translate(e.client.ImageService().Delete(ctx, s.Name))))
	}
	// A lease that is deleted synchronously runs the garbage collector.
	if l, err := e.client.LeasesService().Create(ctx, leases.WithRandomID()); err == nil {
		errs = append(errs, translate(e.client.LeasesService().Delete(ctx, l, leases.SynchronousDelete)))
	}
	e.removeCgroupRoot()
	errs = append(errs, e.deleteNamespace(ctx))
	e.forget()
	return errors.Join(errs...)
}

func (e *Engine) deleteNamespace(ctx context.Context) error {
	err := e.client.NamespaceService().Delete(ctx, e.cfg.Namespace)
	if err == nil || errdefs.IsNotFound(err) || errors.Is(translate(err), runtime.ErrNotFound) {
		return nil
	}
	return fmt.Errorf("delete namespace %s: %w", e.cfg.Namespace, translate(err))
}
