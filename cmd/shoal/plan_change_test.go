package main

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gitsync"
	"github.com/shoal-dev/shoal/internal/scenario"
	"github.com/shoal-dev/shoal/scheduler"
)

// TestGoldenChange: how a change that breaks budgets and a quota is shown, in every
// form.
func TestGoldenChange(t *testing.T) {
	fleet, err := readInventory("testdata/three.yaml")
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) api.Snapshot {
		t.Helper()
		dir, err := filepath.Abs("testdata/change/" + name)
		if err != nil {
			t.Fatal(err)
		}
		snapshot, problems, err := gitsync.Check(t.Context(), gitsync.Root(dir), dir)
		if err != nil || len(problems) > 0 {
			t.Fatal(err, problems)
		}
		return snapshot
	}
	plan := scheduler.Foresee(read("base"), read("head"), fleet.Board, fleet.Facts, time.Date(2026, 1, 1, 12, 0, 30, 0, time.UTC))
	for form, print := range planPrinters {
		t.Run(form, func(t *testing.T) {
			var out bytes.Buffer
			if err := print(&out, plan); err != nil {
				t.Fatal(err)
			}
			golden := "testdata/change/plan." + form
			scenario.Golden(t, golden, out.String())
		})
	}
}
