package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// fetchAheadAgain is when images that could not be fetched ahead are tried again.
const fetchAheadAgain = time.Minute

// fetchAhead fetches the images of upcoming pods, one at a time and after those
// that pods wait for, until ctx ends. It leaves a disk alone that is so full that
// images are deleted.
func (a *Agent) fetchAhead(ctx context.Context) {
	tried := map[pullKey]bool{} // and why not again: it is there, or it failed lately
	again := time.NewTimer(fetchAheadAgain)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			clear(tried)
		case <-a.ahead:
		}
		for w, more := a.nextAhead(tried); more && ctx.Err() == nil; w, more = a.nextAhead(tried) {
			tried[w.key()] = true
			a.guard(a.node(), func() { a.fetchOneAhead(ctx, w) })
			again.Reset(fetchAheadAgain)
		}
	}
}

// nextAhead returns the next image of an upcoming pod, as of now.
func (a *Agent) nextAhead(tried map[pullKey]bool) (wish, bool) {
	a.mu.Lock()
	d := a.desired
	a.mu.Unlock()
	for _, pod := range d.Upcoming {
		credentials := pullSecrets(d, pod)
		for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range containers {
				w := newWish(d, "", &containers[i], credentials)
				if w.container.ImagePullPolicy != corev1.PullNever && !tried[w.key()] {
					return w, true
				}
			}
		}
	}
	return wish{}, false
}

func (a *Agent) fetchOneAhead(ctx context.Context, w wish) {
	ref := w.container.Image
	if _, err := a.cfg.Engine.Image(ctx, ref); !errors.Is(err, runtime.ErrNotFound) {
		return // it is there, or nothing can be found out
	}
	disk, err := a.cfg.Engine.ImageDisk(ctx)
	if err != nil || a.cfg.ImageLimits.Exceeded(disk) {
		return
	}
	info, took, err := a.pulls.pull(ctx, w, false)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		a.nodeEvent("ImagePrefetchFailed", fmt.Sprintf("Failed to pull image %q ahead of the pods that will need it: %v", ref, err))
	default:
		a.record(a.node(), corev1.EventTypeNormal, "ImagePrefetched", fmt.Sprintf("Successfully pulled image %q in %s ahead of the pods that will need it. Image size: %d bytes.",
			ref, took.pulling.Round(time.Millisecond), info.Size))
	}
}

// node is what events about the whole machine regard.
func (a *Agent) node() corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: a.cfg.Node}
}
