package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/fence"
	"github.com/shoal-dev/shoal/runtime/fencer"
)

// How often the fencer is told of the lease, and when it has nothing to fence,
// how often this process does its work
// while there is none, and for how long there must be a lease again before
// something starts that was without: a claim that was just given to another node
// must have been heard of here.
const (
	tellEvery = 250 * time.Millisecond
	tellIdle  = time.Second
	wardEvery = 20 * time.Millisecond
	settle    = 2 * time.Second
)

// exclusives is what the agent knows of pods that must not run twice, and of the
// lease that it takes to run them.
type exclusives struct {
	mu     sync.Mutex
	lease  fence.Lease
	since  time.Duration           // there has been a lease without a gap; 0 while there is none
	usable bool                    // as told to the workers
	held   map[string]api.Identity // by instance
	fenced map[string]bool         // ended by the fencer, and not started since
	swept  bool                    // what an earlier daemon had held was looked through
	down   error                   // why there is no fencer
	// warden stands in for the fencer while there is none.
	warden fencer.Warden
}

// take takes in the newest lease.
func (x *exclusives) take(l fence.Lease, now time.Duration) {
	next := x.lease.Newer(l)
	if next.Sent > x.lease.Warns() {
		x.since = 0 // it had run out before this one, whether or not anybody looked
	}
	x.lease = next
	switch {
	case !next.Valid(now):
		x.since = 0
	case x.since == 0:
		x.since = now
	}
}

// until returns until when exclusive pods may be started; 0 when they may not.
func (x *exclusives) until(now time.Duration) time.Duration {
	if x.since == 0 || now-x.since < settle || !x.lease.Valid(now) {
		return 0
	}
	return x.lease.Warns()
}

// leaseUntil returns until when exclusive pods may be started, in the time of
// decisions.
func (a *Agent) leaseUntil(now time.Time) time.Time {
	a.exclusive.mu.Lock()
	defer a.exclusive.mu.Unlock()
	boot := a.cfg.Boot()
	if until := a.exclusive.until(boot); until > 0 {
		return now.Add(until - boot)
	}
	return time.Time{}
}

// errNoLease is why an exclusive pod does not start after all.
var errNoLease = errors.New("the lease of this node has run out")

// licensed returns an error when an exclusive pod must not be started now.
func (w *worker) licensed(d runtime.Desired) error {
	if d.Exclusive(*w.object) && !time.Now().Before(w.a.leaseUntil(time.Now())) {
		return errNoLease
	}
	return nil
}

// allowed makes sure that an exclusive pod may start, and that it is ended in time
// when it no longer may.
func (w *worker) allowed(ctx context.Context, d runtime.Desired) error {
	if err := w.licensed(d); err != nil {
		return err
	}
	if err := w.reserve(); err != nil {
		return err
	}
	return w.fence(ctx)
}

// reserve makes the pod the one of its identity that may start here. A leader that
// has not heard of all that its predecessor decided may assign again what has
// just gone, and the claim of the node is good for both.
func (w *worker) reserve() error {
	x := &w.a.exclusive
	x.mu.Lock()
	defer x.mu.Unlock()
	for instance, identity := range x.held {
		if identity == w.identity && instance != w.instance {
			return fmt.Errorf("pod %s of the same identity is still here", instance)
		}
	}
	x.held[w.instance] = w.identity
	return nil
}

// fence has the fencer fence a pod. Nothing of it may start before.
func (w *worker) fence(ctx context.Context) error {
	a, instance, spec := w.a, w.instance, &w.object.Object.Spec
	if a.cfg.Fencer == nil {
		return errors.New("a pod that must not run twice needs the fencer, and there is none")
	}
	p := fence.Pod{Instance: instance, Group: a.cfg.Engine.Group(instance), Bound: runtime.Bound(spec)}
	if _, err := a.cfg.Fencer.Renew(ctx, a.tellLease()); err != nil {
		return err
	}
	if err := a.cfg.Fencer.Hold(ctx, p); err != nil {
		return err
	}
	a.exclusive.mu.Lock()
	defer a.exclusive.mu.Unlock()
	a.exclusive.held[instance] = w.identity
	return a.exclusive.warden.Hold(p)
}

// release ends the fencing of a pod that is gone, or need not be fenced any more.
func (a *Agent) release(ctx context.Context, instance string) error {
	a.exclusive.mu.Lock()
	_, held := a.exclusive.held[instance]
	delete(a.exclusive.held, instance)
	delete(a.exclusive.fenced, instance)
	err := a.exclusive.warden.Release(instance)
	a.exclusive.mu.Unlock()
	if held {
		a.pokeExclusives() // another one may wait for this
	}
	if !held || a.cfg.Fencer == nil {
		return err
	}
	return errors.Join(err, a.cfg.Fencer.Release(ctx, instance))
}

// guarded sees to it that a pod that runs is fenced when it must be, and not
// when it need not be.
func (w *worker) guarded(ctx context.Context, d runtime.Desired) {
	if !d.Known || w.object == nil || w.object.Object == nil {
		return
	}
	w.a.exclusive.mu.Lock()
	_, held := w.a.exclusive.held[w.instance]
	w.a.exclusive.mu.Unlock()
	var err error
	switch exclusive := d.Exclusive(*w.object); {
	case exclusive && !held && w.pod.Running():
		err = w.fence(ctx)
	case !exclusive && held:
		err = w.a.release(ctx, w.instance)
	}
	if err != nil && ctx.Err() == nil {
		w.tell("FailedFence", "", err.Error())
	}
}

