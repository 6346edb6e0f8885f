package containerd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"golang.org/x/sys/unix"

	"github.com/shoal-dev/shoal/runtime"
)

// Images returns every image of the namespace, one entry per digest, sorted by
// ID.
func (e *Engine) Images(ctx context.Context) ([]runtime.ImageInfo, error) {
	ctx = e.ctx(ctx)
	stored, err := e.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", translate(err))
	}
	byID := map[string]*runtime.ImageInfo{}
	for _, s := range stored {
		id := imageID(s)
		info := byID[id]
		if info == nil {
			info = &runtime.ImageInfo{ID: id, Size: e.size(ctx, s)}
			byID[id] = info
		}
		info.Names = append(info.Names, s.Name)
		if s.UpdatedAt.After(info.Created) {
			info.Created = s.UpdatedAt
		}
	}
	out := make([]runtime.ImageInfo, 0, len(byID))
	for _, info := range byID {
		slices.Sort(info.Names)
		out = append(out, *info)
	}
	slices.SortFunc(out, func(a, b runtime.ImageInfo) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// size returns how large an image is, compressed. It is read once.
func (e *Engine) size(ctx context.Context, stored images.Image) int64 {
	e.mu.Lock()
	size, known := e.sizes[stored.Target.Digest]
	e.mu.Unlock()
	if known {
		return size
	}
	size, err := client.NewImage(e.client, stored).Size(ctx)
	if err != nil {
		return stored.Target.Size // damaged, or half gone
	}
	e.mu.Lock()
	e.sizes[stored.Target.Digest] = size
	e.mu.Unlock()
	return size
}

// DeleteImage takes the names of an image away, and waits until containerd has
// freed what nothing else uses: layers of other images and of containers stay.
func (e *Engine) DeleteImage(ctx context.Context, names []string) error {
	ctx = e.ctx(ctx)
	for i, name := range names {
		var options []images.DeleteOpt
		if i == len(names)-1 {
			options = append(options, images.SynchronousDelete())
		}
		if err := ignoreNotFound(translate(e.client.ImageService().Delete(ctx, name, options...))); err != nil {
			return fmt.Errorf("delete image %s: %w", name, err)
		}
	}
	e.forget()
	return nil
}

// ImageDisk returns how full the disk is on which containerd has images.
func (e *Engine) ImageDisk(ctx context.Context) (runtime.Filesystem, error) {
	path, err := e.storePath(e.ctx(ctx))
	if err != nil {
		return runtime.Filesystem{}, fmt.Errorf("find the disk of images: %w", translate(err))
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return runtime.Filesystem{}, fmt.Errorf("read how full the disk of images is: %s: %w", path, err)
	}
	return runtime.Filesystem{Path: path, Capacity: int64(st.Blocks) * st.Bsize, Available: int64(st.Bavail) * st.Bsize}, nil
}

// storePath returns where the snapshotter keeps the layers of images; containerd
// keeps the rest beside it.
func (e *Engine) storePath(ctx context.Context) (string, error) {
	e.mu.Lock()
	path := e.store
	e.mu.Unlock()
	if path != "" {
		return path, nil
	}
	found, err := e.client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1,id=="+e.cfg.Snapshotter)
	if err != nil {
		return "", err
	}
	for _, plugin := range found.GetPlugins() {
		path = plugin.GetExports()["root"]
	}
	if path == "" {
		return "", errors.New("containerd does not say where its snapshotter " + e.cfg.Snapshotter + " keeps layers")
	}
	e.mu.Lock()
	e.store = path
	e.mu.Unlock()
	return path, nil
}
