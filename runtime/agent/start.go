package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// start makes the next attempt of a container and lets it run. The container is
// made while the pod's network still is.
func (w *worker) start(ctx context.Context, d runtime.Desired, action runtime.Action) error {
	c := w.container(action.Container)
	if c == nil {
		return fmt.Errorf("the pod has no container %q", action.Container)
	}
	if runtime.NeedsIP(c) {
		if err := w.connected(ctx); err != nil {
			return err
		}
	}
	spec, err := w.spec(ctx, d, c, action)
	if err != nil {
		return w.startFailed(c, runtime.WaitingConfig, err)
	}
	if d.Exclusive(*w.object) {
		if err := w.allowed(ctx, d); err != nil {
			return errors.Join(w.startFailed(c, runtime.WaitingLease, err), w.a.cfg.Logs.Close(ctx, spec.ID))
		}
	}
	if err := w.a.cfg.Engine.Create(ctx, spec); err != nil {
		return w.notCreated(ctx, c, spec, err)
	}
	if err := w.connected(ctx); err != nil {
		return errors.Join(err, w.discard(ctx, spec.ID))
	}
	if err := w.licensed(d); err != nil {
		return errors.Join(w.startFailed(c, runtime.WaitingLease, err), w.discard(ctx, spec.ID))
	}
	if _, err := w.a.cfg.Engine.Start(ctx, spec.ID); err != nil {
		return w.notCreated(ctx, c, spec, err)
	}
	running := runtime.Container{
		ID: spec.ID, Name: c.Name, Init: action.Init, Attempt: action.Attempt, Crashes: action.Crashes,
		Sandbox: spec.Sandbox, State: runtime.ContainerRunning, Started: time.Now(),
		Image: c.Image,
	}
	w.set(running)
	delete(w.pod.Failures, c.Name)
	w.a.unfence(w.instance)
	delete(w.told, "Failed/"+c.Name)
	w.probes(ctx)
	w.unrecorded = append(w.unrecorded, running)
	w.event(corev1.EventTypeNormal, "Created", c.Name, "Created container "+c.Name)
	w.event(corev1.EventTypeNormal, "Started", c.Name, "Started container "+c.Name)
	w.look(spec.ID) // for its image's ID, and an end that came before the events
	return w.postStart(ctx, c, running)
}

// discard removes a container that was made in vain.
func (w *worker) discard(ctx context.Context, id string) error {
	if err := w.a.cfg.Engine.Remove(ctx, id); err != nil {
		return err
	}
	return w.a.cfg.Logs.Close(ctx, id)
}

// notCreated takes note of a container that could not be made or started.
func (w *worker) notCreated(ctx context.Context, c *corev1.Container, spec runtime.ContainerSpec, err error) error {
	if errors.Is(err, runtime.ErrStart) {
		// The engine holds it as one that has ended: the crash loop's rules apply.
		w.look(spec.ID)
		w.tell("Failed", c.Name, "Error: "+err.Error())
		_ = w.a.cfg.Logs.Close(ctx, spec.ID)
		return w.connected(ctx)
	}
	if errors.Is(err, runtime.ErrUnavailable) {
		return err
	}
	_ = w.a.cfg.Logs.Close(ctx, spec.ID)
	reason := runtime.WaitingCreate
	if errors.Is(err, runtime.ErrConfig) {
		reason = runtime.WaitingConfig
	}
	if errors.Is(err, runtime.ErrNotFound) {
		w.a.pulls.recheck()
	}
	return w.startFailed(c, reason, err)
}

// startFailed notes why a container waits.
func (w *worker) startFailed(c *corev1.Container, reason string, err error) error {
	count := w.pod.Failures[c.Name].Count + 1
	wait := min(5*time.Minute, 250*time.Millisecond<<min(count, 12))
	if reason == runtime.WaitingConfig {
		wait = runtime.Backoff(count) // unless the desired state changes
	}
	w.pod.Failures[c.Name] = runtime.Failure{
		Reason: reason, Message: err.Error(), Count: count, Retry: time.Now().Add(wait),
	}
	w.tell("Failed", c.Name, "Error: "+err.Error())
	return fmt.Errorf("%w: %w", errNoted, err)
}

