package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/viper"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Config is everything that an operator can set: in the configuration file, as
// SHOAL_* in the environment (SHOAL_REPOSITORY_URL), or as a flag.
type Config struct {
	Node       string   `mapstructure:"node"`       // the node's name; the host name by default
	State      string   `mapstructure:"state"`      // folder for what must survive a reboot
	Run        string   `mapstructure:"run"`        // folder for sockets and mounts
	NodeLabels []string `mapstructure:"nodeLabels"` // key=value; see Marks
	NodeTaints []string `mapstructure:"nodeTaints"` // key=value:Effect or key:Effect

	// What pods may use of the machine; see Resources.
	SystemReserved         []string      `mapstructure:"systemReserved"` // resource=quantity
	KubeReserved           []string      `mapstructure:"kubeReserved"`
	EvictionHard           []string      `mapstructure:"evictionHard"` // signal<quantity
	EvictionSoft           []string      `mapstructure:"evictionSoft"`
	EvictionSoftGrace      []string      `mapstructure:"evictionSoftGracePeriod"` // signal=duration
	EvictionMinimumReclaim []string      `mapstructure:"evictionMinimumReclaim"`  // signal=quantity
	EvictionMaxPodGrace    int           `mapstructure:"evictionMaxPodGracePeriod"`
	EvictionTransition     time.Duration `mapstructure:"evictionPressureTransitionPeriod"`
	PodPIDs                int           `mapstructure:"podPidsLimit"`

	Repository RepositoryConfig `mapstructure:"repository"`
	Containerd ContainerdConfig `mapstructure:"containerd"`
	Images     ImagesConfig     `mapstructure:"images"`
	Network    NetworkConfig    `mapstructure:"network"`
	Peer       PeerConfig       `mapstructure:"peer"`
	Gossip     GossipConfig     `mapstructure:"gossip"`
	API        APIConfig        `mapstructure:"api"`
	Log        LogConfig        `mapstructure:"log"`
}

// RepositoryConfig says what to follow and how to get at it.
type RepositoryConfig struct {
	URL            string        `mapstructure:"url"`
	Ref            string        `mapstructure:"ref"`  // branch or tag; "" follows the repository's HEAD
	Path           string        `mapstructure:"path"` // folder in it; "" for all
	Poll           time.Duration `mapstructure:"poll"`
	TokenFile      string        `mapstructure:"tokenFile"`
	Username       string        `mapstructure:"username"`
	PasswordFile   string        `mapstructure:"passwordFile"`
	CAFile         string        `mapstructure:"caFile"`
	SSHKeyFile     string        `mapstructure:"sshKeyFile"`
	KnownHostsFile string        `mapstructure:"knownHostsFile"`
}

// ContainerdConfig says where containers are run.
type ContainerdConfig struct {
	Address    string `mapstructure:"address"`
	Namespace  string `mapstructure:"namespace"`
	Registries string `mapstructure:"registries"` // folder of hosts.toml files
}

// NetworkConfig says which addresses the fleet uses. All but Plugins,
// ResolvConf and LinkLocal are fixed when the state folder is first used.
type NetworkConfig struct {
	PodCIDR     string `mapstructure:"podCIDR"`     // of this node's pods, a /24
	ClusterCIDR string `mapstructure:"clusterCIDR"` // of all pods
	ServiceCIDR string `mapstructure:"serviceCIDR"`
	DNS         string `mapstructure:"dns"`
	Domain      string `mapstructure:"domain"`
	Plugins     string `mapstructure:"plugins"` // folder of the CNI plugins
	ResolvConf  string `mapstructure:"resolvConf"`
	LinkLocal   bool   `mapstructure:"linkLocal"` // pods reach 169.254.0.0/16 beyond the node
}

// APIConfig says where the read-only API answers.
type APIConfig struct {
	Listen string `mapstructure:"listen"`
}

// PeerConfig says how the nodes of the fleet reach this one.
type PeerConfig struct {
	Listen    string `mapstructure:"listen"`
	Advertise string `mapstructure:"advertise"` // host:port; "" for the node's own address
}

// GossipConfig says where this node gossips, and where it looks for others that
// it has lost.
type GossipConfig struct {
	Listen string   `mapstructure:"listen"`
	Seeds  []string `mapstructure:"seeds"` // host or host:port
}

