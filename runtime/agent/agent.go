package agent

import (
	"context"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/probe"
	"github.com/shoal-dev/shoal/runtime/volume"
)

// Agent makes this machine run its pods. All its methods may be called
// concurrently.
type Agent struct {
	cfg     Config
	volumes *volume.Volumes
	prober  *probe.Prober
	pulls   *pulls
	images  *reclaimer
	heavy   chan struct{} // a slot for each worker that may act
	machine machine

	pokes   chan struct{} // for Run
	ahead   chan struct{} // for fetchAhead
	changed chan struct{}

	mu        sync.Mutex
	desired   runtime.Desired
	workers   map[string]*worker
	reports   map[string]report
	relists   bool                // a listing was asked for
	listed    bool                // the machine was listed once
	strangers map[string]bool     // found by the first listing, and not yet reported
	down      error               // why the engine does not answer; nil when it does
	keeper    error               // why the keeper does not run; nil when it does
	alarm     string              // what is wrong with the disk of the images; "" when nothing is
	archived  map[string][]string // by archive in the images folder: the images that came of it

	discarding  bool   // volumes are being deleted
	discardSaid string // why one could not be

	exclusive exclusives
	limits    runtime.Resources // of all pods together, as the machine has them; Run's
	pressure  pressure
	disk      disks

	ctx context.Context // Run's; workers live as long
	wg  sync.WaitGroup
}

// report is what is known of one pod outside of its worker.
type report struct {
	status corev1.PodStatus
	state  api.PodState
	pod    runtime.Pod
	known  bool // pod is set
	held   []runtime.Container
	debug  []corev1.EphemeralContainer
}

// New returns an agent. It starts the keeper, and changes nothing else on the
// machine before Run. It does not wait for containerd.
func New(cfg Config) (*Agent, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	for _, dir := range []string{cfg.StateDir, cfg.RunDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	if err := cfg.real(ctx); err != nil {
		return nil, err
	}
	a := &Agent{
		cfg:       cfg,
		volumes:   volume.New(cfg.StateDir),
		heavy:     make(chan struct{}, cfg.Workers),
		pokes:     make(chan struct{}, 1),
		ahead:     make(chan struct{}, 1),
		changed:   make(chan struct{}, 1),
		workers:   map[string]*worker{},
		reports:   map[string]report{},
		strangers: map[string]bool{},
		down:      errors.New("not asked yet"),
	}
	a.machine = readMachine()
	if a.cfg.Readings == nil && !a.cfg.Confined {
		a.cfg.Readings = a.readings
	}
	a.machine.system.BootID = a.cfg.BootID
	a.exclusive.held, a.exclusive.fenced = map[string]api.Identity{}, map[string]bool{}
	if a.cfg.Fencer != nil {
		// Before the fleet hears of this daemon; what is wrong with the fencer
		// shows again when it is told of the lease.
		_, _ = a.cfg.Fencer.Held(ctx)
	}
	a.pulls = newPulls(cfg.Engine, newGate(cfg.Pulls, cfg.PullsPerSecond, cfg.PullBurst), a.pokeInstance)
	a.images = &reclaimer{a: a, used: map[string]time.Time{}}
	a.prober = probe.New(a.probeExec, a.pokeInstance, a.unhealthy)
	return a, nil
}

// Sync sets the whole desired state. It returns at once; setting the same state
// again does nothing.
func (a *Agent) Sync(d runtime.Desired) {
	a.mu.Lock()
	a.desired = d
	for _, w := range a.workers {
		w.synced()
	}
	a.mu.Unlock()
	a.poke()
	select {
	case a.ahead <- struct{}{}:
	default:
	}
}

// States returns the digest of every pod the machine holds or should, sorted by
// Pod, as of this boot of the machine. Seq is left to the caller.
func (a *Agent) States() api.PodStates {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := api.PodStates{Node: a.cfg.Node, BootID: a.machine.system.BootID, Pods: make([]api.PodState, 0, len(a.reports))}
	for _, r := range a.reports {
		out.Pods = append(out.Pods, r.state)
	}
	slices.SortFunc(out.Pods, func(x, y api.PodState) int { return x.Pod.Compare(y.Pod) })
	return out
}

// Adopted reports whether States tells of everything that the machine held when
// Run began: it was listed, and every pod found was looked at. Before that,
// a pod that is not in States may well run.
func (a *Agent) Adopted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.listed && len(a.strangers) == 0
}

// met notes that a pod found by the first listing was looked at and reported.
func (a *Agent) met(instance string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.strangers[instance] {
		return
	}
	delete(a.strangers, instance)
	if len(a.strangers) == 0 {
		a.notify()
	}
}

// Status returns a pod's status. The value is shared: do not change it.
func (a *Agent) Status(instance string) (corev1.PodStatus, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, found := a.reports[instance]
	return r.status, found
}

// Pod returns a pod as the machine knows it, which may be one that nobody
// desires any more. The value is shared: do not change it.
func (a *Agent) Pod(instance string) (runtime.Pod, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, found := a.reports[instance]
	return r.pod, found && r.known
}

// Changed is poked when States or a Status changed. One reader only.
func (a *Agent) Changed() <-chan struct{} { return a.changed }

