package containerd

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/typeurl/v2"

	"github.com/shoal-dev/shoal/runtime"
)

const shimV2 = "io.containerd.runc.v2"

// Create makes a container and its process, which Start lets go. It joins the
// namespaces of s, which must exist. On an error nothing is left behind.
func (e *Engine) Create(ctx context.Context, s runtime.ContainerSpec) (err error) {
	ctx = e.ctx(ctx)
	name, image, info, err := e.lookup(ctx, s.Image)
	if err != nil {
		return err
	}
	mounts, err := e.rootfs(ctx, s.ID, image)
	if err != nil {
		return fmt.Errorf("make the root of %s: %w", s.ID, err)
	}
	defer func() {
		if err != nil && !errors.Is(err, runtime.ErrStart) {
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
			defer cancel()
			if undo := e.Remove(late, s.ID); undo != nil {
				err = errors.Join(err, undo)
			}
		}
	}()
	spec, err := e.spec(s, image, mounts)
	if err != nil {
		return err
	}
	any, err := typeurl.MarshalAny(spec)
	if err != nil {
		return err
	}
	_, err = e.client.ContainerService().Create(ctx, containers.Container{
		ID:          s.ID,
		Labels:      labels(s, name, info.ID),
		Image:       name,
		Runtime:     containers.RuntimeInfo{Name: shimV2},
		Spec:        any,
		SnapshotKey: s.ID,
		Snapshotter: e.cfg.Snapshotter,
	})
	if err != nil {
		return fmt.Errorf("create %s: %w", s.ID, translate(err))
	}
	request := &tasks.CreateTaskRequest{
		ContainerID: s.ID,
		Stdin:       s.Stdin,
		Stdout:      s.Stdout,
		Stderr:      s.Stderr,
		Terminal:    s.TTY,
	}
	if s.TTY {
		request.Stderr = ""
	}
	for _, m := range mounts {
		request.Rootfs = append(request.Rootfs, &types.Mount{
			Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options,
		})
	}
	if _, err = e.client.TaskService().Create(ctx, request); err != nil {
		return e.refused(ctx, s.ID, createError(s.ID, translate(err)))
	}
	return nil
}

// refused records on a container that what it should run cannot be run, as a
// crash would be: its policy and its back-off apply.
func (e *Engine) refused(ctx context.Context, id string, err error) error {
	if !errors.Is(err, runtime.ErrStart) {
		return err
	}
	now := time.Now()
	return errors.Join(err, e.Record(ctx, runtime.Container{
		ID: id, State: runtime.ContainerExited, Started: now, Finished: now,
		ExitCode: 128, Reason: runtime.EndedStart, Message: err.Error(),
	}))
}

// createError marks the errors of runc that lie in what should be run.
func createError(id string, err error) error {
	text := err.Error()
	for _, sign := range []string{
		"executable file not found", "no such file or directory", "permission denied", "not a directory", "exec format error",
	} {
		if strings.Contains(text, sign) && strings.Contains(text, "OCI runtime") {
			return fmt.Errorf("%w: %w", runtime.ErrStart, err)
		}
	}
	return fmt.Errorf("create %s: %w", id, err)
}

// rootfs prepares a container's root file system. The snapshot is a root of
// containerd's garbage collection, so that no lease is needed meanwhile; Remove
// and Sweep delete it.
func (e *Engine) rootfs(ctx context.Context, id string, own *image) ([]mount.Mount, error) {
	keep := snapshots.WithLabels(map[string]string{
		"containerd.io/gc.root": time.Now().UTC().Format(time.RFC3339),
	})
	mounts, err := e.snapshots().Prepare(ctx, id, own.chain, keep)
	if err == nil {
		return mounts, nil
	}
	if strings.Contains(err.Error(), "already exists") {
		// Left by an attempt that was interrupted before the container was made.
		if err := e.snapshots().Remove(ctx, id); err != nil {
			return nil, translate(err)
		}
		mounts, err = e.snapshots().Prepare(ctx, id, own.chain, keep)
	}
	if errors.Is(translate(err), runtime.ErrNotFound) {
		e.forget() // the image's layers were removed behind our back
	}
	return mounts, translate(err)
}

