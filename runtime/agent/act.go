package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/logs/cri"
	"github.com/shoal-dev/shoal/runtime/network"
	"github.com/shoal-dev/shoal/runtime/volume"
)

// act carries out one action. An error that wraps errNoted has become part of
// what is observed.
func (w *worker) act(ctx context.Context, d runtime.Desired, action runtime.Action) error {
	switch action.Verb {
	case runtime.StopContainer:
		w.stop(ctx, action)
		return nil
	case runtime.RemoveContainer:
		return w.removeContainer(ctx, action.ID)
	case runtime.RemoveSandbox:
		return w.removeSandbox(ctx)
	case runtime.RemovePod:
		return w.removePod(ctx)
	case runtime.EnsureImage:
		w.ensureImage(ctx, d, action.Container)
		return nil
	case runtime.MountVolumes:
		return w.mountVolumes(d)
	case runtime.CreateSandbox:
		return w.createSandbox(ctx, d)
	case runtime.StartContainer:
		return w.start(ctx, d, action)
	}
	return fmt.Errorf("no such verb: %s", action.Verb)
}

func (w *worker) removeContainer(ctx context.Context, id string) error {
	if err := w.a.cfg.Engine.Remove(ctx, id); err != nil {
		return err
	}
	if err := w.a.cfg.Logs.Close(ctx, id); err != nil {
		return err
	}
	for _, c := range w.pod.Containers {
		if c.ID == id {
			w.removeLog(c)
		}
	}
	_ = os.Remove(w.wordsPath(id))
	_ = os.Remove(w.memory.input(id))
	w.drop(id)
	return nil
}

func (w *worker) removeLog(c runtime.Container) {
	removeLogs(w.logPath(c))
}

// removeLogs deletes a log and what was rotated out of it.
func removeLogs(path string) {
	for n := 0; os.Remove(cri.Rotated(path, n)) == nil; n++ {
	}
}

func (w *worker) removeSandbox(ctx context.Context) error {
	w.join(ctx)
	if err := w.a.cfg.Network.Remove(ctx, w.instance); err != nil {
		return err
	}
	w.pod.Sandbox = runtime.Sandbox{}
	return nil
}

// removePod makes the machine forget the pod. The mark of its removal goes
// last: whoever finds it finishes the work.
func (w *worker) removePod(ctx context.Context) error {
	if err := w.a.release(ctx, w.instance); err != nil {
		return err
	}
	if err := w.a.cfg.Logs.CloseAll(ctx, w.instance+"-"); err != nil {
		return err
	}
	if err := w.a.volumes.Remove(w.instance); err != nil {
		return err
	}
	if err := volume.UnmountBelow(w.memory.dir); err != nil {
		return err
	}
	if err := w.a.cfg.Engine.RemovePod(w.instance); err != nil {
		return err
	}
	folders, err := filepath.Glob(filepath.Join(w.a.logDir(), "*_"+w.instance))
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if err := os.RemoveAll(folder); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(w.memory.dir); err != nil {
		return err
	}
	w.a.pulls.forget(w.instance)
	w.pod = runtime.ObservedPod{
		Instance: w.instance,
		Failures: map[string]runtime.Failure{},
		Images:   map[string]runtime.Image{},
	}
	w.saved = nil
	return nil
}

func (w *worker) ensureImage(ctx context.Context, d runtime.Desired, name string) {
	c := w.container(name)
	if c == nil {
		return
	}
	w.pod.Images[name] = runtime.Image{State: runtime.ImagePulling}
	if !w.a.pulls.enter(w.instance, name) {
		return
	}
	w.event(corev1.EventTypeNormal, "Pulling", name, fmt.Sprintf("Pulling image %q", c.Image))
	want := newWish(d, w.instance, c, pullSecrets(d, w.object.Object))
	regards := w.regards(name)
	w.a.background(regards, func() {
		pulled, took, err := w.a.pulls.pull(ctx, want, true)
		w.a.pulls.leave(want.instance, c.Name)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			w.a.record(regards, corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", c.Image, err))
		default:
			w.a.tellPulled(regards, c.Image, pulled, took)
		}
		w.poke()
	})
}