// Run works until ctx ends. Pods run on after that.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer a.wg.Wait()
	defer a.prober.Wait()
	defer cancel()
	a.mu.Lock()
	a.ctx = ctx
	a.relists = true
	a.mu.Unlock()

	a.wg.Go(func() { a.cfg.Logs.Run(ctx, a.keeperFailed) })
	a.wg.Go(func() { a.watch(ctx) })
	a.wg.Go(func() { a.tendLease(ctx) })
	a.wg.Go(func() { a.importImages(ctx) })
	a.wg.Go(func() { a.tendImages(ctx) })
	a.wg.Go(func() { a.fetchAhead(ctx) })
	a.wg.Go(func() { a.tendPressure(ctx) })
	a.poke()
	relist := time.NewTimer(a.cfg.Relist)
	defer relist.Stop()
	for {
		due := false
		select {
		case <-ctx.Done():
			return nil
		case <-relist.C:
			due = true
		case <-a.pokes:
		}
		a.mu.Lock()
		due = due || a.relists
		a.relists = false
		a.mu.Unlock()
		if due {
			next := a.cfg.Relist
			if err := a.relist(ctx); err != nil {
				next = 500 * time.Millisecond
			}
			relist.Reset(next)
		}
		a.employ()
		a.discard(ctx)
	}
}

func (a *Agent) poke() {
	select {
	case a.pokes <- struct{}{}:
	default:
	}
}

func (a *Agent) askRelist() {
	a.mu.Lock()
	a.relists = true
	a.mu.Unlock()
	a.poke()
}

// watch turns the engine's events into pokes, for ever.
func (a *Agent) watch(ctx context.Context) {
	wait := 50 * time.Millisecond
	for ctx.Err() == nil {
		// What happened while nobody watched is found by listing.
		listing := time.AfterFunc(300*time.Millisecond, a.askRelist)
		begin := time.Now()
		_ = a.cfg.Engine.Watch(ctx, a.event) // its end says all that matters
		listing.Stop()
		if ctx.Err() != nil {
			return
		}
		a.askRelist()
		if time.Since(begin) > 5*time.Second {
			wait = 50 * time.Millisecond
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, time.Second)
	}
}

// event is called for every event of the engine.
func (a *Agent) event(container string) {
	if container == "" {
		a.pulls.recheck()
		a.pokeAll()
		return
	}
	a.mu.Lock()
	w := a.workers[instanceOf(container)]
	a.mu.Unlock()
	if w != nil {
		w.look(container)
	}
}

// instanceOf returns the instance that a container's ID begins with.
func instanceOf(id string) string {
	if i := strings.LastIndexByte(id, '-'); i > 0 {
		if j := strings.LastIndexByte(id[:i], '-'); j > 0 {
			return id[:j]
		}
	}
	return ""
}

func (a *Agent) pokeInstance(instance string) {
	a.mu.Lock()
	w := a.workers[instance]
	a.mu.Unlock()
	if w != nil {
		w.poke()
	}
}

func (a *Agent) pokeAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.workers {
		w.poke()
	}
}

// employ starts a worker for every desired pod that has none, but for those that
// must go: they are gone. Before the machine was listed nobody knows what it
// holds already.
func (a *Agent) employ() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.listed {
		return
	}
	for _, p := range a.desired.Pods {
		if _, employed := a.workers[p.Instance()]; !employed && !a.desired.Removes(p.Instance()) {
			a.hire(p.Assignment.Pod, nil)
		}
	}
}

// hire starts a worker. a.mu is held.
func (a *Agent) hire(p api.Pod, held []runtime.Held) {
	w := newWorker(a, p, held)
	a.workers[p.Instance] = w
	ctx := a.ctx
	a.wg.Go(func() { w.run(ctx) })
}

// dismiss ends the memory of a worker whose pod is gone, unless it was poked
// for something new meanwhile.
func (a *Agent) dismiss(w *worker) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, wanted := a.desired.Lookup(w.instance); wanted && !a.desired.Removes(w.instance) {
		return false
	}
	delete(a.workers, w.instance)
	delete(a.reports, w.instance)
	a.notify()
	return true
}

// want returns what is desired of one instance, and whether it may be acted on.
func (a *Agent) want(instance string) (d runtime.Desired, up bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d = a.desired.Only(instance)
	d.LeaseUntil = a.leaseUntil(time.Now())
	return d, a.down == nil
}

// publish makes a pod's state known.
func (a *Agent) publish(instance string, r report) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old, found := a.reports[instance]
	a.reports[instance] = r
	if !found || !reflect.DeepEqual(old.state, r.state) || !equality.Semantic.DeepEqual(old.status, r.status) {
		a.notify()
	}
}

func (a *Agent) notify() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// setDown notes whether the engine answers.
func (a *Agent) setDown(err error) {
	a.mu.Lock()
	was := a.down
	a.down = err
	if (was == nil) != (err == nil) {
		a.notify()
		for _, w := range a.workers { // what waited for the engine goes on
			w.poke()
		}
	}
	a.mu.Unlock()
}

func (a *Agent) keeperFailed(err error) {
	a.mu.Lock()
	a.keeper = err
	a.notify()
	a.mu.Unlock()
}
