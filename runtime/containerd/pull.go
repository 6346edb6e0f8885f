package containerd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// Pull fetches an image and unpacks it: from its registry or a mirror of it, and as
// far as possible from other machines. Credentials for other hosts are not used.
// What a name means, and whether the credentials suffice, says the registry; while
// it cannot be reached, another machine does, see runtime.Resolve.
func (e *Engine) Pull(ctx context.Context, pull runtime.Pull) (runtime.Pulled, error) {
	ctx = e.ctx(ctx)
	name, err := Normalize(pull.Ref)
	if err != nil {
		return runtime.Pulled{}, err
	}
	t := newTransfer(ctx, e, name, pull)
	pulling, stop := t.report(ctx, pull.Progress)
	err = t.resolve(pulling)
	if err == nil {
		err = t.fetch(pulling)
	}
	if cause := context.Cause(pulling); err != nil && ctx.Err() == nil && cause != nil {
		err = cause
	}
	stop()
	if err != nil {
		return runtime.Pulled{}, fmt.Errorf("pull %s: %w", name, translate(err))
	}
	t.out.ImageInfo, err = e.Image(ctx, pull.Ref)
	t.out.Peers = slices.Sorted(maps.Keys(t.gave))
	return t.out, err
}

// transfer is one pull. It stands between containerd's library and the registry.
type transfer struct {
	engine   *Engine
	name     string
	pull     runtime.Pull
	registry remotes.Resolver
	target   ocispec.Descriptor // what the name means
	labels   map[string]string
	out      runtime.Pulled

	mu      sync.Mutex
	used    []runtime.Credential                 // that a registry has asked for
	known   map[digest.Digest]ocispec.Descriptor // everything that the image consists of, as far as it was read
	arrived map[digest.Digest]bool
	gave    map[string]bool // machines that gave something
	bad     map[string]bool // machines that are not asked again
}

func newTransfer(ctx context.Context, e *Engine, name string, pull runtime.Pull) *transfer {
	t := &transfer{
		engine: e, name: name, pull: pull, known: map[digest.Digest]ocispec.Descriptor{}, arrived: map[digest.Digest]bool{},
		gave: map[string]bool{}, bad: map[string]bool{},
	}
	options := dockerconfig.HostOptions{Credentials: t.credentials}
	if e.cfg.HostsDir != "" {
		options.HostDir = dockerconfig.HostDirFromRoot(e.cfg.HostsDir)
	}
	t.registry = docker.NewResolver(docker.ResolverOptions{Hosts: dockerconfig.ConfigureHosts(ctx, options)})
	return t
}

// credentials returns what opens a registry, which has asked for it.
func (t *transfer) credentials(host string) (username, password string, err error) {
	for _, c := range t.pull.Credentials {
		if sameRegistry(c.Host, host) {
			t.mu.Lock()
			defer t.mu.Unlock()
			if !slices.Contains(t.used, c) {
				t.used = append(t.used, c)
			}
			return c.Username, c.Password, nil
		}
	}
	return "", "", nil
}

// sameRegistry compares the host of a pull secret, in the forms that docker
// writes, with a registry's.
func sameRegistry(secret, host string) bool {
	canon := func(s string) string {
		s = strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
		s, _, _ = strings.Cut(s, "/")
		switch s {
		case "index.docker.io", "registry-1.docker.io", "registry.docker.io":
			return "docker.io"
		}
		return strings.ToLower(s)
	}
	return canon(secret) == canon(host)
}

// resolve finds out what the name means, and whether the pod may have it.
func (t *transfer) resolve(ctx context.Context) error {
	_, target, err := t.registry.Resolve(ctx, t.name)
	var access []string
	var offered []runtime.Signature
	switch {
	case err == nil:
		t.target = target
		t.mu.Lock()
		used := slices.Clone(t.used)
		t.mu.Unlock()
		access = runtime.Grant(t.accessHere(ctx), used)
	case t.engine.cfg.Peers != nil && away(err) && ctx.Err() == nil:
		image, found := runtime.Resolve(t.named(ctx), t.pull.Credentials)
		if !found {
			return err
		}
		offered = image.Signatures
		t.target = ocispec.Descriptor{MediaType: image.MediaType, Digest: digest.Digest(image.Digest), Size: image.Size}
		t.out.ResolvedBy, t.out.Away = image.Peer, err.Error()
		access = image.Access
	default:
		return err
	}
	used, err := t.signed(ctx, offered)
	if err != nil {
		return err
	}
	t.labels = map[string]string{}
	if len(access) > 0 {
		t.labels[labelAccess] = strings.Join(access, ",")
	}
	return t.keep(used)
}

