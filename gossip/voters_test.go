package gossip

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
)

// A fleet is written as "1:a* 2:b 3:b!": raft ID, zone, * for a voter, ! for
// lost long ago, ? for lost just now, ~ for one that just came, x for removed.
func drawnFleet(text string) (Ledger, map[string]api.NodeHealth) {
	l := Ledger{Members: map[string]Member{}}
	health := map[string]api.NodeHealth{}
	for word := range strings.FieldsSeq(text) {
		var raftID uint64
		var rest string
		if _, err := fmt.Sscanf(word, "%d:%s", &raftID, &rest); err != nil {
			panic(err)
		}
		m := Member{ID: fmt.Sprintf("m%02d", raftID), RaftID: raftID, Zone: rest[:1], Joined: ledgerTime.Add(-time.Hour)}
		m.Removed = strings.Contains(rest, "x")
		if strings.Contains(rest, "*") {
			l.VoterIDs = append(l.VoterIDs, raftID)
		}
		switch {
		case strings.Contains(rest, "!"):
			health[m.ID] = api.NodeHealth{Status: api.NodeLost, Since: ledgerTime.Add(-2 * time.Minute)}
		case strings.Contains(rest, "?"):
			health[m.ID] = api.NodeHealth{Status: api.NodeLost, Since: ledgerTime.Add(-20 * time.Second)}
		case strings.Contains(rest, "~"):
			health[m.ID] = api.NodeHealth{Status: api.NodeAlive, Since: ledgerTime.Add(-2 * time.Second)}
		}
		l.Members[m.ID] = m
	}
	slices.Sort(l.VoterIDs)
	return l, health
}

func TestWantedVoters(t *testing.T) {
	for _, tt := range []struct{ name, fleet, want string }{
		{"alone", "1:a*", "1"},
		{"two", "1:a* 2:a", "1"},
		{"three", "1:a* 2:a 3:a", "1 2 3"},
		{"three, one just came", "1:a* 2:a 3:a~", "1"},
		{"three, one lost", "1:a* 2:a 3:a!", "1"},
		{"six", "1:a* 2:a* 3:a* 4:a 5:a 6:a", "1 2 3"},
		{"seven", "1:a* 2:a* 3:a* 4:a 5:a 6:a 7:a", "1 2 3 4 5"},
		{"seven, one can be added", "1:a* 2:a* 3:a* 4:a 5:a! 6:a! 7:a!", "1 2 3"},
		{"spread", "1:a* 2:a 3:a 4:b 5:c", "1 4 5"},
		{"a zone without a voter", "1:a* 2:a* 3:b* 4:c", "1 3 4"},
		{"a zone without a voter while one is lost", "1:a*? 2:a* 3:b* 4:c", "1 2 3"},
		{"no better zone", "1:a* 2:a* 3:b* 4:b", "1 2 3"},
		{"lost for long", "1:a* 2:a* 3:a*! 4:a", "1 2 4"},
		{"lost just now", "1:a* 2:a* 3:a*? 4:a", "1 2 3"},
		{"lost for long, nobody else", "1:a* 2:a* 3:a*! 4:a!", "1 2 3"},
		{"two lost for long of five: one at a time", "1:a* 2:a* 3:a* 4:a*! 5:a*! 6:a 7:a", "1 2 3 4 6"},
		{"majority lost", "1:a* 2:a*! 3:a*! 4:a 5:a", "1 2 3"},
		{"majority lost just now", "1:a* 2:a*? 3:a*? 4:a 5:a", "1 2 3"},
		{"removed, replaced", "1:a* 2:a* 3:a*x 4:a", "1 2 4"},
		{"removed, two remain", "1:a* 2:a* 3:a*x", "1"},
		{"removed, two remain, one lost", "1:a*? 2:a* 3:a*x", "1 2 3"},
		{"removed and lost", "1:a* 2:a* 3:a*x 4:a*! 5:a* 6:a 7:a 8:a", "1 2 5 6 7"},
		{"five, shrunk to six members", "1:a* 2:a* 3:a* 4:a* 5:a* 6:a", "1 2 3"},
		{"two voters of three members", "1:a* 2:a* 3:a", "1 2 3"},
		{"two voters of three members, none to add", "1:a* 2:a* 3:a!", "1 2"},
	} {
		l, health := drawnFleet(tt.fleet)
		got := strings.Trim(fmt.Sprint(WantedVoters(l, health, ledgerTime)), "[]")
		if got != tt.want {
			t.Errorf("%s: %s: got %s, want %s", tt.name, tt.fleet, got, tt.want)
		}
	}
}

// From any fleet, following the advice ends; on the way there is always a
// majority of old voters that are well, and healthy voters are never all changed.
func TestWantedVotersProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var words []string
		for i := range rapid.IntRange(1, 12).Draw(t, "members") {
			word := fmt.Sprintf("%d:%s", i+1, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "zone"))
			if i < 5 {
				word += rapid.SampledFrom([]string{"", "*", "*"}).Draw(t, "vote")
			}
			words = append(words, word+rapid.SampledFrom([]string{"", "", "", "", "!", "?", "~", "x"}).Draw(t, "state"))
		}
		fleet := strings.Join(words, " ")
		l, health := drawnFleet(fleet)
		if len(l.VoterIDs) == 0 {
			return // there is no such fleet
		}
		for step := 0; ; step++ {
			want := WantedVoters(l, health, ledgerTime)
			if slices.Equal(want, l.VoterIDs) {
				break
			}
			if step > 12 {
				t.Fatalf("%s: no end: %v, then %v", fleet, l.VoterIDs, want)
			}
			healthy, kept := 0, 0
			for _, m := range l.Living() {
				if l.Votes(m.RaftID) && !health[m.ID].Gone() {
					healthy++
				}
				if l.Votes(m.RaftID) && slices.Contains(want, m.RaftID) {
					kept++
				}
			}
			if 2*healthy <= len(l.VoterIDs) {
				t.Fatalf("%s: %v to %v without a healthy majority", fleet, l.VoterIDs, want)
			}
			if kept == 0 {
				t.Fatalf("%s: %v to %v keeps nobody", fleet, l.VoterIDs, want)
			}
			if len(want) > len(l.VoterIDs) && len(want)%2 == 0 {
				t.Fatalf("%s: %v to %v grows to an even number", fleet, l.VoterIDs, want)
			}
			l.VoterIDs = want
		}
	})
}
