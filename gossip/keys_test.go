package gossip

import (
	"fmt"
	"testing"
	"time"
)

// TestGossipKeys: when a new one is due, and which are understood.
func TestGossipKeys(t *testing.T) {
	at := func(hours float64) time.Time {
		return time.Unix(1800000000, 0).Add(time.Duration(hours * float64(time.Hour)))
	}
	removed := func(hours float64) map[string]Member {
		return map[string]Member{"a": {ID: "a"}, "b": {ID: "b", Removed: true, RemovedAt: at(hours)}}
	}
	keys := func(hours ...float64) (out []KeyGeneration) {
		for i, h := range hours {
			out = append(out, KeyGeneration{Generation: uint64(i + 1), Key: []byte{byte(i + 1)}, Since: at(h)})
		}
		return out
	}
	for _, c := range []struct {
		name    string
		members map[string]Member
		keys    []KeyGeneration
		now     float64
		due     bool
		want    string
	}{
		{"a young key", nil, keys(0), 1, false, "[[1]]"},
		{"an old key", nil, keys(0), 7 * 24, true, "[[1]]"},
		{"the old ones are understood", nil, keys(0, 168), 170, false, "[[1] [2]]"},
		{"a node was removed", removed(2), keys(0, 1), 2, true, "[[1] [2]]"},
		{"there is a new key since", removed(2), keys(0, 1, 2.01), 2.02, false, "[[1] [2] [3]]"},
		{"there is one for some minutes", removed(2), keys(0, 1, 2.01), 2.2, false, "[[3]]"},
		{"there are two", removed(0.5), keys(0, 1, 2.01), 2.2, false, "[[2] [3]]"},
		{"this clock is behind", removed(2), keys(0, 1, 2.01), -1000, false, "[[1] [2] [3]]"},
		{"the proposer's clock was behind", removed(2), keys(0, 1, 1.9), 3, true, "[[1] [2] [3]]"},
	} {
		l := Ledger{Fleet: Fleet{ID: "f"}, Members: c.members, GossipKeys: c.keys}
		generation, due := l.GossipKeyDue(at(c.now))
		if due != c.due || generation != uint64(len(c.keys)+1) {
			t.Errorf("%s: got %d, %v, want %v", c.name, generation, due, c.due)
		}
		if got := fmt.Sprint(l.UnderstoodKeys(at(c.now))); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}