// named returns what other machines have under the name. One that names a digest
// means nothing else.
func (t *transfer) named(ctx context.Context) []runtime.PeerImage {
	images := t.engine.cfg.Peers.Named(ctx, t.name)
	_, pinned, _ := strings.Cut(t.name, "@")
	return slices.DeleteFunc(images, func(i runtime.PeerImage) bool {
		_, err := digest.Parse(i.Digest)
		return err != nil || i.Name != t.name || i.Size <= 0 || pinned != "" && i.Digest != pinned
	})
}

// accessHere returns the access that the image has had here.
func (t *transfer) accessHere(ctx context.Context) []string {
	stored, err := t.engine.client.ImageService().Get(ctx, t.name)
	if err != nil || stored.Target.Digest != t.target.Digest {
		return nil
	}
	return accessOf(stored.Labels)
}

// away reports whether an error says that a registry does not answer, rather than
// what it answers. A certificate that is not trusted is no absence.
func away(err error) bool {
	if status, is := errors.AsType[remoteserrors.ErrUnexpectedStatus](err); is {
		return status.StatusCode >= http.StatusInternalServerError || status.StatusCode == http.StatusTooManyRequests
	}
	if _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); untrusted {
		return false
	}
	_, network := errors.AsType[*url.Error](err)
	return network
}

// fetch gets everything that the name means. Machines that gave something that
// turned out to be worth nothing are not asked again.
func (t *transfer) fetch(ctx context.Context) error {
	for {
		_, err := t.engine.client.Pull(ctx, t.name,
			client.WithResolver(t),
			client.WithPullUnpack,
			client.WithPullSnapshotter(t.engine.cfg.Snapshotter),
			client.WithPullLabels(t.labels),
			client.WithImageHandlerWrapper(t.watch),
			client.WithMaxConcurrentDownloads(3))
		if err == nil || ctx.Err() != nil || !t.retreat(ctx) {
			return err
		}
	}
}

// retreat forgets what machines gave, and reports whether any did.
func (t *transfer) retreat(ctx context.Context) bool {
	t.mu.Lock()
	gave, known := t.gave, slices.Collect(maps.Values(t.known))
	for peer := range gave {
		t.bad[peer] = true
	}
	t.gave = map[string]bool{}
	t.mu.Unlock()
	if len(gave) == 0 {
		return false
	}
	for _, d := range append(known, t.target) {
		_ = t.engine.client.ContentStore().Abort(ctx, remotes.MakeRefKey(ctx, d)) // most have come, or have not begun
	}
	return true
}

// Resolve returns what the name means. With Fetcher, Fetch and Pusher it is what
// containerd's library takes for a registry.
func (t *transfer) Resolve(context.Context, string) (string, ocispec.Descriptor, error) {
	return t.name, t.target, nil
}

// Fetcher returns the transfer.
func (t *transfer) Fetcher(context.Context, string) (remotes.Fetcher, error) { return t, nil }

// Pusher fails: nothing is ever pushed.
func (t *transfer) Pusher(context.Context, string) (remotes.Pusher, error) {
	return nil, errors.New("nothing is pushed")
}

// leastFromPeers is the size in bytes from which on another machine is asked before
// a registry that answers: less is had sooner than asked for.
const leastFromPeers = 64 << 10

// Fetch opens one part of the image, at a machine that has the image or at the
// registry. containerd checks what comes by its digest.
func (t *transfer) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	t.mu.Lock()
	t.known[desc.Digest] = desc
	t.mu.Unlock()
	if desc.Size >= leastFromPeers || t.out.ResolvedBy != "" {
		if r := t.fromPeer(ctx, desc); r != nil {
			return r, nil
		}
	}
	fetcher, err := t.registry.Fetcher(ctx, t.name)
	if err != nil {
		return nil, err
	}
	return fetcher.Fetch(ctx, desc)
}

// fromPeer opens a part of the image at another machine; nil when none gives it.
func (t *transfer) fromPeer(ctx context.Context, desc ocispec.Descriptor) io.ReadCloser {
	if t.engine.cfg.Peers == nil {
		return nil
	}
	for _, peer := range t.engine.cfg.Peers.Holders(t.target.Digest.String()) {
		t.mu.Lock()
		bad := t.bad[peer]
		t.mu.Unlock()
		if bad {
			continue
		}
		r, err := t.engine.cfg.Peers.Open(ctx, peer, desc.Digest.String())
		t.mu.Lock()
		if err == nil {
			t.gave[peer] = true
		} else {
			t.bad[peer] = true
		}
		t.mu.Unlock()
		if err == nil {
			return r
		}
	}
	return nil
}
