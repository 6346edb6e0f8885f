package runtimetest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/shoal-dev/shoal/runtime"
)

// Image finds an image.
func (m *Memory) Image(_ context.Context, ref string) (runtime.ImageInfo, error) {
	unlock, err := m.lock()
	if err != nil {
		return runtime.ImageInfo{}, err
	}
	defer unlock()
	id, found := m.images[ref]
	if !found {
		return runtime.ImageInfo{}, fmt.Errorf("image %s: %w", ref, runtime.ErrNotFound)
	}
	return m.info(ref, id), nil
}

// info describes an image. m.mu is held.
func (m *Memory) info(ref, id string) runtime.ImageInfo {
	return runtime.ImageInfo{Names: []string{ref}, ID: id, Size: imageSize, Created: m.created[ref]}
}

// Pull fetches what Serve was told of.
func (m *Memory) Pull(ctx context.Context, pull runtime.Pull) (runtime.ImageInfo, error) {
	ref := pull.Ref
	unlock, err := m.lock()
	if err != nil {
		return runtime.ImageInfo{}, err
	}
	id, found := m.remote[ref]
	if found {
		m.keep(ref, id)
	}
	unlock()
	if !found {
		return runtime.ImageInfo{}, fmt.Errorf("pull %s: %w", ref, runtime.ErrNotFound)
	}
	return m.Image(ctx, ref)
}

// Import takes an archive that is nothing but the name of an image.
func (m *Memory) Import(_ context.Context, archive io.Reader) ([]string, error) {
	b, err := io.ReadAll(archive)
	if err != nil {
		return nil, err
	}
	unlock, err := m.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	ref := string(bytes.TrimSpace(b))
	if ref == "" || strings.ContainsAny(ref, " \x00") {
		return nil, fmt.Errorf("import archive: not an image")
	}
	m.keep(ref, imageID(ref))
	m.poke("")
	return []string{ref}, nil
}

// Images returns every image, sorted by ID.
func (m *Memory) Images(context.Context) ([]runtime.ImageInfo, error) {
	unlock, err := m.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	var out []runtime.ImageInfo
	for ref, id := range m.images {
		out = append(out, m.info(ref, id))
	}
	slices.SortFunc(out, func(a, b runtime.ImageInfo) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// imageSize is how large every image is, in bytes.
const imageSize = 1 << 20

// keep holds an image from now on. m.mu is held.
func (m *Memory) keep(ref, id string) { m.images[ref], m.created[ref] = id, time.Now() }

// DeleteImage forgets an image, and frees its place on the disk.
func (m *Memory) DeleteImage(_ context.Context, names []string) error {
	unlock, err := m.lock()
	if err != nil {
		return err
	}
	defer unlock()
	for _, name := range names {
		if _, held := m.images[name]; held {
			delete(m.images, name)
			m.disk.Available += imageSize
		}
	}
	m.poke("")
	return nil
}

// ImageDisk returns how full the disk is, see SetDisk.
func (m *Memory) ImageDisk(context.Context) (runtime.Filesystem, error) {
	unlock, err := m.lock()
	if err != nil {
		return runtime.Filesystem{}, err
	}
	defer unlock()
	return m.disk, nil
}

// SetDisk says how full the disk is that holds the images.
func (m *Memory) SetDisk(capacity, available int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disk.Capacity, m.disk.Available = capacity, available
}
