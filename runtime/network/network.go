package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/shoal-dev/shoal/runtime"
)

// Config describes the pod network of this machine.
type Config struct {
	RunDir    string   // /run/shoal
	PluginDir []string // where the CNI plugins are; empty: /usr/lib/cni, /opt/cni/bin
	Bridge    string   // name of the bridge; "" means shoal0
	PodCIDR   netip.Prefix
	MTU       int // of pod interfaces; 0: what the machine's links allow, see PodMTU
}

const defaultBridge = "shoal0"

// Network makes and removes the pods' networks. It may be used concurrently for
// different instances.
type Network struct {
	cfg  Config
	cni  *libcni.CNIConfig
	list *libcni.NetworkConfigList // nil without a pod CIDR

	mtu      sync.Mutex
	measured *libcni.NetworkConfigList // list with the MTU; nil until a link told it

	host sync.Once // the host's own settings
	warn []string
}

// Sandbox describes one to be made.
type Sandbox struct {
	Instance    string
	Namespace   string // of the pod
	Pod         string // name
	Hostname    string
	HostNetwork bool
	HostIPC     bool
}

// Info is a sandbox that exists.
type Info struct {
	Instance string
	ID       string
	IPs      []string
	Complete bool
}

// record is what makes a sandbox complete.
type record struct {
	ID          string   `json:"id"`
	IPs         []string `json:"ips"`
	HostNetwork bool     `json:"hostNetwork,omitempty"`
}

// New returns the network of a machine. It changes nothing yet.
func New(cfg Config) (*Network, error) {
	if cfg.Bridge == "" {
		cfg.Bridge = defaultBridge
	}
	if len(cfg.PluginDir) == 0 {
		cfg.PluginDir = []string{"/usr/lib/cni", "/opt/cni/bin"}
	}
	n := &Network{cfg: cfg}
	// Given here because libcni, left to itself, makes one without a lock.
	run := &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: io.Discard}}
	n.cni = libcni.NewCNIConfigWithCacheDir(cfg.PluginDir, n.path("cni", "cache"), run)
	if !cfg.PodCIDR.IsValid() {
		return n, nil // pods with hostNetwork only
	}
	list, err := libcni.ConfListFromBytes(n.configuration(cfg.MTU))
	if err != nil {
		return nil, fmt.Errorf("pod network %s: %w", cfg.PodCIDR, err)
	}
	n.list = list
	return n, nil
}

// adding returns the configuration that new pods are connected with. Its MTU is
// settled with the first pod after a link is up, and then stays: pods of one
// bridge must not differ.
func (n *Network) adding() (*libcni.NetworkConfigList, error) {
	if n.list == nil {
		return nil, errors.New("this node has no pod CIDR yet")
	}
	n.mtu.Lock()
	defer n.mtu.Unlock()
	if n.measured != nil {
		return n.measured, nil
	}
	mtu := n.cfg.MTU
	if mtu == 0 {
		mtu = hostMTU(n.cfg.Bridge)
	}
	if mtu == 0 {
		return n.list, nil
	}
	list, err := libcni.ConfListFromBytes(n.configuration(mtu))
	if err == nil {
		n.measured = list
	}
	return list, err
}

func (n *Network) path(parts ...string) string {
	return filepath.Join(append([]string{n.cfg.RunDir}, parts...)...)
}

// configuration returns the CNI configuration list. Masquerading and hostPorts
// are not the plugins' business: room policy owns the rules.
func (n *Network) configuration(mtu int) []byte {
	bridge := map[string]any{
		"type":             "bridge",
		"bridge":           n.cfg.Bridge,
		"isGateway":        true,
		"ipMasq":           false,
		"hairpinMode":      true,
		"promiscMode":      false,
		"forceAddress":     true,
		"isDefaultGateway": true,
		"ipam": map[string]any{
			"type":    "host-local",
			"dataDir": n.path("cni", "leases"),
			"ranges":  [][]map[string]string{{{"subnet": n.cfg.PodCIDR.Masked().String()}}},
		},
	}
	if mtu > 0 {
		bridge["mtu"] = mtu
	}
	out, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0",
		"name":       "shoal",
		"plugins":    []any{bridge},
	})
	if err != nil {
		panic(err) // maps of strings always marshal
	}
	return out
}

// Namespaces returns the paths of a pod's namespaces, whether they exist or not.
func (n *Network) Namespaces(s Sandbox) runtime.Namespaces {
	return runtime.Namespaces{
		Net:         n.pin(s.Instance, "net"),
		IPC:         n.pin(s.Instance, "ipc"),
		UTS:         n.pin(s.Instance, "uts"),
		HostNetwork: s.HostNetwork,
	}
}

func (n *Network) pin(instance, kind string) string { return n.path("sandboxes", instance, kind) }