// spec resolves everything that a container refers to.
func (w *worker) spec(ctx context.Context, d runtime.Desired, c *corev1.Container, action runtime.Action) (runtime.ContainerSpec, error) {
	pod := w.object.Object
	if pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace {
		return runtime.ContainerSpec{}, errors.New("shareProcessNamespace is not supported on this node")
	}
	env, err := runtime.Env(w.sources(d), c)
	if err != nil {
		return runtime.ContainerSpec{}, err
	}
	mounts, err := w.a.volumes.Mounts(pod, c, env)
	if err != nil {
		return runtime.ContainerSpec{}, err
	}
	id := runtime.ContainerID(w.instance, c.Name, action.Attempt, strconv.FormatInt(time.Now().UnixNano(), 36))
	if mounts, err = w.ownMounts(c, id, mounts); err != nil {
		return runtime.ContainerSpec{}, err
	}
	out := runtime.ContainerSpec{
		ID: id, Assignment: w.object.Assignment, Namespace: pod.Namespace, Pod: pod.Name,
		Name: c.Name, Init: action.Init, Attempt: action.Attempt, Crashes: action.Crashes,
		Sandbox: w.pod.Sandbox.ID, Image: c.Image,
		Command: runtime.ExpandAll(c.Command, env), Args: runtime.ExpandAll(c.Args, env),
		Env: env, WorkingDir: c.WorkingDir, TTY: c.TTY,
		Mounts:    mounts,
		Resources: runtime.Limits(&pod.Spec, c, w.a.machine.memory),
		Security:  runtime.Secure(&pod.Spec, c),
	}
	s := w.sandbox(d)
	out.Hostname = s.Hostname
	out.Namespaces = w.a.cfg.Network.Namespaces(s)
	out.Namespaces.HostPID = pod.Spec.HostPID
	if out.Namespaces.PID, err = w.watched(ctx, c.Name); err != nil {
		return out, err
	}
	out.Sysctls = sysctls(&pod.Spec)
	if c.Stdin {
		if out.Stdin, err = w.memory.makeInput(id); err != nil {
			return out, err
		}
	}
	out.Stdout, out.Stderr, err = w.a.cfg.Logs.Open(ctx, id, w.logPath(runtime.Container{Name: c.Name, Attempt: action.Attempt}))
	return out, err
}

// sysctls returns the kernel parameters of a pod's own network, and those that it
// asks for. That every user may listen on every port there, and ping, makes up for
// the capabilities that containers lack.
func sysctls(spec *corev1.PodSpec) map[string]string {
	out := map[string]string{}
	if !spec.HostNetwork {
		out["net.ipv4.ip_unprivileged_port_start"], out["net.ipv4.ping_group_range"] = "0", "0 2147483647"
	}
	if spec.SecurityContext != nil {
		for _, s := range spec.SecurityContext.Sysctls {
			out[s.Name] = s.Value
		}
	}
	return out
}

// ownMounts adds what every container has besides its volumes, except where a
// volume is mounted there.
func (w *worker) ownMounts(c *corev1.Container, id string, mounts []runtime.Mount) ([]runtime.Mount, error) {
	own := []runtime.Mount{
		{Source: w.memory.path("resolv.conf"), Target: "/etc/resolv.conf"},
		{Source: w.memory.path("hosts"), Target: "/etc/hosts"},
		{Source: w.memory.path("hostname"), Target: "/etc/hostname"},
		{Source: w.memory.path("shm"), Target: "/dev/shm"},
	}
	if w.object.Object.Spec.HostIPC {
		own[3].Source = "/dev/shm"
	}
	if c.TerminationMessagePath != "" {
		if err := os.WriteFile(w.wordsPath(id), nil, 0o666); err != nil {
			return nil, err
		}
		if err := os.Chmod(w.wordsPath(id), 0o666); err != nil {
			return nil, err
		}
		own = append(own, runtime.Mount{Source: w.wordsPath(id), Target: c.TerminationMessagePath})
	}
	for _, m := range own {
		taken := slices.ContainsFunc(mounts, func(have runtime.Mount) bool { return have.Target == m.Target })
		if !taken {
			mounts = append(mounts, m)
		}
	}
	return mounts, nil
}

// postStart runs the container's postStart hook. The pod waits for it, except
// its removal, and the container is killed when it fails.
func (w *worker) postStart(ctx context.Context, c *corev1.Container, running runtime.Container) error {
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	w.removal = cancel
	w.mu.Unlock()
	<-w.a.heavy // others may act meanwhile
	err := w.a.hook(ctx, w.address(), c, running.ID, c.Lifecycle.PostStart)
	w.a.heavy <- struct{}{}
	w.mu.Lock()
	w.removal = nil
	w.mu.Unlock()
	if err != nil {
		w.event(corev1.EventTypeWarning, "FailedPostStartHook", c.Name, "PostStartHook failed: "+err.Error())
		return w.a.cfg.Engine.Kill(context.WithoutCancel(ctx), running.ID, 9, true)
	}
	return nil
}

func (w *worker) address() string {
	if len(w.pod.Sandbox.IPs) > 0 {
		return w.pod.Sandbox.IPs[0]
	}
	return ""
}
