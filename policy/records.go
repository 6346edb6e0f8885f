package policy

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// A Zone is every name of the cluster domain that this node answers for. It is
// a whole state; the zero Zone means "not known", and questions are then
// answered with SERVFAIL instead of "no such name".
// Source: Kubernetes DNS-Based Service Discovery, schema version 1.1.0.
type Zone struct {
	Domain string // "cluster.local", lower case, no dot at the end
	// Names maps each name to its records. A name with no record of the type
	// asked for exists all the same, and so does every name above it.
	Names map[string]Records
	// PTR maps addresses to names.
	PTR map[netip.Addr][]string
}

// Known reports whether the zone has been worked out.
func (z Zone) Known() bool { return z.Names != nil }

// Records are the records of one name.
type Records struct {
	A     []netip.Addr
	SRV   []SRV
	CNAME string // of an ExternalName Service, with a dot at the end
}

// SRV is where a named port answers.
type SRV struct {
	Target string
	Port   int32
}

// AnswerPods is how "10-64-0-5.default.pod.<domain>" is answered: from the name
// alone. It returns the address for a name of that form under the zone's domain.
func (z Zone) AnswerPods(name string) (netip.Addr, bool) {
	rest, ok := strings.CutSuffix(name, ".pod."+z.Domain)
	if !ok {
		return netip.Addr{}, false
	}
	dashed, namespace, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(namespace, ".") {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(strings.ReplaceAll(dashed, "-", "."))
	return ip, err == nil
}

// RecordsOf works out the names of all Services and of the pods behind headless
// ones.
func RecordsOf(domain string, services []Service) Zone {
	z := Zone{Domain: domain, Names: map[string]Records{}, PTR: map[netip.Addr][]string{}}
	z.exist(domain)
	for _, kind := range []string{"svc.", "pod."} {
		z.exist(kind + domain)
	}
	for i := range services {
		s := &services[i]
		name := s.Object.Name + "." + s.Object.Namespace + ".svc." + domain
		z.exist(name)
		switch {
		case s.Object.Spec.Type == corev1.ServiceTypeExternalName:
			z.Names[name] = Records{CNAME: strings.TrimSuffix(s.Object.Spec.ExternalName, ".") + "."}
		case s.Headless():
			z.headless(s, name)
		case s.ClusterIP.IsValid():
			z.addA(name, s.ClusterIP)
			z.PTR[s.ClusterIP] = append(z.PTR[s.ClusterIP], name)
			for _, p := range s.Ports {
				z.addSRV(&p, name, name, p.Port)
			}
		}
	}
	for name, r := range z.Names {
		slices.SortFunc(r.A, netip.Addr.Compare)
		r.A = slices.Compact(r.A)
		z.Names[name] = r
	}
	return z
}

// headless adds the pods of a headless Service: all under the Service's name,
// and each under a name of its own.
func (z Zone) headless(s *Service, name string) {
	for _, b := range s.Pods {
		if !b.Routed {
			continue
		}
		own := strings.ReplaceAll(b.IP.String(), ".", "-") + "." + name
		if b.Pod.Spec.Hostname != "" && b.Pod.Spec.Subdomain == s.Object.Name {
			own = b.Pod.Spec.Hostname + "." + name
		}
		z.addA(name, b.IP)
		z.addA(own, b.IP)
		z.PTR[b.IP] = append(z.PTR[b.IP], own)
		for i, p := range s.Ports {
			if number, ok := TargetPort(b.Pod, s.Object.Spec.Ports[i]); ok {
				z.addSRV(&p, name, own, number)
			}
		}
	}
}

func (z Zone) addA(name string, ip netip.Addr) {
	z.exist(name)
	r := z.Names[name]
	r.A = append(r.A, ip)
	z.Names[name] = r
}

func (z Zone) addSRV(p *ServicePort, service, target string, port int32) {
	if p.Name == "" {
		return
	}
	name := "_" + p.Name + "._" + strings.ToLower(string(p.Protocol)) + "." + service
	z.exist(name)
	r := z.Names[name]
	r.SRV = append(r.SRV, SRV{Target: target, Port: port})
	z.Names[name] = r
}

// exist notes a name and all names above it up to the domain, so that a
// question for a name between two others is answered "nothing of that type"
// and not "no such name" (RFC 8020).
func (z Zone) exist(name string) {
	for name != "" {
		if _, known := z.Names[name]; known {
			return
		}
		z.Names[name] = Records{}
		if name == z.Domain {
			return
		}
		_, name, _ = strings.Cut(name, ".")
	}
}
