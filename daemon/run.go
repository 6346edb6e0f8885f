package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/shoal-dev/shoal/api"
	kubeapi "github.com/shoal-dev/shoal/daemon/api"
	"github.com/shoal-dev/shoal/gitsync"
	"github.com/shoal-dev/shoal/gossip/identity"
	"github.com/shoal-dev/shoal/internal/loop"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/agent"
)

// nodeRefresh is how often the node looks at itself, and notReadyRefresh how
// often while it cannot run pods.
const (
	nodeRefresh     = 10 * time.Second
	notReadyRefresh = 50 * time.Millisecond
)

// Run runs the daemon until ctx ends, and leaves pods, rules and logs as they
// are: the next daemon on the same state folder takes them over. It returns an
// error when it cannot start, or when a part that it cannot do without ends. Of
// configurations that come later it takes over what Machine.Changes says; nil for
// none.
func Run(ctx context.Context, cfg Config, changes <-chan Config, version string, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("shoal run needs root rights: it makes namespaces, mounts and packet rules (try sudo)")
	}
	go trimMemory(ctx)
	protect(log)
	m := Local()
	m.Changes = changes
	return m.Run(ctx, cfg, version, log)
}

// Run runs the daemon of a machine. See the function Run.
func (m Machine) Run(ctx context.Context, cfg Config, version string, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	marks, err := cfg.Marks()
	if err != nil {
		return err
	}
	resources, err := cfg.Resources()
	if err != nil {
		return err
	}
	for _, dir := range []string{cfg.State, cfg.Run, cfg.imagesDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the folder %s: %w", dir, err)
		}
	}
	unlock, err := lock(cfg.State)
	if err != nil {
		return err
	}
	defer unlock()

	// A start that fails on a taken port founds no fleet.
	peerListener, err := m.Listen(ctx, "tcp", cfg.Peer.Listen)
	if err != nil {
		return fmt.Errorf("listen for peers: %w (is another daemon running, or set peer.listen)", err)
	}
	defer peerListener.Close() // closed by its server already, unless the start failed
	listener, err := m.Listen(ctx, "tcp", cfg.API.Listen)
	if err != nil {
		return fmt.Errorf("listen for the API: %w (is another daemon running, or set api.listen)", err)
	}
	defer listener.Close() // closed by its server already, unless the start failed

	id, err := identity.Open(cfg.identityDir(), cfg.wanted())
	if err != nil {
		return err
	}
	node, err := identity.OpenNode(cfg.identityDir())
	if err != nil {
		return err
	}
	if err := m.found(cfg, id, node); err != nil {
		return err
	}
	c := &control{
		machine: m, log: log, fleet: id.Fleet.ID, version: version, boot: time.Now().UnixNano(),
		checkpoint:  checkpoint{path: cfg.decidedFile()},
		nodeChanged: newPoke(), lookPoke: newPoke(), giving: make(chan struct{}, giveAtOnce),
		objects: map[string]*corev1.Pod{}, pinned: map[string]*runtime.Config{}, missing: map[string]string{}, said: map[string]string{}, hinted: map[api.Commit]bool{}, held: map[api.Commit]bool{},
	}
	if c.part, err = m.openFleet(cfg, id, node, peerListener, c, log); err != nil {
		return err
	}
	// The roster says who this node is, whatever the host is called today.
	self := c.part.Self()
	cfg.Node, cfg.Network.PodCIDR = self.Name, self.PodCIDR
	address := m.Address()
	ranges := cfg.ranges()

	repo, err := m.Repository(cfg)
	if err != nil {
		return err
	}
	rules, err := m.Rules()
	if err != nil {
		return err
	}
	names := m.Names(cfg)

	c.cfg, c.ranges, c.repo, c.address = cfg, ranges, repo, address
	c.repo.Follow(c.gitPeers)
	c.drained.Store(&map[string]bool{})
	c.marks.Store(&marks)
	c.metrics = newMetrics(c.view.Load)
	if c.decided, err = c.checkpoint.load(); err != nil {
		log.Warn("start without the last decisions", "reason", err)
	}
	if c.decided.Assigned.Known() {
		if err := c.part.Restore(c.decided.Assigned, c.decided.Facts); err != nil {
			return err
		}
	}
	paths, err := newPaths(m, self.Name, ranges.pods, c.view.Load, log)
	if err != nil {
		return err
	}

	trafficPoke, drainedPoke, pathsPoke := newPoke(), newPoke(), newPoke()
	server := kubeapi.New(c.apiConfig(version))
	c.events = newEvents(cfg.Node, server.Changed)
	c.others = newOthers(server.Changed)
	c.publish = func() { loop.Poke(trafficPoke); loop.Poke(pathsPoke); server.Changed() }
	certificate, err := newCertificate(c, id)
	if err != nil {
		return err
	}
	admin, err := m.Listen(ctx, "unix", cfg.Socket())
	if err != nil {
		return err
	}
	defer admin.Close() // likewise
	containers := agent.Config{
		Node: cfg.Node, StateDir: cfg.State, RunDir: cfg.Run, ImagesDir: cfg.imagesDir(), HostsDir: cfg.Containerd.Registries,
		Containerd: cfg.Containerd.Address, Namespace: cfg.Containerd.Namespace, PodCIDR: ranges.pods,
		PluginDirs: []string{cfg.Network.Plugins}, Record: c.recordPod, Lease: c.lease, Resources: resources,
		ImageLimits: cfg.Images.limits(), NeededImages: c.neededImages,
		Pulls: cfg.Images.parallel(), PullsPerSecond: float64(cfg.Images.PerSecond), PullBurst: cfg.Images.Burst,
	}
	if cfg.Images.Peers {
		containers.Peers = imagePeers{c}
	}
	m.Containers(&containers)
	if c.agent, err = agent.New(containers); err != nil {
		return err
	}

	t := &traffic{
		cfg: cfg, ranges: ranges, log: log, view: c.view.Load, rules: rules, names: names, metrics: c.metrics,
		drained: func(instances map[string]bool) {
			if !maps.Equal(instances, *c.drained.Swap(&instances)) {
				loop.Poke(drainedPoke)
			}
		},
	}
	ctx, end := c.linger(ctx)
	defer end()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serve(ctx, tls.NewListener(listener, tlsConfig(id, certificate)), server, log) })
	g.Go(func() error { loop.Run(ctx, loop.Config{Max: certificateEvery}, certificate.step); return nil })
	g.Go(func() error { return serve(ctx, admin, c.adminHandler(version, id), log) })
	g.Go(func() error { server.Run(ctx); return nil })
	g.Go(func() error { return c.part.Run(ctx) })
	g.Go(func() error { loop.Run(ctx, loop.Config{Max: 30 * time.Second}, paths.step, pathsPoke); return nil })
	g.Go(func() error { return paths.fabric.Watch(ctx, func() { loop.Poke(pathsPoke) }) })
	g.Go(func() error { return repo.Run(ctx) })
	g.Go(func() error { return c.agent.Run(ctx) })
	g.Go(func() error { return names.Run(ctx) })
	g.Go(func() error { loop.Run(ctx, loop.Config{Max: nodeRefresh}, c.lookAtNode, c.lookPoke); return nil })
	g.Go(func() error { c.follow(ctx, m.Changes); return nil })
	g.Go(func() error { loop.Run(ctx, loop.Config{Max: time.Minute}, c.measuring()); return nil })
	g.Go(func() error {
		loop.Run(ctx, loop.Config{Max: time.Minute}, c.step, repo.Changed(), c.agent.Changed(), drainedPoke, c.nodeChanged, c.part.Changed())
		return nil
	})
	g.Go(func() error { loop.Run(ctx, loop.Config{Min: 10 * time.Millisecond}, t.step, trafficPoke); return nil })
	notify("READY=1")
	log.Info("shoal runs", "version", version, "node", cfg.Node, "fleet", id.Fleet.ID, "repository", shownURL(cfg.Repository.URL), "api", listener.Addr())
	err = g.Wait()
	c.asides.Wait()
	notify("STOPPING=1")
	log.Info("shoal stops; pods run on")
	return err
}

