package runtimetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/containerd"
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
	return runtime.ImageInfo{Names: []string{ref}, ID: id, Size: imageSize, Created: m.created[ref], Access: m.access[ref]}
}

// SetPeers says whom Pull asks beside the registry.
func (m *Memory) SetPeers(peers containerd.Peers) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peers = peers
}

// SetRegistry says whether the registry answers. It gives everything to everybody.
func (m *Memory) SetRegistry(answers bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = !answers
}

// Pull fetches what Serve was told of, or, while the registry does not answer, what
// another machine has.
func (m *Memory) Pull(ctx context.Context, pull runtime.Pull) (runtime.Pulled, error) {
	unlock, err := m.lock()
	if err != nil {
		return runtime.Pulled{}, err
	}
	id, found := m.remote[pull.Ref]
	away, peers := m.away, m.peers
	unlock()
	var out runtime.Pulled
	access := runtime.Grant(nil, nil)
	switch {
	case away && peers != nil:
		const why = "the registry does not answer"
		image, given := runtime.Resolve(peers.Named(ctx, pull.Ref), pull.Credentials)
		if !given {
			return out, fmt.Errorf("pull %s: %s", pull.Ref, why)
		}
		if id, err = receive(ctx, peers, pull.Ref, image); err != nil {
			return out, fmt.Errorf("pull %s: %w", pull.Ref, err)
		}
		access, out.ResolvedBy, out.Away, out.Peers = image.Access, image.Peer, why, []string{image.Peer}
	case away || !found:
		return out, fmt.Errorf("pull %s: %w", pull.Ref, runtime.ErrNotFound)
	}
	if unlock, err = m.lock(); err != nil {
		return out, err
	}
	m.keep(pull.Ref, id)
	m.access[pull.Ref] = access
	unlock()
	out.ImageInfo, err = m.Image(ctx, pull.Ref)
	return out, err
}

// receive gets an image from another machine: one is nothing but its name.
func receive(ctx context.Context, peers containerd.Peers, ref string, image runtime.PeerImage) (id string, err error) {
	for _, peer := range peers.Holders(image.Digest) {
		var r io.ReadCloser
		if r, err = peers.Open(ctx, peer, image.Digest); err != nil {
			continue
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		if err != nil {
			return "", err
		}
		if id = imageID(ref); string(b) != ref || !strings.HasSuffix(id, image.Digest) {
			return "", fmt.Errorf("peer %s gave %q", peer, b)
		}
		return id, nil
	}
	return "", errors.Join(errors.New("no peer has it"), err)
}

// Offer says what other machines may know of an image.
func (m *Memory) Offer(ctx context.Context, ref string) (runtime.PeerImage, error) {
	info, err := m.Image(ctx, ref)
	if err != nil {
		return runtime.PeerImage{}, err
	}
	_, sum, _ := strings.Cut(info.ID, "@")
	return runtime.PeerImage{Name: ref, Digest: sum, MediaType: "memory", Size: info.Size, Created: info.Created, Access: info.Access}, nil
}

// Blob opens an image, by its digest.
func (m *Memory) Blob(_ context.Context, digest string) (io.ReadCloser, error) {
	unlock, err := m.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	for ref, id := range m.images {
		if strings.HasSuffix(id, "@"+digest) {
			return io.NopCloser(strings.NewReader(ref)), nil
		}
	}
	return nil, fmt.Errorf("part %s of an image: %w", digest, runtime.ErrNotFound)
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
func (m *Memory) keep(ref, id string) {
	m.images[ref], m.created[ref] = id, time.Now()
	delete(m.access, ref)
}

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
