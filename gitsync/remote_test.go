package gitsync

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-dev/shoal/api"
)

// remote is a bare repository that work pushes to and a server serves.
type remote struct {
	work
	bare string
}

func newRemote(t testing.TB) remote {
	t.Helper()
	r := remote{newWork(t), filepath.Join(t.TempDir(), "repo.git")}
	r.git("init", "-q", "--bare", "-b", "main", r.bare)
	r.git("remote", "add", "origin", r.bare)
	return r
}

func (r remote) push(message string) api.Commit {
	r.t.Helper()
	commit := r.commit(message)
	r.git("push", "-q", "--force", "origin", "HEAD:main")
	return commit
}

// backend serves the folder of the repository over smart HTTP.
func (r remote) backend() http.Handler {
	path := filepath.Join(runGit(r.t, r.dir, "--exec-path"), "git-http-backend")
	return &cgi.Handler{Path: path, Env: []string{
		"GIT_PROJECT_ROOT=" + filepath.Dir(r.bare), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}}
}

func needPassword(h http.Handler, user, password string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// serveTests runs the life of a remote unit: first clone, news, a force push
// to an older and to an unrelated commit.
func serveTests(t *testing.T, r remote, cfg Config) {
	t.Helper()
	r.write("a.yaml", configMap("a", "1"))
	r.push("zero")
	r.write("a.yaml", configMap("a", "2"))
	first := r.push("first")
	repo := follow(t, cfg)
	waitCommit(t, repo, first)
	r.write("b.yaml", configMap("b", "1"))
	second := r.push("second")
	repo.Poke()
	waitCommit(t, repo, second)
	if got := keys(repo.Latest()); got != "ConfigMap default/a, ConfigMap default/b" {
		t.Errorf("snapshot holds %s", got)
	}
	r.git("reset", "-q", "--hard", "HEAD~2")
	older := r.push("older")
	repo.Poke()
	waitCommit(t, repo, older)
	r.git("reset", "-q", "--hard", "HEAD~1")
	r.git("push", "-q", "--force", "origin", "HEAD:main")
	oldest := api.Commit(r.git("rev-parse", "HEAD"))
	repo.Poke()
	waitCommit(t, repo, oldest)
	r.git("checkout", "-q", "--orphan", "unrelated")
	unrelated := r.push("unrelated")
	repo.Poke()
	waitCommit(t, repo, unrelated)
}

func TestHTTP(t *testing.T) {
	r := newRemote(t)
	server := httptest.NewServer(needPassword(r.backend(), "git", "s3cret"))
	defer server.Close()
	serveTests(t, r, Config{URL: server.URL + "/repo.git", Auth: Auth{Token: "s3cret"}})
}

func TestHTTPSWithPrivateCA(t *testing.T) {
	r := newRemote(t)
	server := httptest.NewTLSServer(needPassword(r.backend(), "ann", "pw"))
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, data, 0o600); err != nil {
		t.Fatal(err)
	}
	serveTests(t, r, Config{URL: server.URL + "/repo.git", Ref: "main", Auth: Auth{Username: "ann", Password: "pw", CAFile: ca}})
	waitError(t, follow(t, Config{URL: server.URL + "/repo.git"}), "certificate")
}

func TestHTTPErrors(t *testing.T) {
	r := newRemote(t)
	r.push("x")
	server := httptest.NewServer(needPassword(r.backend(), "git", "right"))
	defer server.Close()
	var forbidden http.HandlerFunc = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }
	closed := httptest.NewServer(forbidden)
	denied := httptest.NewServer(forbidden)
	defer denied.Close()
	closed.Close()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		http.Redirect(w, q, "http://localhost:1"+q.URL.String(), http.StatusFound)
	}))
	defer elsewhere.Close()
	withPassword := strings.Replace(server.URL, "http://", "http://git:wrong@", 1)
	for _, test := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"no credentials", Config{URL: server.URL + "/repo.git"}, []string{"credentials are missing or wrong"}},
		{"wrong credentials", Config{URL: withPassword + "/repo.git"}, []string{"credentials are missing or wrong"}},
		{"forbidden", Config{URL: denied.URL + "/repo.git"}, []string{"do not allow"}},
		{"no repository", Config{URL: server.URL + "/other.git", Auth: Auth{Token: "right"}}, []string{"there is no repository"}},
		{"wrong branch", Config{URL: server.URL + "/repo.git", Ref: "master", Auth: Auth{Token: "right"}}, []string{`no branch or tag "master"`, "main"}},
		{"unreachable", Config{URL: closed.URL + "/repo.git"}, []string{"connection refused"}},
		{"redirect to another host", Config{URL: elsewhere.URL + "/repo.git"}, []string{"redirects to another host, localhost"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			repo := follow(t, test.cfg)
			waitError(t, repo, test.want...)
			if status := repo.Status()[0]; strings.Contains(fmt.Sprint(status), "wrong@") || strings.Contains(status.URL, "wrong") {
				t.Errorf("the status shows a password: %+v", status)
			}
		})
	}
}

