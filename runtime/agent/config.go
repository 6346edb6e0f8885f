package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/containerd"
	"github.com/shoal-dev/shoal/runtime/evict"
	"github.com/shoal-dev/shoal/runtime/fence"
	"github.com/shoal-dev/shoal/runtime/fencer"
	"github.com/shoal-dev/shoal/runtime/logs"
	"github.com/shoal-dev/shoal/runtime/network"
)

// Config is what an agent works with.
type Config struct {
	Node      string // name of this node
	StateDir  string // /var/lib/shoal: volumes, logs, the keeper's program
	RunDir    string // /run/shoal: pins, records, sockets; gone after a reboot
	ImagesDir string // archives dropped here are imported; "" means StateDir/images
	HostsDir  string // folder of hosts.toml files by registry; "" means none
	// Peers are other machines that give images to this one; nil: none do.
	Peers containerd.Peers

	Containerd string // address of the socket; "" means /run/containerd/containerd.sock
	Namespace  string // containerd namespace; "" means shoal

	PodCIDR    netip.Prefix // of this node
	Bridge     string       // "" means shoal0
	MTU        int          // of pod interfaces; 0 leaves it to the kernel
	PluginDirs []string     // of the CNI plugins; empty means /usr/lib/cni, /opt/cni/bin

	// Resources says what pods may use of the machine.
	Resources Resources
	// Record is told what happened to pods, for people. It may be called from
	// several goroutines at once and must not block. nil means nobody listens.
	Record func(api.Event)
	// Workers bounds how many pods are worked on at once; 0 means 8.
	Workers int
	// Relist is how often everything is listed although nothing happened; 0
	// means 45 s.
	Relist time.Duration
	// Keeper is the shoal-keeper program; nil means the embedded one.
	Keeper []byte

	// Pulls bounds how many images are fetched at once, and how many fetches begin
	// in a second, PullBurst of them at once; 0 Pulls or PullsPerSecond are no limit.
	Pulls          int
	PullsPerSecond float64
	PullBurst      int
	// ImageLimits say when images are deleted; zero means kubelet's.
	ImageLimits runtime.ImageLimits
	// NeededImages returns what commits name, the one in force and the one before,
	// whether their pods are here or not. It is asked only when images are to be
	// deleted; an error deletes none. nil means that no commit names any.
	NeededImages func() ([]string, error)
	// Reclaim is how often the disk of the images is looked at; 0 means a minute.
	Reclaim time.Duration

	// Lease returns the node's lease. It may be called often. nil means that
	// there never is one: exclusive pods are started in a fleet of one only.
	Lease func() fence.Lease

	// Boot is a clock that never steps and that counts while the machine sleeps;
	// nil means the machine's own.
	Boot func() time.Duration
	// BootID names this boot of the machine; "" means what the kernel says.
	BootID string
	// Confined agents touch nothing but their folders: they watch for no archives
	// of images and mount nothing, so that pods with volumes in memory fail.
	Confined bool

	// Readings measures what is left of the machine, and says whether its disk is
	// that of the images, too; nil means this machine's, and for Confined agents
	// that nothing is ever short.
	Readings func() (left map[evict.Signal]evict.Reading, oneDisk bool)

	// Engine, Network, Logs and Fencer take the place of containerd, CNI, the
	// keeper and the fencer; nil means the real ones. Without the real Logs
	// there is no real Fencer.
	Engine  Engine
	Network Network
	Logs    Logs
	Fencer  Fencer
}

// Engine is what the agent needs of a container engine. Errors wrap the
// sentinels of package runtime.
type Engine interface {
	Containers
	Undertaker
	Images
	ImageStore
	Commands
	Consoles
	Pods
	Disk
}

// Containers are made and stopped here. Calls about one container never
// overlap, except Kill.
type Containers interface {
	List(ctx context.Context) ([]runtime.Held, error)
	Inspect(ctx context.Context, id string) (runtime.Held, error)
	Create(ctx context.Context, spec runtime.ContainerSpec) error
	Start(ctx context.Context, id string) (pid int, err error)
	Kill(ctx context.Context, id string, signal syscall.Signal, all bool) error
}

// Undertaker keeps the memory of containers, and buries them.
type Undertaker interface {
	Record(ctx context.Context, c runtime.Container) error
	Remove(ctx context.Context, id string) error
	Sweep(ctx context.Context, inUse func(id string) bool) error
}

// Images are fetched, imported and found here.
type Images interface {
	Image(ctx context.Context, ref string) (runtime.ImageInfo, error)
	Pull(ctx context.Context, pull runtime.Pull) (runtime.Pulled, error)
	Import(ctx context.Context, archive io.Reader) ([]string, error)
}

// ImageStore is the disk that images are on. DeleteImage takes the names of one
// image away, all that it has; what containers run from stays on the disk until
// they are gone.
type ImageStore interface {
	Images(ctx context.Context) ([]runtime.ImageInfo, error)
	DeleteImage(ctx context.Context, names []string) error
	ImageDisk(ctx context.Context) (runtime.Filesystem, error)
	Shares
}

// Shares are images as other machines may have them.
type Shares interface {
	Offer(ctx context.Context, ref string) (runtime.PeerImage, error)
	Blob(ctx context.Context, digest string) (io.ReadCloser, error)
}