func newPoke() chan struct{} { return make(chan struct{}, 1) }

// lock keeps a second daemon away from the state folder.
func lock(dir string) (func(), error) {
	path := filepath.Join(dir, "lock")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state folder: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("another shoal daemon uses the state folder %s: stop it, or give this one a folder of its own (--state)", dir)
	}
	return func() { _ = file.Close() }, nil // closing unlocks; the process is ending
}

func openRepository(cfg Config) (*gitsync.Repo, error) {
	r := cfg.Repository
	auth := gitsync.Auth{
		Username: r.Username, TokenFile: r.TokenFile, CAFile: r.CAFile, SSHKeyFile: r.SSHKeyFile, KnownHostsFile: r.KnownHostsFile,
	}
	if r.PasswordFile != "" {
		raw, err := os.ReadFile(r.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("repository.passwordFile: %w", err)
		}
		auth.Password = strings.TrimRight(string(raw), "\r\n")
	}
	return gitsync.Open(gitsync.Config{Dir: cfg.mirrorDir(), URL: r.URL, Ref: r.Ref, Path: r.Path, Poll: r.Poll, Auth: auth})
}

// tlsConfig asks for a client certificate of this fleet; the server decides
// what may be had without one.
func tlsConfig(id *identity.Identity, certificate *certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, GetCertificate: certificate.get,
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: id.Pool(), NextProtos: []string{"h2", "http/1.1"},
	}
}

