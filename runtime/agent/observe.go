package agent

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/logs"
	"github.com/shoal-dev/shoal/runtime/probe"
	"github.com/shoal-dev/shoal/runtime/volume"
)

// adopt takes over what an earlier daemon left of the pod, and reports it.
func (w *worker) adopt(ctx context.Context) {
	w.pod.Record, w.pod.Admitted = w.memory.record()
	w.pod.Removing = w.memory.removing()
	w.pod.Evicted = w.memory.evicted()
	w.saved = w.memory.probes()
	w.pod.Debug = w.recall()
	_, memory := os.Stat(w.memory.dir)
	_, volumes := os.Stat(w.a.volumes.Folder(w.instance))
	w.pod.Leftovers = memory == nil || volumes == nil
	w.refresh(ctx, true)
	for _, c := range w.pod.Containers {
		if c.State != runtime.ContainerRunning {
			continue
		}
		// The keeper may have been lost together with the daemon.
		if _, _, err := w.a.cfg.Logs.Open(ctx, c.ID, w.logPath(c)); err != nil {
			w.event(corev1.EventTypeWarning, "LogsLost", c.Name, err.Error())
		}
	}
	d, up := w.a.want(w.instance)
	w.observe(ctx, d, up)
	w.report(d)
}

// refresh brings the observed containers and the sandbox up to date with what
// others handed in.
func (w *worker) refresh(ctx context.Context, up bool) {
	w.mu.Lock()
	listing, listed := w.listing, w.listed
	w.listing, w.listed = nil, false
	var looks []string
	if up {
		looks = slices.Sorted(maps.Keys(w.looks))
		clear(w.looks)
	}
	w.mu.Unlock()

	if listed {
		w.list(listing)
	}
	for _, id := range looks {
		held, err := w.a.cfg.Engine.Inspect(ctx, id)
		switch {
		case errors.Is(err, runtime.ErrNotFound):
			w.drop(id)
		case err != nil:
			w.look(id) // again, once the engine answers
			w.a.setDown(err)
			w.a.askRelist()
			return
		default:
			w.see(held)
		}
	}
}

// list replaces the observed containers by a listing.
func (w *worker) list(listing []runtime.Held) {
	for _, c := range w.pod.Containers {
		if !slices.ContainsFunc(listing, func(h runtime.Held) bool { return h.ID == c.ID }) {
			w.drop(c.ID)
		}
	}
	for _, held := range listing {
		w.see(held)
	}
	if info, found := w.a.cfg.Network.Get(w.instance); w.connection == nil {
		w.pod.Sandbox.State, w.pod.Sandbox.ID = runtime.SandboxNone, ""
		if found {
			w.pod.Sandbox.State = runtime.SandboxBroken
		}
		if found && info.Complete {
			w.pod.Sandbox.State, w.pod.Sandbox.ID, w.pod.Sandbox.IPs = runtime.SandboxReady, info.ID, info.IPs
		}
	}
}

// see takes in one container as the engine holds it.
func (w *worker) see(held runtime.Held) {
	w.pod.Labels = held.Assignment
	c := held.Container
	i, known := slices.BinarySearchFunc(w.pod.Containers, c, order)
	if known && w.pod.Containers[i].State == runtime.ContainerExited && !w.pod.Containers[i].Recorded && c.ID == w.pod.Containers[i].ID {
		return // what was seen first holds more
	}
	if c.State == runtime.ContainerRunning && known && !w.pod.Containers[i].Started.IsZero() {
		c.Started = w.pod.Containers[i].Started
	}
	if c.State == runtime.ContainerExited && !c.Recorded {
		switch {
		case known && !w.pod.Containers[i].Started.IsZero():
			c.Started = w.pod.Containers[i].Started
		case c.Started.IsZero() && (c.ExitCode == 137 || c.Finished.IsZero()):
			// Killed before anybody knew it to run, or ended at no time at all:
			// the engine undid what an earlier daemon was doing when it was killed.
			c.State = runtime.ContainerCreated
			w.set(c)
			return
		case c.Started.IsZero():
			c.Started = c.Finished
		}
		c.Message = w.lastWords(c)
		if w.wasFenced(c) {
			c.Reason = runtime.EndedFenced
			w.event(corev1.EventTypeWarning, "Fenced", c.Name, "The fleet could not be heard of in time: the pod must not run twice and was ended")
		}
		w.unrecorded = append(w.unrecorded, c)
		w.a.prober.Forget(w.instance, c.Name)
	}
	w.set(c)
}

