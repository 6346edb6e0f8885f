package policy

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// NodePorts are given from this range. Source: kube-apiserver
// --service-node-port-range.
const (
	firstNodePort = 30000
	lastNodePort  = 32767
)

// PortKey names a port of a Service in ServiceAddress.NodePorts.
func PortKey(port corev1.ServicePort) string {
	return string(cmp.Or(port.Protocol, corev1.ProtocolTCP)) + "/" + strconv.Itoa(int(port.Port))
}

// Pool is where addresses come from.
type Pool struct {
	Range    netip.Prefix
	Reserved []netip.Addr // that no Service may have
	// Provisional takes new addresses from the last quarter of the range, which
	// is left to leaders without a quorum: what they give away meets nothing
	// that was given away elsewhere meanwhile.
	Provisional bool
}

// Allocate gives every Service the addresses it needs: those it had before,
// those it names itself, and else free ones found by probing from a hash of its
// name, so that a fleet that lost its memory gives most Services the address
// they had. As in Kubernetes, what one Service holds no other one gets, not even
// by naming it.
//
// A Service whose demand cannot be met gets no address and a Conflict; the
// others are not touched by that.
func Allocate(services []*corev1.Service, known map[string]api.ServiceAddress, pool Pool) (map[string]api.ServiceAddress, []Conflict) {
	a := &allocation{
		ips: map[netip.Addr]string{}, ports: map[portUse]string{}, addresses: pool.Range, provisional: pool.Provisional,
		out: make(map[string]api.ServiceAddress, len(services)),
	}
	for _, ip := range append(slices.Clone(pool.Reserved), pool.Range.Masked().Addr()) {
		a.ips[ip] = "the fleet"
	}
	ordered := slices.SortedFunc(slices.Values(services), func(x, y *corev1.Service) int {
		return cmp.Or(strings.Compare(x.Namespace, y.Namespace), strings.Compare(x.Name, y.Name))
	})
	// What was given before comes first, then what is written down, then what
	// is new: no Service takes an address away from another.
	for _, s := range ordered {
		a.keep(s, known[serviceName(s)])
	}
	for _, s := range ordered {
		a.explicit(s)
	}
	for _, s := range ordered {
		a.fill(s)
	}
	return a.out, a.conflicts
}

type portUse struct {
	protocol corev1.Protocol
	port     int32
}

type allocation struct {
	ips         map[netip.Addr]string
	ports       map[portUse]string
	addresses   netip.Prefix
	provisional bool
	out         map[string]api.ServiceAddress
	conflicts   []Conflict
}

// A Conflict says why a Service did not get an address.
type Conflict struct {
	Namespace, Name string
	Reason          string
}

// String returns "service ns/name: reason".
func (c Conflict) String() string { return "service " + c.Namespace + "/" + c.Name + ": " + c.Reason }

func (a *allocation) refuse(s *corev1.Service, format string, args ...any) {
	a.conflicts = append(a.conflicts, Conflict{s.Namespace, s.Name, fmt.Sprintf(format, args...)})
}

func serviceName(s *corev1.Service) string { return s.Namespace + "/" + s.Name }

func needsIP(s *corev1.Service) bool {
	return s.Spec.Type != corev1.ServiceTypeExternalName && s.Spec.ClusterIP == ""
}

// namedIP returns the address that a Service names itself.
func namedIP(s *corev1.Service) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(s.Spec.ClusterIP)
	return ip, err == nil && s.Spec.Type != corev1.ServiceTypeExternalName
}

func needsNodePorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort ||
		s.Spec.Type == corev1.ServiceTypeLoadBalancer && (s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts)
}