// Commands run in containers. Watch calls poke until its stream breaks.
type Commands interface {
	Exec(ctx context.Context, id string, command []string, streams runtime.Streams) (code int, err error)
	Watch(ctx context.Context, poke func(container string)) error
	Version(ctx context.Context) (string, error)
	Degraded() []string
}

// Consoles are the inputs and terminals that containers themselves have.
type Consoles interface {
	CloseInput(ctx context.Context, id string) error
	Resize(ctx context.Context, id string, size runtime.Size) error
}

// Pods are what the engine has of a pod as a whole: its cgroup. Group returns
// its path below the mount of each hierarchy. LimitPods bounds all pods together.
type Pods interface {
	Group(instance string) string
	LimitPods(limits runtime.Resources) error
	CreatePod(instance string, limits runtime.Resources) error
	RemovePod(instance string) error
}

// Disk is what the engine has on disk: what a container has written into its own
// file system, and the folder where that is, and images are; "" when it is not on
// this machine.
type Disk interface {
	Written(ctx context.Context, id string) (runtime.DiskUse, error)
	Folder(ctx context.Context) (string, error)
}

// Network is what the agent needs of package network.
type Network interface {
	Namespaces(s network.Sandbox) runtime.Namespaces
	Prepare(s network.Sandbox) (id string, err error)
	Connect(ctx context.Context, s network.Sandbox, id string) (network.Info, error)
	Remove(ctx context.Context, instance string) error
	Sandboxes
}

// Sandboxes finds what there is, and connects to a port in it.
type Sandboxes interface {
	Dial(ctx context.Context, instance string, port uint16) (net.Conn, error)
	Get(instance string) (info network.Info, found bool)
	List() ([]network.Info, error)
	Sweep(ctx context.Context, keep func(instance string) bool) ([]string, error)
	Warnings() []string
}

// Logs is what the agent needs of the keeper.
type Logs interface {
	Outputs
	Held(ctx context.Context) ([]string, error)
	Run(ctx context.Context, failed func(error))
}

// Outputs are what containers write. Tee passes on what one writes from now on,
// until it is closed; whoever does not read in time misses some of it.
type Outputs interface {
	Open(ctx context.Context, id, path string) (stdout, stderr string, err error)
	Tee(ctx context.Context, id string) (stdout, stderr io.ReadCloser, err error)
	Close(ctx context.Context, id string) error
	CloseAll(ctx context.Context, prefix string) error
}

// Fencer ends exclusive pods when the lease runs out, whatever becomes of this
// process. See fencer.Client.
type Fencer interface {
	Hold(ctx context.Context, p fence.Pod) error
	Release(ctx context.Context, instance string) error
	Renew(ctx context.Context, l fence.Lease) (fenced []string, err error)
	Held(ctx context.Context) ([]fence.Pod, error)
	Degraded() []string
}

// complete fills in what is left out and checks the rest.
func (c *Config) complete() error {
	if c.Node == "" || c.StateDir == "" || c.RunDir == "" {
		return errors.New("runtime/agent: Node, StateDir and RunDir are needed")
	}
	if c.ImagesDir == "" {
		c.ImagesDir = filepath.Join(c.StateDir, "images")
	}
	if c.Record == nil {
		c.Record = func(api.Event) {}
	}
	if c.Boot == nil {
		c.Boot = fencer.Now
	}
	if c.BootID == "" {
		c.BootID = word("/proc/sys/kernel/random/boot_id")
	}
	if c.Workers == 0 {
		c.Workers = 8
	}
	if c.ImageLimits == (runtime.ImageLimits{}) {
		c.ImageLimits = runtime.DefaultImageLimits
	}
	if c.NeededImages == nil {
		c.NeededImages = func() ([]string, error) { return nil, nil }
	}
	if c.Reclaim == 0 {
		c.Reclaim = time.Minute
	}
	if c.Relist == 0 {
		c.Relist = 45 * time.Second
	}
	return nil
}

// real makes the parts that were not given.
func (c *Config) real(ctx context.Context) error {
	if c.Network == nil {
		n, err := network.New(network.Config{
			RunDir: c.RunDir, PluginDir: c.PluginDirs, Bridge: c.Bridge, PodCIDR: c.PodCIDR, MTU: c.MTU,
		})
		if err != nil {
			return err
		}
		c.Network = n
	}
	if c.Logs == nil {
		k, err := logs.StartKeeper(ctx, logs.KeeperConfig{
			RunDir: c.RunDir, BinDir: filepath.Join(c.StateDir, "bin"), Program: c.Keeper,
		})
		if err != nil {
			return fmt.Errorf("container logs: %w", err)
		}
		c.Logs = k
		if c.Fencer == nil {
			program, version := k.Program()
			c.Fencer = fencer.NewClient(fencer.ClientConfig{RunDir: c.RunDir, Program: program, Version: version})
		}
	}
	if c.Engine == nil {
		e, err := containerd.New(containerd.Config{
			Address: c.Containerd, Namespace: c.Namespace, RunDir: c.RunDir, HostsDir: c.HostsDir, Peers: c.Peers,
			SeccompDir: filepath.Join(c.StateDir, "seccomp"),
		})
		if err != nil {
			return err
		}
		c.Engine = e
	}
	return nil
}
