package daemon

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/shoal-dev/shoal/gossip/identity"
)

// certificateEvery is how often the API server's certificate is looked at, and
// certificateRest how long before its end it is replaced.
const (
	certificateEvery = 5 * time.Second
	certificateRest  = 30 * 24 * time.Hour
)

// certificate is that of the API server. It is replaced when the node gets another
// address: by this node itself when it has the authority's key, else a voter
// signs.
type certificate struct {
	c       *control
	id      *identity.Identity
	current atomic.Pointer[tls.Certificate]
}

// newCertificate returns the certificate that the node starts with. It may be of
// another address: step sees to that once peers can be asked.
func newCertificate(c *control, id *identity.Identity) (*certificate, error) {
	s := &certificate{c: c, id: id}
	names, ips := s.wanted()
	first, err := id.Server(names, ips)
	if err != nil {
		return nil, err
	}
	s.current.Store(&first)
	return s, nil
}

func (s *certificate) wanted() ([]string, []net.IP) {
	return serverNames(s.c.cfg.Node, s.c.cfg.Network.Domain, s.c.machine.Address())
}

func (s *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.current.Load(), nil
}

// step replaces the certificate where it does not name all that it should.
func (s *certificate) step(ctx context.Context) time.Time {
	names, ips := s.wanted()
	if covers(s.current.Load(), names, ips, time.Now()) {
		return time.Time{}
	}
	next, err := s.renewed(ctx, names, ips)
	s.c.report("renew the API server's certificate", err)
	if err == nil {
		s.current.Store(&next)
		s.c.log.Info("the API server has another certificate", "names", names, "addresses", ips)
	}
	return time.Time{}
}

// renewed makes another certificate.
func (s *certificate) renewed(ctx context.Context, names []string, ips []net.IP) (tls.Certificate, error) {
	if _, key := s.id.Export(); key != nil {
		return s.id.Server(names, ips)
	}
	request, key, err := identity.Request(names, ips)
	if err != nil {
		return tls.Certificate{}, err
	}
	signed, err := s.c.part.Sign(ctx, request)
	if err != nil {
		return tls.Certificate{}, err
	}
	if err := s.id.Replace(signed, key); err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(signed, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read the certificate that a voter signed: %w", err)
	}
	return pair, nil
}

// Credentials are what a client of the API needs, as PEM.
type Credentials struct{ CA, Certificate, Key []byte }

// ClientCredentials makes a client certificate for a user of this machine's fleet.
// Where there is no key of the API's authority a voter signs it: then the daemon
// must run.
func ClientCredentials(ctx context.Context, cfg Config, user string, groups []string) (Credentials, error) {
	id, err := OpenIdentity(cfg)
	if err != nil {
		return Credentials{}, err
	}
	out := Credentials{CA: id.CA()}
	if _, key := id.Export(); key != nil {
		out.Certificate, out.Key, err = id.Client(user, groups)
		return out, err
	}
	request, key, err := identity.ClientRequest(user, groups)
	if err != nil {
		return Credentials{}, err
	}
	form := map[string]string{"request": url.QueryEscape(base64.StdEncoding.EncodeToString(request))}
	certificate, err := NewClient(cfg.Socket()).Command(ctx, "/client", form)
	if err != nil {
		return Credentials{}, fmt.Errorf("have a voter sign the certificate of %s: %w", user, err)
	}
	out.Certificate, out.Key = []byte(certificate), key
	return out, nil
}

// covers reports whether a certificate is good for all names and addresses, and
// for a while.
func covers(c *tls.Certificate, names []string, ips []net.IP, now time.Time) bool {
	if c == nil || c.Leaf == nil || now.Add(certificateRest).After(c.Leaf.NotAfter) {
		return false
	}
	for _, name := range names {
		if c.Leaf.VerifyHostname(name) != nil {
			return false
		}
	}
	for _, ip := range ips {
		if c.Leaf.VerifyHostname(ip.String()) != nil {
			return false
		}
	}
	return true
}