// observe brings everything else up to date.
func (w *worker) observe(ctx context.Context, d runtime.Desired, up bool) {
	w.mu.Lock()
	stopping, eviction := maps.Clone(w.stopping), w.eviction
	w.pod.Debug = w.debug
	w.mu.Unlock()

	if d.Removes(w.instance) && w.pod.Removing.IsZero() && !w.pod.Empty() {
		w.pod.Removing = time.Now()
		if err := w.memory.setRemoving(w.pod.Removing); err != nil {
			w.event(corev1.EventTypeWarning, "Failed", "", err.Error())
		}
		w.pod.Leftovers = true
	}
	w.object = w.pod.Record
	if want, found := d.Lookup(w.instance); found {
		w.object = &want
		if w.pod.Admitted.IsZero() {
			w.pod.Admitted = time.Now()
			if len(w.pod.Containers) == 0 && want.Assignment.Ended == "" && !d.Removes(w.instance) {
				eviction = w.a.refusal(want.Object)
			}
			if created := want.Assignment.Created; len(w.pod.Containers) > 0 && !created.IsZero() {
				w.pod.Admitted = created // known from before the machine's boot
			}
		}
	}
	if w.pod.Evicted.At.IsZero() && !eviction.At.IsZero() && w.pod.Removing.IsZero() {
		w.evicted(eviction)
	}
	containers := slices.Clone(w.pod.Containers)
	for i := range containers {
		containers[i].Stopping = stopping[containers[i].ID]
	}
	w.pod.Containers = containers
	if w.object == nil || w.object.Object == nil {
		return
	}
	w.guarded(ctx, d)
	w.hostIPs()
	if w.sourcesChanged(d) {
		w.reconsider(d)
	}
	if up && w.pod.Removing.IsZero() {
		w.images(ctx, d)
		w.probes(ctx)
	}
	w.save()
}

// hostIPs gives a pod in the host's network the host's addresses.
func (w *worker) hostIPs() {
	object := w.object.Object
	if !object.Spec.HostNetwork || w.pod.Sandbox.State != runtime.SandboxReady {
		return
	}
	w.pod.Sandbox.IPs = nil
	for _, ip := range object.Status.HostIPs {
		w.pod.Sandbox.IPs = append(w.pod.Sandbox.IPs, ip.IP)
	}
	if len(w.pod.Sandbox.IPs) == 0 && object.Status.HostIP != "" {
		w.pod.Sandbox.IPs = []string{object.Status.HostIP}
	}
}

// sourcesChanged reports whether the ConfigMaps or Secrets differ from those
// seen before. They are immutable: the same object is the same pointer.
func (w *worker) sourcesChanged(d runtime.Desired) bool {
	if maps.Equal(d.ConfigMaps, w.configMaps) && maps.Equal(d.Secrets, w.secrets) {
		return false
	}
	w.configMaps, w.secrets = d.ConfigMaps, d.Secrets
	return true
}

// reconsider is done when ConfigMaps or Secrets have changed: what waits for a ConfigMap
// or a Secret tries again at once, and volumes made from them are renewed.
func (w *worker) reconsider(d runtime.Desired) {
	for name, f := range w.pod.Failures {
		f.Retry = time.Time{}
		w.pod.Failures[name] = f
	}
	w.pod.Volumes.Failure.Retry = time.Time{}
	spec := &w.object.Object.Spec
	if !d.Known || !w.pod.Removing.IsZero() || len(w.pod.Containers) == 0 || !volume.Projects(spec) {
		return
	}
	if _, err := w.a.volumes.Update(w.sources(d)); err != nil {
		w.tell("FailedMount", "", err.Error())
	}
}