// Prepare pins new namespaces for a pod and returns the ID of the sandbox that
// they will be. It is not complete before Connect has returned.
func (n *Network) Prepare(s Sandbox) (id string, err error) {
	n.host.Do(n.settle)
	if err := os.MkdirAll(n.path("sandboxes", s.Instance), 0o711); err != nil {
		return "", err
	}
	if err := n.pinNamespaces(s); err != nil {
		return "", fmt.Errorf("make the namespaces of %s/%s: %w", s.Namespace, s.Pod, err)
	}
	return strconv.FormatInt(time.Now().UnixNano(), 36), nil
}

// Connect gives a prepared sandbox its network and returns what it has become.
func (n *Network) Connect(ctx context.Context, s Sandbox, id string) (Info, error) {
	r := record{ID: id, HostNetwork: s.HostNetwork}
	if !s.HostNetwork {
		ips, err := n.add(ctx, s)
		if err != nil {
			return Info{}, fmt.Errorf("connect %s/%s: %w", s.Namespace, s.Pod, err)
		}
		r.IPs = ips
	}
	if err := n.write(s.Instance, r); err != nil {
		return Info{}, fmt.Errorf("record the network of %s/%s: %w", s.Namespace, s.Pod, err)
	}
	return Info{Instance: s.Instance, ID: r.ID, IPs: r.IPs, Complete: true}, nil
}

func (n *Network) add(ctx context.Context, s Sandbox) ([]string, error) {
	list, err := n.adding()
	if err != nil {
		return nil, err
	}
	result, err := n.cni.AddNetworkList(ctx, list, n.runtimeConf(s.Instance, s.Namespace, s.Pod))
	if err != nil {
		return nil, err
	}
	current, err := types100.NewResultFromResult(result)
	if err != nil {
		return nil, err
	}
	var ips []string
	for _, ip := range current.IPs {
		ips = append(ips, ip.Address.IP.String())
	}
	if len(ips) == 0 {
		return nil, errors.New("the plugins gave no address")
	}
	return ips, nil
}

func (n *Network) runtimeConf(instance, namespace, pod string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: instance,
		NetNS:       n.pin(instance, "net"),
		IfName:      "eth0",
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", namespace},
			{"K8S_POD_NAME", pod},
		},
	}
}

// write writes the record atomically.
func (n *Network) write(instance string, r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := n.pin(instance, "record")
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Remove takes a pod's network away and unpins its namespaces, whatever is left
// of them. Removing what does not exist is fine.
func (n *Network) Remove(ctx context.Context, instance string) error {
	dir := n.path("sandboxes", instance)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// The record goes first: from here on the sandbox is half removed.
	if err := os.Remove(n.pin(instance, "record")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// The plugins would delete eth0 of whatever namespace is pinned: never let
	// them near the host's own.
	if n.list != nil && !isHost(n.pin(instance, "net")) {
		conf := n.runtimeConf(instance, "", "")
		if !pinned(conf.NetNS) {
			conf.NetNS = "" // plugins then free what they can without it
		}
		if err := n.cni.DelNetworkList(ctx, n.list, conf); err != nil {
			return fmt.Errorf("disconnect %s: %w", instance, err)
		}
	}
	for _, kind := range []string{"net", "ipc", "uts"} {
		if err := unpin(n.pin(instance, kind)); err != nil {
			return fmt.Errorf("unpin the %s namespace of %s: %w", kind, instance, err)
		}
	}
	return os.RemoveAll(dir)
}

func (n *Network) read(instance string) (record, bool) {
	b, err := os.ReadFile(n.pin(instance, "record"))
	if err != nil {
		return record{}, false
	}
	var r record
	if json.Unmarshal(b, &r) != nil || r.ID == "" {
		return record{}, false
	}
	if !pinned(n.pin(instance, "net")) {
		return record{}, false // the mount is gone: a reboot on a persistent run directory
	}
	return r, true
}

// Get returns a pod's sandbox; found is false when there is no trace of one.
func (n *Network) Get(instance string) (info Info, found bool) {
	if _, err := os.Stat(n.path("sandboxes", instance)); err != nil {
		return Info{}, false
	}
	r, complete := n.read(instance)
	return Info{Instance: instance, ID: r.ID, IPs: r.IPs, Complete: complete}, true
}

// List returns every sandbox there is a trace of, sorted by instance.
func (n *Network) List() ([]Info, error) {
	entries, err := os.ReadDir(n.path("sandboxes"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Info
	for _, e := range entries {
		if info, found := n.Get(e.Name()); found {
			out = append(out, info)
		}
	}
	return out, nil
}

// Warnings say which settings of the host could not be made; known after the
// first Prepare.
func (n *Network) Warnings() []string { return n.warn }
