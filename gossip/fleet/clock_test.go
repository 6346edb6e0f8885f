package fleet

import (
	"testing"
	"time"

	"github.com/shoal-dev/shoal/gossip/consensus"
)

// TestPace: a voter that hears the leader wakes up once a turn and is far from an
// election; when the leader falls silent it counts every tick, and no more of
// them than have passed. A leader wakes up at every tick.
func TestPace(t *testing.T) {
	const length = 10 * time.Second
	run := func(s consensus.State, leads bool, heartbeats time.Duration, until time.Duration) (wakes int, quiet []int) {
		var p pace
		next := heartbeats
		for now := p.every(); now <= length; now += p.every() {
			for ; heartbeats > 0 && next <= now && next <= until; next += heartbeats {
				s.Quiet = 0
			}
			wakes++
			s.Quiet += p.beat(s, leads).ticks
			quiet = append(quiet, s.Quiet)
			if silence := now - next + heartbeats; heartbeats > 0 && s.Quiet > int(silence/consensus.TickInterval)+1 {
				t.Fatalf("%d ticks are counted in %s of silence", s.Quiet, silence)
			}
		}
		return wakes, quiet
	}
	turns := int(length / turnEvery)
	voter := consensus.State{Voter: true, Leader: 2}
	if wakes, quiet := run(voter, false, 100*time.Millisecond, length); wakes > turns+10 || quiet[len(quiet)-1] > 1 {
		t.Errorf("a voter that hears a leader wakes up %d times in %s, and then counts %d ticks", wakes, length, quiet[len(quiet)-1])
	}
	silent := 5 * time.Second
	all := int((length - silent) / consensus.TickInterval)
	if _, quiet := run(voter, false, 100*time.Millisecond, length-silent); quiet[len(quiet)-1] < all-ticksOfTurn {
		t.Errorf("it counts %d ticks in %s of silence, of %d", quiet[len(quiet)-1], silent, all)
	}
	for name, s := range map[string]consensus.State{
		"a leader":                    {Voter: true, Leads: true, Leader: 1},
		"a voter without a leader":    {Voter: true},
		"one while the voters change": {Voter: true, Leader: 2, Joint: true},
	} {
		if wakes, _ := run(s, false, 0, 0); wakes < int(length/consensus.TickInterval) {
			t.Errorf("%s wakes up %d times in %s", name, wakes, length)
		}
	}
	if wakes, quiet := run(consensus.State{Leader: 2}, false, 0, 0); wakes > turns+10 || quiet[len(quiet)-1] > wakes/turnsOfTick {
		t.Errorf("one that does not vote wakes up %d times, and counts %d ticks", wakes, quiet[len(quiet)-1])
	}
	if wakes, _ := run(consensus.State{Leader: 2}, true, 0, 0); wakes < int(length/consensus.TickInterval) {
		t.Errorf("an acting leader wakes up %d times", wakes)
	}
}
