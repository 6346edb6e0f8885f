package gitsync

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
)

// newSource returns the way to a repository.
func newSource(t target) source {
	s := &remoteSource{target: t}
	switch t.kind {
	case localKind:
		return &localSource{target: t}
	case httpKind:
		client := githttp.NewClient(t.httpClient())
		s.dial = func(context.Context) (session, error) { return t.dialHTTP(client) }
	case sshKind:
		s.dial = t.dialSSH
	default:
		s.dial = t.dialGit
	}
	return s
}

func (t target) dialHTTP(client transport.Transport) (session, error) {
	endpoint := *t.endpoint
	if t.Auth.CAFile != "" {
		bundle, err := os.ReadFile(t.Auth.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the CA certificates: %w", err)
		}
		endpoint.CaBundle = bundle
	}
	user, password, err := t.Auth.secret()
	if err != nil {
		return nil, err
	}
	if user == "" {
		return client.NewUploadPackSession(&endpoint, nil)
	}
	return client.NewUploadPackSession(&endpoint, &githttp.BasicAuth{Username: user, Password: password})
}

// httpClient gives up on a server that goes silent and follows no redirect to
// another host: credentials and trust were given to this one.
func (t target) httpClient() *http.Client {
	dialer := &net.Dialer{Timeout: t.idle}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := dialer.DialContext(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return &idleConn{c, t.idle}, nil
			},
			TLSHandshakeTimeout:   t.idle,
			ResponseHeaderTimeout: t.idle,
			DisableKeepAlives:     true, // a poll every 10 s is not worth a held connection
			ForceAttemptHTTP2:     true,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Hostname() != t.endpoint.Host {
				return fmt.Errorf("the server redirects to another host, %s; set the URL to it if that is right", r.URL.Hostname())
			}
			if len(via) > 5 {
				return errors.New("the server redirects in circles")
			}
			return nil
		},
	}
}

// idleConn is a connection on which something must happen every so often.
type idleConn struct {
	net.Conn
	idle time.Duration
}

func (c *idleConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *idleConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
