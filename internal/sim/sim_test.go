package sim

import (
	"flag"
	"fmt"
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

// number returns what a variable of the environment says.
func number(t *testing.T, name string, or int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return or
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestRandom runs fleets through random faults: SHOAL_RUNS of them, from the seed
// SHOAL_SEED on, each with SHOAL_FAULTS faults and commits.
func TestRandom(t *testing.T) {
	first := number(t, "SHOAL_SEED", 1)
	for seed := first; seed < first+number(t, "SHOAL_RUNS", 6); seed++ {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				f := New(t, 3+2*(seed%3), uint64(seed), folder)
				defer f.End()
				Random{Seed: uint64(seed), Faults: number(t, "SHOAL_FAULTS", 12)}.Run(f)
			})
			if t.Failed() {
				t.Logf("again: SHOAL_SEED=%d SHOAL_RUNS=1 go test ./internal/sim -run TestRandom", seed)
			}
		})
	}
}

// TestReplay decides everything in the journal SHOAL_JOURNAL again; without one,
// that of a short run.
func TestReplay(t *testing.T) {
	var raw []byte
	if path := os.Getenv("SHOAL_JOURNAL"); path != "" {
		var err error
		if raw, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	} else {
		folder := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			f := New(t, 3, 1, folder)
			defer f.End()
			Random{Seed: 1, Faults: 4}.Run(f)
			raw = f.journal.bytes()
		})
	}
	count := 0
	err := replay(raw, func(e entry) {
		count++
		t.Logf("%s %s leads, term %d: %d pods, %d to remove, %d pending", e.Now.Format("04:05.000"), e.Node, e.Authority.Term, len(e.Decision.Set.Pods), len(e.Decision.Set.Remove), len(e.Decision.Set.Pending))
	})
	if err != nil || count == 0 {
		t.Errorf("%d decisions: %v", count, err)
	}
}
