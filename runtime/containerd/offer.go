package containerd

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// Peers are other machines that may have images. What they give is checked by its
// digest; what they say that a name means is believed while its registry is away.
// They may be asked concurrently.
type Peers interface {
	// Named asks what others have under a full name.
	Named(ctx context.Context, name string) []runtime.PeerImage
	// Holders names the machines that have an image, by its digest, whom to ask
	// first first.
	Holders(digest string) []string
	// Open reads a part of an image, by its digest.
	Open(ctx context.Context, peer, digest string) (io.ReadCloser, error)
}

// labelAccess is on images that came from a registry, see runtime.MayUse.
const labelAccess = prefix + "access"

func accessOf(labels map[string]string) []string {
	if labels[labelAccess] == "" {
		return nil
	}
	return strings.Split(labels[labelAccess], ",")
}

// Offer says what another machine may know of an image that this one holds whole.
func (e *Engine) Offer(ctx context.Context, ref string) (runtime.PeerImage, error) {
	ctx = e.ctx(ctx)
	name, _, _, err := e.lookup(ctx, ref)
	if err != nil {
		return runtime.PeerImage{}, err
	}
	stored, err := e.client.ImageService().Get(ctx, name)
	if err != nil {
		return runtime.PeerImage{}, fmt.Errorf("image %s: %w", name, translate(err))
	}
	return runtime.PeerImage{
		Name: name, Digest: stored.Target.Digest.String(), MediaType: stored.Target.MediaType, Size: stored.Target.Size,
		Created: stored.UpdatedAt, Access: accessOf(stored.Labels), Signatures: signaturesOf(stored.Labels),
	}, nil
}

// Blob opens a part of an image, by its digest. The error wraps ErrNotFound when the
// machine does not hold it.
func (e *Engine) Blob(ctx context.Context, sum string) (io.ReadCloser, error) {
	parsed, err := digest.Parse(sum)
	if err != nil {
		return nil, fmt.Errorf("part %q of an image: %w", sum, err)
	}
	at, err := e.client.ContentStore().ReaderAt(e.ctx(ctx), ocispec.Descriptor{Digest: parsed})
	if err != nil {
		return nil, fmt.Errorf("part %s of an image: %w", sum, translate(err))
	}
	return blob{content.NewReader(at), at}, nil
}

type blob struct {
	io.Reader
	io.Closer
}