// serve answers HTTP until ctx ends, then gives requests under way a moment.
func serve(ctx context.Context, listener net.Listener, handler http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		// Watches end with the daemon, not after it.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(stop) != nil {
			_ = server.Close() // what does not end by itself is cut off
		}
	}()
	err := server.Serve(listener)
	if ctx.Err() == nil {
		return fmt.Errorf("answer HTTP on %s: %w", listener.Addr(), err)
	}
	<-done
	return nil
}

// apiConfig connects the API to the view.
func (c *control) apiConfig(version string) kubeapi.Config {
	var shown wardrobe
	return kubeapi.Config{
		Version: version, Now: time.Now, Metrics: c.metrics.handler(), Gather: c.gather, Usage: c.usageShown,
		Repository: func() string { return shownURL(c.cfg.Repository.URL) },
		Objects: func() []api.KubeObject {
			var out []api.KubeObject
			if v := c.view.Load(); v != nil {
				out = v.objects(&shown, c.snapshotAt)
			}
			for _, event := range c.others.with(c.events.list()) {
				out = append(out, event)
			}
			return out
		},
		Where: func(kind, namespace, name string) (api.Key, api.Source, bool) {
			return c.view.Load().where(kind, namespace, name)
		},
		Logs: func(ctx context.Context, instance, container string, options corev1.PodLogOptions) (io.ReadCloser, error) {
			return c.logs(ctx, instance, container, options)
		},
		Containers: containers{c},
		Ready: func() error {
			if v := c.view.Load(); v == nil || !v.observed {
				return errors.New("the pods of this machine have not been listed yet: containerd does not answer")
			}
			return nil
		},
	}
}

func (c *control) snapshotAt(_ string, commit api.Commit) api.Snapshot {
	snapshot, err := c.repo.At(commit)
	if err != nil {
		return api.Snapshot{} // its ReplicaSets are not shown; nothing depends on them
	}
	return snapshot
}

// recordPod takes what the runtime says of a pod.
func (c *control) recordPod(event api.Event) {
	if event.Time.IsZero() {
		event.Time = time.Now()
	}
	c.events.record(event)
	level := slog.LevelDebug
	if event.Type == corev1.EventTypeWarning {
		level = slog.LevelWarn
	}
	c.log.Log(context.Background(), level, event.Message, "reason", event.Reason, "pod", event.Regards.Namespace+"/"+event.Regards.Name)
}
