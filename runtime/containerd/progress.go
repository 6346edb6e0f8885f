package containerd

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// reportEvery is how often a pull says how far it is.
const reportEvery = time.Second

// watch takes note of what an image consists of, while the pull finds out.
func (t *transfer) watch(next images.Handler) images.Handler {
	return images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := next.Handle(ctx, desc)
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, d := range append(children, desc) {
			t.known[d.Digest] = d
		}
		return children, err
	})
}

// report tells how far the pull is, until stop is called, which waits for the last
// word. The context that it returns ends when nothing has come for too long: a
// registry that hangs must not keep others waiting for ever.
func (t *transfer) report(ctx context.Context, tell func(runtime.Progress)) (pulling context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(reportEvery)
		defer tick.Stop()
		last, since := runtime.Progress{}, time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			at := t.progress(ctx)
			if tell != nil {
				tell(at)
			}
			switch limit := t.engine.cfg.Stalled; {
			case at != last || at.Total > 0 && at.Done == at.Total: // what has come is being unpacked
				last, since = at, time.Now()
			case time.Since(since) > limit:
				cancel(fmt.Errorf("nothing has come for %s", limit))
			}
		}
	})
	return ctx, func() { cancel(nil); wg.Wait() }
}

// progress asks containerd how much of what is known has come.
func (t *transfer) progress(ctx context.Context) runtime.Progress {
	t.mu.Lock()
	open := make([]ocispec.Descriptor, 0, len(t.known))
	var out runtime.Progress
	for _, d := range t.known {
		out.Total += d.Size
		if t.arrived[d.Digest] {
			out.Done += d.Size
		} else {
			open = append(open, d)
		}
	}
	t.mu.Unlock()
	content := t.engine.client.ContentStore()
	for _, d := range open {
		// What can be asked neither way has not begun.
		if status, err := content.Status(ctx, remotes.MakeRefKey(ctx, d)); err == nil {
			out.Done += status.Offset
		} else if _, err := content.Info(ctx, d.Digest); err == nil {
			out.Done += d.Size
			t.mu.Lock()
			t.arrived[d.Digest] = true
			t.mu.Unlock()
		}
	}
	return out
}
