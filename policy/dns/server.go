package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"github.com/shoal-dev/shoal/policy"
)

// upstreamTimeout bounds one question to one outside server; a client of the
// usual resolver gives up after five seconds.
const upstreamTimeout = 2 * time.Second

// Config of a Server.
type Config struct {
	Address    netip.AddrPort // where to answer; its address is put on the loopback interface
	ResolvConf string         // file that names the servers for outside names; "" for none
}

// A Server answers DNS questions. Its methods may be called concurrently.
type Server struct {
	cfg       Config
	upstreams func() []string // addresses of the servers for outside names
	zone      atomic.Pointer[policy.Zone]
}

// New returns a Server that answers SERVFAIL until it is given a zone.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, upstreams: func() []string { return upstreamsOf(cfg) }}
	s.zone.Store(&policy.Zone{})
	return s
}

// Set replaces the zone. The zero Zone means "not known" and changes nothing.
func (s *Server) Set(zone policy.Zone) {
	if zone.Known() {
		s.zone.Store(&zone)
	}
}

// Run answers over UDP and TCP until the context ends. It returns an error when
// the address cannot be used.
func (s *Server) Run(ctx context.Context) error {
	if err := s.addAddress(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, network := range []string{"udp4", "tcp4"} {
		server := &dns.Server{Addr: s.cfg.Address.String(), Net: network, Handler: dns.HandlerFunc(s.serve), ReusePort: true}
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		group.Go(func() error {
			if err := server.ListenAndServe(); err != nil && ctx.Err() == nil {
				return fmt.Errorf("answer DNS on %s: %w", s.cfg.Address, err)
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			select {
			case <-started:
				stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
				defer cancel()
				_ = server.ShutdownContext(stop) // the process ends; nobody waits for answers
			default:
			}
			return nil
		})
	}
	return group.Wait()
}

// addAddress puts the server's address on the loopback interface, unless the
// machine has it already.
func (s *Server) addAddress() error {
	if s.cfg.Address.Addr().IsLoopback() {
		return nil
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback interface: %w", err)
	}
	addr, err := netlink.ParseAddr(s.cfg.Address.Addr().String() + "/32")
	if err != nil {
		return fmt.Errorf("parse DNS address: %w", err)
	}
	if err := netlink.AddrReplace(lo, addr); err != nil {
		return fmt.Errorf("put the DNS address %s on lo: %w", addr, err)
	}
	return nil
}

// CleanUp takes the address off the loopback interface again. It may be called
// when it is not there.
func CleanUp(address netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback interface: %w", err)
	}
	addrs, err := netlink.AddrList(lo, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses of lo: %w", err)
	}
	var errs []error
	for _, a := range addrs {
		if a.IP.String() == address.String() {
			errs = append(errs, netlink.AddrDel(lo, &a))
		}
	}
	return errors.Join(errs...)
}

func (s *Server) serve(w dns.ResponseWriter, request *dns.Msg) {
	reply := s.reply(request, w.RemoteAddr().Network())
	if udp := w.RemoteAddr().Network() == "udp"; udp {
		size := dns.MinMsgSize
		if opt := request.IsEdns0(); opt != nil {
			size = int(opt.UDPSize())
		}
		reply.Truncate(size)
	}
	_ = w.WriteMsg(reply) // a client that is gone needs no answer
}

func (s *Server) reply(request *dns.Msg, network string) *dns.Msg {
	if request.Opcode != dns.OpcodeQuery || len(request.Question) != 1 {
		return failure(request, dns.RcodeNotImplemented)
	}
	zone := *s.zone.Load()
	if !zone.Known() {
		return failure(request, dns.RcodeServerFailure)
	}
	reply, next, mine := answer(zone, request)
	if !mine {
		return s.forward(request, network)
	}
	if next != "" {
		outside := new(dns.Msg)
		outside.SetQuestion(next, request.Question[0].Qtype)
		reply.Answer = append(reply.Answer, s.forward(outside, network).Answer...)
	}
	return reply
}

func failure(request *dns.Msg, code int) *dns.Msg {
	reply := new(dns.Msg)
	reply.SetRcode(request, code)
	return reply
}

// forward asks the machine's own servers, one after the other.
func (s *Server) forward(request *dns.Msg, network string) *dns.Msg {
	for _, server := range s.upstreams() {
		client := &dns.Client{Net: network, Timeout: upstreamTimeout}
		reply, _, err := client.Exchange(request, server)
		if err == nil && reply.Truncated && network == "udp" {
			client.Net = "tcp"
			if full, _, err := client.Exchange(request, server); err == nil {
				reply = full
			}
		}
		if err == nil {
			reply.Id = request.Id
			return reply
		}
	}
	return failure(request, dns.RcodeServerFailure)
}

// upstreamsOf reads the machine's own servers. It does so for each question, so
// that a changed network needs no restart.
func upstreamsOf(cfg Config) []string {
	if cfg.ResolvConf == "" {
		return nil
	}
	conf, err := dns.ClientConfigFromFile(cfg.ResolvConf)
	if err != nil {
		return nil
	}
	var out []string
	for _, server := range conf.Servers {
		addr, err := netip.ParseAddr(server)
		if err != nil || addr == cfg.Address.Addr() {
			continue // never ask ourselves
		}
		out = append(out, netip.AddrPortFrom(addr, 53).String())
	}
	return out
}