// A server that accepts a connection and says nothing more costs a timeout,
// not the loop.
func TestSilentServers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var held []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			held = append(held, c)
		}
	}()
	defer func() {
		_ = l.Close()
		<-done
		for _, c := range held {
			_ = c.Close()
		}
	}()
	dir := t.TempDir()
	key, _ := sshKey(t, dir, "key")
	for _, scheme := range []string{"http", "https", "git", "ssh"} {
		for _, limits := range [][2]time.Duration{{50 * time.Millisecond, time.Hour}, {time.Hour, 50 * time.Millisecond}} {
			cfg := Config{
				Dir: t.TempDir(), URL: scheme + "://" + l.Addr().String() + "/repo.git", Poll: time.Millisecond,
				Auth: Auth{SSHKeyFile: key, KnownHostsFile: key + ".known"},
			}
			if err := os.WriteFile(cfg.Auth.KnownHostsFile, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			target, err := resolve(cfg)
			if err != nil {
				t.Fatal(err)
			}
			target.idle, target.total = limits[0], limits[1]
			r, err := open(target)
			if err != nil {
				t.Fatal(err)
			}
			run(t, r)
			want := "gone silent"
			if limits[1] < limits[0] {
				want = "did not answer completely within 50ms"
			}
			waitError(t, r, want)
		}
	}
}

func TestEmptyRepositoryOverHTTP(t *testing.T) {
	empty := newRemote(t)
	emptyServer := httptest.NewServer(empty.backend())
	defer emptyServer.Close()
	repo := follow(t, Config{URL: emptyServer.URL + "/repo.git"})
	waitError(t, repo, "has no commits yet")
	empty.write("a.yaml", configMap("a", "1"))
	waitCommit(t, repo, empty.push("first"))
}

// Nothing is downloaded while nothing changes, and only once when it does.
func TestPollIsCheap(t *testing.T) {
	r := newRemote(t)
	backend := r.backend()
	var lists, packs atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if strings.HasSuffix(q.URL.Path, "/git-upload-pack") {
			packs.Add(1)
		} else {
			lists.Add(1)
		}
		backend.ServeHTTP(w, q)
	}))
	defer server.Close()
	repo := follow(t, Config{URL: server.URL + "/repo.git", Poll: 10 * time.Millisecond})
	r.write("a.yaml", configMap("a", "1"))
	waitCommit(t, repo, r.push("first"))
	deadline := time.Now().Add(20 * time.Second)
	for start := lists.Load(); lists.Load() < start+5; {
		if time.Now().After(deadline) {
			t.Fatal("the repository is not polled")
		}
		time.Sleep(time.Millisecond)
	}
	if got := packs.Load(); got != 1 {
		t.Errorf("%d packs for one commit", got)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// start runs a server until the test ends and waits until it listens.
func start(t *testing.T, port int, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when the test panics
	cmd.WaitDelay = time.Second                                        // children of the server may hold the pipe a little longer
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	deadline := time.Now().Add(10 * time.Second)
	for {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %v\n%s", name, err, out.String())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestGitProtocol(t *testing.T) {
	r := newRemote(t)
	port := freePort(t)
	daemon := filepath.Join(r.git("--exec-path"), "git-daemon")
	start(t, port, daemon, "--reuseaddr", "--export-all", "--listen=127.0.0.1", fmt.Sprintf("--port=%d", port),
		"--base-path="+filepath.Dir(r.bare), filepath.Dir(r.bare))
	serveTests(t, r, Config{URL: fmt.Sprintf("git://127.0.0.1:%d/repo.git", port)})
	waitError(t, follow(t, Config{URL: fmt.Sprintf("git://127.0.0.1:%d/other.git", port)}), "there is no repository at this address")
}

// sshKey writes a new key pair and returns the file of the private key and the
// public key in the form of authorized_keys.
func sshKey(t *testing.T, dir, name string) (file, public string) {
	t.Helper()
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, name)
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return file, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func TestSSH(t *testing.T) {
	r := newRemote(t)
	dir := t.TempDir()
	hostKey, hostPublic := sshKey(t, dir, "host")
	_, otherPublic := sshKey(t, dir, "other")
	userKey, userPublic := sshKey(t, dir, "user")
	strangerKey, _ := sshKey(t, dir, "stranger")
	port := freePort(t)
	config := fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\n"+
		"PasswordAuthentication no\nPidFile none\nSetEnv GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*\n", port, hostKey, filepath.Join(dir, "authorized"))
	for name, data := range map[string]string{
		"sshd_config": config, "authorized": userPublic + "\n",
		"known":   fmt.Sprintf("[127.0.0.1]:%d %s\n", port, hostPublic),
		"changed": fmt.Sprintf("[127.0.0.1]:%d %s\n", port, otherPublic),
		"nobody":  "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	start(t, port, "/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(dir, "sshd_config"))
	auth := func(key, known string) Auth {
		return Auth{SSHKeyFile: key, KnownHostsFile: filepath.Join(dir, known)}
	}
	url := fmt.Sprintf("ssh://root@127.0.0.1:%d%s", port, r.bare)
	serveTests(t, r, Config{URL: url, Auth: auth(userKey, "known")})
	waitError(t, follow(t, Config{URL: url + "x", Auth: auth(userKey, "known")}), "there is no repository at this address")
	waitError(t, follow(t, Config{URL: url, Auth: auth(userKey, "changed")}), "THE HOST KEY HAS CHANGED")
	waitError(t, follow(t, Config{URL: url, Auth: auth(userKey, "nobody")}), "host key is not known")
	waitError(t, follow(t, Config{URL: url, Auth: auth(strangerKey, "known")}), "does not accept the SSH key")
	waitError(t, follow(t, Config{URL: url, Auth: auth(filepath.Join(dir, "missing"), "known")}), "read the SSH key")
}