// LogConfig says what is logged. Level may change while the daemon runs.
type LogConfig struct {
	Level  string `mapstructure:"level"`  // debug, info, warn, error
	Format string `mapstructure:"format"` // text, json
}

// setDefaults makes v the place of all settings, their environment variables
// included.
func setDefaults(v *viper.Viper) {
	host, _ := os.Hostname() // an empty name is caught by Validate
	for key, value := range map[string]any{
		"node": strings.ToLower(host), "state": "/var/lib/shoal", "run": "/run/shoal",
		"nodeLabels": []string{}, "nodeTaints": []string{},
		"systemReserved": []string{}, "kubeReserved": []string{}, "evictionHard": evictionHard,
		"evictionSoft": []string{}, "evictionSoftGracePeriod": []string{}, "evictionMinimumReclaim": []string{},
		"evictionMaxPodGracePeriod": 0, "evictionPressureTransitionPeriod": 5 * time.Minute, "podPidsLimit": 0,
		"repository.url": "", "repository.ref": "", "repository.path": "", "repository.poll": 10 * time.Second,
		"repository.tokenFile": "", "repository.username": "", "repository.passwordFile": "", "repository.caFile": "",
		"repository.sshKeyFile": "", "repository.knownHostsFile": "",
		"containerd.address": "/run/containerd/containerd.sock", "containerd.namespace": "shoal", "containerd.registries": "/etc/containerd/certs.d",
		"images.imageGCHighThresholdPercent": 85, "images.imageGCLowThresholdPercent": 80, "images.imageMinimumGCAge": 2 * time.Minute,
		"images.peers": true, "images.serializeImagePulls": false, "images.maxParallelImagePulls": 3, "images.registryPullQPS": 5, "images.registryBurst": 10,
		"network.podCIDR": "10.64.0.0/24", "network.clusterCIDR": "10.64.0.0/11", "network.serviceCIDR": "10.96.0.0/12",
		"network.dns": "10.96.0.10", "network.domain": "cluster.local", "network.plugins": "", "network.resolvConf": "/etc/resolv.conf", "network.linkLocal": false,
		"peer.listen": ":7947", "peer.advertise": "", "gossip.listen": ":7946", "gossip.seeds": []string{}, "api.listen": ":6443", "log.level": "info", "log.format": "text",
	} {
		v.SetDefault(key, value)
	}
	v.SetEnvPrefix("SHOAL")
	v.SetEnvKeyReplacer(strings.NewReplacer(".", "_"))
	v.AutomaticEnv()
}

// Default returns the configuration of somebody who has set nothing.
func Default() Config {
	v := viper.New()
	setDefaults(v)
	var cfg Config
	_ = v.Unmarshal(&cfg) // the defaults have the right types: a test sees to it
	return cfg
}

// DefaultFile is read when no other configuration file is named and it exists.
const DefaultFile = "/etc/shoal/shoal.yaml"

// LoadConfig reads the settings into v, which may hold bound flags: the file if
// one is named or the default one exists, then the environment. An unknown
// setting in the file is an error, as is one that Validate refuses.
func LoadConfig(v *viper.Viper, file string) (Config, error) {
	setDefaults(v)
	v.SetConfigType("yaml")
	v.SetConfigFile(cmp.Or(file, DefaultFile))
	from := "the environment and flags"
	switch err := readFile(v, v.ConfigFileUsed()); {
	case err == nil:
		from = v.ConfigFileUsed() + ", " + from
	case file != "" || !errors.Is(err, os.ErrNotExist):
		return Config{}, fmt.Errorf("read the configuration %s: %w", v.ConfigFileUsed(), err)
	}
	var cfg Config
	if err := v.UnmarshalExact(&cfg); err != nil {
		return Config{}, fmt.Errorf("read the configuration from %s: %s", from, strings.Join(strings.Fields(err.Error()), " "))
	}
	if cfg.Network.Plugins == "" {
		cfg.Network.Plugins = findPlugins()
	}
	return cfg, nil
}

// findPlugins returns where Debian and where everybody else installs the CNI
// plugins.
func findPlugins() string {
	for _, dir := range []string{"/usr/lib/cni", "/opt/cni/bin"} {
		if _, err := os.Stat(filepath.Join(dir, "bridge")); err == nil {
			return dir
		}
	}
	return "/usr/lib/cni"
}

