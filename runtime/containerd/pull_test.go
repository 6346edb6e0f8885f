package containerd_test

import (
	"context"
	"crypto/rand"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/containerd"
)

// mirror is a registry behind TLS with an authority of its own, for one user.
type mirror struct {
	*httptest.Server
	hosts string // folder of hosts.toml files that send registry.example.com here

	mu   sync.Mutex
	hold <-chan struct{} // blobs stop half way until it is closed
}

func newMirror(t *testing.T) *mirror {
	m := &mirror{hosts: testenv.Dir(t)}
	images := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	m.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "ann" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		m.mu.Lock()
		hold := m.hold
		m.mu.Unlock()
		if hold != nil && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			w = &slow{ResponseWriter: w, hold: hold, gone: r.Context().Done()}
		}
		r.Header.Del("Range") // the library answers none that is open: a pull that goes on begins anew
		images.ServeHTTP(w, r)
	}))
	t.Cleanup(m.Close)
	ca := filepath.Join(m.hosts, "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.Certificate().Raw})
	write(t, ca, string(certificate))
	write(t, filepath.Join(m.hosts, "registry.example.com", "hosts.toml"),
		"server = \"https://registry.example.com\"\n[host.\""+m.URL+"\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \""+ca+"\"\n")
	return m
}

func (m *mirror) host() string { return strings.TrimPrefix(m.URL, "https://") }

func (m *mirror) push(t *testing.T, ref string, image v1.Image) {
	t.Helper()
	tag, err := name.NewTag(m.host() + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image, remote.WithTransport(m.Client().Transport), remote.WithAuth(&authn.Basic{Username: "ann", Password: "secret"})); err != nil {
		t.Fatalf("push %s: %v", ref, err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// slow sends a beginning, and the rest once it may.
type slow struct {
	http.ResponseWriter
	hold <-chan struct{}
	gone <-chan struct{} // the client is
	sent bool
}

func (s *slow) Write(b []byte) (int, error) {
	if s.sent || len(b) < 1024 {
		return s.ResponseWriter.Write(b)
	}
	s.sent = true
	n, err := s.ResponseWriter.Write(b[:512])
	if err != nil {
		return n, err
	}
	if err := http.NewResponseController(s.ResponseWriter).Flush(); err != nil {
		return n, err
	}
	select {
	case <-s.hold:
	case <-s.gone:
	}
	rest, err := s.ResponseWriter.Write(b[n:])
	return n + rest, err
}

// large is an image that no other one shares a layer with.
func large(t *testing.T) v1.Image {
	noise := make([]byte, 300_000)
	_, _ = rand.Read(noise) // crypto/rand documents that it never fails
	return testenv.Image(t, testenv.Spec{Files: map[string]testenv.File{"noise": {Data: noise, Mode: 0o644}}})
}

// A registry's name leads to a mirror with a private authority, whose user is in a
// pod's credentials. While a large image comes, the pull says how far it is.
func TestPullFromMirror(t *testing.T) {
	m := newMirror(t)
	m.push(t, "shop/web:1", large(t))
	e, _ := newEngine(t, func(c *containerd.Config) { c.HostsDir, c.Stalled = m.hosts, 1200*time.Millisecond })
	ours := []runtime.Credential{{Host: m.host(), Username: "ann", Password: "secret"}}
	pull := runtime.Pull{Ref: "registry.example.com/shop/web:1"}
	if _, err := e.Pull(t.Context(), pull); err == nil || !strings.Contains(err.Error(), "authorization") {
		t.Errorf("without credentials: got %v", err)
	}
	pull.Credentials = []runtime.Credential{{Host: "registry.example.org", Username: "ann", Password: "secret"}}
	if _, err := e.Pull(t.Context(), pull); err == nil {
		t.Error("credentials for another host were used")
	}

	hold := make(chan struct{})
	m.mu.Lock()
	m.hold = hold
	m.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var far runtime.Progress
	var once sync.Once
	pull.Credentials = ours
	pull.Progress = func(at runtime.Progress) {
		if at.Total > 100_000 && at.Done > 0 {
			once.Do(func() { far = at; close(hold) })
		}
	}
	stuck := pull
	stuck.Progress = nil
	if _, err := e.Pull(ctx, stuck); err == nil || !strings.Contains(err.Error(), "nothing has come for 1.2s") {
		t.Errorf("a registry that hangs: got %v", err)
	}
	info, err := e.Pull(ctx, pull)
	if err != nil {
		t.Fatal(err)
	}
	if far.Done >= far.Total || far.Total < info.Size*9/10 || far.Total > info.Size*11/10 {
		t.Errorf("on the way it was at %+v, of an image of %d bytes", far, info.Size)
	}
	if !strings.HasPrefix(info.ID, "registry.example.com/shop/web@sha256:") {
		t.Errorf("got %+v", info)
	}
	pull.Ref = "registry.example.com/shop/web:2"
	if _, err := e.Pull(ctx, pull); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("a tag that is not there: got %v", err)
	}
	m.Close()
	if _, err := e.Pull(ctx, pull); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a registry that is not there: got %v", err)
	}
}
