package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
)

var testConfig = Config{
	Node: "n1", PodCIDR: netip.MustParsePrefix("10.64.0.0/24"), ClusterCIDR: netip.MustParsePrefix("10.64.0.0/11"),
	Tunnel: "shoal.tunnel",
}

// behindTunnel are the pods of a node of another network.
var behindTunnel = netip.MustParsePrefix("10.64.9.0/24")

func testPod(name, app, ip string, ready bool, ports ...corev1.ContainerPort) Pod {
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Ports: ports}}},
	}
	return Pod{Object: object, IP: netip.MustParseAddr(ip), Node: "n1", Ready: ready}
}

func testService(name, app string, change func(*corev1.Service), ports ...corev1.ServicePort) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Selector: map[string]string{"app": app}, Ports: ports},
	}
	if change != nil {
		change(s)
	}
	return s
}

func tcp(name string, port int32, target any) corev1.ServicePort {
	p := corev1.ServicePort{Name: name, Protocol: corev1.ProtocolTCP, Port: port}
	switch t := target.(type) {
	case int:
		p.TargetPort = intstr.FromInt(t)
	case string:
		p.TargetPort = intstr.FromString(t)
	}
	return p
}

// TestRulesMean sends packets through the rules and says where they arrive.
func TestRulesMean(t *testing.T) {
	pods := []Pod{
		testPod("web-1", "web", "10.64.0.5", true, corev1.ContainerPort{Name: "http", ContainerPort: 8080}),
		testPod("web-2", "web", "10.64.0.6", true, corev1.ContainerPort{Name: "http", ContainerPort: 9090}),
		testPod("web-3", "web", "10.64.0.7", false, corev1.ContainerPort{Name: "http", ContainerPort: 8080}),
		testPod("host", "host", "10.64.0.9", true, corev1.ContainerPort{ContainerPort: 80, HostPort: 8000, Protocol: corev1.ProtocolTCP}),
		testPod("one", "one", "10.64.0.10", true),
		testPod("far", "far", "10.64.9.5", true),
	}
	services := []*corev1.Service{
		testService("web", "web", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }, tcp("http", 80, "http")),
		testService("empty", "nobody", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }, tcp("", 80, 80)),
		testService("sticky", "one", func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }, tcp("", 80, 80)),
		testService("early", "web", func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true }, tcp("", 81, 8080)),
		testService("names", "one", nil, corev1.ServicePort{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53}),
		testService("far", "far", nil, tcp("", 80, 8080)),
		testService("headless", "web", func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }, tcp("", 80, 80)),
	}
	addresses := map[string]api.ServiceAddress{
		"ns/web":    {ClusterIP: "10.96.0.20", NodePorts: map[string]int32{"TCP/80": 30080}},
		"ns/empty":  {ClusterIP: "10.96.0.21", NodePorts: map[string]int32{"TCP/80": 30081}},
		"ns/sticky": {ClusterIP: "10.96.0.22"}, "ns/early": {ClusterIP: "10.96.0.23"}, "ns/names": {ClusterIP: "10.96.0.24"},
		"ns/far": {ClusterIP: "10.96.0.25"},
	}
	rules := Rules(testConfig, Endpoints(services, addresses, pods), pods)
	tr := newTracer(t, rules, "192.168.0.1")
	tests := []struct{ name, from, to, want string }{
		{"a pod reaches the ready pods of a Service, by a named port that differs", "10.64.0.10", "10.96.0.20:80/tcp", "10.64.0.5:8080 (50%), 10.64.0.6:9090 (50%)"},
		{"another port of the address leads nowhere", "10.64.0.10", "10.96.0.20:81/tcp", "as sent masqueraded"},
		{"another protocol neither", "10.64.0.10", "10.96.0.20:80/udp", "as sent masqueraded"},
		{"a pod reaches itself through its Service", "10.64.0.5", "10.96.0.20:80/tcp", "10.64.0.5:8080 masqueraded (50%), 10.64.0.6:9090 (50%)"},
		{"the node itself", "192.168.0.1", "10.96.0.20:80/tcp", "10.64.0.5:8080 (50%), 10.64.0.6:9090 (50%)"},
		{"no ready pod is refused at once", "10.64.0.10", "10.96.0.21:80/tcp", "rejected"},
		{"a NodePort from outside", "203.0.113.9", "192.168.0.1:30080/tcp", "10.64.0.5:8080 masqueraded (50%), 10.64.0.6:9090 masqueraded (50%)"},
		{"a NodePort on localhost", "127.0.0.1", "127.0.0.1:30080/tcp", "10.64.0.5:8080 masqueraded (50%), 10.64.0.6:9090 masqueraded (50%)"},
		{"a NodePort without a ready pod", "203.0.113.9", "192.168.0.1:30081/tcp", "rejected"},
		{"a NodePort of another machine is none of ours", "10.64.0.10", "192.168.0.2:30080/tcp", "as sent masqueraded"},
		{"nobody else reaches localhost", "203.0.113.9", "127.0.0.1:22/tcp", "dropped"},
		{"affinity lets a new client in", "10.64.0.5", "10.96.0.22:80/tcp", "10.64.0.10:80"},
		{"publishNotReadyAddresses", "10.64.0.10", "10.96.0.23:81/tcp", "10.64.0.5:8080 (33%), 10.64.0.6:8080 (33%), 10.64.0.7:8080 (33%)"},
		{"UDP", "10.64.0.5", "10.96.0.24:53/udp", "10.64.0.10:53"},
		{"a host port from outside keeps the client's address", "203.0.113.9", "192.168.0.1:8000/tcp", "10.64.0.9:80"},
		{"a host port on localhost", "127.0.0.1", "127.0.0.1:8000/tcp", "10.64.0.9:80 masqueraded"},
		{"a pod to its own host port", "10.64.0.9", "192.168.0.1:8000/tcp", "10.64.0.9:80 masqueraded"},
		{"a pod to another pod keeps its address", "10.64.0.5", "10.64.0.10:80/tcp", "as sent"},
		{"a pod to a pod of another node keeps its address", "10.64.0.5", "10.65.3.2:80/tcp", "as sent"},
		{"a pod to the world takes the node's address", "10.64.0.5", "203.0.113.9:443/tcp", "as sent masqueraded"},
		{"a pod to where clouds hand out credentials", "10.64.0.5", "169.254.169.254:80/tcp", "rejected"},
		{"the node to the same", "192.168.0.1", "169.254.169.254:80/tcp", "as sent"},
		{"the node to a Service of a pod behind the tunnel takes the tunnel's address", "192.168.0.1", "10.96.0.25:80/tcp", "10.64.9.5:8080 masqueraded"},
		{"a pod to it keeps its own", "10.64.0.10", "10.96.0.25:80/tcp", "10.64.9.5:8080"},
		{"the node to the world is none of ours", "192.168.0.1", "203.0.113.9:443/tcp", "as sent"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := describe(tr.trace(tt.from, tt.to)); got != tt.want {
				t.Errorf("%s -> %s arrives at %s, want %s\n%s", tt.from, tt.to, got, tt.want, text(rules))
			}
		})
	}
}

