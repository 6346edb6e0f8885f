package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// image is what has been read of an image; it never changes for a digest.
type image struct {
	config ocispec.ImageConfig
	chain  string // snapshot that containers start from
	size   int64
}

// Normalize returns the full name of an image as containerd stores it:
// "redis" is docker.io/library/redis:latest.
func Normalize(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("image name %q: %w", ref, err)
	}
	return named.String(), nil
}

// Image returns an image that can be used at once. The error wraps ErrNotFound
// when the machine does not hold it.
func (e *Engine) Image(ctx context.Context, ref string) (runtime.ImageInfo, error) {
	_, own, info, err := e.lookup(e.ctx(ctx), ref)
	if err != nil {
		return runtime.ImageInfo{}, err
	}
	info.User, info.StopSignal = own.config.User, own.config.StopSignal
	return info, nil
}

func (e *Engine) lookup(ctx context.Context, ref string) (name string, own *image, info runtime.ImageInfo, err error) {
	if name, err = Normalize(ref); err != nil {
		return "", nil, info, err
	}
	stored, err := e.client.ImageService().Get(ctx, name)
	if err != nil {
		return "", nil, info, fmt.Errorf("image %s: %w", name, translate(err))
	}
	if own, err = e.read(ctx, stored); err != nil {
		return "", nil, info, fmt.Errorf("image %s: %w", name, err)
	}
	return name, own, runtime.ImageInfo{Names: []string{name}, ID: imageID(stored), Size: own.size, Created: stored.UpdatedAt, Access: accessOf(stored.Labels), Signatures: signaturesOf(stored.Labels)}, nil
}

// read reads an image and unpacks it where that has not been done. A damaged
// image counts as one that is not there.
func (e *Engine) read(ctx context.Context, stored images.Image) (*image, error) {
	e.mu.Lock()
	own, found := e.images[stored.Target.Digest]
	e.mu.Unlock()
	if found {
		return own, nil
	}
	handle := client.NewImage(e.client, stored)
	unpacked, err := handle.IsUnpacked(ctx, e.cfg.Snapshotter)
	if err != nil {
		return nil, translate(err)
	}
	if !unpacked {
		if err := handle.Unpack(ctx, e.cfg.Snapshotter); err != nil {
			return nil, fmt.Errorf("unpack: %w", translate(err))
		}
	}
	layers, err := handle.RootFS(ctx)
	if err != nil {
		return nil, translate(err)
	}
	descriptor, err := handle.Config(ctx)
	if err != nil {
		return nil, translate(err)
	}
	if descriptor.Size > 4<<20 {
		return nil, errors.New("its configuration is larger than 4 MiB")
	}
	blob, err := content.ReadBlob(ctx, e.client.ContentStore(), descriptor)
	if err != nil {
		return nil, translate(err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(blob, &config); err != nil {
		return nil, fmt.Errorf("read its configuration: %w", err)
	}
	size, err := handle.Size(ctx)
	if err != nil {
		return nil, translate(err)
	}
	own = &image{config: config.Config, chain: identity.ChainID(layers).String(), size: size}
	e.mu.Lock()
	e.images[stored.Target.Digest] = own
	e.mu.Unlock()
	return own, nil
}

// forget drops what was read of an image whose files turned out to be gone.
func (e *Engine) forget() {
	e.mu.Lock()
	e.images = map[digest.Digest]*image{}
	e.mu.Unlock()
}

// imageID returns the repository with the digest, as Kubernetes shows it.
func imageID(stored images.Image) string {
	named, err := reference.ParseNormalizedNamed(stored.Name)
	if err != nil {
		return stored.Target.Digest.String()
	}
	return named.Name() + "@" + stored.Target.Digest.String()
}

// Import reads an OCI or docker archive, compressed or not, and unpacks what is
// in it. It returns the names under which the images can be used, sorted.
func (e *Engine) Import(ctx context.Context, archive io.Reader) ([]string, error) {
	ctx = e.ctx(ctx)
	plain, err := compression.DecompressStream(archive)
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	defer plain.Close()
	imported, err := e.client.Import(ctx, plain, client.WithImageRefTranslator(func(ref string) string {
		if !strings.ContainsAny(ref, "/:") {
			return "" // a bare tag says nothing
		}
		name, err := Normalize(ref)
		if err != nil {
			return ""
		}
		return name
	}), client.WithImageLabels(map[string]string{})) // what opened another image of this name opened none of these
	if err != nil {
		return nil, fmt.Errorf("import archive: %w", translate(err))
	}
	if len(imported) == 0 {
		return nil, errors.New("import archive: no image in it says its name (annotation io.containerd.image.name, or RepoTags)")
	}
	var names []string
	for _, stored := range imported {
		name, err := Normalize(stored.Name)
		if err != nil {
			return nil, err
		}
		if name != stored.Name {
			if stored, err = e.rename(ctx, stored, name); err != nil {
				return nil, err
			}
		}
		if _, err := e.read(ctx, stored); err != nil {
			return nil, fmt.Errorf("import %s: %w", name, err)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (e *Engine) rename(ctx context.Context, stored images.Image, name string) (images.Image, error) {
	old := stored.Name
	stored.Name = name
	service := e.client.ImageService()
	out, err := service.Update(ctx, stored, "target", "labels")
	if err = translate(err); errors.Is(err, runtime.ErrNotFound) {
		out, err = service.Create(ctx, stored)
	}
	if err != nil {
		return out, fmt.Errorf("name %s: %w", name, translate(err))
	}
	return out, ignoreNotFound(translate(service.Delete(ctx, old)))
}
