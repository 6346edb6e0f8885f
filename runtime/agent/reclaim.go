package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/containerd"
)

// reclaimer deletes images that nobody needs while the disk that they are on is
// too full. See runtime.PlanReclaim.
type reclaimer struct {
	a *Agent

	mu   sync.Mutex           // held by a pass
	used map[string]time.Time // by the image's ID: when a container was last seen to have it
	said string               // the last warning, until it holds no more
}

// tendImages looks at the disk of the images now and then, until ctx ends.
func (a *Agent) tendImages(ctx context.Context) {
	tick := time.NewTicker(a.cfg.Reclaim)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a.guard(a.node(), func() {
			_ = a.images.pass(ctx, a.cfg.ImageLimits) // it was told
		})
	}
}

// DeleteUnusedImages deletes every image that nothing needs and that is not young,
// however full the disk is: before pods are evicted for want of space. It may be
// called concurrently.
func (a *Agent) DeleteUnusedImages(ctx context.Context) error {
	return a.images.pass(ctx, runtime.ImageLimits{MinAge: a.cfg.ImageLimits.MinAge})
}

// pass deletes what has to go now. Nothing is deleted before everything that the
// machine holds is known.
func (r *reclaimer) pass(ctx context.Context, limits runtime.ImageLimits) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.a.pulls.imported:
	default:
		return nil
	}
	if !r.a.Adopted() {
		return nil
	}
	err := r.reclaim(ctx, limits, time.Now())
	if err != nil && ctx.Err() == nil {
		r.warn("ImageGCFailed", err.Error(), "images cannot be deleted: "+err.Error())
	}
	return err
}

func (r *reclaimer) reclaim(ctx context.Context, limits runtime.ImageLimits, now time.Time) error {
	engine := r.a.cfg.Engine
	held, err := engine.List(ctx)
	if err != nil {
		return err
	}
	needed := runtime.Needed{Names: map[string]bool{}, IDs: map[string]bool{}}
	for _, c := range held {
		needed.IDs[c.ImageID] = true
		r.used[c.ImageID] = now
	}
	disk, err := engine.ImageDisk(ctx)
	if err != nil {
		return err
	}
	if !limits.Exceeded(disk) {
		r.well()
		return nil
	}
	images, err := engine.Images(ctx)
	if err != nil {
		return err
	}
	if err := r.name(needed.Names); err != nil {
		return err
	}
	plan := runtime.PlanReclaim(disk, r.stored(images), needed, limits, now)
	eligible := plan.Missing(disk)
	if disk, err = r.remove(ctx, plan, disk); err != nil {
		return err
	}
	missing := plan.Missing(disk)
	if missing == 0 || !r.a.cfg.ImageLimits.Exceeded(disk) {
		r.well()
		return nil
	}
	alarm := fmt.Sprintf("the disk of the images (%s) is %d %% full, and no more images can be deleted: %d are needed", disk.Path, disk.Used(), plan.Kept-plan.Young)
	if plan.Young > 0 {
		alarm += fmt.Sprintf(", %d are younger than %s", plan.Young, limits.MinAge)
	}
	r.warn("FreeDiskSpaceFailed", fmt.Sprintf("Failed to garbage collect required amount of images. Attempted to free %d bytes, but only found %d bytes eligible to free.",
		eligible, plan.Eligible()), alarm)
	return nil
}

// name adds what commits, pods and archives name.
func (r *reclaimer) name(names map[string]bool) error {
	commits, err := r.a.cfg.NeededImages()
	if err != nil {
		return fmt.Errorf("find out which images the commits need: %w", err)
	}
	for _, name := range commits {
		names[fullName(name)] = true
	}
	for name := range r.a.namedHere() {
		names[name] = true
	}
	return nil
}

// stored adds what is known of the use of images, and forgets what is gone.
func (r *reclaimer) stored(images []runtime.ImageInfo) []runtime.StoredImage {
	out := make([]runtime.StoredImage, 0, len(images))
	known := map[string]bool{}
	for _, i := range images {
		known[i.ID] = true
		out = append(out, runtime.StoredImage{ImageInfo: i, Used: r.used[i.ID]})
	}
	maps.DeleteFunc(r.used, func(id string, _ time.Time) bool { return !known[id] })
	return out
}

// remove deletes images until enough is available. Pods that were assigned
// meanwhile keep theirs.
func (r *reclaimer) remove(ctx context.Context, plan runtime.Reclaim, disk runtime.Filesystem) (runtime.Filesystem, error) {
	for _, image := range plan.Remove {
		if plan.Missing(disk) == 0 {
			break
		}
		here := r.a.namedHere()
		if slices.ContainsFunc(image.Names, func(name string) bool { return here[name] }) {
			continue
		}
		err := r.a.cfg.Engine.DeleteImage(ctx, image.Names)
		if err != nil {
			return disk, err
		}
		before := disk.Used()
		if disk, err = r.a.cfg.Engine.ImageDisk(ctx); err != nil {
			return disk, err
		}
		r.a.record(r.a.node(), corev1.EventTypeNormal, "ImageDeleted",
			fmt.Sprintf("%s: the disk of the images is %d %% full, and nothing needs it", strings.Join(image.Names, ", "), before))
	}
	return disk, nil
}

// warn says something once for as long as it stays the same.
func (r *reclaimer) warn(reason, message, alarm string) {
	r.a.setAlarm(alarm)
	if r.said == reason+alarm {
		return
	}
	r.said = reason + alarm
	r.a.nodeEvent(reason, message)
}

func (r *reclaimer) well() {
	r.said = ""
	r.a.setAlarm("")
}

func (a *Agent) setAlarm(alarm string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.alarm = alarm
}

// Alarms says what is wrong with this machine beside its conditions and pods, in
// whole sentences without a full stop.
func (a *Agent) Alarms() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.alarm == "" {
		return nil
	}
	return []string{a.alarm}
}

// namedHere returns the images that pods on this machine name, those assigned to
// it and those that it still knows, and the archives in its images folder.
func (a *Agent) namedHere() map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string]bool{}
	for _, p := range a.desired.Pods {
		addImages(out, p.Object)
	}
	for _, r := range a.reports {
		if r.known {
			addImages(out, r.pod.Object)
		}
	}
	for _, names := range a.archived {
		for _, name := range names {
			out[fullName(name)] = true
		}
	}
	return out
}

func addImages(to map[string]bool, pod *corev1.Pod) {
	if pod == nil {
		return
	}
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			to[fullName(containers[i].Image)] = true
		}
	}
}

// fullName is the name under which an engine has an image.
func fullName(ref string) string {
	if name, err := containerd.Normalize(ref); err == nil {
		return name
	}
	return ref
}
