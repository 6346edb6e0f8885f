package scheduler

import (
	"testing"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// TestBehind: a leader waits for a commit that a living node has in force and that
// it lacks, and only for so long.
func TestBehind(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	refused := []api.Invalid{{File: "a.yaml", Reason: "no"}}
	held := map[api.Commit]bool{"mine": true, "old": true, "seen": true}
	has := func(c api.Commit) bool { return held[c] }
	for name, tt := range map[string]struct {
		theirs, tip api.Commit
		problems    []api.Invalid
		health      []api.NodeHealth
		waits       bool
	}{
		"the same commit":                          {theirs: "mine"},
		"none yet":                                 {},
		"an older one, which it has":               {theirs: "old"},
		"one that it lacks":                        {theirs: "new", waits: true},
		"one that it lacks, of a node judged well": {theirs: "new", health: []api.NodeHealth{{Node: "n2", Status: api.NodeAlive}}, waits: true},
		"one that a lost node had":                 {theirs: "new", health: []api.NodeHealth{{Node: "n2", Status: api.NodeLost}}},
		"one that it is looking at":                {theirs: "seen", tip: "seen", waits: true},
		"one that it has refused":                  {theirs: "seen", tip: "seen", problems: refused},
	} {
		t.Run(name, func(t *testing.T) {
			own := []api.UnitStatus{{Unit: "main", Accepted: api.CommitInfo{Commit: "mine"}, Tip: api.CommitInfo{Commit: tt.tip}, Problems: tt.problems}}
			board := api.Board{Nodes: []api.NodeInfo{{Name: "n2", Units: map[string]api.Commit{"main": tt.theirs}}}, Health: tt.health}
			want := time.Time{}
			if tt.waits {
				want = now.Add(catchUp)
			}
			var l Lacking
			for _, step := range []struct {
				later time.Duration
				until time.Time
			}{{0, want}, {catchUp - time.Second, want}, {catchUp, time.Time{}}, {time.Hour, time.Time{}}} {
				var got time.Time
				if l, got = l.Behind(own, has, board, now.Add(step.later)); !got.Equal(step.until) {
					t.Errorf("after %s it waits until %s, want %s", step.later, got, step.until)
				}
			}
			// Once it has the commit and the next one comes, the wait is a new one.
			held["new"] = true
			l, _ = l.Behind(own, has, board, now)
			delete(held, "new")
			if tt.theirs != "new" || !tt.waits {
				return
			}
			later := now.Add(2 * time.Hour)
			if _, got := l.Behind(own, has, board, later); !got.Equal(later.Add(catchUp)) {
				t.Errorf("it waits until %s for another commit, want %s", got, later.Add(catchUp))
			}
		})
	}
}
