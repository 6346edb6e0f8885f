package cri_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/runtime/logs/cri"
)

var now = time.Date(2026, 11, 23, 6, 58, 24, 712345678, time.UTC)

func TestEntry(t *testing.T) {
	line := cri.Entry{Time: now, Stream: cri.Stdout, Text: []byte("hello you")}.Append(nil)
	if got, want := string(line), "2026-11-23T06:58:24.712345678Z stdout F hello you\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, bad := range []string{"", "x", "2026-11-23T06:58:24Z", "2026-11-23T06:58:24Z stdout", "2026-11-23T06:58:24Z nowhere F x", "never stdout F x"} {
		if e, err := cri.Parse([]byte(bad)); err == nil {
			t.Errorf("%q: parsed as %+v", bad, e)
		}
	}
	if e, err := cri.Parse([]byte("2026-11-23T06:58:24Z stderr F ")); err != nil || len(e.Text) != 0 {
		t.Errorf("empty text: got %+v, %v", e, err)
	}
}

// However a stream is cut into chunks, its entries joined give it back.
func TestLines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream bytes.Buffer
		for range rapid.IntRange(0, 20).Draw(t, "lines") {
			stream.WriteString(strings.Repeat("x", rapid.SampledFrom([]int{0, 1, 5, 100, cri.MaxEntry - 1, cri.MaxEntry, cri.MaxEntry + 1, 3 * cri.MaxEntry}).Draw(t, "length")))
			stream.WriteByte('\n')
		}
		rest := rapid.SampledFrom([]string{"", "rest"}).Draw(t, "rest")
		stream.WriteString(rest)
		var lines cri.Lines
		var out []byte
		for b := stream.Bytes(); len(b) > 0; {
			n := min(len(b), rapid.IntRange(1, 20_000).Draw(t, "chunk"))
			out = lines.Next(out, cri.Stdout, now, b[:n])
			b = b[n:]
		}
		out = lines.Flush(out, cri.Stdout, now)
		var joined []byte
		for line := range bytes.Lines(out) {
			e, err := cri.Parse(bytes.TrimSuffix(line, []byte("\n")))
			if err != nil {
				t.Fatal(err)
			}
			if len(e.Text) > cri.MaxEntry {
				t.Fatalf("an entry of %d bytes", len(e.Text))
			}
			joined = append(joined, e.Text...)
			if !e.Partial {
				joined = append(joined, '\n')
			}
		}
		if !bytes.Equal(joined, stream.Bytes()) {
			t.Fatalf("got %d bytes, want %d", len(joined), stream.Len())
		}
	})
}

func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pod", "app", "0.log")
	f := cri.File{Path: path, MaxSize: 100, Keep: 3}
	defer f.Close()
	for i := range 10 {
		f.Write(fmt.Appendf(nil, "%039d\n", i), 1, now) // two of 40 bytes fit into a file
	}
	for n, want := range map[int]string{0: "89", 1: "67", 2: "45"} {
		b, err := os.ReadFile(cri.Rotated(path, n))
		if err != nil || len(b) != 80 || string(b[38])+string(b[78]) != want {
			t.Errorf("file %d: got %q, %v", n, b, err)
		}
	}
	if _, err := os.Stat(cri.Rotated(path, 3)); err == nil {
		t.Error("a fourth file is kept")
	}
}

// A full disk loses entries, says so later, and stops nobody. /dev/full is one.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
	f := cri.File{Path: path}
	defer f.Close()
	for range 3 {
		f.Write([]byte("x\n"), 1, now)
	}
	if n, err := f.Dropped(); n != 3 || err == nil {
		t.Fatalf("dropped: got %d, %v", n, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f.Close()
	f.Write([]byte("y\n"), 1, now)
	b, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(b), "stderr F [shoal: 3 entries lost: write "+path+": no space left on device]\ny\n") {
		t.Errorf("got %q, %v", b, err)
	}
}