// explicit takes the addresses that a Service names itself and does not hold yet.
func (a *allocation) explicit(s *corev1.Service) {
	name := serviceName(s)
	got := a.out[name]
	if ip, named := namedIP(s); named && got.ClusterIP == "" {
		switch owner, taken := a.ips[ip]; {
		case !a.addresses.Contains(ip):
			a.refuse(s, "clusterIP %s is outside the fleet's range %s", ip, a.addresses)
		case taken:
			a.refuse(s, "clusterIP %s belongs to %s already", ip, owner)
		default:
			a.ips[ip] = name
			got.ClusterIP = ip.String()
		}
	}
	for _, port := range s.Spec.Ports {
		if port.NodePort != 0 && needsNodePorts(s) && got.NodePorts[PortKey(port)] == 0 {
			a.takePort(s, port, port.NodePort, &got, true)
		}
	}
	a.out[name] = got
}

func (a *allocation) takePort(s *corev1.Service, port corev1.ServicePort, number int32, got *api.ServiceAddress, complain bool) bool {
	use := portUse{cmp.Or(port.Protocol, corev1.ProtocolTCP), number}
	if owner, taken := a.ports[use]; taken {
		if complain {
			a.refuse(s, "nodePort %d/%s belongs to %s already", number, use.protocol, owner)
		}
		return false
	}
	a.ports[use] = serviceName(s)
	if got.NodePorts == nil {
		got.NodePorts = map[string]int32{}
	}
	got.NodePorts[PortKey(port)] = number
	return true
}

// keep gives a Service what it had, as far as it still wants it.
func (a *allocation) keep(s *corev1.Service, known api.ServiceAddress) {
	name := serviceName(s)
	got := api.ServiceAddress{}
	named, naming := namedIP(s)
	if ip, err := netip.ParseAddr(known.ClusterIP); err == nil && (needsIP(s) || naming && named == ip) && a.addresses.Contains(ip) {
		if _, taken := a.ips[ip]; !taken {
			a.ips[ip] = name
			got.ClusterIP = ip.String()
		}
	}
	if needsNodePorts(s) {
		for _, port := range s.Spec.Ports {
			if number := known.NodePorts[PortKey(port)]; number != 0 && (port.NodePort == 0 || port.NodePort == number) {
				a.takePort(s, port, number, &got, false)
			}
		}
	}
	a.out[name] = got
}

// fill gives a Service what it still lacks.
func (a *allocation) fill(s *corev1.Service) {
	name := serviceName(s)
	got := a.out[name]
	if needsIP(s) && got.ClusterIP == "" {
		if ip, ok := a.freeIP(name); ok {
			a.ips[ip] = name
			got.ClusterIP = ip.String()
		} else {
			a.refuse(s, "no address is free in %s", a.addresses)
		}
	}
	if needsNodePorts(s) {
		for _, port := range s.Spec.Ports {
			if port.NodePort == 0 && got.NodePorts[PortKey(port)] == 0 && !a.probePort(s, port, &got) {
				a.refuse(s, "no nodePort is free")
			}
		}
	}
	a.out[name] = got
}

func (a *allocation) freeIP(name string) (netip.Addr, bool) {
	size := uint32(1) << (32 - a.addresses.Bits())
	usable := size - size/4
	base4 := a.addresses.Masked().Addr().As4()
	base := binary.BigEndian.Uint32(base4[:])
	if a.provisional {
		base, usable = base+usable, size/4
	}
	start := hash(name)
	for i := range usable {
		var raw [4]byte
		binary.BigEndian.PutUint32(raw[:], base+(start+i)%usable)
		ip := netip.AddrFrom4(raw)
		if _, taken := a.ips[ip]; !taken {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

func (a *allocation) probePort(s *corev1.Service, port corev1.ServicePort, got *api.ServiceAddress) bool {
	const n = lastNodePort - firstNodePort + 1
	start := hash(serviceName(s) + "/" + PortKey(port))
	for i := range uint32(n) {
		if a.takePort(s, port, int32(firstNodePort+(start+i)%n), got, false) {
			return true
		}
	}
	return false
}

func hash(s string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s)) // a hash.Hash never returns an error
	return h.Sum32()
}
