package logs_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime/logs"
	"github.com/shoal-dev/shoal/runtime/logs/cri"
)

func TestMain(m *testing.M) { testenv.Main(m) }

var begin = time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC)

// write writes numbered entries to a log that is rotated every 20.
func write(t *testing.T, path string, from, to int) {
	t.Helper()
	f := cri.File{Path: path, MaxSize: 20 * 48, Keep: 50}
	defer f.Close()
	for i := from; i < to; i++ {
		at := begin.Add(time.Duration(i) * time.Second)
		f.Write(cri.Entry{Time: at, Stream: cri.Stdout, Text: fmt.Appendf(nil, "line %04d", i)}.Append(nil), 1, at)
	}
}

func read(t *testing.T, path string, o logs.Options) []string {
	t.Helper()
	r, err := logs.Read(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(strings.Lines(string(b)))
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path, 0, 100) // over several files
	if _, err := os.Stat(cri.Rotated(path, 4)); err != nil {
		t.Fatal("the log was not rotated")
	}
	for _, c := range []struct {
		name        string
		options     logs.Options
		n           int
		first, last string
	}{
		{"all", logs.Options{Tail: -1}, 100, "line 0000\n", "line 0099\n"},
		{"tail", logs.Options{Tail: 3}, 3, "line 0097\n", "line 0099\n"},
		{"tail over files", logs.Options{Tail: 50}, 50, "line 0050\n", "line 0099\n"},
		{"tail of more than there is", logs.Options{Tail: 1000}, 100, "line 0000\n", "line 0099\n"},
		{"since", logs.Options{Tail: -1, Since: begin.Add(90 * time.Second)}, 10, "line 0090\n", "line 0099\n"},
		{"limit", logs.Options{Tail: -1, Limit: 25}, 3, "line 0000\n", "line "},
		{"timestamps", logs.Options{Tail: 1, Timestamps: true}, 1, "2026-11-23T07:01:39Z line 0099\n", "2026-11-23T07:01:39Z line 0099\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := read(t, path, c.options)
			if len(got) != c.n || got[0] != c.first || got[len(got)-1] != c.last {
				t.Errorf("got %d lines: %q", len(got), got)
			}
		})
	}
	if got := read(t, path, logs.Options{Tail: 0}); len(got) != 0 {
		t.Errorf("tail 0: got %q", got)
	}
}

// A follower sees every line once, in order, however often the log rotates, and
// ends with the container.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path, 0, 5)
	ended := make(chan struct{})
	r, err := logs.Read(t.Context(), path, logs.Options{Follow: true, Tail: -1, Ended: func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		for i := 5; i < 500; i += 5 {
			write(t, path, i, i+5)
			time.Sleep(time.Millisecond)
		}
		close(ended)
	}()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.Collect(strings.Lines(string(b)))
	for i, line := range lines {
		if want := fmt.Sprintf("line %04d\n", i); line != want {
			t.Fatalf("line %d: got %q", i, line)
		}
	}
	if len(lines) != 500 {
		t.Errorf("got %d lines", len(lines))
	}
}

func TestLast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path, 0, 10)
	if got := logs.Last(path, 2, 1000); got != "line 0008\nline 0009\n" {
		t.Errorf("got %q", got)
	}
	if got := logs.Last(path, 80, 15); got != "0008\nline 0009\n" {
		t.Errorf("got %q", got)
	}
	if got := logs.Last(path+"x", 2, 1000); got != "" {
		t.Errorf("got %q", got)
	}
}

func newKeeper(t *testing.T, program []byte) (*logs.Keeper, logs.KeeperConfig) {
	t.Helper()
	dir := testenv.Dir(t)
	cfg := logs.KeeperConfig{RunDir: filepath.Join(dir, "run"), BinDir: filepath.Join(dir, "bin"), Program: program}
	k, err := logs.StartKeeper(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := logs.StopKeeper(cfg.RunDir); err != nil {
			t.Error(err)
		}
	})
	return k, cfg
}

func holds(t *testing.T, path, text string) {
	t.Helper()
	testenv.Eventually(t, 10*time.Second, fmt.Sprintf("%s holds %q", path, text), func() bool {
		b, _ := os.ReadFile(path)
		return strings.Contains(string(b), text)
	})
}

// TestKeeper: what goes through the FIFOs arrives, whoever is killed.
func TestKeeper(t *testing.T) {
	program := testenv.Keeper(t)
	k, cfg := newKeeper(t, program)
	path := filepath.Join(cfg.RunDir, "logs", "0.log")
	stdout, stderr, err := k.Open(t.Context(), "c1", path)
	if err != nil {
		t.Fatal(err)
	}
	// Like a shim: it holds both ends of the FIFOs open.
	out, err := os.OpenFile(stdout, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close() //nolint:errcheck // the test is over
	errs, err := os.OpenFile(stderr, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer errs.Close() //nolint:errcheck // the test is over
	fmt.Fprintln(out, "one")
	fmt.Fprintln(errs, "two")
	holds(t, path, " stdout F one\n")
	holds(t, path, " stderr F two\n")

	// Another daemon finds the same keeper.
	again, err := logs.StartKeeper(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if again.PID() != k.PID() {
		t.Errorf("keeper: got %d, want %d", again.PID(), k.PID())
	}
	// A killed keeper is replaced, and told again what it holds.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Run(ctx, func(err error) { t.Error(err) })
	}()
	pid := k.PID()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(out, "three")
	holds(t, path, " stdout F three\n")
	cancel()
	<-done
	// What is left in the FIFOs when a container is closed is written.
	fmt.Fprint(out, "four\nunfinished")
	if err := k.Close(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(b), " stdout F four\n") || !strings.HasSuffix(string(b), " stdout P unfinished\n") {
		t.Errorf("got %q, %v", b, err)
	}
	if left, _ := filepath.Glob(cfg.RunDir + "/fifo/*"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if held, err := k.Held(t.Context()); err != nil || len(held) > 0 {
		t.Errorf("held: %q, %v", held, err)
	}
}

// A keeper of another build is replaced by ours.
func TestKeeperReplaced(t *testing.T) {
	program := testenv.Keeper(t)
	k, cfg := newKeeper(t, program)
	path := filepath.Join(cfg.RunDir, "logs", "0.log")
	stdout, _, err := k.Open(t.Context(), "c1", path)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(stdout, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()                              //nolint:errcheck // the test is over
	cfg.Program = append(slices.Clone(program), 0) // the same program, another sum
	next, err := logs.StartKeeper(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if next.PID() == k.PID() {
		t.Error("the old keeper is still there")
	}
	fmt.Fprintln(out, "meanwhile")
	if _, _, err := next.Open(t.Context(), "c1", path); err != nil {
		t.Fatal(err)
	}
	holds(t, path, " stdout F meanwhile\n")
	if err := next.Close(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
}

func TestNoKeeper(t *testing.T) {
	if _, err := logs.EmbeddedKeeper(); err == nil {
		return // built in
	}
	_, err := logs.StartKeeper(t.Context(), logs.KeeperConfig{RunDir: t.TempDir(), BinDir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("got %v", err)
	}
}