// tellPulled says that an image was fetched, and what was unusual about it.
func (a *Agent) tellPulled(regards corev1.ObjectReference, ref string, pulled runtime.Pulled, took took) {
	if pulled.ResolvedBy != "" {
		a.record(regards, corev1.EventTypeWarning, "ImageResolvedByPeer", fmt.Sprintf("The registry of image %q cannot be reached (%s). What node %s has under this name was taken: %s",
			ref, pulled.Away, pulled.ResolvedBy, pulled.ID))
	}
	from := ""
	if len(pulled.Peers) > 0 {
		from = " from " + strings.Join(pulled.Peers, ", ")
	}
	a.record(regards, corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q%s in %s (%s including waiting). Image size: %d bytes.",
		ref, from, took.pulling.Round(time.Millisecond), took.all.Round(time.Millisecond), pulled.Size))
}

// mountVolumes makes everything that the pod's containers find on this machine:
// the record of the pod first of all, so that nothing is ever without one.
func (w *worker) mountVolumes(d runtime.Desired) error {
	w.pod.Leftovers = true
	if err := w.prepareVolumes(d); err != nil {
		count := w.pod.Volumes.Failure.Count + 1
		w.pod.Volumes.Failure = runtime.Failure{
			Reason: "FailedMount", Message: err.Error(), Count: count,
			Retry: time.Now().Add(min(2*time.Minute, time.Second<<min(count, 7))),
		}
		w.tell("FailedMount", "", "MountVolume.SetUp failed for "+err.Error())
		return fmt.Errorf("%w: %w", errNoted, err)
	}
	w.pod.Volumes = runtime.Volumes{Ready: true}
	return nil
}

func (w *worker) prepareVolumes(d runtime.Desired) error {
	if err := w.memory.setRecord(*w.object, w.pod.Admitted); err != nil {
		return fmt.Errorf("the pod's record: %w", err)
	}
	w.pod.Record = w.object
	limits := runtime.PodLimits(&w.object.Object.Spec)
	limits.PIDs = w.a.cfg.Resources.podPIDs(w.a.machine.processes)
	if err := w.a.cfg.Engine.CreatePod(w.instance, limits); err != nil {
		return err
	}
	if err := w.writeFiles(d); err != nil {
		return fmt.Errorf("the pod's own files: %w", err)
	}
	return w.a.volumes.Prepare(w.sources(d))
}

// sharedMemory makes what containers have as /dev/shm.
func (w *worker) sharedMemory() error {
	path := w.memory.path("shm")
	if err := os.MkdirAll(path, 0o777); err != nil || w.a.cfg.Confined {
		return err
	}
	if err := volume.MountTmpfs(path, 64<<20, 0o777); err != nil {
		return err
	}
	return os.Chmod(path, 0o1777)
}

