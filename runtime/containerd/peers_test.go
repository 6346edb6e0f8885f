package containerd_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/containerd"
)

// neighbor is another machine of the fleet, n2, and a liar, n1, that gives other
// bytes.
type neighbor struct {
	engine *containerd.Engine

	mu    sync.Mutex
	lies  bool
	asked map[string]int
}

func (n *neighbor) Named(ctx context.Context, name string) []runtime.PeerImage {
	image, err := n.engine.Offer(ctx, name)
	if err != nil {
		return nil
	}
	image.Peer = "n2"
	return []runtime.PeerImage{image}
}

func (n *neighbor) Holders(string) []string { return []string{"n1", "n2"} }

func (n *neighbor) Open(ctx context.Context, peer, digest string) (io.ReadCloser, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked[peer]++
	switch {
	case peer == "n1" && !n.lies:
		return nil, errors.New("nobody answers")
	case peer == "n1":
		return io.NopCloser(strings.NewReader(strings.Repeat("lies ", 100_000))), nil
	}
	return n.engine.Blob(ctx, digest)
}

// forget lets a machine lose an image.
func forget(t *testing.T, e *containerd.Engine, name string) {
	t.Helper()
	if err := e.DeleteImage(t.Context(), []string{name}); err != nil {
		t.Fatal(err)
	}
}

// An image comes from another machine where one has it; the registry says what its
// name means and who may have it, and while it is away the other machine does.
func TestPullFromPeers(t *testing.T) {
	m := newMirror(t)
	m.push(t, "shop/web:1", large(t))
	other, _ := newEngine(t, func(c *containerd.Config) { c.HostsDir = m.hosts })
	n2 := &neighbor{engine: other, asked: map[string]int{}}
	own, _ := newEngine(t, func(c *containerd.Config) { c.HostsDir, c.Peers = m.hosts, n2 })
	const name = "registry.example.com/shop/web:1"
	ann := []runtime.Credential{{Host: m.host(), Username: "ann", Password: "secret", Secret: "shop/regcred"}}
	bob := []runtime.Credential{{Host: m.host(), Username: "bob", Password: "guess", Secret: "other/regcred"}}
	if _, err := other.Pull(t.Context(), runtime.Pull{Ref: name, Credentials: ann}); err != nil {
		t.Fatal(err)
	}
	hold := make(chan struct{}) // from here on the registry gives no large parts
	defer close(hold)
	m.mu.Lock()
	m.hold = hold
	m.mu.Unlock()

	for _, credentials := range [][]runtime.Credential{nil, bob} {
		if _, err := own.Pull(t.Context(), runtime.Pull{Ref: name, Credentials: credentials}); err == nil {
			t.Error("the registry refused, and the image was pulled")
		}
	}
	if n2.asked["n2"] > 0 {
		t.Error("another machine was asked for what the registry refuses")
	}
	n2.lies = true
	got, err := own.Pull(t.Context(), runtime.Pull{Ref: name, Credentials: ann})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(got.Peers, " ") != "n2" || got.ResolvedBy != "" || n2.asked["n1"] == 0 || runtime.MayUse(got.Access, nil) || !runtime.MayUse(got.Access, ann) {
		t.Errorf("from a machine, beside one that lies: got %+v, asked %v", got, n2.asked)
	}
	if again, err := own.Pull(t.Context(), runtime.Pull{Ref: name, Credentials: ann}); err != nil || again.ID != got.ID || len(again.Peers) > 0 {
		t.Errorf("when everything is there already: got %+v, %v", again, err)
	}

	m.Close()
	forget(t, own, name)
	for _, credentials := range [][]runtime.Credential{nil, bob} {
		if _, err := own.Pull(t.Context(), runtime.Pull{Ref: name, Credentials: credentials}); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("without the registry, and with other credentials than the other machine has used: %v", err)
		}
	}
	away, err := own.Pull(t.Context(), runtime.Pull{Ref: name, Credentials: ann})
	if err != nil {
		t.Fatal(err)
	}
	if away.ID != got.ID || away.ResolvedBy != "n2" || !strings.Contains(away.Away, "connection refused") || runtime.MayUse(away.Access, nil) {
		t.Errorf("without the registry: got %+v, want %s", away, got.ID)
	}
	if _, err := own.Pull(t.Context(), runtime.Pull{Ref: "registry.example.com/shop/absent:1"}); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("what nobody has: got %v", err)
	}
	pinned := strings.Replace(got.ID, "@sha256:", "@sha256:0000", 1)[:len(got.ID)]
	if _, err := own.Pull(t.Context(), runtime.Pull{Ref: pinned, Credentials: ann}); err == nil {
		t.Error("another digest than the one that is named was taken")
	}
	// What came from an archive is for all, whatever had its name before.
	archive := testenv.Archive(t, testenv.Dir(t), name, testenv.Image(t, testenv.Busybox()))
	importFile(t, own, archive)
	if info, err := own.Image(t.Context(), name); err != nil || len(info.Access) > 0 || info.ID == got.ID {
		t.Errorf("an archive with the name of a private image: got %+v, %v", info, err)
	}
	forget(t, own, image)
	public, err := own.Pull(t.Context(), runtime.Pull{Ref: image})
	if err != nil || public.ResolvedBy != "n2" || !runtime.MayUse(public.Access, nil) {
		t.Errorf("an image from an archive: got %+v, %v", public, err)
	}
}
