package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// Config is what the rules need to know of the fleet and of this node.
type Config struct {
	Node        string
	PodCIDR     netip.Prefix // of this node
	ClusterCIDR netip.Prefix // of all pods
	Domain      string       // "cluster.local"
	Tunnel      string       // the interface that leads to pods of other networks; "" for none
	LinkLocal   bool         // pods may reach 169.254.0.0/16 beyond the node, where clouds keep credentials
}

// A RuleSet is every packet rule of this machine that is Shoal's. It is a whole
// state: a chain that is not in it must not exist. The zero RuleSet means "not
// known" and changes nothing.
type RuleSet struct {
	NAT    []Chain // sorted by name
	Filter []Chain // sorted by name
}

// Known reports whether the rules have been worked out.
func (r RuleSet) Known() bool { return r.NAT != nil || r.Filter != nil }

// A Chain is a chain of the nat or the filter table. A rule is written as
// iptables-save writes it, without "-A CHAIN".
type Chain struct {
	Name  string
	Rules []string
}

// The chains that the kernel's own chains jump to. All names begin with
// ChainPrefix, so that clean-up finds them without any memory.
const (
	ChainPrefix      = "SHOAL-"
	ChainServices    = ChainPrefix + "SERVICES"
	ChainPostrouting = ChainPrefix + "POSTROUTING"
	ChainForward     = ChainPrefix + "FORWARD"
	ChainReject      = ChainPrefix + "REJECT"

	chainNodePorts = ChainPrefix + "NODEPORTS"
	chainHostPorts = ChainPrefix + "HOSTPORTS"
	chainMasq      = ChainPrefix + "MASQ"
	chainHairpin   = ChainPrefix + "HAIRPIN"
	chainService   = ChainPrefix + "SVC-"
)

// masqMark is the bit that marks a packet whose source must be rewritten, the
// one kube-proxy uses.
const masqMark = "0x4000/0x4000"

// guardLoopback keeps everybody but this machine away from 127.0.0.0/8, which
// route_localnet would open: it is on so that a NodePort answers on localhost.
// Source: Kubernetes issue 90259.
const guardLoopback = "-d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"

// Hooks are the jumps from the kernel's own chains, in the order in which they
// are put in front.
var Hooks = []Hook{
	{"nat", "PREROUTING", ChainServices},
	{"nat", "OUTPUT", ChainServices},
	{"nat", "POSTROUTING", ChainPostrouting},
	{"filter", "FORWARD", ChainForward},
	{"filter", "FORWARD", ChainReject},
	{"filter", "INPUT", ChainReject},
	{"filter", "OUTPUT", ChainReject},
}

// A Hook is a jump from a built-in chain of a table to one of ours.
type Hook struct{ Table, From, To string }

// Rules works out every packet rule of this node. A port of a Service has one
// chain, with the choice of the pod and the rewriting of the destination in one
// rule: that loads much faster on the nf_tables backend than a chain for every
// endpoint.
func Rules(cfg Config, services []Service, pods []Pod) RuleSet {
	b := &builder{cfg: cfg}
	for i := range services {
		for j := range services[i].Ports {
			b.servicePort(&services[i], &services[i].Ports[j])
		}
	}
	b.localPods(services, pods)
	return b.ruleSet()
}

type builder struct {
	cfg                                     Config
	services, nodePorts, hostPorts, hairpin []string
	reject                                  []string
	chains                                  []Chain
}

func (b *builder) servicePort(s *Service, p *ServicePort) {
	if p.Protocol != corev1.ProtocolTCP && p.Protocol != corev1.ProtocolUDP && p.Protocol != corev1.ProtocolSCTP {
		return
	}
	proto := strings.ToLower(string(p.Protocol))
	name := s.Object.Namespace + "/" + s.Object.Name + ":" + p.label()
	comment := fmt.Sprintf("-m comment --comment %q", name)
	var to []string // matches that lead to this port from outside its chain
	if s.ClusterIP.IsValid() {
		to = append(to, fmt.Sprintf("-d %s/32 -p %s -m %s --dport %d", s.ClusterIP, proto, proto, p.Port))
	}
	for _, ip := range s.Object.Spec.ExternalIPs {
		if addr, err := netip.ParseAddr(ip); err == nil && addr.Is4() {
			to = append(to, fmt.Sprintf("-d %s/32 -p %s -m %s --dport %d", addr, proto, proto, p.Port))
		}
	}
	nodePort := fmt.Sprintf("-p %s -m %s --dport %d", proto, proto, p.NodePort)
	if len(p.Endpoints) == 0 {
		for _, match := range to {
			b.reject = append(b.reject, match+" "+comment+" -j REJECT --reject-with icmp-port-unreachable")
		}
		if p.NodePort != 0 {
			b.reject = append(b.reject, "-m addrtype --dst-type LOCAL "+nodePort+" "+comment+" -j REJECT --reject-with icmp-port-unreachable")
		}
		return
	}
	if len(to) == 0 && p.NodePort == 0 {
		return
	}
	chain := chainService + strings.ToUpper(api.SafeHash(name+"/"+proto, 16))
	for _, match := range to {
		b.services = append(b.services, match+" "+comment+" -j "+chain)
	}
	if p.NodePort != 0 {
		b.nodePorts = append(b.nodePorts, nodePort+" "+comment+" -j "+chainMasq, nodePort+" "+comment+" -j "+chain)
	}
	b.chains = append(b.chains, Chain{Name: chain, Rules: balance(p, proto, name)})
}

// label names a port in comments and chain hashes.
func (p *ServicePort) label() string {
	if p.Name != "" {
		return p.Name
	}
	return fmt.Sprint(p.Port)
}

