package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/kube"
	"github.com/shoal-dev/shoal/internal/loop"
)

// watchDelay is how long changes are gathered before watchers see them.
const watchDelay = 25 * time.Millisecond

// Config is what a Server shows. All functions may be called concurrently.
type Config struct {
	// Objects lists every object there is, of whatever kind, with kind and
	// apiVersion set. They are not changed afterwards.
	Objects func() []api.KubeObject
	// Where says in which file the object is written that a user would have to
	// change in order to change this one.
	Where func(kind, namespace, name string) (owner api.Key, source api.Source, found bool)
	// Repository names what to commit to.
	Repository func() string
	// Logs opens the log of a container of an instance.
	Logs func(ctx context.Context, instance, container string, options corev1.PodLogOptions) (io.ReadCloser, error)
	// Usage is what nodes and pods use, as far as it is known: one of each node.
	Usage func() []api.Usage
	// Containers are those of the fleet.
	Containers Containers
	// Gather brings in what other nodes know of a kind, within a second or so;
	// nil when there are none. Objects then lists it.
	Gather func(ctx context.Context, kind string)
	// Ready says why this node is not ready to answer, nil when it is.
	Ready   func() error
	Metrics http.Handler
	Version string // of Shoal
	Now     func() time.Time
}

// Server is the HTTP handler of the API. It may be used concurrently.
type Server struct {
	cfg      Config
	store    *store
	mux      *http.ServeMux
	dirty    atomic.Bool
	poke     chan struct{}
	watchers atomic.Int64
	refresh  sync.Mutex
	openapi  documents
}

// New returns a Server. Run must run for watches to see changes.
func New(cfg Config) *Server {
	s := &Server{
		cfg: cfg, poke: make(chan struct{}, 1), mux: http.NewServeMux(),
		// Versions grow from one process to the next on the same node.
		store: newStore(uint64(cfg.Now().UnixMicro())),
	}
	s.dirty.Store(true)
	s.routes()
	return s
}

// Changed tells the server that Objects would answer differently now.
func (s *Server) Changed() {
	s.dirty.Store(true)
	if s.watchers.Load() > 0 {
		loop.Poke(s.poke)
	}
}

// Run brings changes to watchers until ctx ends.
func (s *Server) Run(ctx context.Context) {
	loop.Run(ctx, loop.Config{Min: watchDelay}, func(context.Context) time.Time {
		if s.watchers.Load() > 0 {
			s.update()
		}
		return time.Time{}
	}, s.poke)
}

// gather brings in what other nodes know of a kind.
func (s *Server) gather(ctx context.Context, kind string) {
	if s.cfg.Gather != nil {
		s.cfg.Gather(ctx, kind)
	}
}

// update reads the objects anew if they may have changed.
func (s *Server) update() {
	s.refresh.Lock()
	defer s.refresh.Unlock()
	if s.dirty.Swap(false) {
		s.store.set(s.cfg.Objects())
	}
}

func (s *Server) routes() {
	s.mux.HandleFunc("GET /version", s.serveVersion)
	s.mux.HandleFunc("GET /api", s.serveAPIVersions)
	s.mux.HandleFunc("GET /apis", s.serveGroups)
	s.mux.HandleFunc("GET /apis/{group}", s.serveGroup)
	s.mux.HandleFunc("GET /openapi/v3", s.serveOpenAPIIndex)
	s.mux.HandleFunc("GET /openapi/v3/{path...}", s.serveOpenAPI)
	s.mux.HandleFunc("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", s.serveAccessReview)
	root := "GET /apis/" + metricsGroup.String()
	s.mux.HandleFunc(root, func(w http.ResponseWriter, r *http.Request) { s.writeJSON(w, r, metricsResources()) })
	s.mux.HandleFunc(root+"/{path...}", s.serveMetrics)
	s.mux.Handle("GET /metrics", s.cfg.Metrics)
	for _, path := range []string{"/healthz", "/livez"} {
		s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	}
	s.mux.HandleFunc("GET /readyz", s.serveReady)
	s.mux.HandleFunc("/api/v1/", s.serveResource)
	s.mux.HandleFunc("/apis/{group}/{version}/", s.serveResource)
	s.mux.HandleFunc("GET /api/v1", s.serveResources)
	s.mux.HandleFunc("GET /apis/{group}/{version}", s.serveResources)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, notFoundPath(r))
	})
}

// open are the paths that need no client certificate.
func open(path string) bool {
	return path == "/healthz" || path == "/livez" || path == "/readyz"
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !open(r.URL.Path) && (r.TLS == nil || len(r.TLS.VerifiedChains) == 0) {
		s.fail(w, r, apierrors.NewUnauthorized("a client certificate is needed: make a kubeconfig with `shoal kubeconfig`"))
		return
	}
	s.mux.ServeHTTP(w, r)
}

func (s *Server) serveReady(w http.ResponseWriter, _ *http.Request) {
	if err := s.cfg.Ready(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ok") // a client that is gone needs no answer
}

// A request is one for objects, taken apart.
type request struct {
	kind        kube.Kind
	namespace   string // "" for all
	name        string // "" for a list
	subresource string
}

// parse takes the path of a request for objects apart:
// [/api/v1 | /apis/G/V] [/namespaces/NS] /RESOURCE [/NAME [/SUBRESOURCE]].
func parse(path string) (request, error) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	group, version, rest := "", "", []string(nil)
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		version, rest = parts[1], parts[2:]
	case len(parts) >= 4 && parts[0] == "apis":
		group, version, rest = parts[1], parts[2], parts[3:]
	default:
		return request{}, fmt.Errorf("no resource at %s", path)
	}
	var out request
	if rest[0] == "namespaces" && len(rest) >= 3 && rest[2] != "status" && rest[2] != "finalize" {
		out.namespace, rest = rest[1], rest[2:]
	}
	kind, found := resource(group, version, rest[0])
	if !found || len(rest) > 3 || out.namespace != "" && !kind.Namespaced {
		return request{}, fmt.Errorf("no resource at %s", path)
	}
	out.kind = kind
	if len(rest) > 1 {
		out.name = rest[1]
	}
	if len(rest) > 2 {
		out.subresource = rest[2]
	}
	return out, nil
}

func (s *Server) serveResource(w http.ResponseWriter, r *http.Request) {
	q, err := parse(r.URL.Path)
	if err != nil {
		s.fail(w, r, notFoundPath(r))
		return
	}
	switch {
	case q.connects() && (r.Method == http.MethodGet || r.Method == http.MethodPost):
		s.serveConnect(w, r, q)
	case q.adds() && (r.Method == http.MethodPatch || r.Method == http.MethodPut):
		s.serveDebug(w, r, q)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		s.refuseWrite(w, r, q)
	case q.subresource == "log" && q.kind.Kind == "Pod":
		s.serveLog(w, r, q)
	case q.subresource == "status" || q.adds():
		s.serveGet(w, r, q)
	case q.subresource != "":
		s.fail(w, r, notFoundPath(r))
	case q.name != "":
		s.serveGet(w, r, q)
	case r.URL.Query().Get("watch") == "true" || r.URL.Query().Get("watch") == "1":
		s.serveWatch(w, r, q)
	default:
		s.serveList(w, r, q)
	}
}