// Start lets the process of a created container go.
func (e *Engine) Start(ctx context.Context, id string) (pid int, err error) {
	response, err := e.client.TaskService().Start(e.ctx(ctx), &tasks.StartRequest{ContainerID: id})
	if err != nil {
		return 0, e.refused(e.ctx(ctx), id, createError(id, translate(err)))
	}
	return int(response.Pid), nil
}

// Kill sends a signal to a container's first process, or to all of them. One
// that has ended already is not an error.
func (e *Engine) Kill(ctx context.Context, id string, signal syscall.Signal, all bool) error {
	_, err := e.client.TaskService().Kill(e.ctx(ctx), &tasks.KillRequest{
		ContainerID: id, Signal: uint32(signal), All: all,
	})
	if err = ignoreNotFound(translate(err)); err != nil {
		if strings.Contains(err.Error(), "process already finished") || strings.Contains(err.Error(), "container not running") {
			return nil
		}
		return fmt.Errorf("kill %s: %w", id, err)
	}
	return nil
}

// Record writes on the container what has become of it: that it was started, or
// how it ended. Once an end is recorded its process is deleted.
func (e *Engine) Record(ctx context.Context, c runtime.Container) error {
	ctx = e.ctx(ctx)
	stored := containers.Container{ID: c.ID, Labels: map[string]string{
		labelStarted: c.Started.UTC().Format(time.RFC3339Nano),
	}}
	fields := []string{"labels." + labelStarted}
	if c.State == runtime.ContainerExited {
		stored.Labels[labelEnd] = endLabel(c)
		fields = append(fields, "labels."+labelEnd)
	}
	if _, err := e.client.ContainerService().Update(ctx, stored, fields...); err != nil {
		return fmt.Errorf("record the state of %s: %w", c.ID, translate(err))
	}
	if c.State == runtime.ContainerExited {
		return e.deleteTask(ctx, c.ID)
	}
	return nil
}

func (e *Engine) deleteTask(ctx context.Context, id string) error {
	_, err := e.client.TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
	if err = ignoreNotFound(translate(err)); err != nil {
		return fmt.Errorf("delete the process of %s: %w", id, err)
	}
	return nil
}

// Remove removes a container, killing its process if it runs, and everything
// that was made for it. Removing what does not exist is fine.
func (e *Engine) Remove(ctx context.Context, id string) error {
	ctx = e.ctx(ctx)
	held, inspect := e.Inspect(ctx, id)
	if inspect != nil && !errors.Is(inspect, runtime.ErrNotFound) {
		return inspect
	}
	if err := e.end(ctx, id); err != nil {
		return err
	}
	err := ignoreNotFound(translate(e.client.ContainerService().Delete(ctx, id)))
	if err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	err = ignoreNotFound(translate(e.snapshots().Remove(ctx, id)))
	if err != nil {
		return fmt.Errorf("remove the root of %s: %w", id, err)
	}
	if inspect == nil {
		// A process that is just ending may keep it busy: RemovePod comes later.
		tryCgroup(e.cgroup(held.Assignment.Pod.Instance, held.Name, id))
	}
	return nil
}

// end makes sure that a container has no process.
func (e *Engine) end(ctx context.Context, id string) error {
	err := e.deleteTask(ctx, id)
	if err == nil {
		return nil
	}
	// It runs, or was created and never started.
	wait := make(chan struct{})
	go func() {
		defer close(wait)
		_, _ = e.client.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: id})
	}()
	if err := e.Kill(ctx, id, syscall.SIGKILL, true); err != nil {
		return err
	}
	select {
	case <-wait:
	case <-time.After(10 * time.Second):
		return fmt.Errorf("kill %s: it does not end", id)
	case <-ctx.Done():
		return ctx.Err()
	}
	return e.deleteTask(ctx, id)
}

// cgroup returns the path of a container's cgroup: its own for every try, so
// that the removal of an old one never touches a new one.
func (e *Engine) cgroup(instance, name, id string) string {
	try, _, _ := strings.Cut(strings.TrimPrefix(id, instance+"-"), "-")
	return path.Join(e.cfg.CgroupRoot, instance, name+"."+try)
}