// wasFenced reports whether a container that has ended was ended by the fencer.
func (w *worker) wasFenced(c runtime.Container) bool {
	x := &w.a.exclusive
	x.mu.Lock()
	defer x.mu.Unlock()
	_, held := x.held[w.instance]
	return held && (c.ExitCode == 137 || c.ExitCode == 143) && (x.fenced[w.instance] || w.a.cfg.Boot() >= x.lease.Warns())
}

// unfence notes that a pod was started anew.
func (a *Agent) unfence(instance string) {
	a.exclusive.mu.Lock()
	defer a.exclusive.mu.Unlock()
	delete(a.exclusive.fenced, instance)
}

// tellLease returns the lease to tell the fencer of.
func (a *Agent) tellLease() fence.Lease {
	var l fence.Lease
	if a.cfg.Lease != nil {
		l = a.cfg.Lease()
	}
	a.exclusive.mu.Lock()
	defer a.exclusive.mu.Unlock()
	a.exclusive.take(l, a.cfg.Boot())
	return a.exclusive.lease
}

// tendLease keeps the fencer informed and alive until ctx ends, and does its work
// while it cannot be had.
func (a *Agent) tendLease(ctx context.Context) {
	if a.cfg.Lease == nil || a.cfg.Fencer == nil {
		return
	}
	for wait := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		fenced, err := a.cfg.Fencer.Renew(ctx, a.tellLease())
		if err == nil {
			err = a.sweepFencer(ctx)
		}
		switch busy := a.noteFencer(fenced, err); {
		case busy:
			wait = wardEvery
		case err == nil && a.idle():
			wait = tellIdle
		default:
			wait = tellEvery
		}
	}
}

// idle reports whether there is a lease and nothing that needs it.
func (a *Agent) idle() bool {
	a.exclusive.mu.Lock()
	defer a.exclusive.mu.Unlock()
	return a.exclusive.usable && len(a.exclusive.held) == 0
}

// noteFencer takes in what the fencer says, or that it says nothing: then this
// process does its work, and busy is true.
func (a *Agent) noteFencer(fenced []string, err error) (busy bool) {
	x := &a.exclusive
	x.mu.Lock()
	for _, instance := range fenced {
		x.fenced[instance] = true
	}
	failed := err != nil && x.down == nil
	x.down = err
	usable := x.until(a.cfg.Boot()) > 0
	changed := usable != x.usable
	x.usable = usable
	if err != nil {
		x.warden.Renew(x.lease)
	}
	busy = err != nil && len(x.held) > 0
	x.mu.Unlock()
	if busy {
		_, _ = x.warden.Tick(a.cfg.Boot()) // the next turn tries again
	}
	if failed {
		a.nodeEvent("FencerDown", err.Error())
	}
	if changed {
		a.pokeExclusives()
	}
	return busy
}

// sweepFencer releases, once, what an earlier daemon had fenced and what is not
// there any more.
func (a *Agent) sweepFencer(ctx context.Context) error {
	a.exclusive.mu.Lock()
	done := a.exclusive.swept
	a.exclusive.mu.Unlock()
	if done || !a.Adopted() {
		return nil
	}
	pods, err := a.cfg.Fencer.Held(ctx)
	if err != nil {
		return err
	}
	for _, p := range pods {
		a.mu.Lock()
		w, known := a.workers[p.Instance]
		a.mu.Unlock()
		a.exclusive.mu.Lock()
		if known {
			a.exclusive.held[p.Instance] = w.identity
			_ = a.exclusive.warden.Hold(p) // the fencer has found it well formed
		}
		a.exclusive.mu.Unlock()
		if !known {
			if err := a.cfg.Fencer.Release(ctx, p.Instance); err != nil {
				return err
			}
		}
	}
	a.exclusive.mu.Lock()
	a.exclusive.swept = true
	a.exclusive.mu.Unlock()
	return nil
}

// pokeExclusives pokes the workers of pods that wait for a lease, or have lost it.
func (a *Agent) pokeExclusives() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.desired.Alone {
		return
	}
	for instance, w := range a.workers {
		if p, found := a.desired.Lookup(instance); found && a.desired.Exclusive(p) {
			w.poke()
		}
	}
}

// HandOver gives the fencer a lease for the time over which this process will be
// away. The leases that follow are older, and change nothing.
func (a *Agent) HandOver(ctx context.Context, l fence.Lease) error {
	a.exclusive.mu.Lock()
	a.exclusive.take(l, a.cfg.Boot())
	l = a.exclusive.lease
	a.exclusive.mu.Unlock()
	_, err := a.cfg.Fencer.Renew(ctx, l)
	return err
}

// Fences reports whether any pod is held by the fencer.
func (a *Agent) Fences() bool {
	a.exclusive.mu.Lock()
	defer a.exclusive.mu.Unlock()
	return len(a.exclusive.held) > 0
}
