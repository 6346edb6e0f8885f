package gitsync

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
)

// session is one conversation with a repository.
type session interface {
	AdvertisedReferencesContext(ctx context.Context) (*packp.AdvRefs, error)
	UploadPack(ctx context.Context, request *packp.UploadPackRequest) (*packp.UploadPackResponse, error)
	Close() error
}

// stream is a session over one connection, as ssh and git have it. go-git's
// own wait for ever on a server that accepts and says nothing; here the
// connection ends with the context that it was made with.
type stream struct {
	in     io.WriteCloser
	out    *bufio.Reader
	errs   *bytes.Buffer // what the server said on its error output; nil without one
	ended  func() error  // waits until errs is complete
	finish func() error
}

// AdvertisedReferencesContext reads the references, which the server sends first.
func (s *stream) AdvertisedReferencesContext(context.Context) (*packp.AdvRefs, error) {
	refs := packp.NewAdvRefs()
	err := refs.Decode(s.out)
	var refused *pktline.ErrorLine
	switch {
	case errors.As(err, &refused), errors.Is(err, packp.ErrEmptyInput):
		return nil, s.refusal(err)
	case errors.Is(err, packp.ErrEmptyAdvRefs), err == nil && refs.IsEmpty():
		return nil, transport.ErrEmptyRemoteRepository
	case err != nil:
		return nil, fmt.Errorf("read the references: %w", err)
	}
	transport.FilterUnsupportedCapabilities(refs.Capabilities)
	return refs, nil
}

// refusal says why the server sent no references.
func (s *stream) refusal(err error) error {
	said := err.Error()
	if s.errs != nil {
		_ = s.ended()
		said = strings.Join(strings.Fields(s.errs.String()), " ")
	}
	for _, text := range []string{"does not exist", "not found", "access denied", "not appear to be a git repository", "not exported"} {
		if strings.Contains(said, text) {
			return fmt.Errorf("%w: %s", transport.ErrRepositoryNotFound, said)
		}
	}
	if said == "" {
		said = "the server closed the connection"
	}
	return errors.New(said)
}

// UploadPack asks for objects.
func (s *stream) UploadPack(_ context.Context, request *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
	if err := request.Validate(); err != nil {
		return nil, err
	}
	// Buffered, so that a server that answers early cannot block both sides.
	var text bytes.Buffer
	err := errors.Join(request.UploadRequest.Encode(&text), request.UploadHaves.Encode(&text, true),
		pktline.NewEncoder(&text).Encodef("done\n"))
	if err != nil {
		return nil, fmt.Errorf("ask for objects: %w", err)
	}
	if _, err := s.in.Write(text.Bytes()); err != nil {
		return nil, fmt.Errorf("ask for objects: %w", err)
	}
	response := packp.NewUploadPackResponse(request)
	if err := response.Decode(io.NopCloser(s.out)); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return response, nil
}

// Close ends the connection.
func (s *stream) Close() error { return s.finish() }

// connect opens a connection that ends with ctx or when it falls silent.
func (t target) connect(ctx context.Context, defaultPort int) (net.Conn, func() error, error) {
	port := t.endpoint.Port
	if port == 0 {
		port = defaultPort
	}
	dialer := net.Dialer{Timeout: t.idle}
	c, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(t.endpoint.Host, fmt.Sprint(port)))
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	return &idleConn{c, t.idle}, func() error { stop(); return c.Close() }, nil
}

// dialGit opens a git:// session.
func (t target) dialGit(ctx context.Context) (session, error) {
	c, finish, err := t.connect(ctx, 9418)
	if err != nil {
		return nil, err
	}
	hello := packp.GitProtoRequest{RequestCommand: "git-upload-pack", Pathname: t.endpoint.Path, Host: t.endpoint.Host}
	if err := hello.Encode(c); err != nil {
		return nil, errors.Join(err, finish())
	}
	return &stream{in: c, out: bufio.NewReader(c), finish: finish}, nil
}

// dialSSH opens an ssh session. A host is trusted only for the keys that the
// known_hosts file has for it.
func (t target) dialSSH(ctx context.Context) (session, error) {
	config, err := t.sshConfig()
	if err != nil {
		return nil, err
	}
	c, finish, err := t.connect(ctx, 22)
	if err != nil {
		return nil, err
	}
	connection, channels, requests, err := ssh.NewClientConn(c, t.hostPort(), config)
	if err != nil {
		return nil, errors.Join(err, finish())
	}
	client := ssh.NewClient(connection, channels, requests)
	closeAll := func() error { return errors.Join(client.Close(), finish()) }
	shell, err := client.NewSession()
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	s := &stream{errs: &bytes.Buffer{}}
	shell.Stderr = &limitedBuffer{to: s.errs, left: 4 << 10}
	out, err1 := shell.StdoutPipe()
	in, err2 := shell.StdinPipe()
	if err := errors.Join(err1, err2, shell.Start("git-upload-pack '"+strings.ReplaceAll(t.endpoint.Path, "'", `'\''`)+"'")); err != nil {
		return nil, errors.Join(err, closeAll())
	}
	s.in, s.out = in, bufio.NewReader(out)
	s.ended = sync.OnceValue(shell.Wait) // it answers only once
	s.finish = func() error {
		_ = in.Close()
		err := client.Close()
		_ = s.ended()
		return errors.Join(err, finish())
	}
	return s, nil
}

// limitedBuffer keeps the beginning of what is written.
type limitedBuffer struct {
	to   *bytes.Buffer
	left int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	b.to.Write(p[:n])
	return len(p), nil
}

func (t target) hostPort() string {
	port := t.endpoint.Port
	if port == 0 {
		port = 22
	}
	return net.JoinHostPort(t.endpoint.Host, fmt.Sprint(port))
}

func (t target) sshConfig() (*ssh.ClientConfig, error) {
	data, err := os.ReadFile(t.Auth.SSHKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the SSH key: %w", err)
	}
	var key ssh.Signer
	if t.Auth.SSHPassphrase != "" {
		key, err = ssh.ParsePrivateKeyWithPassphrase(data, []byte(t.Auth.SSHPassphrase))
	} else {
		key, err = ssh.ParsePrivateKey(data)
	}
	if err != nil {
		return nil, fmt.Errorf("read the SSH key %s: %w", t.Auth.SSHKeyFile, err)
	}
	known, err := knownhosts.NewDB(t.knownHosts()...)
	if err != nil {
		return nil, fmt.Errorf("read the known hosts: %w", err)
	}
	user := t.Auth.Username
	if user == "" {
		user = "git"
	}
	return &ssh.ClientConfig{
		User:              user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback:   known.HostKeyCallback(),
		HostKeyAlgorithms: known.HostKeyAlgorithms(t.hostPort()),
	}, nil
}

// knownHosts lists the files with the keys of known hosts.
func (t target) knownHosts() (files []string) {
	if t.Auth.KnownHostsFile != "" {
		return []string{t.Auth.KnownHostsFile}
	}
	home, err := os.UserHomeDir()
	if err == nil {
		files = append(files, filepath.Join(home, ".ssh", "known_hosts"))
	}
	files = append(files, "/etc/ssh/ssh_known_hosts")
	existing := files[:0]
	for _, file := range files {
		if _, err := os.Stat(file); err == nil {
			existing = append(existing, file)
		}
	}
	return existing
}
