package runtime

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Decide returns the next steps towards the desired state, pod by pod in the
// order of their instances, and the time at which to decide again although
// nothing was poked; zero when there is none. The actions of a pod are meant to
// be carried out in order; when one fails, the rest of that pod's are dropped
// and the next decision is made from what the machine then holds.
func Decide(d Desired, o Observed, now time.Time) (actions []Action, wake time.Time) {
	if !o.Known {
		return nil, time.Time{}
	}
	for _, p := range union(d, o) {
		decision := decision{desired: d, pod: p, now: now}
		decision.decide()
		actions = append(actions, decision.actions...)
		wake = earliest(wake, decision.wake)
	}
	return actions, wake
}

// union returns every pod that is wanted or held, sorted by instance.
func union(d Desired, o Observed) []ObservedPod {
	pods := slices.Clone(o.Pods)
	for _, want := range d.Pods {
		if _, held := o.Lookup(want.Instance()); !held {
			pods = append(pods, ObservedPod{Instance: want.Instance()})
		}
	}
	slices.SortFunc(pods, func(a, b ObservedPod) int { return cmp.Compare(a.Instance, b.Instance) })
	return pods
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// decision is the work on one pod.
type decision struct {
	desired Desired
	pod     ObservedPod
	now     time.Time
	spec    *corev1.PodSpec

	actions []Action
	wake    time.Time
}

func (d *decision) do(a Action) {
	a.Instance = d.pod.Instance
	d.actions = append(d.actions, a)
}

// later asks for another decision at t.
func (d *decision) later(t time.Time) { d.wake = earliest(d.wake, t) }

func (d *decision) decide() {
	object := d.pod.object(d.desired)
	if object != nil {
		d.spec = &object.Spec
	}
	_, wanted := d.desired.Lookup(d.pod.Instance)
	switch {
	case d.desired.Removes(d.pod.Instance) || !d.pod.Removing.IsZero():
		if !d.pod.Empty() || !d.pod.Removing.IsZero() {
			d.remove(ReasonUnwanted)
		}
	case d.desired.Leaves(d.pod.Instance):
		// It goes on with what it has until traffic is led elsewhere.
	case d.desired.Known && !wanted && !d.pod.Running() && (d.spec == nil || len(d.pod.Containers) == 0):
		if !d.pod.Empty() {
			d.remove(ReasonForgotten)
		}
	case d.spec == nil:
		// Held by the machine, meant by nobody yet known: left as it is.
	case !wanted && len(d.pod.Containers) == 0:
		// The desired state is not known, and nothing is started on a guess.
	default:
		d.run()
	}
}

// remove stops what runs; when nothing does, it removes the rest.
func (d *decision) remove(why Reason) {
	if d.stopAll(why) {
		return
	}
	for _, c := range d.pod.Containers {
		d.do(Action{Verb: RemoveContainer, Container: c.Name, ID: c.ID, Reason: why})
	}
	if d.pod.Sandbox.State != SandboxNone {
		d.do(Action{Verb: RemoveSandbox, Reason: why})
	}
	d.do(Action{Verb: RemovePod, Reason: why})
}

// yield ends a pod at once whose identity was given to another node: that one may
// be running already.
func (d *decision) yield() {
	for _, c := range d.pod.Containers {
		if c.State == ContainerRunning {
			d.stop(c, 0, ReasonOutclaimed)
		}
	}
}

// stopAll stops every container that runs, sidecars last, and reports whether any
// did.
func (d *decision) stopAll(why Reason) bool {
	others := false
	for _, c := range d.pod.Containers {
		if c.State == ContainerRunning && !sidecar(d.spec, c.Name) {
			d.stop(c, d.grace(), why)
			others = true
		}
	}
	if !others && d.spec != nil {
		d.stopSidecars(why)
	}
	return d.pod.Running()
}

func (d *decision) stop(c Container, grace time.Duration, why Reason) {
	if !c.Stopping {
		d.do(Action{Verb: StopContainer, Container: c.Name, ID: c.ID, Grace: grace, Reason: why})
	}
}

func (d *decision) grace() time.Duration {
	if d.pod.evicted() {
		return d.pod.Evicted.Grace
	}
	if d.spec != nil && d.spec.TerminationGracePeriodSeconds != nil {
		return time.Duration(*d.spec.TerminationGracePeriodSeconds) * time.Second
	}
	return 30 * time.Second
}

// run brings a pod that shall run one step further.
func (d *decision) run() {
	if d.pod.evicted() {
		d.release(ReasonEvicted)
		return
	}
	if d.pastDeadline() {
		d.release(ReasonDeadline)
		return
	}
	if finished(d.spec, d.pod) || ended(d.desired, d.pod) != "" {
		d.release(ReasonFinished)
		return
	}
	right := d.rightOf()
	if right == outclaimed {
		d.yield()
		return
	}
	d.collect()
	d.probe()
	starts, due := d.next()
	if right != entitled {
		starts = nil // the images may be fetched meanwhile
	}
	if len(starts) > 0 && d.pod.Sandbox.State != SandboxReady && d.stopAll(ReasonSandboxLost) {
		return
	}
	ready := starts[:0:0]
	for _, s := range starts {
		if d.imageReady(s.Container) {
			ready = append(ready, s)
		} else {
			break // containers start in order
		}
	}
	if right == entitled {
		ready = append(ready, d.debug()...)
	}
	for _, name := range due {
		if latest, exists := d.pod.latest(name); !exists || latest.State != ContainerRunning {
			d.imageReady(name)
		}
	}
	if len(ready) > 0 && d.prepare() {
		d.actions = append(d.actions, ready...)
	}
}

// pastDeadline reports whether activeDeadlineSeconds is over.
func (d *decision) pastDeadline() bool {
	if d.spec.ActiveDeadlineSeconds == nil || d.pod.Admitted.IsZero() {
		return false
	}
	end := d.pod.Admitted.Add(time.Duration(*d.spec.ActiveDeadlineSeconds) * time.Second)
	if d.now.Before(end) {
		d.later(end)
		return false
	}
	return true
}

// release ends what still runs and gives the network back; the containers stay
// for their logs and states.
func (d *decision) release(why Reason) {
	if d.stopAll(why) {
		return
	}
	d.collect()
	if d.pod.Sandbox.State != SandboxNone {
		d.do(Action{Verb: RemoveSandbox, Reason: why})
	}
}

// collect removes attempts that nobody needs: of each container the newest and
// the newest dead one stay.
func (d *decision) collect() {
	for _, c := range d.pod.Containers {
		latest, _ := d.pod.latest(c.Name)
		_, known := FindContainer(d.spec, c.Name)
		switch {
		case c.State == ContainerRunning:
		case !known && !d.pod.debugs(c.Name):
			d.do(Action{Verb: RemoveContainer, Container: c.Name, ID: c.ID, Reason: ReasonNotInSpec})
		case c.State == ContainerCreated:
			d.do(Action{Verb: RemoveContainer, Container: c.Name, ID: c.ID, Reason: ReasonNeverStarted})
		case c.Attempt < latest.Attempt && c.ID != d.newestDeadBut(latest).ID:
			d.do(Action{Verb: RemoveContainer, Container: c.Name, ID: c.ID, Reason: ReasonSuperseded})
		}
	}
}

// newestDeadBut returns the newest ended attempt older than latest.
func (d *decision) newestDeadBut(latest Container) Container {
	var out Container
	for _, c := range d.pod.Containers {
		if c.Name == latest.Name && c.Attempt < latest.Attempt && c.State == ContainerExited {
			out = c // sorted by attempt
		}
	}
	return out
}

// probe stops containers whose liveness or startup probe failed.
func (d *decision) probe() {
	for _, c := range d.pod.Containers {
		p, probed := d.pod.Probes[c.Name]
		if !probed || p.Unhealthy == "" || p.Attempt != c.Attempt || c.State != ContainerRunning {
			continue
		}
		spec, known := FindContainer(d.spec, c.Name)
		if !known {
			continue
		}
		grace, why, source := d.grace(), ReasonLiveness, spec.LivenessProbe
		if p.Unhealthy == "Startup" {
			why, source = ReasonStartup, spec.StartupProbe
		}
		if source != nil && source.TerminationGracePeriodSeconds != nil {
			grace = time.Duration(*source.TerminationGracePeriodSeconds) * time.Second
		}
		d.stop(c, grace, why)
	}
}

// next returns the containers that may start now, in order, and the names of
// those whose images will be wanted soon.
func (d *decision) next() (starts []Action, soon []string) {
	for i := range d.spec.InitContainers {
		c := &d.spec.InitContainers[i]
		done := passed(d.spec, d.pod, i)
		if done && !IsSidecar(c) {
			continue
		}
		latest, exists := d.pod.latest(c.Name)
		switch {
		case !exists || latest.State != ContainerRunning:
			if start, ok := d.start(c.Name, true); ok {
				starts = append(starts, start)
			}
		case !done && d.pod.Sandbox.State != SandboxReady: // a sidecar that is left of a pod whose network is gone
			starts = append(starts, Action{Verb: StartContainer, Container: c.Name, Init: true, Reason: ReasonRestartSandbox})
		}
		if !done {
			return starts, append(names(d.spec.InitContainers[i:]), names(d.spec.Containers)...)
		}
	}
	for i := range d.spec.Containers {
		if start, ok := d.start(d.spec.Containers[i].Name, false); ok {
			starts = append(starts, start)
		}
	}
	for _, s := range starts {
		soon = append(soon, s.Container)
	}
	return starts, soon
}

// start returns the action that starts the next attempt of a container, when it
// may start now.
func (d *decision) start(name string, init bool) (Action, bool) {
	action := Action{
		Verb: StartContainer, Instance: d.pod.Instance, Container: name, Init: init, Reason: ReasonStart,
	}
	if init {
		action.Reason = ReasonInit
	}
	latest, exists := d.pod.latest(name)
	if exists && latest.State == ContainerCreated { // removed in this same decision
		latest, exists = d.pod.previous(name, latest.Attempt)
	}
	if exists {
		if latest.State == ContainerRunning || !d.restarts(latest) {
			return Action{}, false
		}
		action.Attempt, action.Crashes, action.Reason = latest.Attempt+1, NextCrashes(latest), ReasonRestart
		due := restartAt(latest)
		if latest.Sandbox != d.pod.Sandbox.ID {
			// It did not crash, the machine did: no back-off.
			action.Crashes, action.Reason, due = latest.Crashes, ReasonRestartSandbox, time.Time{}
		}
		if d.now.Before(due) {
			d.later(due)
			return Action{}, false
		}
	}
	if f := d.pod.Failures[name]; f.Failed() && d.now.Before(f.Retry) {
		d.later(f.Retry)
		return Action{}, false
	}
	return action, true
}

// restarts reports whether an attempt that has ended is followed by another.
func (d *decision) restarts(c Container) bool {
	return restarts(d.spec, d.pod, c)
}

// imageReady reports whether the container's image can be used, and sees to it
// that it will be.
func (d *decision) imageReady(name string) bool {
	image := d.pod.Images[name]
	switch image.State {
	case ImagePresent:
		return true
	case ImagePulling:
		return false
	case ImageFailed:
		if d.now.Before(image.Failure.Retry) {
			d.later(image.Failure.Retry)
			return false
		}
	}
	for _, a := range d.actions {
		if a.Verb == EnsureImage && a.Container == name {
			return false
		}
	}
	d.do(Action{Verb: EnsureImage, Container: name, Reason: ReasonImageMissing})
	return false
}

// prepare returns whether what containers stand on is there, or will be by the
// actions it adds.
func (d *decision) prepare() bool {
	for _, f := range []Failure{d.pod.Volumes.Failure, d.pod.Sandbox.Failure} {
		if f.Failed() && d.now.Before(f.Retry) {
			d.later(f.Retry)
			return false
		}
	}
	if d.pod.Sandbox.State == SandboxBroken {
		d.do(Action{Verb: RemoveSandbox, Reason: ReasonSandboxHalf})
	}
	if !d.pod.Volumes.Ready {
		d.do(Action{Verb: MountVolumes, Reason: ReasonStart})
	}
	if d.pod.Sandbox.State != SandboxReady {
		why := ReasonStart
		if len(d.pod.Containers) > 0 {
			why = ReasonSandboxLost
		}
		d.do(Action{Verb: CreateSandbox, Reason: why})
	}
	return true
}

func names(containers []corev1.Container) []string {
	out := make([]string, len(containers))
	for i := range containers {
		out[i] = containers[i].Name
	}
	return out
}

// FindContainer returns the container of a spec by its name, init containers
// included. spec may be nil.
func FindContainer(spec *corev1.PodSpec, name string) (*corev1.Container, bool) {
	if spec == nil {
		return nil, false
	}
	for i := range spec.Containers {
		if spec.Containers[i].Name == name {
			return &spec.Containers[i], true
		}
	}
	for i := range spec.InitContainers {
		if spec.InitContainers[i].Name == name {
			return &spec.InitContainers[i], true
		}
	}
	return nil, false
}
