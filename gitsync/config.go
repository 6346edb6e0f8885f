package gitsync

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing/transport"
)

// Limits of what is read from a repository. They are far above what manifests
// need and keep a wrong or hostile repository from taking the machine along.
const (
	MaxPack    = 256 << 20 // bytes of one transfer, compressed
	MaxTree    = 16 << 20  // bytes of one tree object
	MaxEntries = 200_000   // files and folders under the sync path
	MaxDepth   = 64        // folders within folders

	idleTimeout  = 15 * time.Second
	totalTimeout = 60 * time.Second
	maxBackoff   = 5 * time.Minute // between attempts while the repository fails
)

// Config says what to follow.
type Config struct {
	// Dir is the folder for the mirror. It is this Repo's own.
	Dir string
	// Unit names the sync unit in snapshots and messages; "" means "main".
	Unit string
	// URL is a local path, or a file://, http://, https://, ssh:// or git://
	// URL, or host:path for SSH.
	URL string
	// Ref is the branch or tag to follow, short or as refs/...; "" is the
	// branch that HEAD of the repository points to.
	Ref string
	// Path is the folder with the manifests; "" is the root.
	Path string
	// Poll is how often to ask for news; 0 means 10 s. A local repository is
	// watched besides.
	Poll time.Duration
	Auth Auth
}

// Auth holds credentials. Files are read again for every connection, so that
// they can be replaced at any time.
type Auth struct {
	Username  string // HTTP: with Password or a token; SSH: the login, when the URL names none
	Password  string
	Token     string // HTTP: sent as the password, the way Git hosts take it
	TokenFile string
	CAFile    string // HTTPS: PEM certificates to trust besides the system's

	SSHKeyFile     string
	SSHPassphrase  string
	KnownHostsFile string // SSH: "" means ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts; unknown hosts are refused
}

// kind tells how a repository is reached.
type kind int

const (
	localKind kind = iota
	httpKind
	sshKind
	gitKind
)

// target is a Config that was found valid.
type target struct {
	Config
	kind     kind
	endpoint *transport.Endpoint // nil for local repositories
	local    string              // path of a local repository
	shown    string              // the URL without credentials
	idle     time.Duration       // a connection without a byte
	total    time.Duration       // list and fetch together
}

// resolve checks a Config and fills in its defaults.
func resolve(cfg Config) (target, error) {
	t := target{Config: cfg, idle: idleTimeout, total: totalTimeout}
	if cfg.Dir == "" {
		return t, errors.New("git: the state folder is not set")
	}
	if t.Ref == "HEAD" {
		t.Ref = ""
	}
	if t.Unit == "" {
		t.Unit = "main"
	}
	if t.Poll <= 0 {
		t.Poll = 10 * time.Second
	}
	t.Path = path.Clean(strings.Trim(strings.TrimSpace(cfg.Path), "/"))
	if t.Path == ".." || strings.HasPrefix(t.Path, "../") {
		return t, fmt.Errorf("git: path %q leads out of the repository", cfg.Path)
	}
	if strings.ContainsAny(cfg.Ref, " ~^:?*[\\") || strings.Contains(cfg.Ref, "..") {
		return t, fmt.Errorf("git: %q is not the name of a branch or tag", cfg.Ref)
	}
	return t, t.locate()
}

func (t *target) locate() error {
	raw := strings.TrimSpace(t.URL)
	if raw == "" {
		return errors.New("git: the URL of the repository is not set")
	}
	if rest, ok := strings.CutPrefix(raw, "file://"); ok || !strings.Contains(raw, ":") || strings.HasPrefix(raw, "/") || strings.HasPrefix(raw, "./") {
		if !ok {
			rest = raw
		}
		abs, err := filepath.Abs(rest)
		if err != nil {
			return fmt.Errorf("git: %s: %w", raw, err)
		}
		t.kind, t.local, t.shown = localKind, abs, raw
		return nil
	}
	endpoint, err := transport.NewEndpoint(raw)
	if err != nil {
		return fmt.Errorf("git: the URL cannot be read: %w", err)
	}
	t.endpoint = endpoint
	switch endpoint.Protocol {
	case "http", "https":
		t.kind = httpKind
		t.takeUserinfo()
	case "ssh":
		t.kind = sshKind
		t.takeUserinfo()
		if t.Auth.SSHKeyFile == "" {
			return fmt.Errorf("git: %s needs a key: set the SSH key file", raw)
		}
	case "git":
		t.kind = gitKind
	default:
		return fmt.Errorf("git: %s: scheme %q is not supported; use a path, file, http, https, ssh or git", endpoint.String(), endpoint.Protocol)
	}
	t.shown = endpoint.String()
	return nil
}

// takeUserinfo moves credentials from the URL to Auth, so that no message
// shows them.
func (t *target) takeUserinfo() {
	e := t.endpoint
	if t.Auth.Username == "" {
		t.Auth.Username = e.User
	}
	if t.Auth.Password == "" {
		t.Auth.Password = e.Password
	}
	e.Password = ""
	if t.kind == httpKind {
		e.User = ""
	}
}

// secret returns the HTTP user and password, both "" when there are none.
func (a Auth) secret() (user, password string, err error) {
	password = a.Password
	if a.Token != "" {
		password = a.Token
	}
	if a.TokenFile != "" {
		data, err := os.ReadFile(a.TokenFile)
		if err != nil {
			return "", "", fmt.Errorf("read the token: %w", err)
		}
		password = strings.TrimSpace(string(data))
	}
	user = a.Username
	if user == "" && password != "" {
		user = "git"
	}
	return user, password, nil
}
