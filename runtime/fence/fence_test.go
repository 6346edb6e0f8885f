package fence

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const sent = time.Hour

func TestDecide(t *testing.T) {
	pods := []Pod{{Instance: "b"}, {Instance: "a"}, {Instance: "disk", Bound: true}}
	normal, long := Lease{Sent: sent}, Lease{Sent: sent, For: Handover}
	both := []string{"a", "b"}
	for _, c := range []struct {
		name       string
		state      State
		after      time.Duration
		term, kill []string
		next       time.Duration // after sent
	}{
		{"a fresh lease", State{Lease: normal, Pods: pods}, 0, nil, nil, 7 * time.Second},
		{"shortly before the notice", State{Lease: normal, Pods: pods}, 7*time.Second - 1, nil, nil, 7 * time.Second},
		{"the notice", State{Lease: normal, Pods: pods}, 7 * time.Second, both, nil, 10 * time.Second},
		{"shortly before the end", State{Lease: normal, Pods: pods}, 10*time.Second - 1, both, nil, 10 * time.Second},
		{"the end", State{Lease: normal, Pods: pods}, 10 * time.Second, nil, both, 0},
		{"long after it", State{Lease: normal, Pods: pods}, time.Hour, nil, both, 0},
		{"never a lease", State{Pods: pods}, 0, nil, both, 0},
		{"handed over", State{Lease: long, Pods: pods}, 56 * time.Second, nil, nil, 57 * time.Second},
		{"handed over, the notice", State{Lease: long, Pods: pods}, 57 * time.Second, both, nil, 60 * time.Second},
		{"handed over, the end", State{Lease: long, Pods: pods}, 60 * time.Second, nil, both, 0},
		{"nobody promises more", State{Lease: Lease{Sent: sent, For: time.Hour}, Pods: pods}, 60 * time.Second, nil, both, 0},
		{"a fleet of one", State{Alone: true, Pods: pods}, time.Hour, nil, nil, 0},
		{"no pods", State{Lease: normal}, time.Hour, nil, nil, 0},
		{"a volume of the node", State{Pods: pods[2:]}, time.Hour, nil, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Decide(c.state, sent+c.after)
			next := c.next
			if next > 0 {
				next += sent
			}
			if !slices.Equal(d.Term, c.term) || !slices.Equal(d.Kill, c.kill) || d.Next != next {
				t.Errorf("got %+v, want term %v, kill %v, next %s", d, c.term, c.kill, next)
			}
			if c.state.Lease.Valid(sent+c.after) != (c.state.Lease.Known() && len(c.term)+len(c.kill) == 0 && c.after < time.Minute) && len(c.state.Pods) == 3 && !c.state.Alone {
				t.Errorf("the lease is valid: %v", c.state.Lease.Valid(sent+c.after))
			}
		})
	}
}

var drawLease = rapid.Custom(func(t *rapid.T) Lease {
	return Lease{
		Sent: time.Duration(rapid.Int64Range(0, 200).Draw(t, "sent")) * time.Second,
		For:  rapid.SampledFrom([]time.Duration{0, Length, Handover}).Draw(t, "for"),
	}
})

var drawPods = rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Pod {
	return Pod{Instance: rapid.StringMatching("[a-f]{1,2}").Draw(t, "instance"), Bound: rapid.Bool().Draw(t, "bound")}
}), 0, 8, func(p Pod) string { return p.Instance })

// TestNothingOutlivesItsLease: ten seconds after the sending everything is
// killed that may be, unless the lease was handed over; nothing is asked to end
// while its lease is good; what must end goes on having to.
func TestNothingOutlivesItsLease(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := State{Lease: drawLease.Draw(t, "lease"), Pods: drawPods.Draw(t, "pods")}
		now := time.Duration(rapid.Int64Range(0, int64(300*time.Second)).Draw(t, "now"))
		later := now + time.Duration(rapid.Int64Range(0, int64(100*time.Second)).Draw(t, "later"))
		d, then := Decide(s, now), Decide(s, later)
		limit := s.Lease.Sent + Length
		if s.Lease.For == Handover {
			limit = s.Lease.Sent + Handover
		}
		for _, p := range s.Pods {
			term, kill := slices.Contains(d.Term, p.Instance), slices.Contains(d.Kill, p.Instance)
			switch {
			case p.Bound && (term || kill):
				t.Fatalf("%s is bound to this node and ends", p.Instance)
			case p.Bound:
			case now >= limit && !kill:
				t.Fatalf("%s outlives its lease at %s: %+v", p.Instance, now, s.Lease)
			case s.Lease.Valid(now) && (term || kill):
				t.Fatalf("%s ends at %s with a good lease: %+v", p.Instance, now, s.Lease)
			case term && kill:
				t.Fatalf("%s is both", p.Instance)
			case kill && !slices.Contains(then.Kill, p.Instance):
				t.Fatalf("%s was to be killed at %s and is not at %s", p.Instance, now, later)
			case term && !slices.Contains(then.Kill, p.Instance) && !slices.Contains(then.Term, p.Instance):
				t.Fatalf("%s was to end at %s and is not at %s", p.Instance, now, later)
			}
		}
		if d.Next != 0 && d.Next <= now {
			t.Fatalf("decide again at %s, and it is %s", d.Next, now)
		}
		if before := d.Next - 1; d.Next != 0 && before > now {
			if same := Decide(s, before); !slices.Equal(same.Term, d.Term) || !slices.Equal(same.Kill, d.Kill) {
				t.Fatalf("%+v at %s is %+v at %s", d, now, same, before)
			}
		}
	})
}

// TestLeasesOnlyGrow: of any leases, in any order, the one sent last is in force.
func TestLeasesOnlyGrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		leases := rapid.SliceOfN(drawLease, 1, 10).Draw(t, "leases")
		var one, other Lease
		for i := range leases {
			next := one.Newer(leases[i])
			if next.Sent < one.Sent {
				t.Fatalf("from %+v back to %+v", one, next)
			}
			one, other = next, other.Newer(leases[len(leases)-1-i])
		}
		if one.Sent != other.Sent || one.Ends() != other.Ends() {
			t.Fatalf("%+v in one order, %+v in the other", one, other)
		}
	})
}
