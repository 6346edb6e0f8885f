package gitsync

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gitsync/render"
)

func TestMain(m *testing.M) {
	render.Main()
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"))
}

// work is a repository with a work tree, made and changed with the git program.
type work struct {
	t   testing.TB
	dir string
}

func newWork(t testing.TB, args ...string) work {
	t.Helper()
	w := work{t, filepath.Join(t.TempDir(), "work")}
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w.git(append([]string{"init", "-q", "-b", "main"}, args...)...)
	return w
}

func (w work) git(args ...string) string {
	w.t.Helper()
	return runGit(w.t, w.dir, args...)
}

func runGit(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=gc.auto", "GIT_CONFIG_VALUE_0=0",
		"GIT_AUTHOR_NAME=Ann", "GIT_AUTHOR_EMAIL=ann@example.com", "GIT_COMMITTER_NAME=Ann", "GIT_COMMITTER_EMAIL=ann@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (w work) write(name, data string) {
	w.t.Helper()
	file := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// commit records everything and returns the hash.
func (w work) commit(message string) api.Commit {
	w.t.Helper()
	w.git("add", "-A")
	w.git("commit", "-q", "--allow-empty", "-m", message)
	return api.Commit(w.git("rev-parse", "HEAD"))
}

func configMap(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {key: %q}\n", name, value)
}

// follow opens a Repo and runs it until the test ends.
func follow(t testing.TB, cfg Config) *Repo {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Poll == 0 {
		cfg.Poll = 50 * time.Millisecond
	}
	r, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	run(t, r)
	return r
}

// run runs a Repo until the test ends, or until stop is called.
func run(t testing.TB, r *Repo) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// wait blocks until the status is as wanted.
func wait(t testing.TB, r *Repo, what string, ok func(api.UnitStatus) bool) api.UnitStatus {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		status := r.Status()[0]
		if ok(status) {
			return status
		}
		select {
		case <-r.Changed():
		case <-time.After(5 * time.Millisecond): // Checked changes without a poke
		case <-deadline:
			t.Fatalf("%s did not happen; status is %+v", what, r.Status()[0])
		}
	}
}

func waitCommit(t testing.TB, r *Repo, commit api.Commit) api.UnitStatus {
	t.Helper()
	return wait(t, r, "acceptance of "+commit.Short(), func(s api.UnitStatus) bool { return s.Accepted.Commit == commit })
}

func waitError(t testing.TB, r *Repo, parts ...string) {
	t.Helper()
	wait(t, r, "error "+strings.Join(parts, ", "), func(s api.UnitStatus) bool {
		for _, part := range parts {
			if !strings.Contains(s.Error, part) {
				return false
			}
		}
		return true
	})
}

func keys(s api.Snapshot) string {
	var out []string
	for o := range s.Objects() {
		out = append(out, o.Key().String())
	}
	return strings.Join(out, ", ")
}

// The life of a unit: a commit comes into force, a bad one changes nothing, a
// revert heals, and a restart without the repository goes on where it was.
func TestBadCommitChangesNothing(t *testing.T) {
	w := newWork(t)
	w.write("apps/a.yaml", configMap("a", "1"))
	w.write("README.md", "hello")
	first := w.commit("first")
	state := t.TempDir()
	cfg := Config{Dir: state, URL: w.dir, Poll: time.Hour} // only the watch can see what comes
	r := follow(t, cfg)
	status := waitCommit(t, r, first)
	if got := keys(r.Latest()); got != "ConfigMap default/a" {
		t.Fatalf("snapshot holds %s", got)
	}
	if status.Accepted.Subject != "first" || status.Accepted.Author != "Ann" {
		t.Errorf("commit is described as %+v", status.Accepted)
	}

	w.write("apps/a.yaml", configMap("a", "2"))
	w.write("apps/b.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndatta: {}\n")
	bad := w.commit("bad")
	status = wait(t, r, "refusal", func(s api.UnitStatus) bool { return s.Tip.Commit == bad })
	if status.Accepted.Commit != first || r.Latest().Units["main"] != first {
		t.Fatalf("a bad commit came into force: %+v", status)
	}
	if len(status.Problems) != 1 || status.Problems[0].Error() != "apps/b.yaml:4: datta: unknown field" {
		t.Errorf("problems are %v", status.Problems)
	}

	gone := w.dir + ".gone"
	if err := os.Rename(w.dir, gone); err != nil {
		t.Fatal(err)
	}
	again, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if again.Latest().Units["main"] != first {
		t.Fatalf("after a restart %v is in force, want %s", again.Latest().Units, first)
	}
	if err := os.Rename(gone, w.dir); err != nil {
		t.Fatal(err)
	}
	r.Poke()

	w.git("revert", "--no-edit", "HEAD")
	healed := api.Commit(w.git("rev-parse", "HEAD"))
	r.Poke()
	if status = waitCommit(t, r, healed); len(status.Problems) > 0 {
		t.Errorf("problems remain after a revert: %v", status.Problems)
	}
	if s, err := r.At(first); err != nil || keys(s) != "ConfigMap default/a" || s.Units["main"] != first {
		t.Errorf("the first commit is not readable any more: %v %v", keys(s), err)
	}
	if _, err := r.At(bad); err == nil {
		t.Error("a commit with mistakes can be used")
	}
}

