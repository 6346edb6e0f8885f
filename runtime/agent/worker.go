package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/network"
)

// worker does everything that regards one pod, one thing after the other.
type worker struct {
	a        *Agent
	instance string
	identity api.Identity // of an exclusive pod; of others it may not be known
	memory   memory
	pokes    chan struct{}
	version  atomic.Uint64 // grows with every act on the machine

	mu       sync.Mutex // guards what others hand in
	looks    map[string]bool
	listing  []runtime.Held
	listed   bool
	stopping map[string]bool
	exits    map[string]chan struct{}
	removal  context.CancelFunc          // ends hooks that hold up a removal
	debug    []corev1.EphemeralContainer // not changed, only replaced
	eviction runtime.Eviction            // why the pod has to go

	// The rest belongs to run alone.
	pod        runtime.ObservedPod
	object     *runtime.Pod
	last       corev1.PodStatus
	connection *connection
	unrecorded []runtime.Container // what Record has still to be told
	saved      map[string]runtime.Probes
	faults     int       // acts that failed in a row
	plan       string    // what was done last
	repeats    int       // how often in a row
	hold       time.Time // not acting before
	told       map[string]string
	configMaps map[types.NamespacedName]*corev1.ConfigMap // as of the last reconsideration
	secrets    map[types.NamespacedName]*corev1.Secret
}

// connection is a sandbox that is being connected.
type connection struct {
	done chan struct{}
	info network.Info
	err  error
}

func newWorker(a *Agent, p api.Pod, held []runtime.Held) *worker {
	instance := p.Instance
	w := &worker{
		a:        a,
		instance: instance,
		identity: p.Identity,
		memory:   a.memory(instance),
		pokes:    make(chan struct{}, 1),
		looks:    map[string]bool{},
		stopping: map[string]bool{},
		exits:    map[string]chan struct{}{},
		told:     map[string]string{},
		pod: runtime.ObservedPod{
			Instance: instance,
			Failures: map[string]runtime.Failure{},
			Images:   map[string]runtime.Image{},
		},
	}
	w.listing, w.listed = held, true
	w.poke()
	return w
}

func (w *worker) poke() {
	select {
	case w.pokes <- struct{}{}:
	default:
	}
}

// synced is called when the desired state was set.
func (w *worker) synced() {
	w.mu.Lock()
	if w.removal != nil && w.a.desired.Removes(w.instance) {
		w.removal()
	}
	w.mu.Unlock()
	w.poke()
}

// look asks the worker to look at one container.
func (w *worker) look(container string) {
	w.mu.Lock()
	w.looks[container] = true
	w.mu.Unlock()
	w.poke()
}

// offer hands in what a listing says, unless the worker has acted since.
func (w *worker) offer(held []runtime.Held, version uint64) {
	w.mu.Lock()
	if w.version.Load() == version {
		w.listing, w.listed = held, true
	}
	w.mu.Unlock()
	w.poke()
}

// run works until ctx ends or the pod is gone.
func (w *worker) run(ctx context.Context) {
	w.a.guard(w.regards(""), func() { w.adopt(ctx) })
	w.a.met(w.instance)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.pokes:
		case <-timer.C:
		}
		for {
			again, wake := w.step(ctx)
			if ctx.Err() != nil {
				return
			}
			if w.gone() && w.a.dismiss(w) {
				return
			}
			if again {
				continue
			}
			timer.Reset(time.Hour)
			if !wake.IsZero() {
				timer.Reset(max(time.Millisecond, time.Until(wake)))
			}
			break
		}
	}
}

// gone reports whether the machine holds nothing of the pod.
func (w *worker) gone() bool {
	return w.pod.Empty() && w.pod.Removing.IsZero() && w.connection == nil
}

