package gitsync

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// The mirror is disposable: whatever happens to it, the repository brings the
// state back, and nothing goes in between.
func TestDamagedMirror(t *testing.T) {
	w := newWork(t)
	w.write("a.yaml", configMap("a", "1"))
	w.commit("first")
	state := t.TempDir()
	r := follow(t, Config{Dir: state, URL: w.dir})
	waitCommit(t, r, api.Commit(w.git("rev-parse", "HEAD")))
	var objects []string
	err := filepath.Walk(state, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && strings.Contains(path, "/objects/") {
			objects = append(objects, path)
		}
		return err
	})
	if err != nil || len(objects) < 3 {
		t.Fatalf("%d objects: %v", len(objects), err)
	}
	for _, path := range objects {
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.write("a.yaml", configMap("a", "2"))
	second := w.commit("second")
	waitCommit(t, r, second)
	again := follow(t, Config{Dir: state, URL: w.dir})
	waitCommit(t, again, second)
}

// A mirror that has grown is written anew with what is pinned, what is in force and
// what was before it.
func TestRenew(t *testing.T) {
	w := newWork(t)
	w.write("a.yaml", configMap("a", "1"))
	first := w.commit("first")
	r, err := Open(Config{Dir: t.TempDir(), URL: w.dir, Poll: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, r)
	waitCommit(t, r, first)
	if err := r.Keep([]api.Commit{first, "0123456789012345678901234567890123456789"}); err != nil {
		t.Fatal(err)
	}
	w.write("a.yaml", configMap("a", "2"))
	second := w.commit("second")
	waitCommit(t, r, second)
	w.write("a.yaml", configMap("a", "3"))
	third := w.commit("third")
	waitCommit(t, r, third)
	w.write("a.yaml", configMap("a", "4"))
	fourth := w.commit("fourth")
	waitCommit(t, r, fourth)
	stop()
	if err := r.replace(r.mirror.renew); err != nil {
		t.Fatal(err)
	}
	run(t, r)
	for commit, want := range map[api.Commit]bool{first: true, second: false, third: true, fourth: true} {
		if _, err := r.At(commit); (err == nil) != want {
			t.Errorf("commit %s readable: %v, want %v", commit.Short(), err, want)
		}
	}
	w.write("a.yaml", configMap("a", "5"))
	waitCommit(t, r, w.commit("fifth"))
	if err := r.Keep(nil); err != nil {
		t.Fatal(err)
	}
	if kept := r.mirror.kept(); len(kept) != 0 {
		t.Errorf("still pinned: %v", kept)
	}
}

func TestForcePush(t *testing.T) {
	w := newWork(t)
	w.write("a.yaml", configMap("a", "1"))
	first := w.commit("first")
	w.write("a.yaml", configMap("a", "2"))
	second := w.commit("second")
	r := follow(t, Config{URL: w.dir})
	waitCommit(t, r, second)
	w.git("reset", "-q", "--hard", string(first))
	waitCommit(t, r, first)
	w.git("checkout", "-q", "--orphan", "new")
	w.write("b.yaml", configMap("b", "1"))
	unrelated := w.commit("unrelated")
	w.git("branch", "-f", "main", string(unrelated))
	w.git("checkout", "-q", "main")
	waitCommit(t, r, unrelated)
}

// A full disk keeps new commits out and leaves everything else as it is.
func TestFullDisk(t *testing.T) {
	state := t.TempDir()
	if err := syscall.Mount("tmpfs", state, "tmpfs", 0, "size=512k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(state, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w := newWork(t)
	w.write("a.yaml", configMap("a", "1"))
	first := w.commit("first")
	cfg := Config{Dir: state, URL: w.dir}
	r := follow(t, cfg)
	waitCommit(t, r, first)
	wait(t, r, "end of the first look", func(s api.UnitStatus) bool { return !s.Checked.IsZero() })
	ballast := filepath.Join(state, "ballast")
	_ = os.WriteFile(ballast, make([]byte, 1<<20), 0o600) // as much as there is room for
	w.write("a.yaml", configMap("a", "2"))
	second := w.commit("second")
	waitError(t, r, "no space left on device")
	if r.Latest().Units["main"] != first {
		t.Errorf("in force is %s", r.Latest().Units["main"])
	}
	again, err := Open(cfg)
	if err != nil || again.Latest().Units["main"] != first {
		t.Fatalf("a restart on a full disk: %v, %v", err, again)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	waitCommit(t, r, second)
	left, err := filepath.Glob(filepath.Join(state, "mirror-*/objects/pack/tmp_*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