// Validate reports every setting that cannot work, each with what to do.
func (c Config) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if problems := validation.IsDNS1123Subdomain(c.Node); len(problems) > 0 {
		wrong("node: %q is no node name: %s", c.Node, problems[0])
	}
	if _, err := c.Marks(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.Resources(); err != nil {
		errs = append(errs, err)
	}
	if c.Repository.URL == "" {
		wrong("repository.url: name the Git repository to follow (--repository, SHOAL_REPOSITORY_URL or the configuration file)")
	} else if u, err := url.Parse(c.Repository.URL); err == nil && u.User != nil {
		if _, secret := u.User.Password(); secret {
			wrong("repository.url: a password in the URL would show in logs; use repository.username and repository.passwordFile")
		}
	}
	if c.Repository.Poll < time.Second {
		wrong("repository.poll: %s is shorter than 1s", c.Repository.Poll)
	}
	for _, dir := range []struct{ name, path string }{{"state", c.State}, {"run", c.Run}} {
		if !filepath.IsAbs(dir.path) {
			wrong("%s: %q is no absolute path", dir.name, dir.path)
		}
	}
	errs = append(errs, c.validateNetwork(), c.Images.validate())
	if _, _, err := net.SplitHostPort(c.Peer.Listen); err != nil {
		wrong("peer.listen: %q is no host:port or :port", c.Peer.Listen)
	}
	if _, _, err := net.SplitHostPort(c.Peer.Advertise); c.Peer.Advertise != "" && err != nil {
		wrong("peer.advertise: %q is no host:port", c.Peer.Advertise)
	}
	if host, _, err := net.SplitHostPort(c.Gossip.Listen); err != nil || host != "" && net.ParseIP(host) == nil {
		wrong("gossip.listen: %q is no :port, or address:port with an IP address", c.Gossip.Listen)
	}
	if _, _, err := net.SplitHostPort(c.API.Listen); err != nil {
		wrong("api.listen: %q is no host:port or :port", c.API.Listen)
	}
	if _, err := c.Log.level(); err != nil {
		errs = append(errs, err)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		wrong("log.format: %q is neither text nor json", c.Log.Format)
	}
	return errors.Join(errs...)
}

// validateNetwork reports the address ranges that cannot work.
func (c Config) validateNetwork() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	cidr := func(name, value string) netip.Prefix {
		p, err := netip.ParsePrefix(value)
		if err != nil || !p.Addr().Is4() || p != p.Masked() {
			wrong("network.%s: %q is no IPv4 range such as 10.64.0.0/24", name, value)
		}
		return p
	}
	pods, cluster, services := cidr("podCIDR", c.Network.PodCIDR), cidr("clusterCIDR", c.Network.ClusterCIDR), cidr("serviceCIDR", c.Network.ServiceCIDR)
	dns, err := netip.ParseAddr(c.Network.DNS)
	switch {
	case len(errs) > 0:
	case !cluster.Overlaps(pods) || cluster.Bits() > pods.Bits():
		wrong("network.podCIDR: %s is not inside network.clusterCIDR %s", pods, cluster)
	case cluster.Overlaps(services):
		wrong("network.serviceCIDR: %s overlaps network.clusterCIDR %s", services, cluster)
	case err != nil || !services.Contains(dns):
		wrong("network.dns: %q is no address in network.serviceCIDR %s", c.Network.DNS, services)
	}
	return errors.Join(errs...)
}

func (c LogConfig) level() (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return 0, fmt.Errorf("log.level: %q is none of debug, info, warn, error", c.Level)
	}
	return level, nil
}

// Paths below the state and run folders.
func (c Config) mirrorDir() string   { return filepath.Join(c.State, "git") }
func (c Config) identityDir() string { return filepath.Join(c.State, "identity") }
func (c Config) imagesDir() string   { return filepath.Join(c.State, "images") }
func (c Config) drainFile() string   { return filepath.Join(c.State, "draining") }
func (c Config) decidedFile() string { return filepath.Join(c.State, "decided.json") }

// Socket is where the daemon answers commands of this machine's root.
func (c Config) Socket() string { return filepath.Join(c.Run, "shoal.sock") }
