package dns

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/shoal-dev/shoal/policy"
)

var testZone = policy.Zone{
	Domain: "cluster.local",
	Names: map[string]policy.Records{
		"cluster.local": {}, "svc.cluster.local": {}, "ns.svc.cluster.local": {}, "pod.cluster.local": {},
		"web.ns.svc.cluster.local":            {A: []netip.Addr{netip.MustParseAddr("10.96.0.20")}},
		"_http._tcp.web.ns.svc.cluster.local": {SRV: []policy.SRV{{Target: "web.ns.svc.cluster.local", Port: 80}}},
		"db.ns.svc.cluster.local":             {A: []netip.Addr{netip.MustParseAddr("10.64.0.5"), netip.MustParseAddr("10.64.0.6")}},
		"out.ns.svc.cluster.local":            {CNAME: "www.example.com."},
	},
	PTR: map[netip.Addr][]string{netip.MustParseAddr("10.96.0.20"): {"web.ns.svc.cluster.local"}},
}

func TestAnswer(t *testing.T) {
	tests := []struct {
		name, question string
		kind           uint16
		rcode          int
		want           []string // the ends of the answers
		mine           bool
	}{
		{"a Service", "web.ns.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, []string{"A\t10.96.0.20"}, true},
		{"letter case is ignored and kept", "WEB.ns.svc.Cluster.Local.", dns.TypeA, dns.RcodeSuccess, []string{"A\t10.96.0.20"}, true},
		{"a headless Service", "db.ns.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, []string{"A\t10.64.0.5", "A\t10.64.0.6"}, true},
		{"no IPv6, but the name exists", "web.ns.svc.cluster.local.", dns.TypeAAAA, dns.RcodeSuccess, nil, true},
		{"a namespace exists and has no address", "ns.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, nil, true},
		{"no such Service", "nope.ns.svc.cluster.local.", dns.TypeA, dns.RcodeNameError, nil, true},
		{"an outside name with a search suffix", "www.example.com.ns.svc.cluster.local.", dns.TypeA, dns.RcodeNameError, nil, true},
		{"a port", "_http._tcp.web.ns.svc.cluster.local.", dns.TypeSRV, dns.RcodeSuccess, []string{"SRV\t0 100 80 web.ns.svc.cluster.local."}, true},
		{"a pod by its address", "10-64-0-9.ns.pod.cluster.local.", dns.TypeA, dns.RcodeSuccess, []string{"A\t10.64.0.9"}, true},
		{"an address", "20.0.96.10.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, []string{"PTR\tweb.ns.svc.cluster.local."}, true},
		{"an ExternalName", "out.ns.svc.cluster.local.", dns.TypeCNAME, dns.RcodeSuccess, []string{"CNAME\twww.example.com."}, true},
		{"an outside name", "www.example.com.", dns.TypeA, 0, nil, false},
		{"a name that only ends like ours", "notcluster.local.", dns.TypeA, 0, nil, false},
		{"an address that is not ours", "1.0.168.192.in-addr.arpa.", dns.TypePTR, 0, nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			request := new(dns.Msg)
			request.SetQuestion(tt.question, tt.kind)
			reply, _, mine := answer(testZone, request)
			if mine != tt.mine {
				t.Fatalf("mine = %v, want %v", mine, tt.mine)
			}
			if !mine {
				return
			}
			if reply.Rcode != tt.rcode || len(reply.Answer) != len(tt.want) {
				t.Fatalf("%s %s: got\n%s\nwant %s %q", tt.question, dns.TypeToString[tt.kind], reply, dns.RcodeToString[tt.rcode], tt.want)
			}
			for i, want := range tt.want {
				if got := reply.Answer[i].String(); !strings.HasSuffix(got, want) || reply.Answer[i].Header().Name != tt.question {
					t.Errorf("answer %d: %s, want %s", i, got, want)
				}
			}
			if len(tt.want) == 0 && len(reply.Ns) == 0 {
				t.Error("a negative answer without SOA is not kept by resolvers")
			}
		})
	}
}

// startUpstream answers every question with one address, and remembers whether
// it was asked over TCP.
func startUpstream(t *testing.T, truncate bool) (address string) {
	t.Helper()
	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp4", packets.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		reply := new(dns.Msg)
		reply.SetReply(r)
		if truncate && w.RemoteAddr().Network() == "udp" {
			reply.Truncated = true
		} else {
			reply.Answer = []dns.RR{a(r.Question[0].Name, netip.MustParseAddr("192.0.2.7"))}
		}
		_ = w.WriteMsg(reply)
	})
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: listener, Handler: handler}} {
		go func() { _ = server.ActivateAndServe() }()
		t.Cleanup(func() { _ = server.Shutdown() })
	}
	return packets.LocalAddr().String()
}

func TestForward(t *testing.T) {
	for _, truncate := range []bool{false, true} {
		upstream := startUpstream(t, truncate)
		s := New(Config{Address: netip.MustParseAddrPort("127.0.0.1:0")})
		s.upstreams = func() []string { return []string{"127.0.0.1:1", upstream} } // the first refuses
		s.Set(testZone)
		for _, name := range []string{"www.example.com.", "out.ns.svc.cluster.local."} {
			request := new(dns.Msg)
			request.SetQuestion(name, dns.TypeA)
			reply := s.reply(request, "udp")
			if len(reply.Answer) == 0 || !strings.HasSuffix(reply.Answer[len(reply.Answer)-1].String(), "192.0.2.7") {
				t.Errorf("truncated=%v %s: got\n%s", truncate, name, reply)
			}
		}
	}
}

func TestWithoutUpstreamFails(t *testing.T) {
	s := New(Config{Address: netip.MustParseAddrPort("127.0.0.1:0")})
	request := new(dns.Msg)
	request.SetQuestion("web.ns.svc.cluster.local.", dns.TypeA)
	if got := s.reply(request, "udp").Rcode; got != dns.RcodeServerFailure {
		t.Errorf("before the zone is known: %s, want SERVFAIL, never NXDOMAIN", dns.RcodeToString[got])
	}
	s.Set(testZone)
	request.SetQuestion("www.example.com.", dns.TypeA)
	if got := s.reply(request, "udp").Rcode; got != dns.RcodeServerFailure {
		t.Errorf("without upstreams: %s, want SERVFAIL", dns.RcodeToString[got])
	}
}

func TestUpstreamsLeaveOurselvesOut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 10.96.0.10\nnameserver 192.0.2.53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := upstreamsOf(Config{Address: netip.MustParseAddrPort("10.96.0.10:53"), ResolvConf: file})
	if len(got) != 1 || got[0] != "192.0.2.53:53" {
		t.Errorf("got %v, want only the other server", got)
	}
}

func TestRunAnswersOverUDPAndTCP(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	s := New(Config{Address: netip.MustParseAddrPort(address)})
	s.Set(testZone)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for _, network := range []string{"udp", "tcp"} {
		request := new(dns.Msg)
		request.SetQuestion("db.ns.svc.cluster.local.", dns.TypeA)
		client := &dns.Client{Net: network, Timeout: time.Second}
		var reply *dns.Msg
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
			// Before anybody listens a question may be sent from the very port
			// that it goes to, and come back as it is.
			if reply, _, err = client.Exchange(request, address); err == nil && reply.Response {
				break
			}
		}
		if err != nil || len(reply.Answer) != 2 {
			t.Errorf("%s: %v %v", network, reply, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}
