package daemon

import (
	"testing"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// heldCommits is a repository of which only the commits matter.
type heldCommits struct {
	Repository
	unit api.UnitStatus
	has  map[api.Commit]bool
}

func (h heldCommits) Status() []api.UnitStatus   { return []api.UnitStatus{h.unit} }
func (h heldCommits) Has(commit api.Commit) bool { return h.has[commit] }

// TestBehind: a leader waits for a commit that a living node has in force and that
// it lacks, and only for so long.
func TestBehind(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	refused := []api.Invalid{{File: "a.yaml", Reason: "no"}}
	for name, tt := range map[string]struct {
		theirs, tip api.Commit
		problems    []api.Invalid
		health      api.NodeStatus
		waits       bool
	}{
		"the same commit":            {theirs: "mine"},
		"none yet":                   {},
		"an older one, which it has": {theirs: "old"},
		"one that it lacks":          {theirs: "new", waits: true},
		"one that a lost node had":   {theirs: "new", health: api.NodeLost},
		"one that it is looking at":  {theirs: "seen", tip: "seen", waits: true},
		"one that it has refused":    {theirs: "seen", tip: "seen", problems: refused},
	} {
		t.Run(name, func(t *testing.T) {
			unit := api.UnitStatus{Unit: "main", Accepted: api.CommitInfo{Commit: "mine"}, Tip: api.CommitInfo{Commit: tt.tip}, Problems: tt.problems}
			c := &control{
				repo: heldCommits{unit: unit, has: map[api.Commit]bool{"mine": true, "old": true, "seen": true}},
				held: map[api.Commit]bool{}, lacking: map[api.Commit]time.Time{},
			}
			board := api.Board{Nodes: []api.NodeInfo{{Name: "n2", Units: map[string]api.Commit{"main": tt.theirs}}}}
			if board.Health = []api.NodeHealth{{Node: "n2", Status: api.NodeAlive}}; tt.health != "" {
				board.Health[0].Status = tt.health
			}
			want := time.Time{}
			if tt.waits {
				want = now.Add(catchUp)
			}
			for _, later := range []time.Duration{0, catchUp - time.Second} {
				if got := c.behind(board, now.Add(later)); !got.Equal(want) {
					t.Errorf("after %s it waits until %s, want %s", later, got, want)
				}
			}
			if got := c.behind(board, now.Add(catchUp)); !got.IsZero() {
				t.Errorf("after %s it still waits, until %s", catchUp, got)
			}
			board.Health = nil // a node that nobody has judged lives
			if got := c.behind(board, now.Add(catchUp)); tt.health == "" && !got.IsZero() {
				t.Errorf("a node without a judgement: it waits until %s", got)
			}
		})
	}
}
