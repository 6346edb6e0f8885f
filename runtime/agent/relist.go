package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
)

// relist looks at everything the machine holds and gives it to the workers,
// hiring new ones for pods that had none. An error means that the engine does
// not answer.
func (a *Agent) relist(ctx context.Context) error {
	versions := a.versions()
	held, err := a.cfg.Engine.List(ctx)
	if err != nil {
		a.setDown(err)
		return err
	}
	a.setDown(nil)
	a.limitPods()
	byInstance := map[string][]runtime.Held{}
	for _, h := range held {
		instance := h.Assignment.Pod.Instance
		byInstance[instance] = append(byInstance[instance], h)
	}
	instances, err := a.traces(byInstance)
	if err != nil {
		return err
	}
	a.mu.Lock()
	first := !a.listed
	a.listed = true
	for _, instance := range instances {
		if w, employed := a.workers[instance]; employed {
			w.offer(byInstance[instance], versions[instance])
		} else {
			if first {
				a.strangers[instance] = true
			}
			a.hire(a.podOf(instance, byInstance[instance]), byInstance[instance])
		}
	}
	if first && len(a.strangers) == 0 {
		a.notify()
	}
	a.mu.Unlock()
	return a.sweep(ctx, held)
}

// podOf says which pod an instance is, as far as that is known. a.mu is held.
func (a *Agent) podOf(instance string, held []runtime.Held) api.Pod {
	if len(held) > 0 {
		return held[0].Assignment.Pod
	}
	if p, found := a.desired.Lookup(instance); found {
		return p.Assignment.Pod
	}
	return api.Pod{Instance: instance} // what is left of it runs nothing
}

// versions returns how far each worker is, so that a listing older than a
// worker's own acts is not believed.
func (a *Agent) versions() map[string]uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]uint64, len(a.workers))
	for instance, w := range a.workers {
		out[instance] = w.version.Load()
	}
	return out
}

// traces returns every instance of which the machine holds anything, sorted.
func (a *Agent) traces(byInstance map[string][]runtime.Held) ([]string, error) {
	var out []string
	for instance := range byInstance {
		out = append(out, instance)
	}
	sandboxes, err := a.cfg.Network.List()
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	for _, s := range sandboxes {
		out = append(out, s.Instance)
	}
	records, err := a.remembered()
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	volumes, err := a.volumes.List()
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	out = slices.Concat(out, records, volumes)
	slices.Sort(out)
	return slices.Compact(out), nil
}

// sweep removes what belongs to no pod: half-made root file systems, addresses,
// FIFOs of containers that are gone.
func (a *Agent) sweep(ctx context.Context, held []runtime.Held) error {
	employed := func(instance string) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.workers[instance] != nil
	}
	_, err := a.cfg.Network.Sweep(ctx, employed)
	errs := []error{err}
	errs = append(errs, a.cfg.Engine.Sweep(ctx, func(id string) bool { return employed(instanceOf(id)) }))
	open, err := a.cfg.Logs.Held(ctx)
	errs = append(errs, err)
	for _, id := range open {
		known := slices.ContainsFunc(held, func(h runtime.Held) bool { return h.ID == id })
		if !known && !employed(instanceOf(id)) {
			errs = append(errs, a.cfg.Logs.Close(ctx, id))
		}
	}
	if err := errors.Join(errs...); err != nil {
		a.nodeEvent("SweepFailed", err.Error())
	}
	return nil
}
