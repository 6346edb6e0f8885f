package containerd

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"

	"github.com/shoal-dev/shoal/runtime"
)

// List returns every container of the namespace that is ours, sorted by ID.
func (e *Engine) List(ctx context.Context) ([]runtime.Held, error) {
	ctx = e.ctx(ctx)
	all, err := e.client.ContainerService().List(ctx, `labels."`+labelInstance+`"`)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", translate(err))
	}
	running, err := e.client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", translate(err))
	}
	byID := make(map[string]*task.Process, len(running.Tasks))
	for _, p := range running.Tasks {
		byID[p.ID] = p
	}
	var out []runtime.Held
	for _, c := range all {
		if held, ours := unlabel(c.ID, c.Labels); ours {
			out = append(out, e.complete(held, c, byID[c.ID]))
		}
	}
	slices.SortFunc(out, func(a, b runtime.Held) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// Inspect returns one container. The error wraps ErrNotFound when there is none.
func (e *Engine) Inspect(ctx context.Context, id string) (runtime.Held, error) {
	ctx = e.ctx(ctx)
	c, err := e.client.ContainerService().Get(ctx, id)
	if err != nil {
		return runtime.Held{}, fmt.Errorf("inspect %s: %w", id, translate(err))
	}
	held, ours := unlabel(c.ID, c.Labels)
	if !ours {
		return runtime.Held{}, fmt.Errorf("inspect %s: %w: it is not ours", id, runtime.ErrNotFound)
	}
	response, err := e.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err = ignoreNotFound(translate(err)); err != nil {
		return runtime.Held{}, fmt.Errorf("inspect the task of %s: %w", id, err)
	}
	var process *task.Process
	if response != nil {
		process = response.Process
	}
	return e.complete(held, c, process), nil
}

// complete adds what the task says to what the labels say. A task that is gone
// without a recorded end was lost: with the machine, or with its shim.
func (e *Engine) complete(held runtime.Held, c containers.Container, p *task.Process) runtime.Held {
	if p == nil {
		if !held.Recorded && !held.Started.IsZero() {
			held.State = runtime.ContainerExited
			held.Finished = c.UpdatedAt
			held.ExitCode, held.Reason = 137, runtime.EndedUnknown
			held.Message = "The container could not be located when the machine came back"
		}
		return held
	}
	held.PID = int(p.Pid)
	switch p.Status {
	case task.Status_RUNNING, task.Status_PAUSED, task.Status_PAUSING:
		held.State = runtime.ContainerRunning
		if held.Started.IsZero() {
			held.Started = processStart(held.PID, c.CreatedAt)
		}
	case task.Status_STOPPED:
		if held.Recorded {
			return held
		}
		held.State = runtime.ContainerExited
		held.Finished = p.ExitedAt.AsTime()
		held.ExitCode = int32(p.ExitStatus)
		held.Reason = e.endReason(held)
	}
	return held
}

func (e *Engine) endReason(held runtime.Held) string {
	switch {
	case held.ExitCode == 0:
		return runtime.EndedCompleted
	case e.oomKills(e.cgroup(held.Assignment.Pod.Instance, held.Name, held.ID)) > 0:
		return runtime.EndedOOM
	default:
		return runtime.EndedError
	}
}

// processStart returns when a process began, from procfs; otherwise when it
// cannot be read. Precise to 10 ms.
func processStart(pid int, otherwise time.Time) time.Time {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return otherwise
	}
	// The command may hold spaces and parentheses: fields count from the last one.
	_, rest, found := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 20 {
		return otherwise
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return otherwise
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return otherwise
	}
	up, err := strconv.ParseFloat(strings.Fields(string(uptime))[0], 64)
	if err != nil {
		return otherwise
	}
	age := up - float64(ticks)/100 // USER_HZ is 100 on every Linux that Go runs on
	return time.Now().Add(-time.Duration(age * float64(time.Second)))
}