func text(r RuleSet) string {
	var b strings.Builder
	for _, c := range append(slices.Clone(r.NAT), r.Filter...) {
		for _, rule := range c.Rules {
			b.WriteString("-A " + c.Name + " " + rule + "\n")
		}
	}
	return b.String()
}

func TestAllocate(t *testing.T) {
	prefix := netip.MustParsePrefix("10.96.0.0/28")
	explicit := func(ip string, nodePort int32) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Spec.ClusterIP = ip
			if nodePort > 0 {
				s.Spec.Type = corev1.ServiceTypeNodePort
				s.Spec.Ports[0].NodePort = nodePort
			}
		}
	}
	services := []*corev1.Service{
		testService("a", "x", explicit("10.96.0.3", 30500), tcp("", 80, 80)),
		testService("b", "x", explicit("10.96.0.3", 0), tcp("", 80, 80)),
		testService("c", "x", explicit("10.97.0.3", 0), tcp("", 80, 80)),
		testService("d", "x", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeLoadBalancer }, tcp("", 80, 80)),
		testService("e", "x", explicit(corev1.ClusterIPNone, 0), tcp("", 80, 80)),
		testService("f", "x", explicit("", 30500), tcp("", 80, 80)),
		testService("g", "x", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, tcp("", 80, 80)),
	}
	got, errs := Allocate(services, nil, Pool{Range: prefix, Reserved: []netip.Addr{netip.MustParseAddr("10.96.0.1")}})
	var complaints []string
	for _, err := range errs {
		complaints = append(complaints, err.String())
	}
	want := []string{
		"service ns/b: clusterIP 10.96.0.3 belongs to ns/a already",
		"service ns/c: clusterIP 10.97.0.3 is outside the fleet's range 10.96.0.0/28",
		"service ns/f: nodePort 30500/TCP belongs to ns/a already",
	}
	if diff := cmp.Diff(want, complaints); diff != "" {
		t.Errorf("complaints (-want +got):\n%s", diff)
	}
	if got["ns/a"].ClusterIP != "10.96.0.3" || got["ns/a"].NodePorts["TCP/80"] != 30500 {
		t.Errorf("a got %+v", got["ns/a"])
	}
	if got["ns/d"].ClusterIP == "" || got["ns/d"].NodePorts["TCP/80"] == 0 {
		t.Errorf("d, a LoadBalancer, got %+v", got["ns/d"])
	}
	for _, name := range []string{"ns/b", "ns/c", "ns/e", "ns/g"} {
		if got[name].ClusterIP != "" {
			t.Errorf("%s got %s", name, got[name].ClusterIP)
		}
	}
}

