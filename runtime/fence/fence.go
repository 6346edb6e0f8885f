package fence

import (
	"slices"
	"strings"
	"time"
)

// The lengths of a lease, counted from the sending of the renewal.
const (
	Length   = 10 * time.Second // then what runs is killed
	Handover = 60 * time.Second // the same, over a planned restart of the daemon
	Notice   = 3 * time.Second  // before the end, what runs is asked to end
)

// A Lease is the right to run exclusive pods for a while. The zero Lease is none:
// it ended long ago.
type Lease struct {
	// Sent is when the newest confirmed renewal was sent, on CLOCK_BOOTTIME.
	Sent time.Duration `json:"sent"`
	// For is how long it lasts from then; 0 means Length.
	For time.Duration `json:"for,omitempty"`
}

// Known reports whether there ever was a lease.
func (l Lease) Known() bool { return l.Sent > 0 }

// Ends returns when what still runs is killed.
func (l Lease) Ends() time.Duration {
	if !l.Known() {
		return 0
	}
	if l.For == 0 {
		return l.Sent + Length
	}
	return l.Sent + min(l.For, Handover)
}

// Warns returns when what runs is asked to end, and from when on nothing is
// started any more.
func (l Lease) Warns() time.Duration { return max(0, l.Ends()-Notice) }

// Valid reports whether something may be started.
func (l Lease) Valid(now time.Duration) bool { return l.Known() && now >= l.Sent && now < l.Warns() }

// Newer returns the one of two leases that is in force: the one sent last, and
// of two that were sent together the longer one. A handover ends with the first
// renewal after it, because the leader counts from that one.
func (l Lease) Newer(other Lease) Lease {
	if other.Sent > l.Sent || other.Sent == l.Sent && other.Ends() > l.Ends() {
		return other
	}
	return l
}

// A Pod is one exclusive pod of this machine.
type Pod struct {
	Instance string `json:"instance"`
	// Group is the path of the cgroup below which all processes of the pod are,
	// relative to the mount of each hierarchy: "/shoal/5f1c...".
	Group string `json:"group"`
	// Bound says that the pod is bound to a volume of this node: the volume is
	// the lock, and the pod is never fenced.
	Bound bool `json:"bound,omitempty"`
}

// State is everything that is to be known for a decision.
type State struct {
	Alone bool // the fleet has no other node
	Lease Lease
	Pods  []Pod
}

// Decision says what must end now, and when to decide again.
type Decision struct {
	Term []string // instances to ask to end; they are sorted
	Kill []string // instances of which nothing may be left; they are sorted
	// Next is when the decision becomes another one though nothing else
	// happened; 0 when it does not.
	Next time.Duration
}

// Decide returns what must end at a time. An instance is in Kill or in Term,
// never in both, and stays there until there is a newer lease.
func Decide(s State, now time.Duration) Decision {
	var d Decision
	if s.Alone {
		return d
	}
	for _, p := range s.Pods {
		switch {
		case p.Bound:
		case now >= s.Lease.Ends():
			d.Kill = append(d.Kill, p.Instance)
		case now >= s.Lease.Warns():
			d.Term = append(d.Term, p.Instance)
			d.Next = s.Lease.Ends()
		default:
			d.Next = s.Lease.Warns()
		}
	}
	slices.SortFunc(d.Term, strings.Compare)
	slices.SortFunc(d.Kill, strings.Compare)
	return d
}