func (w *worker) sources(d runtime.Desired) runtime.Sources {
	return runtime.Sources{
		Desired: d, Pod: w.object.Object, Config: w.object.Config, IPs: w.pod.Sandbox.IPs, Allocatable: w.a.allocatable(),
	}
}

// images observes the images of containers that do not run.
func (w *worker) images(ctx context.Context, d runtime.Desired) {
	spec := &w.object.Object.Spec
	var credentials []runtime.Credential
	read := false
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers, w.debuggers()} {
		for i := range containers {
			c := &containers[i]
			attempts, running := 0, false
			for _, held := range w.pod.Containers {
				if held.Name == c.Name && held.State != runtime.ContainerCreated {
					attempts++
					running = running || held.State == runtime.ContainerRunning
				}
			}
			if running {
				delete(w.pod.Images, c.Name)
				continue
			}
			if !read {
				credentials, read = pullSecrets(d, w.object.Object), true
			}
			w.pod.Images[c.Name] = w.a.pulls.state(ctx, newWish(d, w.instance, c, credentials), attempts > 0)
		}
	}
}

// probes watches the containers that run, and takes in what is known of them.
func (w *worker) probes(ctx context.Context) {
	if w.object == nil || w.pod.Sandbox.State != runtime.SandboxReady {
		return
	}
	ip := ""
	if len(w.pod.Sandbox.IPs) > 0 {
		ip = w.pod.Sandbox.IPs[0]
	}
	for _, held := range w.pod.Containers {
		c := w.container(held.Name)
		if held.State != runtime.ContainerRunning || c == nil || held.Init && !runtime.IsSidecar(c) {
			continue
		}
		t := probe.Target{Instance: w.instance, Container: c, ID: held.ID, Attempt: held.Attempt, IP: ip, Started: held.Started}
		if known, found := w.saved[held.Name]; found && known.Attempt == held.Attempt {
			t.Known = &known
		}
		w.a.prober.Watch(ctx, t)
	}
	w.pod.Probes = w.a.prober.State(w.instance)
}

// remember tells the engine to write down what has become of containers, off
// every hot path, and returns when to step again.
func (w *worker) remember(ctx context.Context, wake time.Time) time.Time {
	w.faults = 0
	pending := w.unrecorded
	w.unrecorded = nil
	for _, c := range pending {
		if !slices.ContainsFunc(w.pod.Containers, func(have runtime.Container) bool { return have.ID == c.ID }) {
			continue
		}
		if c.State == runtime.ContainerExited && !w.pod.Removing.IsZero() {
			continue // it is removed as a whole
		}
		err := w.a.cfg.Engine.Record(ctx, c)
		if err == nil && c.State == runtime.ContainerExited {
			c.Recorded = true
			w.set(c)
			err = w.a.cfg.Logs.Close(ctx, c.ID)
		}
		if err != nil && !errors.Is(err, runtime.ErrNotFound) && ctx.Err() == nil {
			w.unrecorded = append(w.unrecorded, c)
			w.tell("Failed", c.Name, err.Error())
			again := time.Now().Add(2 * time.Second)
			if wake.IsZero() || again.Before(wake) {
				wake = again
			}
		}
	}
	return wake
}

// maxWords is how much of a termination message is kept, in bytes.
const maxWords = 3 << 10

// lastWords returns the termination message of a container that has ended.
// Source: kubernetes.io, Determine the Reason for Pod Failure.
func (w *worker) lastWords(c runtime.Container) string {
	if c.Message != "" {
		return c.Message
	}
	if b, err := os.ReadFile(w.wordsPath(c.ID)); err == nil && len(b) > 0 {
		return string(b[:min(len(b), maxWords)])
	}
	if c.ExitCode == 0 || w.object == nil || w.object.Object == nil {
		return ""
	}
	for _, containers := range [][]corev1.Container{w.object.Object.Spec.InitContainers, w.object.Object.Spec.Containers} {
		for i := range containers {
			if containers[i].Name == c.Name && containers[i].TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError {
				return logs.Last(w.logPath(c), 80, 2048)
			}
		}
	}
	return ""
}