// TestAllocateHolds: naming what a running Service has does not take it away.
func TestAllocateHolds(t *testing.T) {
	prefix := netip.MustParsePrefix("10.96.0.0/28")
	auto := testService("web", "x", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }, tcp("", 80, 80))
	held, _ := Allocate([]*corev1.Service{auto}, nil, Pool{Range: prefix})
	thief := testService("a", "x", func(s *corev1.Service) {
		s.Spec.ClusterIP = held["ns/web"].ClusterIP
		s.Spec.Type = corev1.ServiceTypeNodePort
		s.Spec.Ports[0].NodePort = held["ns/web"].NodePorts["TCP/80"]
	}, tcp("", 80, 80))

	got, conflicts := Allocate([]*corev1.Service{thief, auto}, held, Pool{Range: prefix})
	if !cmp.Equal(got["ns/web"], held["ns/web"]) || len(conflicts) != 2 || got["ns/a"].ClusterIP != "" {
		t.Errorf("web had %+v and has %+v; a has %+v; conflicts: %v", held["ns/web"], got["ns/web"], got["ns/a"], conflicts)
	}
	// What it names it has as soon as it is free, and keeps.
	got, conflicts = Allocate([]*corev1.Service{thief}, got, Pool{Range: prefix})
	if got["ns/a"].ClusterIP != thief.Spec.ClusterIP || len(conflicts) > 0 {
		t.Errorf("a has %+v; conflicts: %v", got["ns/a"], conflicts)
	}
	got, conflicts = Allocate([]*corev1.Service{thief, auto}, got, Pool{Range: prefix})
	if got["ns/a"].ClusterIP != thief.Spec.ClusterIP || got["ns/web"].ClusterIP == thief.Spec.ClusterIP || len(conflicts) > 0 {
		t.Errorf("a has %+v, web has %+v; conflicts: %v", got["ns/a"], got["ns/web"], conflicts)
	}
}

// TestAllocateProvisionally: a leader without a quorum gives away what no other
// one does.
func TestAllocateProvisionally(t *testing.T) {
	prefix := netip.MustParsePrefix("10.96.0.0/24")
	var services []*corev1.Service
	for i := range 40 {
		services = append(services, testService(fmt.Sprint("s", i), "x", nil, tcp("", 80, 80)))
	}
	for provisional, want := range map[bool]string{true: "10.96.0.192/26", false: "10.96.0.0/24"} {
		got, conflicts := Allocate(services, nil, Pool{Range: prefix, Provisional: provisional})
		for name, a := range got {
			ip := netip.MustParseAddr(a.ClusterIP)
			if last := netip.MustParsePrefix("10.96.0.192/26").Contains(ip); !netip.MustParsePrefix(want).Contains(ip) || last != provisional {
				t.Errorf("provisional %v: %s got %s", provisional, name, ip)
			}
		}
		if len(conflicts) > 0 {
			t.Errorf("provisional %v: %v", provisional, conflicts)
		}
	}
}

