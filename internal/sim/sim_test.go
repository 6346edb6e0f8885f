package sim

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what the scenarios print into them; review the diff")

func TestMain(m *testing.M) {
	if os.Getenv("SHOAL_LIVE") != "" {
		Live = os.Stderr
	}
	os.Exit(m.Run())
}

// TestScenarios runs the scripts in testdata.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { scenario(t, file) })
	}
}

func scenario(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, f := range archive.Files {
		sections[f.Name] = string(f.Data)
	}
	nodes, err := strconv.Atoi(strings.TrimSpace(sections["nodes"]))
	if err != nil {
		t.Fatalf("nodes: %v", err)
	}
	folder, got := t.TempDir(), ""
	synctest.Test(t, func(t *testing.T) {
		f := New(t, nodes, 1, folder)
		defer f.End()
		if got, err = f.Run(sections["script"], sections); err != nil {
			t.Error(err)
		}
	})
	if *update && !t.Failed() {
		archive.Files = append(without(archive.Files, "want"), txtar.File{Name: "want", Data: []byte(got)})
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(sections["want"], got); diff != "" && !t.Failed() {
		t.Errorf("%s\ntranscript (-want +got):\n%s", archive.Comment, diff)
	}
}

func without(files []txtar.File, name string) (out []txtar.File) {
	for _, f := range files {
		if f.Name != name {
			out = append(out, f)
		}
	}
	return out
}
