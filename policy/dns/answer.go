package dns

import (
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/shoal-dev/shoal/policy"
)

// ttl is how long, in seconds, a client may keep an answer. It is short,
// because the endpoints of a headless Service are its answer.
const ttl = 5

// answer builds the reply to one question about the cluster domain or about an
// address in it. mine is false for questions that somebody else must answer;
// next is the outside name that an ExternalName Service stands for, to be
// resolved and added by the caller.
func answer(zone policy.Zone, request *dns.Msg) (reply *dns.Msg, next string, mine bool) {
	q := request.Question[0]
	name := strings.TrimSuffix(strings.ToLower(q.Name), ".")
	reply = new(dns.Msg)
	reply.SetReply(request)
	reply.Authoritative = true
	reply.RecursionAvailable = true
	if ip, ok := reverse(name); ok {
		names := zone.PTR[ip]
		for _, n := range names {
			reply.Answer = append(reply.Answer, &dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: n + "."})
		}
		return reply, "", len(names) > 0
	}
	if name != zone.Domain && !strings.HasSuffix(name, "."+zone.Domain) {
		return nil, "", false
	}
	records, exists := zone.Names[name]
	if ip, ok := zone.AnswerPods(name); ok {
		records, exists = policy.Records{A: []netip.Addr{ip}}, true
	}
	switch {
	case !exists:
		reply.Rcode = dns.RcodeNameError
	case records.CNAME != "" && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeCNAME):
		reply.Answer = append(reply.Answer, &dns.CNAME{Hdr: header(q.Name, dns.TypeCNAME), Target: records.CNAME})
		if q.Qtype != dns.TypeCNAME {
			next = records.CNAME
		}
	case q.Qtype == dns.TypeA:
		for _, ip := range records.A {
			reply.Answer = append(reply.Answer, a(q.Name, ip))
		}
	case q.Qtype == dns.TypeSRV:
		for _, srv := range records.SRV {
			reply.Answer = append(reply.Answer, &dns.SRV{
				Hdr: header(q.Name, dns.TypeSRV), Weight: uint16(100 / len(records.SRV)), Port: uint16(srv.Port), Target: srv.Target + ".",
			})
			for _, ip := range zone.Names[srv.Target].A {
				reply.Extra = append(reply.Extra, a(srv.Target+".", ip))
			}
		}
	}
	if len(reply.Answer) == 0 {
		reply.Ns = []dns.RR{soa(zone.Domain)}
	}
	return reply, next, true
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

func a(name string, ip netip.Addr) dns.RR {
	return &dns.A{Hdr: header(name, dns.TypeA), A: net.IP(ip.AsSlice())}
}

// soa says how long a "no" may be kept (RFC 2308).
func soa(domain string) dns.RR {
	return &dns.SOA{
		Hdr: header(domain+".", dns.TypeSOA), Ns: "ns.dns." + domain + ".", Mbox: "hostmaster." + domain + ".",
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}
}

// reverse returns the address that a name under in-addr.arpa asks for.
func reverse(name string) (netip.Addr, bool) {
	rest, ok := strings.CutSuffix(name, ".in-addr.arpa")
	if !ok {
		return netip.Addr{}, false
	}
	parts := strings.Split(rest, ".")
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	ip, err := netip.ParseAddr(strings.Join(parts, "."))
	return ip, err == nil
}
