package gitsync

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/shoal-dev/shoal/api"
)

// line is a stream between two nodes, whose answers may be spoilt.
type line struct {
	io.Reader
	io.Writer
}

// peerOf returns a node that serves what another Repo holds.
func peerOf(name string, r *Repo, commit func() api.Commit, spoil func(io.Reader) io.Reader) func(string) []Peer {
	return func(string) []Peer {
		return []Peer{{Name: name, Commit: commit(), Open: func(ctx context.Context) (io.ReadWriter, error) {
			questions, ask := io.Pipe()
			answers, answer := io.Pipe()
			go func() { _ = answer.CloseWithError(r.Serve(ctx, line{questions, answer})) }()
			context.AfterFunc(ctx, func() { _ = answers.Close(); _ = questions.Close() })
			if spoil != nil {
				return line{spoil(answers), ask}, nil
			}
			return line{answers, ask}, nil
		}}}
	}
}

func accepted(r *Repo) func() api.Commit {
	return func() api.Commit { return r.Latest().Units[r.target.Unit] }
}

// followOf starts a Repo with peers.
func followOf(t *testing.T, cfg Config, peers func(string) []Peer) *Repo {
	t.Helper()
	r, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Follow(peers)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// TestObjectsFromPeers: a node that does not reach the Git host follows one that
// does, for as long as what it has follows on what is in force.
func TestObjectsFromPeers(t *testing.T) {
	host := newRemote(t)
	host.write("a.yaml", configMap("a", "1"))
	first := host.push("first")
	up, down := httptest.NewServer(host.backend()), httptest.NewServer(host.backend())
	t.Cleanup(up.Close)
	near := follow(t, Config{Dir: t.TempDir(), URL: up.URL + "/repo.git", Poll: time.Hour})
	waitCommit(t, near, first)
	dir := t.TempDir()
	far := followOf(t, Config{Dir: dir, URL: down.URL + "/repo.git", Poll: time.Hour}, peerOf("near", near, accepted(near), nil))
	waitCommit(t, far, first)
	down.Close()

	host.write("b.yaml", configMap("b", "1"))
	host.push("second")
	host.write("folder/c.yaml", configMap("c", "1"))
	third := host.push("third")
	near.Poke()
	waitCommit(t, near, third)
	far.Poke()
	waitCommit(t, far, third)
	if got := keys(far.Latest()); got != "ConfigMap default/a, ConfigMap default/b, ConfigMap default/c" {
		t.Errorf("snapshot holds %s", got)
	}
	waitError(t, far, "commit "+third.Short()+" came from node near")
	if left, _ := filepath.Glob(filepath.Join(dir, "*.peer")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	// A restart goes on with it, still without the host.
	again, err := Open(Config{Dir: dir, URL: down.URL + "/repo.git", Poll: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if got := accepted(again)(); got != third {
		t.Errorf("after a restart %s is in force", got.Short())
	}

	// Somebody pushed over the history: nobody but the host says that it is right.
	host.git("reset", "-q", "--hard", "HEAD~2")
	host.write("d.yaml", configMap("d", "1"))
	other := host.push("other")
	near.Poke()
	waitCommit(t, near, other)
	far.Poke()
	waitError(t, far, "node near", "does not follow on "+third.Short())
	if got := accepted(far)(); got != third {
		t.Errorf("%s is in force", got.Short())
	}

	// A node that has nothing takes what another has.
	fresh := followOf(t, Config{Dir: t.TempDir(), URL: down.URL + "/repo.git", Poll: time.Hour}, peerOf("near", near, accepted(near), nil))
	waitCommit(t, fresh, other)
}

// TestObjectsFromLiars: a pack that is cut off, garbled or lacks something changes
// nothing, nor does a node that gives another commit than it was asked for.
func TestObjectsFromLiars(t *testing.T) {
	host := newRemote(t)
	host.write("a.yaml", configMap("a", "1"))
	first := host.push("first")
	up, down := httptest.NewServer(host.backend()), httptest.NewServer(host.backend())
	t.Cleanup(up.Close)
	near := follow(t, Config{Dir: t.TempDir(), URL: up.URL + "/repo.git", Poll: time.Hour})
	waitCommit(t, near, first)
	var spoil func(io.Reader) io.Reader
	says := accepted(near)
	far := followOf(t, Config{Dir: t.TempDir(), URL: down.URL + "/repo.git", Poll: time.Hour}, func(unit string) []Peer {
		return peerOf("liar", near, says, spoil)(unit)
	})
	waitCommit(t, far, first)
	down.Close()
	host.write("b.yaml", configMap("b", strings.Repeat("x", 3000)))
	second := host.push("second")
	near.Poke()
	waitCommit(t, near, second)
	for name, c := range map[string]func(io.Reader) io.Reader{
		"cut off":       func(r io.Reader) io.Reader { return io.LimitReader(r, 200) },
		"garbled":       func(r io.Reader) io.Reader { return &garbler{r: r, at: 150} },
		"nothing":       func(io.Reader) io.Reader { return strings.NewReader("") },
		"noise":         func(io.Reader) io.Reader { return strings.NewReader(strings.Repeat("noise", 1000)) },
		"a huge object": func(io.Reader) io.Reader { return zipped("\x03\xff\xff\xff\xffx") },
		"no end":        func(io.Reader) io.Reader { return zipped("\x03\x00\x00\x00\x01x") },
		"a tag":         func(io.Reader) io.Reader { return zipped("\x04\x00\x00\x00\x01x\x00") },
		"a bad commit":  func(io.Reader) io.Reader { return zipped("\x01\x00\x00\x00\x01x\x00") },
		"refused":       func(io.Reader) io.Reader { return failing{} },
	} {
		spoil = c
		before := far.Status()[0].Error
		err := far.take(t.Context(), peerOf("liar", near, says, spoil)("")[0], first)
		if err == nil || accepted(far)() != first || far.mirror.has(plumbing.NewHash(string(second))) {
			t.Errorf("%s: %v, %s is in force (%s)", name, err, accepted(far)().Short(), before)
		}
	}
	// A node that gives another commit's objects than it names.
	spoil, says = nil, func() api.Commit { return api.Commit(strings.Repeat("ab", 20)) }
	if err := far.take(t.Context(), peerOf("liar", near, says, nil)("")[0], first); err == nil {
		t.Error("a commit that nobody has was taken")
	}
	spoil, says = nil, accepted(near)
	far.Poke()
	waitCommit(t, far, second)
}

type garbler struct {
	r  io.Reader
	at int
}

func (g *garbler) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	if g.at >= 0 && g.at < n {
		p[g.at] ^= 0x20
	}
	g.at -= n
	return n, err
}

func zipped(text string) io.Reader {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text)) // a buffer takes all
	_ = w.Close()
	return &b
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the other node has said no") }

// FuzzObjects: nothing that another node sends makes this one fail.
func FuzzObjects(f *testing.F) {
	for _, text := range []string{"", "\x00", "\x03\x00\x00\x00\x01x\x00", "\x01\xff\xff\xff\xff"} {
		raw, err := io.ReadAll(zipped(text))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := createMirror(filepath.Join(t.TempDir(), "m"))
		if err != nil {
			t.Fatal(err)
		}
		_ = m.read(bytes.NewReader(raw)) // most of it is refused
	})
}

// TestCommitsThatLackSomething are not let in.
func TestCommitsThatLackSomething(t *testing.T) {
	w := newWork(t)
	w.write("a.yaml", configMap("a", "1"))
	w.write("folder/b.yaml", configMap("b", "1"))
	commit := w.commit("one")
	r, err := Open(Config{Dir: t.TempDir(), URL: w.dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.source.fetch(t.Context(), r.mirror); err != nil {
		t.Fatal(err)
	}
	whole := r.mirror
	c, err := whole.commit(plumbing.NewHash(string(commit)))
	if err != nil {
		t.Fatal(err)
	}
	all := collector{from: whole.store, has: func(plumbing.Hash) bool { return false }, seen: map[plumbing.Hash]bool{}}
	if err := all.tree(c.TreeHash, 0); err != nil {
		t.Fatal(err)
	}
	objects := append(all.found, c.Hash)
	for missing := range objects {
		from, err := createMirror(filepath.Join(t.TempDir(), "from"))
		if err != nil {
			t.Fatal(err)
		}
		to, err := createMirror(filepath.Join(t.TempDir(), "to"))
		if err != nil {
			t.Fatal(err)
		}
		for i, h := range objects {
			if i == missing {
				continue
			}
			if err := from.add(whole.store, []plumbing.Hash{h}); err != nil {
				t.Fatal(err)
			}
		}
		if err := to.admit(from, c.Hash, plumbing.ZeroHash); err == nil || to.has(c.Hash) {
			t.Errorf("taken without %s", objects[missing])
		}
	}
	if err := os.RemoveAll(w.dir); err != nil {
		t.Fatal(err)
	}
}
