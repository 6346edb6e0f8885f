package containerd

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// Pull fetches an image from its registry, or a mirror of it, and unpacks it.
// Credentials for other hosts are not used.
func (e *Engine) Pull(ctx context.Context, pull runtime.Pull) (runtime.ImageInfo, error) {
	ctx = e.ctx(ctx)
	name, err := Normalize(pull.Ref)
	if err != nil {
		return runtime.ImageInfo{}, err
	}
	t := &transfer{store: e, known: map[digest.Digest]ocispec.Descriptor{}, arrived: map[digest.Digest]bool{}}
	stop := t.report(ctx, pull.Progress)
	_, err = e.client.Pull(ctx, name,
		client.WithResolver(e.registry(ctx, pull.Credentials)),
		client.WithPullUnpack,
		client.WithPullSnapshotter(e.cfg.Snapshotter),
		client.WithImageHandlerWrapper(t.watch),
		client.WithMaxConcurrentDownloads(3))
	stop()
	if err != nil {
		return runtime.ImageInfo{}, fmt.Errorf("pull %s: %w", name, translate(err))
	}
	return e.Image(ctx, pull.Ref)
}

// registry returns what asks registries, as hosts.toml says.
func (e *Engine) registry(ctx context.Context, credentials []runtime.Credential) remotes.Resolver {
	options := dockerconfig.HostOptions{
		Credentials: func(host string) (string, string, error) {
			for _, c := range credentials {
				if sameRegistry(c.Host, host) {
					return c.Username, c.Password, nil
				}
			}
			return "", "", nil
		},
	}
	if e.cfg.HostsDir != "" {
		options.HostDir = dockerconfig.HostDirFromRoot(e.cfg.HostsDir)
	}
	return docker.NewResolver(docker.ResolverOptions{Hosts: dockerconfig.ConfigureHosts(ctx, options)})
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

// reportEvery is how often a pull says how far it is.
const reportEvery = time.Second

// transfer is how far a pull is.
type transfer struct {
	store *Engine

	mu      sync.Mutex
	known   map[digest.Digest]ocispec.Descriptor // everything that the image consists of, as far as it was read
	arrived map[digest.Digest]bool
}

// watch takes note of what an image consists of, while the pull finds out.
func (t *transfer) watch(next images.Handler) images.Handler {
	return images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := next.Handle(ctx, desc)
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, d := range append(children, desc) {
			t.known[d.Digest] = d
		}
		return children, err
	})
}

// report tells how far the pull is, until stop is called, which waits for the last
// word.
func (t *transfer) report(ctx context.Context, tell func(runtime.Progress)) (stop func()) {
	if tell == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(reportEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				tell(t.progress(ctx))
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// progress asks containerd how much of what is known has come.
func (t *transfer) progress(ctx context.Context) runtime.Progress {
	t.mu.Lock()
	open := make([]ocispec.Descriptor, 0, len(t.known))
	var out runtime.Progress
	for _, d := range t.known {
		out.Total += d.Size
		if t.arrived[d.Digest] {
			out.Done += d.Size
		} else {
			open = append(open, d)
		}
	}
	t.mu.Unlock()
	content := t.store.client.ContentStore()
	for _, d := range open {
		// What can be asked neither way has not begun.
		if status, err := content.Status(ctx, remotes.MakeRefKey(ctx, d)); err == nil {
			out.Done += status.Offset
		} else if _, err := content.Info(ctx, d.Digest); err == nil {
			out.Done += d.Size
			t.mu.Lock()
			t.arrived[d.Digest] = true
			t.mu.Unlock()
		}
	}
	return out
}
