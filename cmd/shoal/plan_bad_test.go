package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gitsync"
	"github.com/shoal-dev/shoal/internal/scenario"
	"github.com/shoal-dev/shoal/scheduler"
)

// TestGoldenBadInput: what nobody can serve is refused with file, line and field, or
// waits with a reason, and the pods of good.yaml are not touched by it.
func TestGoldenBadInput(t *testing.T) {
	fleet, err := readInventory("testdata/three.yaml")
	if err != nil {
		t.Fatal(err)
	}
	read := func(t *testing.T, names ...string) (api.Snapshot, []api.Invalid) {
		t.Helper()
		dir := t.TempDir()
		for _, name := range names {
			text, err := os.ReadFile("testdata/bad/" + name)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		snapshot, problems, err := gitsync.Check(t.Context(), dir, dir)
		if err != nil {
			t.Fatal(err)
		}
		return snapshot, problems
	}
	good, problems := read(t, "good.yaml")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			snapshot, problems := read(t, "good.yaml", name)
			var out bytes.Buffer
			for _, p := range problems {
				out.WriteString(p.Error() + "\n")
			}
			if !api.Refused(problems) {
				plan := scheduler.Foresee(good, snapshot, fleet.Board, fleet.Facts, time.Date(2026, 1, 1, 12, 0, 30, 0, time.UTC))
				if err := printPlan(&out, plan); err != nil {
					t.Fatal(err)
				}
				if plan.Stay != 3 || len(plan.Stop)+len(plan.Move) > 0 {
					t.Errorf("the pods of good.yaml are disturbed:\n%s", &out)
				}
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			scenario.Golden(t, golden, out.String())
		})
	}
}
