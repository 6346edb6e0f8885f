package containerd

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoal-dev/shoal/runtime"
)

const (
	// labelSignatures is on images that a policy asked signatures of: JSON of those
	// that satisfied it.
	labelSignatures = prefix + "signatures"
	// signatureNote is on the layer of a signature's payload.
	signatureNote = "dev.cosignproject.cosign/signature"

	maxSignatures       = 32
	maxSignaturePayload = 64 << 10
	maxSignatureList    = 1 << 20
)

func signaturesOf(labels map[string]string) (out []runtime.Signature) {
	if json.Unmarshal([]byte(labels[labelSignatures]), &out) != nil {
		return nil // there are none, or they are worth nothing
	}
	return out
}

// signed checks what the policies ask for, before anything of the image is fetched,
// and returns the signatures that say so. offered are those that another machine
// has kept; without them the registry is asked.
func (t *transfer) signed(ctx context.Context, offered []runtime.Signature) ([]runtime.Signature, error) {
	if len(t.pull.Policies) == 0 {
		return nil, nil
	}
	sum := t.target.Digest.String()
	if stored, err := t.engine.client.ImageService().Get(ctx, t.name); err == nil && stored.Target.Digest == t.target.Digest {
		offered = append(offered, signaturesOf(stored.Labels)...)
	}
	if used, err := runtime.VerifySignatures(t.pull.Policies, sum, offered); err == nil || t.out.ResolvedBy != "" {
		return used, err
	}
	found, err := t.signatures(ctx)
	if err != nil {
		if away(err) {
			return nil, fmt.Errorf("ask for the signatures of %s: %w", sum, err)
		}
		return nil, fmt.Errorf("%w: read the signatures of %s: %w", runtime.ErrSignature, sum, err)
	}
	return runtime.VerifySignatures(t.pull.Policies, sum, found)
}

// signatures reads those of the image from its registry: they are the layers of an
// image whose tag is made from the digest.
func (t *transfer) signatures(ctx context.Context) ([]runtime.Signature, error) {
	name := runtime.Repository(t.name) + ":" + strings.Replace(t.target.Digest.String(), ":", "-", 1) + ".sig"
	_, target, err := t.registry.Resolve(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil, nil // it is not signed
	}
	if err != nil {
		return nil, err
	}
	raw, err := t.part(ctx, name, target, maxSignatureList)
	if err != nil {
		return nil, err
	}
	var list ocispec.Manifest
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	var out []runtime.Signature
	for _, layer := range list.Layers[:min(len(list.Layers), maxSignatures)] {
		signature, err := base64.StdEncoding.DecodeString(layer.Annotations[signatureNote])
		if err != nil || len(signature) == 0 {
			continue // something else that is attached to the image
		}
		payload, err := t.part(ctx, name, layer, maxSignaturePayload)
		if err != nil {
			return nil, err
		}
		out = append(out, runtime.Signature{Payload: payload, Signature: signature})
	}
	return out, nil
}

// part reads a small part of another image of the repository, and checks its digest.
func (t *transfer) part(ctx context.Context, name string, desc ocispec.Descriptor, most int64) ([]byte, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, err
	}
	fetcher, err := t.registry.Fetcher(ctx, name)
	if err != nil {
		return nil, err
	}
	r, err := fetcher.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, most+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(raw)) > most:
		return nil, fmt.Errorf("%s is longer than %d bytes", desc.Digest, most)
	case digest.FromBytes(raw) != desc.Digest && desc.Digest.Algorithm() == digest.SHA256:
		return nil, errors.New("what came does not have the digest " + desc.Digest.String())
	}
	return raw, nil
}

// keep writes what satisfied the policies on the image. Where it does not fit the
// registry is asked again for every new pod.
func (t *transfer) keep(used []runtime.Signature) error {
	if len(used) == 0 {
		return nil
	}
	raw, err := json.Marshal(used)
	if err != nil {
		return err
	}
	if len(labelSignatures)+len(raw) <= maxLabel {
		t.labels[labelSignatures] = string(raw)
	}
	return nil
}
