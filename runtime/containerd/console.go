package containerd

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/api/services/tasks/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// CloseInput ends what a running container reads: once all of it is read, it finds
// the end of its input. For one without an input nothing happens.
func (e *Engine) CloseInput(ctx context.Context, id string) error {
	_, err := e.client.TaskService().CloseIO(e.ctx(ctx), &tasks.CloseIORequest{ContainerID: id, Stdin: true})
	if err != nil {
		return fmt.Errorf("close the input of %s: %w", id, translate(err))
	}
	return nil
}

// Resize sets the size of the terminal that a running container has of its own.
func (e *Engine) Resize(ctx context.Context, id string, size runtime.Size) error {
	_, err := e.client.TaskService().ResizePty(e.ctx(ctx), &tasks.ResizePtyRequest{
		ContainerID: id, Width: uint32(size.Width), Height: uint32(size.Height),
	})
	if err != nil {
		return fmt.Errorf("resize the terminal of %s: %w", id, translate(err))
	}
	return nil
}
