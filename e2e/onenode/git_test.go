//go:build e2e

package onenode

import (
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-dev/shoal/internal/testenv"
)

// A repo is a Git repository with a work tree, as a person has it.
type repo struct {
	t      testing.TB
	dir    string
	remote string // a bare one that is pushed to; "" when the work tree's own is followed
}

func newRepo(t testing.TB) *repo {
	t.Helper()
	r := &repo{t: t, dir: testenv.Dir(t)}
	r.git("init", "-q", "-b", "main")
	r.git("config", "gc.auto", "0") // it would pack refs while a test looks at their times
	return r
}

func (r *repo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", r.dir, "-c", "user.name=e2e", "-c", "user.email=e2e@localhost"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// write puts files into the work tree; an empty text removes the file.
func (r *repo) write(files map[string]string) {
	r.t.Helper()
	for name, text := range files {
		path := filepath.Join(r.dir, name)
		if text == "" {
			if err := os.RemoveAll(path); err != nil {
				r.t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
}

// commit commits everything, pushes it if there is where to, and returns the
// commit's hash.
func (r *repo) commit(message string) string {
	r.t.Helper()
	r.git("add", "-A")
	r.git("commit", "-q", "--allow-empty", "-m", message)
	if r.remote != "" {
		r.git("push", "-q", r.remote, "HEAD:main")
	}
	return r.git("rev-parse", "HEAD")
}

// addCorpus copies the files of a folder of the corpus, not those of its
// sub-folders, as `kubectl apply -f` takes them.
func (r *repo) addCorpus(folder string) {
	r.t.Helper()
	entries, err := os.ReadDir(filepath.Join(corpus, folder))
	if err != nil {
		r.t.Fatalf("the corpus stands beside the project: %v", err)
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext != ".yaml" && ext != ".json" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(corpus, folder, e.Name()))
		if err != nil {
			r.t.Fatal(err)
		}
		r.write(map[string]string{e.Name(): string(text)})
	}
}

// addTree copies a folder of the corpus with everything below it.
func (r *repo) addTree(folder string) {
	r.t.Helper()
	if out, err := exec.Command("cp", "-r", filepath.Join(corpus, folder)+"/.", r.dir).CombinedOutput(); err != nil {
		r.t.Fatalf("copy %s: %v\n%s", folder, err, out)
	}
}

// serveHTTP serves a bare copy of the repository over smart HTTP with Git's own
// http-backend, and returns its URL. Later commits are pushed to it.
func (r *repo) serveHTTP() string {
	r.t.Helper()
	root := testenv.Dir(r.t)
	bare := filepath.Join(root, "fleet.git")
	if out, err := exec.Command("git", "clone", "-q", "--bare", r.dir, bare).CombinedOutput(); err != nil {
		r.t.Fatalf("git clone: %v\n%s", err, out)
	}
	backend, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		r.t.Fatal(err)
	}
	server := httptest.NewServer(http.Handler(&cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(backend)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}))
	r.t.Cleanup(server.Close)
	r.remote = bare
	return fmt.Sprintf("%s/fleet.git", server.URL)
}