// TestAllocateKeeps: whatever comes and goes, nobody's address changes, no two
// are alike, and the order of Services does not matter.
func TestAllocateKeeps(t *testing.T) {
	prefix := netip.MustParsePrefix("10.96.0.0/26")
	rapid.Check(t, func(t *rapid.T) {
		known := map[string]api.ServiceAddress{}
		for range 5 {
			names := rapid.SliceOfNDistinct(rapid.StringMatching("[a-z]{1,2}"), 0, 30, rapid.ID).Draw(t, "names")
			var services []*corev1.Service
			for _, name := range names {
				services = append(services, testService(name, "x", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }, tcp("", 80, 80)))
			}
			next, errs := Allocate(services, known, Pool{Range: prefix})
			if len(errs) > 0 {
				t.Fatalf("30 Services do not fit into three quarters of 64: %v", errs)
			}
			slices.Reverse(services)
			if again, _ := Allocate(services, known, Pool{Range: prefix}); !cmp.Equal(next, again) {
				t.Fatalf("another order: %s", cmp.Diff(next, again))
			}
			ips, ports := map[string]string{}, map[int32]string{}
			for name, got := range next {
				if was, had := known[name]; had && !cmp.Equal(was, got) {
					t.Fatalf("%s had %+v and now has %+v", name, was, got)
				}
				if other, taken := ips[got.ClusterIP]; taken {
					t.Fatalf("%s and %s share %s", name, other, got.ClusterIP)
				}
				if other, taken := ports[got.NodePorts["TCP/80"]]; taken {
					t.Fatalf("%s and %s share a node port", name, other)
				}
				ips[got.ClusterIP], ports[got.NodePorts["TCP/80"]] = name, name
			}
			known = next
		}
	})
}

func TestRecordsOf(t *testing.T) {
	db0 := testPod("db-0", "db", "10.64.0.5", true)
	db0.Object.Spec.Hostname, db0.Object.Spec.Subdomain = "db-0", "db"
	db1 := testPod("db-1", "db", "10.64.0.6", false)
	services := Endpoints([]*corev1.Service{
		testService("web", "web", nil, tcp("http", 80, 8080)),
		testService("db", "db", func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }, tcp("sql", 5432, 5432)),
		testService("out", "", func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, "example.com"
		}),
	}, map[string]api.ServiceAddress{"ns/web": {ClusterIP: "10.96.0.20"}}, []Pod{db0, db1})
	z := RecordsOf("cluster.local", services)
	a := netip.MustParseAddr
	want := map[string]Records{
		"cluster.local": {}, "svc.cluster.local": {}, "pod.cluster.local": {}, "ns.svc.cluster.local": {},
		"web.ns.svc.cluster.local":            {A: []netip.Addr{a("10.96.0.20")}},
		"_http._tcp.web.ns.svc.cluster.local": {SRV: []SRV{{"web.ns.svc.cluster.local", 80}}},
		"_tcp.web.ns.svc.cluster.local":       {},
		"db.ns.svc.cluster.local":             {A: []netip.Addr{a("10.64.0.5")}},
		"db-0.db.ns.svc.cluster.local":        {A: []netip.Addr{a("10.64.0.5")}},
		"_sql._tcp.db.ns.svc.cluster.local":   {SRV: []SRV{{"db-0.db.ns.svc.cluster.local", 5432}}},
		"_tcp.db.ns.svc.cluster.local":        {},
		"out.ns.svc.cluster.local":            {CNAME: "example.com."},
	}
	if diff := cmp.Diff(want, z.Names, cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if ip, ok := z.AnswerPods("10-64-0-9.ns.pod.cluster.local"); !ok || ip != a("10.64.0.9") {
		t.Errorf("a pod's name resolves to %v, %v", ip, ok)
	}
}
