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
	gitproto "github.com/go-git/go-git/v5/plumbing/transport/git"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
)

// newSource returns the way to a repository.
func newSource(t target) source {
	s := &remoteSource{target: t}
	switch t.kind {
	case localKind:
		return &localSource{target: t}
	case httpKind:
		client := githttp.NewClient(httpClient(t.endpoint.Host))
		s.dial = func() (transport.UploadPackSession, error) { return t.dialHTTP(client) }
	case sshKind:
		s.dial = t.dialSSH
	default:
		s.dial = func() (transport.UploadPackSession, error) {
			return gitproto.DefaultClient.NewUploadPackSession(t.endpoint, nil)
		}
	}
	return s
}

func (t target) dialHTTP(client transport.Transport) (transport.UploadPackSession, error) {
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
func httpClient(host string) *http.Client {
	dialer := &net.Dialer{Timeout: idleTimeout}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := dialer.DialContext(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return &idleConn{c}, nil
			},
			TLSHandshakeTimeout:   idleTimeout,
			ResponseHeaderTimeout: idleTimeout,
			IdleConnTimeout:       idleTimeout - time.Second, // before idleConn's deadline would end it
			MaxIdleConns:          2,
			ForceAttemptHTTP2:     true,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Hostname() != host {
				return fmt.Errorf("the server redirects to another host, %s; set the URL to it if that is right", r.URL.Hostname())
			}
			if len(via) > 5 {
				return errors.New("the server redirects in circles")
			}
			return nil
		},
	}
}

// idleConn is a connection on which something must happen every idleTimeout.
type idleConn struct{ net.Conn }

func (c *idleConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(idleTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *idleConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(idleTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (t target) dialSSH() (transport.UploadPackSession, error) {
	user := t.Auth.Username
	if user == "" {
		user = gitssh.DefaultUsername
	}
	key, err := gitssh.NewPublicKeysFromFile(user, t.Auth.SSHKeyFile, t.Auth.SSHPassphrase)
	if err != nil {
		return nil, fmt.Errorf("read the SSH key: %w", err)
	}
	var files []string
	if t.Auth.KnownHostsFile != "" {
		files = []string{t.Auth.KnownHostsFile}
	}
	known, err := gitssh.NewKnownHostsDb(files...)
	if err != nil {
		return nil, fmt.Errorf("read the known hosts: %w", err)
	}
	port := t.endpoint.Port
	if port == 0 {
		port = gitssh.DefaultPort
	}
	key.HostKeyCallback = known.HostKeyCallback()
	key.HostKeyAlgorithms = known.HostKeyAlgorithms(net.JoinHostPort(t.endpoint.Host, fmt.Sprint(port)))
	return gitssh.DefaultClient.NewUploadPackSession(t.endpoint, key)
}