// The commit before the one in force is known, also after a restart, and one that
// was refused is not it.
func TestPrevious(t *testing.T) {
	w := newWork(t)
	w.write("a.yaml", configMap("a", "1"))
	first := w.commit("first")
	cfg := Config{Dir: t.TempDir(), URL: w.dir, Poll: time.Hour}
	r := follow(t, cfg)
	waitCommit(t, r, first)
	if got := r.Previous(); got != "" {
		t.Errorf("before the first commit was %q", got)
	}
	w.write("a.yaml", "kind: Nothing\n")
	bad := w.commit("bad")
	wait(t, r, "refusal", func(s api.UnitStatus) bool { return s.Tip.Commit == bad })
	w.write("a.yaml", configMap("a", "2"))
	second := w.commit("second")
	waitCommit(t, r, second)
	if got := r.Previous(); got != first {
		t.Errorf("before the second commit was %q, want %q", got, first)
	}
	wait(t, r, "a look at the repository", func(s api.UnitStatus) bool { return !s.Checked.Before(s.InForce) })
	again, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.Previous(); got != first {
		t.Errorf("after a restart it was %q, want %q", got, first)
	}
}

// Warnings do not hold a commit back.
func TestWarningsAreAccepted(t *testing.T) {
	w := newWork(t)
	w.write("n.yaml", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\nspec: {podSelector: {}}\n")
	r := follow(t, Config{URL: w.dir})
	status := waitCommit(t, r, w.commit("x"))
	if len(status.Problems) != 1 || !status.Problems[0].Warning {
		t.Errorf("problems are %v, want one warning", status.Problems)
	}
}

// A folder without manifests is followed, and its author is told what that means.
func TestNoManifests(t *testing.T) {
	w := newWork(t)
	w.write("README.md", "# soon\n")
	r := follow(t, Config{URL: w.dir})
	status := waitCommit(t, r, w.commit("x"))
	want := ".: warning: there is no manifest in this folder (*.yaml, *.yml, *.json): a fleet that follows it runs nothing"
	if len(status.Problems) != 1 || !status.Problems[0].Warning || status.Problems[0].Error() != want {
		t.Errorf("problems are %v, want the warning %q", status.Problems, want)
	}
}

// TestRoot: the top of the repository is found from a folder and from a file.
func TestRoot(t *testing.T) {
	w := newWork(t)
	w.write("apps/web/a.yaml", configMap("a", "1"))
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "a.yaml"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		w.dir: w.dir, filepath.Join(w.dir, "apps/web"): w.dir, filepath.Join(w.dir, "apps/web/a.yaml"): w.dir,
		outside: outside, filepath.Join(outside, "a.yaml"): outside,
	} {
		if got := Root(name); got != want {
			t.Errorf("Root(%s) = %s, want %s", name, got, want)
		}
	}
}

func TestUnusableFiles(t *testing.T) {
	for _, test := range []struct {
		name  string
		make  func(w work)
		path  string
		wants string
	}{
		{
			"10 MB", func(w work) { w.write("big.yaml", strings.Repeat("# 3456789\n", 1<<20)) }, "",
			"big.yaml: the file has 10485760 bytes; manifests may have 1048576 at most",
		},
		{"UTF-16", func(w work) { w.write("u.yaml", "\xff\xfea\x00") }, "", "u.yaml:1: the file is UTF-16; save it as UTF-8"},
		{"symlink", func(w work) {
			if err := os.Symlink("/etc/passwd", filepath.Join(w.dir, "link.yaml")); err != nil {
				w.t.Fatal(err)
			}
		}, "", "link.yaml: is a symbolic link; links are not followed: commit the file itself"},
		{"submodule", func(w work) {
			w.git("update-index", "--add", "--cacheinfo", "160000,0123456789012345678901234567890123456789,sub")
			w.git("commit", "-q", "-m", "sub")
		}, "", "sub: is a submodule; submodules are not read: commit the files themselves"},
		{
			"no such path", func(w work) { w.write("a.yaml", configMap("a", "1")) }, "apps",
			"apps: there is no such folder in this commit; the sync path names it",
		},
		{"Helm chart", func(w work) {
			w.write("chart/Chart.yaml", "apiVersion: v2\nname: x\n")
			w.write("chart/templates/a.yaml", "{{ .Values }}\n")
		}, "", `chart/Chart.yaml: this folder is a Helm chart; charts are planned, not rendered yet: commit what "helm template" prints, or set the sync path to another folder`},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWork(t)
			test.make(w)
			if test.name != "submodule" {
				w.commit("x")
			}
			r := follow(t, Config{URL: "file://" + w.dir, Path: test.path})
			status := wait(t, r, "a verdict", func(s api.UnitStatus) bool { return len(s.Problems) > 0 })
			if got := status.Problems[0].Error(); got != test.wants || len(status.Problems) > 1 {
				t.Errorf("got  %v\nwant %s", status.Problems, test.wants)
			}
			if r.Latest().Known() {
				t.Error("it came into force")
			}
		})
	}
}

