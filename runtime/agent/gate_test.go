package agent

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// Urgent pulls go before the others, each kind in its order, and one that becomes
// urgent goes behind those that were.
func TestGateOrder(t *testing.T) {
	g := newGate(1, 0, 0)
	first := g.queueUp(false)
	names := map[*ticket]string{}
	add := func(name string, urgent bool) *ticket {
		t := g.queueUp(urgent)
		names[t] = name
		return t
	}
	_, later := add("early", false), add("late", false)
	add("pod1", true)
	g.hurry(later)
	g.hurry(later)
	add("pod2", true)
	gone := add("gone", true)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.pass(ended, gone); !errors.Is(err, context.Canceled) {
		t.Errorf("whoever gives up: got %v", err)
	}
	if first.waits() || !later.waits() {
		t.Error("the first one waits, or another one does not")
	}
	var got []string
	leave, err := g.pass(t.Context(), first)
	for ; err == nil && len(names) > len(got)+1; leave, err = g.pass(t.Context(), first) {
		leave()
		for ticket, name := range names {
			if !ticket.waits() && !slices.Contains(got, name) && name != "gone" {
				got = append(got, name)
				first = ticket
			}
		}
	}
	if want := []string{"pod1", "late", "pod2", "early"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, want %q, %v", got, want, err)
	}
	leave()
	if g.busy != 0 || len(g.queue) != 0 {
		t.Errorf("in the end: %d are busy and %d wait", g.busy, len(g.queue))
	}
}

// No more begin in a second than allowed, after the first few.
func TestGateRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(0, 5, 10)
		begin := time.Now()
		for range 20 {
			if _, err := g.pass(t.Context(), g.queueUp(true)); err != nil {
				t.Fatal(err)
			}
		}
		if got := time.Since(begin).Round(time.Millisecond); got != 2*time.Second {
			t.Errorf("20 pulls began within %s, want 2s", got)
		}
	})
}

// Whatever comes, hurries, gives up and leaves: never are more busy than there are
// slots, never does anybody wait beside a free one, and no slot is lost.
func TestGateKeepsSlots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGate(rapid.IntRange(1, 3).Draw(t, "slots"), 0, 0)
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		var waiting []*ticket
		var busy []func()
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				waiting = append(waiting, g.queueUp(rapid.Bool().Draw(t, "urgent")))
			case 1:
				if len(waiting) > 0 {
					g.hurry(rapid.SampledFrom(waiting).Draw(t, "who"))
				}
			case 2:
				if len(waiting) > 0 {
					i := rapid.IntRange(0, len(waiting)-1).Draw(t, "who")
					if leave, err := g.pass(ended, waiting[i]); err == nil {
						busy = append(busy, leave)
					}
					waiting = slices.Delete(waiting, i, i+1)
				}
			case 3:
				if len(busy) > 0 {
					busy[0]()
					busy = busy[1:]
				}
			}
			if g.busy > g.slots || g.busy < g.slots && len(g.queue) > 0 {
				t.Fatalf("%d of %d are busy while %d wait", g.busy, g.slots, len(g.queue))
			}
		}
		for _, leave := range busy {
			leave()
		}
		for _, ticket := range waiting {
			g.abandon(ticket)
		}
		if g.busy != 0 || len(g.queue) != 0 {
			t.Fatalf("in the end %d are busy and %d wait", g.busy, len(g.queue))
		}
	})
}
