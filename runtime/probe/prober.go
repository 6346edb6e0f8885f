package probe

import (
	"context"
	"hash/fnv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// Kind says which of a container's probes.
type Kind string

// The kinds of probes, as Kubernetes writes them in events.
const (
	Startup   Kind = "Startup"
	Readiness Kind = "Readiness"
	Liveness  Kind = "Liveness"
)

// Target is one attempt of a container that runs.
type Target struct {
	Instance  string
	Container *corev1.Container
	ID        string // of the container
	Attempt   int32
	IP        string // of the pod; the node's for hostNetwork
	Started   time.Time
	// Known is what was known of this attempt before, for adopted containers;
	// nil for new ones.
	Known *runtime.Probes
}

// Exec runs a command in a container and returns its exit code and the first
// part of its output.
type Exec func(ctx context.Context, id string, command []string) (code int, output string, err error)

// Prober runs the probes of this machine's containers. It may be used
// concurrently.
type Prober struct {
	exec    Exec
	changed func(instance string)
	failed  func(t Target, kind Kind, message string)

	mu      sync.Mutex
	targets map[key]*target
	wg      sync.WaitGroup
}

type key struct{ instance, container string }

type target struct {
	Target
	cancel context.CancelFunc
	state  runtime.Probes
	// started is closed when the startup probe has succeeded.
	started chan struct{}
}

// New returns a prober. changed is called when what is known of an instance
// changed, failed for every failing probe; both from goroutines of the prober,
// and neither may call back into it from within the call.
func New(exec Exec, changed func(instance string), failed func(Target, Kind, string)) *Prober {
	return &Prober{exec: exec, changed: changed, failed: failed, targets: map[key]*target{}}
}

// Watch begins to probe an attempt, in place of an earlier one. Watching what is
// watched already does nothing.
func (p *Prober) Watch(ctx context.Context, t Target) {
	k := key{t.Instance, t.Container.Name}
	p.mu.Lock()
	defer p.mu.Unlock()
	if old, found := p.targets[k]; found {
		if old.Attempt == t.Attempt && old.ID == t.ID {
			return
		}
		old.cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	own := &target{Target: t, cancel: cancel, started: make(chan struct{})}
	p.targets[k] = own

	c := t.Container
	own.state = runtime.Probes{
		Attempt: t.Attempt,
		Started: c.StartupProbe == nil,
		Ready:   c.StartupProbe == nil && c.ReadinessProbe == nil,
		Since:   t.Started,
	}
	adopted := t.Known != nil && t.Known.Attempt == t.Attempt
	if adopted {
		own.state = *t.Known
		own.state.Unhealthy = ""
	}
	if own.state.Started {
		close(own.started)
	} else {
		p.start(ctx, own, Startup, c.StartupProbe, false)
	}
	if c.ReadinessProbe != nil {
		p.start(ctx, own, Readiness, c.ReadinessProbe, adopted)
	}
	if c.LivenessProbe != nil {
		p.start(ctx, own, Liveness, c.LivenessProbe, adopted)
	}
}

func (p *Prober) start(ctx context.Context, t *target, kind Kind, spec *corev1.Probe, adopted bool) {
	p.wg.Go(func() { p.loop(ctx, t, kind, spec, adopted) })
}

// Forget ends the probes of a container.
func (p *Prober) Forget(instance, container string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t, found := p.targets[key{instance, container}]; found {
		t.cancel()
		delete(p.targets, key{instance, container})
	}
}

// Wait waits until every probe has ended, after the contexts they were started
// with have.
func (p *Prober) Wait() { p.wg.Wait() }

// State returns what is known of an instance's containers, by name.
func (p *Prober) State(instance string) map[string]runtime.Probes {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]runtime.Probes{}
	for k, t := range p.targets {
		if k.instance == instance {
			out[k.container] = t.state
		}
	}
	return out
}

// loop runs one probe of one attempt until ctx ends or nothing more can change.
func (p *Prober) loop(ctx context.Context, t *target, kind Kind, spec *corev1.Probe, adopted bool) {
	if kind != Startup {
		select {
		case <-t.started:
		case <-ctx.Done():
			return
		}
	}
	period := seconds(spec.PeriodSeconds, 10)
	passing := kind == Liveness
	if kind == Readiness {
		p.mu.Lock()
		passing = t.state.Ready
		p.mu.Unlock()
	}
	count := newCounter(spec, passing)
	wait := time.Until(t.Started.Add(time.Duration(spec.InitialDelaySeconds) * time.Second))
	if adopted {
		wait = spread(t, kind, period)
	}
	timer := time.NewTimer(max(0, wait))
	defer timer.Stop()
	for tries := 0; ; tries++ {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		ok, message := p.once(ctx, t, spec)
		if ctx.Err() != nil {
			return
		}
		hasty := !ok && !count.ever && early(tries, period) < period
		timer.Reset(period)
		if hasty {
			timer.Reset(early(tries, period))
			continue
		}
		if !ok {
			p.failed(t.Target, kind, message)
		}
		changed, failed := count.observe(ok)
		if ok {
			message = ""
		}
		if p.conclude(t, kind, message, changed, failed) {
			return
		}
	}
}

// conclude makes what follows from a result known; it reports whether the probe
// has said all that it can. message is "" when the probe succeeded.
func (p *Prober) conclude(t *target, kind Kind, message string, changed, failed bool) (done bool) {
	p.mu.Lock()
	now := time.Now()
	switch kind {
	case Startup:
		if changed {
			t.state.Started = true
			if t.Container.ReadinessProbe == nil {
				t.state.Ready, t.state.Since = true, now
			}
			close(t.started)
			done = true
		}
	case Readiness:
		if changed {
			t.state.Ready, t.state.Since = !failed, now
		}
	}
	if failed && kind != Readiness {
		t.state.Unhealthy = string(kind)
		t.state.Ready = false
		changed, done = true, true
	}
	if said := t.complaint(kind, message); said != t.state.Message {
		t.state.Message, changed = said, true
	}
	p.mu.Unlock()
	if changed {
		p.changed(t.Instance)
	}
	return done
}

// complaint returns why the container is not ready, as far as this result of a
// probe tells.
func (t *target) complaint(kind Kind, message string) string {
	switch {
	case t.state.Ready:
		return ""
	case message == "":
		return t.state.Message
	}
	return string(kind) + " probe failed: " + message
}

// spread returns when the probe of an adopted container begins: not all at once
// after a restart of the daemon.
func spread(t *target, kind Kind, period time.Duration) time.Duration {
	h := fnv.New32a()
	h.Write([]byte(t.ID + string(kind)))
	return time.Duration(int64(h.Sum32()) * int64(period) >> 32)
}
