package fencer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-dev/shoal/runtime/fence"
)

// Now returns the time of CLOCK_BOOTTIME.
func Now() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // Linux has had this clock since 2.6.39
	return time.Duration(t.Nano())
}

// Warden holds the exclusive pods of a machine and ends them when the lease runs
// out. It does so in Tick only. It may be used concurrently. The zero Warden
// holds nothing.
type Warden struct {
	mu     sync.Mutex
	pods   map[string]fence.Pod
	lease  fence.Lease
	warned map[string]bool // asked to end
	closed map[string]bool // shut, or about to be
}

// Hold fences a pod from now on.
func (w *Warden) Hold(p fence.Pod) error {
	if p.Instance == "" {
		return errors.New("hold a pod: it has no instance")
	}
	if err := checkGroup(p.Group); err != nil {
		return fmt.Errorf("hold pod %s: %w", p.Instance, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pods == nil {
		w.pods, w.warned, w.closed = map[string]fence.Pod{}, map[string]bool{}, map[string]bool{}
	}
	if _, held := w.pods[p.Instance]; !held {
		// An earlier fencer may have shut it; Tick opens it when there is a lease.
		w.closed[p.Instance] = true
	}
	w.pods[p.Instance] = p
	return nil
}

// Release fences a pod no more, and lets it have processes again.
func (w *Warden) Release(instance string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, held := w.pods[instance]
	if !held {
		return nil
	}
	closed := w.closed[instance]
	delete(w.pods, instance)
	delete(w.warned, instance)
	delete(w.closed, instance)
	if closed {
		return group(p.Group).open()
	}
	return nil
}

// Renew takes in a lease, unless it is older than the one in force.
func (w *Warden) Renew(l fence.Lease) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lease = w.lease.Newer(l)
}

// Held returns the pods that are held, sorted by instance, and the lease.
func (w *Warden) Held() ([]fence.Pod, fence.Lease) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.list(), w.lease
}

func (w *Warden) list() []fence.Pod {
	out := make([]fence.Pod, 0, len(w.pods))
	for _, p := range w.pods {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b fence.Pod) int { return strings.Compare(a.Instance, b.Instance) })
	return out
}

// Fenced returns the instances that must not run now, sorted.
func (w *Warden) Fenced(now time.Duration) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fence.Decide(fence.State{Lease: w.lease, Pods: w.list()}, now).Kill
}

// rounds bounds how often one Tick goes over the processes that must go; they
// take a moment to end, and may have made others meanwhile.
const rounds = 20

// Tick ends what must end. It returns when to call it again: 0 when nothing is
// held. An error says what could not be done; the next Tick tries again.
func (w *Warden) Tick(now time.Duration) (next time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pods) == 0 {
		return 0, nil
	}
	d := fence.Decide(fence.State{Lease: w.lease, Pods: w.list()}, now)
	for _, instance := range d.Term {
		if !w.warned[instance] {
			w.warned[instance] = true
			err = errors.Join(err, w.group(instance).term())
		}
	}
	for _, instance := range d.Kill {
		w.closed[instance] = true
		err = errors.Join(err, w.group(instance).shut())
	}
	for instance := range w.closed {
		if !slices.Contains(d.Kill, instance) {
			if opened := w.group(instance).open(); opened != nil {
				err = errors.Join(err, opened)
				continue
			}
			delete(w.closed, instance)
		}
	}
	for instance := range w.warned {
		if !slices.Contains(d.Term, instance) {
			delete(w.warned, instance)
		}
	}
	next = now + watchEvery
	if d.Next != 0 {
		next = min(next, d.Next)
	}
	if left, failed := w.killAll(d.Kill); left {
		return now + killEvery, errors.Join(err, failed)
	}
	return next, err
}

// watchEvery is how often the clock is looked at although nothing is due: no
// timer counts the time for which the machine slept. killEvery is how soon what
// did not end is killed again.
const (
	watchEvery = 200 * time.Millisecond
	killEvery  = 10 * time.Millisecond
)

// killAll kills all processes of the instances and reports whether any is left.
func (w *Warden) killAll(instances []string) (left bool, err error) {
	for range rounds {
		left, err = false, nil
		for _, instance := range instances {
			empty, failed := w.group(instance).kill()
			left = left || !empty
			err = errors.Join(err, failed)
		}
		if !left {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return left, err
}

func (w *Warden) group(instance string) group { return group(w.pods[instance].Group) }
