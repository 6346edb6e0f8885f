package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoal-dev/shoal/runtime"
)

// Config says which containerd to use and how.
type Config struct {
	Address     string // of the socket; "" means /run/containerd/containerd.sock
	Namespace   string // containerd namespace; "" means shoal
	Snapshotter string // "" means overlayfs
	RunDir      string // /run/shoal: for FIFOs of commands
	HostsDir    string // folder of hosts.toml files by registry; "" means none
	Peers       Peers  // nil: images come from registries alone
	// Stalled is how long nothing may come of an image before its pull is given up;
	// 0 means 5 minutes, as in containerd's CRI plugin.
	Stalled    time.Duration
	SeccompDir string // folder of seccomp profiles that pods may name
	CgroupRoot string // "" means / and the namespace: several daemons share a machine in tests
}

// Engine runs containers. It may be used concurrently; calls about the same
// container must not overlap, except Kill.
type Engine struct {
	cfg      Config
	client   *client.Client
	degraded []string
	minOOM   int
	armor    armory

	mu     sync.Mutex
	images map[digest.Digest]*image
	sizes  map[digest.Digest]int64 // in bytes, compressed
	store  string                  // where the snapshotter keeps layers, "" before it was asked
}

// New returns an engine. It does not wait for containerd: calls fail with
// ErrUnavailable until it answers.
func New(cfg Config) (*Engine, error) {
	if cfg.Address == "" {
		cfg.Address = "/run/containerd/containerd.sock"
	}
	if cfg.Namespace == "" {
		cfg.Namespace = "shoal"
	}
	if cfg.Snapshotter == "" {
		cfg.Snapshotter = "overlayfs"
	}
	if cfg.CgroupRoot == "" {
		cfg.CgroupRoot = "/" + cfg.Namespace
	}
	if cfg.Stalled == 0 {
		cfg.Stalled = 5 * time.Minute
	}
	if cfg.RunDir == "" {
		return nil, errors.New("containerd: no run directory given")
	}
	c, err := client.New(cfg.Address, client.WithDefaultNamespace(cfg.Namespace), client.WithDialOpts(dialOptions()))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", cfg.Address, err)
	}
	e := &Engine{cfg: cfg, client: c, images: map[digest.Digest]*image{}, sizes: map[digest.Digest]int64{}}
	e.minOOM, e.degraded = privileges()
	e.armor = readArmory()
	return e, nil
}

// Close ends the connection. Containers run on.
func (e *Engine) Close() error { return e.client.Close() }

// Degraded says what this machine does not allow, in whole sentences.
func (e *Engine) Degraded() []string { return e.degraded }

// ctx returns a context for calls to containerd: its libraries do not log, the
// errors they return say it all.
func (e *Engine) ctx(ctx context.Context) context.Context {
	return log.WithLogger(namespaces.WithNamespace(ctx, e.cfg.Namespace), silent)
}

var silent = &log.Entry{Logger: &logrus.Logger{Out: io.Discard, Formatter: &logrus.TextFormatter{}, Level: logrus.PanicLevel}}

func (e *Engine) snapshots() snapshots.Snapshotter {
	return e.client.SnapshotService(e.cfg.Snapshotter)
}

// Version returns containerd's version.
func (e *Engine) Version(ctx context.Context) (string, error) {
	v, err := e.client.Version(e.ctx(ctx))
	if err != nil {
		return "", translate(err)
	}
	return v.Version, nil
}

// Watch calls poke for every event until ctx ends or the stream breaks, which
// is an error. container is the container it regards, or "" for anything else;
// an event carries nothing more.
func (e *Engine) Watch(ctx context.Context, poke func(container string)) error {
	filter := func(topic string) string {
		return fmt.Sprintf(`namespace==%q,topic~=%q`, e.cfg.Namespace, topic)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, errs := e.client.EventService().Subscribe(ctx, filter("^/tasks/exit"), filter("^/images/"))
	for {
		select {
		case envelope, open := <-events:
			if !open {
				return translate(<-errs)
			}
			if envelope.Event == nil {
				continue
			}
			event, err := typeurl.UnmarshalAny(envelope.Event)
			if err != nil {
				poke("")
				continue
			}
			switch event := event.(type) {
			case *eventsapi.TaskExit:
				if event.ID == event.ContainerID { // not a command within it
					poke(event.ContainerID)
				}
			default:
				poke("")
			}
		case err := <-errs:
			if err == nil {
				err = context.Cause(ctx)
			}
			return translate(err)
		}
	}
}

// translate gives an error the meaning that package runtime defines.
func translate(err error) error {
	if err == nil {
		return nil
	}
	native := err
	if _, raw := status.FromError(err); raw {
		native = errgrpc.ToNative(err)
	}
	switch {
	case errors.Is(err, runtime.ErrUnavailable) || errors.Is(err, runtime.ErrNotFound):
		return err
	case status.Code(err) == codes.Unavailable || errdefs.IsUnavailable(native):
		return meant{runtime.ErrUnavailable, native}
	case errdefs.IsNotFound(native):
		return meant{runtime.ErrNotFound, native}
	}
	return native
}

// meant is an error of containerd with the meaning it has for us.
type meant struct{ meaning, err error }

func (m meant) Error() string   { return m.err.Error() }
func (m meant) Unwrap() []error { return []error{m.meaning, m.err} }

func ignoreNotFound(err error) error {
	if errors.Is(err, runtime.ErrNotFound) {
		return nil
	}
	return err
}

func (e *Engine) execDir() string { return filepath.Join(e.cfg.RunDir, "exec") }
