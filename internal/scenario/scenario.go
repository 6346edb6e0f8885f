// Package scenario is for tests whose cases are txtar archives: the comment says
// what a case shows, its sections what it is made of, and the section "want" what
// must come of it.
//
//	scenario.Run(t, "testdata/*.txtar", func(t *testing.T, s scenario.Case) string {
//		return transcript(t, s.Text("script"))
//	})
//	scenario.Golden(t, "testdata/all.txt", out)
//	go test ./package -run TestScenarios -update // and review the diff
package scenario

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite what scenarios and golden files want; review the diff")

// A Case is one archive.
type Case struct {
	Comment  string
	Sections []txtar.File // in their order, without "want"
}

// Text returns a section, "" when there is none.
func (c Case) Text(name string) string {
	for _, s := range c.Sections {
		if s.Name == name {
			return string(s.Data)
		}
	}
	return ""
}

// Map returns all sections by name.
func (c Case) Map() map[string]string {
	out := make(map[string]string, len(c.Sections))
	for _, s := range c.Sections {
		out[s.Name] = string(s.Data)
	}
	return out
}

// Run plays every archive that a pattern matches, as a test of its own, and
// compares what comes of it with what the archive wants. With the flag -update it
// writes that into the archives instead, but for those whose play has failed.
func Run(t *testing.T, pattern string, play func(t *testing.T, c Case) string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios match %s: %v", pattern, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { run(t, file, play) })
	}
}

func run(t *testing.T, file string, play func(t *testing.T, c Case) string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wants := func(f txtar.File) bool { return f.Name == "want" }
	want := slices.IndexFunc(archive.Files, wants)
	c := Case{string(archive.Comment), slices.DeleteFunc(slices.Clone(archive.Files), wants)}
	got := play(t, c)
	switch {
	case t.Failed():
	case *update:
		archive.Files = append(c.Sections, txtar.File{Name: "want", Data: []byte(got)})
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	case want < 0:
		t.Fatal("the scenario has no section \"want\"; run with -update and review it")
	default:
		if diff := cmp.Diff(string(archive.Files[want].Data), got); diff != "" {
			t.Errorf("%s\n%s\n(-want +got):\n%s", c.Comment, c.Text("script"), diff)
		}
	}
}

// Golden compares what came of a test with what a file holds. With the flag -update
// it writes that into the file instead.
func Golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}