// balance writes the rules that give each new connection to one endpoint with
// equal chance, and with affinity first to the one the client had.
func balance(p *ServicePort, proto, name string) []string {
	var out []string
	target := func(e Endpoint) string {
		return fmt.Sprintf("-p %s -m %s -j DNAT --to-destination %s", proto, proto, netip.AddrPortFrom(e.IP, uint16(e.Port)))
	}
	list := func(e Endpoint) string {
		return "SHOAL-" + strings.ToUpper(api.SafeHash(name+"/"+e.IP.String()+fmt.Sprint(e.Port), 16))
	}
	if p.Affinity > 0 {
		for _, e := range p.Endpoints {
			out = append(out, fmt.Sprintf("-m recent --rcheck --seconds %d --reap --name %s --mask 255.255.255.255 --rsource %s", p.Affinity, list(e), target(e)))
		}
	}
	for i, e := range p.Endpoints {
		rule := ""
		if left := len(p.Endpoints) - i; left > 1 {
			rule = fmt.Sprintf("-m statistic --mode random --probability %.10f ", 1/float64(left))
		}
		if p.Affinity > 0 {
			rule += fmt.Sprintf("-m recent --set --name %s --mask 255.255.255.255 --rsource ", list(e))
		}
		out = append(out, rule+target(e))
	}
	return out
}

// localPods writes what concerns the pods of this node alone: their host ports,
// and the way back to themselves through a Service (hairpin).
func (b *builder) localPods(services []Service, pods []Pod) {
	behind := map[netip.Addr]bool{}
	for i := range services {
		for _, p := range services[i].Ports {
			for _, e := range p.Endpoints {
				if e.Node == b.cfg.Node && b.cfg.PodCIDR.Contains(e.IP) {
					behind[e.IP] = true
				}
			}
		}
	}
	sorted := slices.SortedFunc(slices.Values(pods), func(a, b Pod) int {
		return cmp.Or(strings.Compare(a.Object.Namespace, b.Object.Namespace), strings.Compare(a.Object.Name, b.Object.Name))
	})
	for i := range sorted {
		p := &sorted[i]
		if p.Node != b.cfg.Node || !b.cfg.PodCIDR.Contains(p.IP) || finished(p.Object) {
			continue
		}
		for _, container := range serving(&p.Object.Spec) {
			for _, port := range container.Ports {
				if port.HostPort > 0 && !p.Object.Spec.HostNetwork {
					b.hostPort(p, port)
					behind[p.IP] = true
				}
			}
		}
	}
	for ip := range behind {
		b.hairpin = append(b.hairpin, fmt.Sprintf("-s %s/32 -d %s/32 -j MASQUERADE --random-fully", ip, ip))
	}
	slices.Sort(b.hairpin)
}

func (b *builder) hostPort(p *Pod, port corev1.ContainerPort) {
	proto := strings.ToLower(string(port.Protocol))
	if proto == "" {
		proto = "tcp"
	}
	match := fmt.Sprintf("-p %s -m %s --dport %d", proto, proto, port.HostPort)
	if addr, err := netip.ParseAddr(port.HostIP); err == nil && !addr.IsUnspecified() {
		match = fmt.Sprintf("-d %s/32 %s", addr, match)
	}
	comment := fmt.Sprintf("-m comment --comment %q", p.Object.Namespace+"/"+p.Object.Name+" hostPort")
	b.hostPorts = append(b.hostPorts,
		"-s 127.0.0.0/8 "+match+" "+comment+" -j "+chainMasq,
		fmt.Sprintf("%s %s -j DNAT --to-destination %s", match, comment, netip.AddrPortFrom(p.IP, uint16(port.ContainerPort))))
}

func (b *builder) ruleSet() RuleSet {
	local := "-m addrtype --dst-type LOCAL -j "
	postrouting := []string{
		"-j " + chainHairpin,
		fmt.Sprintf("-s %s ! -d %s -j MASQUERADE --random-fully", b.cfg.PodCIDR, b.cfg.ClusterCIDR),
		"-m mark ! --mark " + masqMark + " -j RETURN",
		"-j MARK --set-xmark 0x4000/0x0",
		"-j MASQUERADE --random-fully",
	}
	if b.cfg.Tunnel != "" {
		// What this machine itself sends to a Service has the address of another
		// interface by then. The answer would come back outside of the tunnel,
		// from an address that no router there knows.
		postrouting = slices.Insert(postrouting, 1,
			fmt.Sprintf("! -s %s -o %s -j MASQUERADE --random-fully", b.cfg.ClusterCIDR, b.cfg.Tunnel))
	}
	forward := []string{
		"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		fmt.Sprintf("-s %s -j ACCEPT", b.cfg.PodCIDR),
		fmt.Sprintf("-d %s -j ACCEPT", b.cfg.PodCIDR),
	}
	if !b.cfg.LinkLocal {
		forward = slices.Insert(forward, 0, fmt.Sprintf("-s %s -d 169.254.0.0/16 -j REJECT --reject-with icmp-port-unreachable", b.cfg.PodCIDR))
	}
	out := RuleSet{
		NAT: append(b.chains,
			Chain{ChainServices, append(b.services, local+chainHostPorts, local+chainNodePorts)},
			Chain{chainNodePorts, b.nodePorts},
			Chain{chainHostPorts, b.hostPorts},
			Chain{chainMasq, []string{"-j MARK --set-xmark " + masqMark}},
			Chain{chainHairpin, b.hairpin},
			Chain{ChainPostrouting, postrouting}),
		Filter: []Chain{
			{ChainForward, forward},
			{ChainReject, append([]string{guardLoopback}, b.reject...)},
		},
	}
	byName := func(a, b Chain) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(out.NAT, byName)
	slices.SortFunc(out.Filter, byName)
	return out
}
