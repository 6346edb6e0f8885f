package containerd

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/api/services/introspection/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// Written is what a container has written into its own file system.
func (e *Engine) Written(ctx context.Context, id string) (runtime.DiskUse, error) {
	used, err := e.snapshots().Usage(e.ctx(ctx), id)
	if err != nil {
		return runtime.DiskUse{}, fmt.Errorf("measure what %s has written: %w", id, translate(err))
	}
	return runtime.DiskUse{Bytes: used.Size, Inodes: used.Inodes}, nil
}

// Folder is where images, and what containers write, are on this machine; "" when
// containerd does not say.
func (e *Engine) Folder(ctx context.Context) (string, error) {
	response, err := e.client.IntrospectionService().Plugins(e.ctx(ctx), "type==io.containerd.snapshotter.v1,id=="+e.cfg.Snapshotter)
	if err != nil {
		return "", fmt.Errorf("ask containerd where images are: %w", translate(err))
	}
	return folder(response.Plugins), nil
}

func folder(plugins []*introspection.Plugin) string {
	for _, p := range plugins {
		if root := p.Exports["root"]; root != "" {
			return root
		}
	}
	return ""
}