func TestHiddenFilesAndOutsidersAreLeftAlone(t *testing.T) {
	w := newWork(t)
	w.write("apps/a.yaml", configMap("a", "1"))
	w.write("apps/.github/workflow.yaml", "on: push\n")
	w.write("apps/.hidden.yaml", "x: y\n")
	w.write("other/broken.yaml", "}{")
	if err := os.Symlink("/", filepath.Join(w.dir, "root")); err != nil {
		t.Fatal(err)
	}
	r := follow(t, Config{URL: w.dir, Path: "/apps/"})
	waitCommit(t, r, w.commit("x"))
	if got := keys(r.Latest()); got != "ConfigMap default/a" {
		t.Errorf("snapshot holds %s", got)
	}
}

func TestRefs(t *testing.T) {
	w := newWork(t)
	w.write("a.yaml", configMap("a", "1"))
	first := w.commit("first")
	w.git("tag", "-a", "-m", "release", "v1")
	w.git("branch", "team/next")
	w.write("a.yaml", configMap("a", "2"))
	second := w.commit("second")
	bare := filepath.Join(t.TempDir(), "bare.git")
	w.git("clone", "-q", "--bare", ".", bare)
	linked := filepath.Join(t.TempDir(), "linked")
	w.git("worktree", "add", "-q", linked, "team/next")
	shared := filepath.Join(t.TempDir(), "shared")
	w.git("clone", "-q", "--shared", ".", shared)
	packed := newWork(t)
	packed.git("pull", "-q", w.dir, "main")
	packed.git("gc", "-q")
	for _, test := range []struct {
		name, url, ref string
		want           api.Commit
	}{
		{"head", w.dir, "", second},
		{"branch", w.dir, "main", second},
		{"full name", w.dir, "refs/heads/team/next", first},
		{"annotated tag", w.dir, "v1", first},
		{"bare", bare, "main", second},
		{"linked work tree", linked, "", first},
		{"alternates", shared, "main", second},
		{"packed", packed.dir, "main", second},
	} {
		t.Run(test.name, func(t *testing.T) {
			waitCommit(t, follow(t, Config{URL: test.url, Ref: test.ref}), test.want)
		})
	}
}

func TestRepositoryErrors(t *testing.T) {
	empty := newWork(t)
	branches := newWork(t)
	branches.commit("x")
	branches.git("branch", "other")
	plain := t.TempDir()
	sha256 := newWork(t, "--object-format=sha256")
	sha256.commit("x")
	for _, test := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"empty", Config{URL: empty.dir}, []string{"the repository has no commits yet"}},
		{"wrong branch", Config{URL: branches.dir, Ref: "master"}, []string{`there is no branch or tag "master"`, "main, other"}},
		{"not a repository", Config{URL: plain}, []string{"is not a Git repository"}},
		{"nothing there", Config{URL: plain + "/missing"}, []string{"there is no repository"}},
		{"SHA-256", Config{URL: sha256.dir}, []string{"SHA-256 repositories are not supported"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			waitError(t, follow(t, test.cfg), test.want...)
		})
	}
}

// An empty repository is followed as soon as it has a commit, a missing one as
// soon as it is there.
func TestRepositoryComesLater(t *testing.T) {
	w := newWork(t)
	r := follow(t, Config{URL: w.dir})
	waitError(t, r, "no commits")
	w.write("a.yaml", configMap("a", "1"))
	status := waitCommit(t, r, w.commit("first"))
	wait(t, r, "end of the error", func(s api.UnitStatus) bool { return s.Error == "" })
	if status.Ref != "" {
		t.Errorf("ref is %q", status.Ref)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, test := range []struct {
		cfg  Config
		want string
	}{
		{Config{URL: "/x"}, "state folder"},
		{Config{Dir: "/x"}, "URL of the repository is not set"},
		{Config{Dir: "/x", URL: "ftp://host/x"}, `scheme "ftp" is not supported`},
		{Config{Dir: "/x", URL: "git@host:repo.git"}, "needs a key"},
		{Config{Dir: "/x", URL: "/y", Path: "../z"}, "leads out of the repository"},
		{Config{Dir: "/x", URL: "/y", Ref: "a..b"}, "is not the name of a branch"},
	} {
		if _, err := Open(test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want %s", test.cfg, err, test.want)
		}
	}
}