// step looks, decides and acts once. again reports that there may be more to do
// at once. A panic in here is this pod's failure, not the daemon's.
func (w *worker) step(ctx context.Context) (again bool, wake time.Time) {
	defer func() {
		if p := recover(); p != nil {
			w.event(corev1.EventTypeWarning, "InternalError", "", fmt.Sprintf("%v at %s", p, firstFrame(debug.Stack())))
			again, wake = false, w.fault()
		}
	}()
	d, up := w.a.want(w.instance)
	w.refresh(ctx, up)
	w.observe(ctx, d, up)
	w.report(d)
	now := time.Now()
	if now.Before(w.hold) {
		return false, w.hold
	}
	actions, wake := runtime.Decide(d, runtime.Observed{Known: up, Pods: []runtime.ObservedPod{w.pod}}, now)
	if len(actions) == 0 {
		w.plan = ""
		if !up {
			return false, wake
		}
		return false, w.remember(ctx, wake)
	}
	if w.repeating(actions) {
		return false, w.fault()
	}
	select {
	case w.a.heavy <- struct{}{}:
	case <-ctx.Done():
		return false, wake
	}
	defer func() { <-w.a.heavy }()
	for _, action := range actions {
		w.version.Add(1)
		err := w.act(ctx, d, action)
		w.version.Add(1)
		if err != nil {
			if errors.Is(err, runtime.ErrUnavailable) {
				w.a.setDown(err)
				w.a.askRelist()
				return false, time.Time{}
			}
			if !errors.Is(err, errNoted) && ctx.Err() == nil {
				w.event(corev1.EventTypeWarning, "Failed", "", fmt.Sprintf("%s: %v", action, err))
				return false, w.fault()
			}
			break
		}
		w.report(d)
	}
	w.join(ctx)
	w.report(d)
	return true, w.remember(ctx, wake)
}

// repeating reports whether the same acts were decided again and again: they
// change nothing, and the worker must not spin.
func (w *worker) repeating(actions []runtime.Action) bool {
	plan := fmt.Sprint(actions)
	if plan != w.plan {
		w.plan, w.repeats = plan, 0
		return false
	}
	w.repeats++
	return w.repeats > 3
}

// errNoted is wrapped by errors that are part of what the worker observes: the
// next decision takes them into account.
var errNoted = errors.New("noted")

// fault makes the worker hold for a while, longer with every failure in a row.
func (w *worker) fault() time.Time {
	w.faults++
	wait := min(30*time.Second, 100*time.Millisecond<<min(w.faults, 10))
	w.hold = time.Now().Add(wait)
	return w.hold
}

func firstFrame(stack []byte) string {
	lines := slices.Collect(func(yield func(string) bool) {
		begin := 0
		for i, b := range stack {
			if b == '\n' {
				if !yield(string(stack[begin:i])) {
					return
				}
				begin = i + 1
			}
		}
	})
	for i, line := range lines {
		if i > 6 && len(line) > 0 && line[0] == '\t' {
			return line[1:]
		}
	}
	return "an unknown place"
}

// set puts a container among the observed ones.
func (w *worker) set(c runtime.Container) {
	i, found := slices.BinarySearchFunc(w.pod.Containers, c, order)
	if found {
		w.pod.Containers[i] = c
	} else {
		w.pod.Containers = slices.Insert(slices.Clone(w.pod.Containers), i, c)
	}
	if c.State == runtime.ContainerExited {
		w.exited(c.ID)
	}
}

func order(a, b runtime.Container) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Attempt, b.Attempt))
}

func (w *worker) drop(id string) {
	w.pod.Containers = slices.DeleteFunc(slices.Clone(w.pod.Containers), func(c runtime.Container) bool { return c.ID == id })
	w.exited(id)
}

// exit returns a channel that is closed once the container has ended.
func (w *worker) exit(id string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.exits[id] == nil {
		w.exits[id] = make(chan struct{})
	}
	return w.exits[id]
}

func (w *worker) exited(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ch := w.exits[id]; ch != nil {
		close(ch)
		delete(w.exits, id)
	}
	delete(w.stopping, id)
}

// report publishes what is known of the pod.
func (w *worker) report(d runtime.Desired) {
	status := runtime.Status(d, w.pod, w.last, time.Now())
	w.last = status
	r := report{
		status: status,
		state:  runtime.State(d, w.pod, status),
		held:   slices.Clone(w.pod.Containers),
	}
	if w.object != nil {
		r.pod, r.known = *w.object, true
	}
	r.debug = w.pod.Debug
	if w.gone() {
		if _, wanted := d.Lookup(w.instance); !wanted {
			return
		}
	}
	w.a.publish(w.instance, r)
}

// save writes what the probes say where a successor finds it.
func (w *worker) save() {
	if w.pod.Record == nil || maps.Equal(w.saved, w.pod.Probes) {
		return
	}
	if err := w.memory.setProbes(w.pod.Probes); err == nil {
		w.saved = maps.Clone(w.pod.Probes)
	}
}