// writeFiles writes what stands in every container's /etc.
func (w *worker) writeFiles(d runtime.Desired) error {
	pod := w.object.Object
	hostname, _ := network.Hostname(pod, d.DNS.Domain)
	if pod.Spec.HostNetwork {
		if own, err := os.Hostname(); err == nil {
			hostname = own
		}
	}
	if err := os.MkdirAll(w.memory.path("words"), 0o711); err != nil {
		return err
	}
	if err := w.sharedMemory(); err != nil {
		return err
	}
	resolv := network.PodResolv(pod, d.DNS, network.NodeResolv(d.DNS.NodeConfig))
	if err := os.WriteFile(w.memory.path("resolv.conf"), resolv.Bytes(), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(w.memory.path("hostname"), []byte(hostname+"\n"), 0o644); err != nil {
		return err
	}
	return w.writeHosts(d)
}

// writeHosts writes /etc/hosts in place: containers may have it mounted.
func (w *worker) writeHosts(d runtime.Desired) error {
	node, _ := os.ReadFile("/etc/hosts")
	hosts := network.Hosts(w.object.Object, w.pod.Sandbox.IPs, d.DNS.Domain, node)
	return os.WriteFile(w.memory.path("hosts"), hosts, 0o644)
}

func (w *worker) sandbox(d runtime.Desired) network.Sandbox {
	pod := w.object.Object
	hostname, _ := network.Hostname(pod, d.DNS.Domain)
	return network.Sandbox{
		Instance: w.instance, Namespace: pod.Namespace, Pod: pod.Name, Hostname: hostname,
		HostNetwork: pod.Spec.HostNetwork, HostIPC: pod.Spec.HostIPC,
	}
}

// createSandbox pins the namespaces and lets the network be made meanwhile:
// join waits for it.
func (w *worker) createSandbox(ctx context.Context, d runtime.Desired) error {
	s := w.sandbox(d)
	id, err := w.a.cfg.Network.Prepare(s)
	if err != nil {
		return w.sandboxFailed(err)
	}
	w.pod.Sandbox = runtime.Sandbox{State: runtime.SandboxBroken, ID: id, Failure: w.pod.Sandbox.Failure}
	c := &connection{done: make(chan struct{}), err: errors.New("interrupted")}
	w.connection = c
	w.a.background(w.regards(""), func() {
		defer close(c.done)
		c.info, c.err = w.a.cfg.Network.Connect(ctx, s, id)
	})
	return nil
}

// join waits until the network that is being made is there. It does nothing
// when none is.
func (w *worker) join(ctx context.Context) {
	_ = w.connected(ctx)
}

// connected waits for the network and writes what depends on its address.
func (w *worker) connected(ctx context.Context) error {
	c := w.connection
	if c == nil {
		return nil
	}
	<-c.done // ends with ctx too
	w.connection = nil
	if c.err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return w.sandboxFailed(c.err)
	}
	w.pod.Sandbox = runtime.Sandbox{State: runtime.SandboxReady, ID: c.info.ID, IPs: c.info.IPs}
	w.hostIPs()
	d, _ := w.a.want(w.instance)
	if err := w.writeHosts(d); err != nil {
		return err
	}
	return nil
}

func (w *worker) sandboxFailed(err error) error {
	count := w.pod.Sandbox.Failure.Count + 1
	w.pod.Sandbox = runtime.Sandbox{State: runtime.SandboxBroken, Failure: runtime.Failure{
		Reason: "FailedCreatePodSandBox", Message: err.Error(), Count: count,
		Retry: time.Now().Add(min(time.Minute, time.Second<<min(count, 6))),
	}}
	w.tell("FailedCreatePodSandBox", "", "Failed to create pod sandbox: "+err.Error())
	return fmt.Errorf("%w: %w", errNoted, err)
}

// container returns a container of the pod's spec.
func (w *worker) container(name string) *corev1.Container {
	if w.object == nil || w.object.Object == nil {
		return nil
	}
	spec := &w.object.Object.Spec
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			if containers[i].Name == name {
				return &containers[i]
			}
		}
	}
	c, _ := runtime.DebugContainer(w.pod.Debug, name)
	return c
}

func (a *Agent) logDir() string { return filepath.Join(a.cfg.StateDir, "logs") }

func (w *worker) logPath(c runtime.Container) string {
	namespace, name := w.names()
	return filepath.Join(w.a.logDir(), runtime.LogPath(namespace, name, w.instance, c.Name, c.Attempt))
}

func (w *worker) wordsPath(id string) string { return w.memory.path("words", id) }

// names returns the pod's namespace and name.
func (w *worker) names() (namespace, name string) {
	if w.object != nil && w.object.Object != nil {
		return w.object.Object.Namespace, w.object.Object.Name
	}
	if w.pod.Record != nil && w.pod.Record.Object != nil {
		return w.pod.Record.Object.Namespace, w.pod.Record.Object.Name
	}
	return w.pod.Labels.Pod.Namespace, w.pod.Labels.Pod.Name()
}
