package sim

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/shoal-dev/shoal/internal/scenario"
)

func TestMain(m *testing.M) {
	if os.Getenv("SHOAL_LIVE") != "" {
		Live = os.Stderr
	}
	os.Exit(m.Run())
}

// TestScenarios runs the scripts in testdata.
func TestScenarios(t *testing.T) {
	scenario.Run(t, "testdata/*.txtar", func(t *testing.T, c scenario.Case) (got string) {
		nodes, err := strconv.Atoi(strings.TrimSpace(c.Text("nodes")))
		if err != nil {
			t.Fatalf("nodes: %v", err)
		}
		folder := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			f := New(t, nodes, 1, folder)
			defer f.End()
			if got, err = f.Run(c.Text("script"), c.Map()); err != nil {
				t.Error(err)
			}
		})
		return got
	})
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
