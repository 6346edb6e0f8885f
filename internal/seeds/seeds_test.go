package seeds

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestReport: of many faults the two that are needed are left, and the line names
// them.
func TestReport(t *testing.T) {
	faults := make([]string, 40)
	for i := range faults {
		faults[i] = fmt.Sprint("fault ", i)
	}
	runs := 0
	breaks := func(some []string) string {
		runs++
		if slices.Contains(some, "fault 7") && slices.Contains(some, "fault 31") {
			return "it broke"
		}
		return ""
	}
	want := "go test ./gossip -run 'TestSeed$' -seed=5 -faults=7,31 -bug=3\nit broke\nfault 7\nfault 31\n"
	if got := Report("gossip", 5, 3, faults, breaks); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if runs > 200 {
		t.Errorf("it took %d runs", runs)
	}
	if got := Report("gossip", 5, 0, faults, func([]string) string { return "always" }); !strings.HasPrefix(got, "go test ./gossip -run 'TestSeed$' -seed=5 -faults=\nalways") {
		t.Errorf("no fault is needed: %q", got)
	}
}
