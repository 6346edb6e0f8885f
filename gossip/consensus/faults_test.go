package consensus_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// fault is something that goes wrong at a time, and is well again after a while.
type fault struct {
	at, last time.Duration
	kind     string
	a, b     int
	size     uint64
}

// String returns "12.3s power n2 for 1.5s (7)".
func (f fault) String() string {
	return fmt.Sprintf("%v %s n%d n%d for %v (%d)", f.at, f.kind, f.a+1, f.b+1, f.last, f.size)
}

// faultKinds are all that can go wrong, and how often of each it does.
var faultKinds = []string{
	"kill", "kill", "power", "power", "torn", "torn", "blackout", "split", "split", "oneway", "partial", "bridge", "alone", "alone",
	"loss", "dup", "delay", "full", "sick", "stall", "stall", "voters", "voters", "transfer", "flip", "cut", "storm",
}

// schedule draws what goes wrong in a run. Each run has some kinds of faults
// only: rare combinations become likely.
func schedule(seed uint64) []fault {
	rng := rand.New(rand.NewPCG(seed, 2))
	var kinds []string
	for _, kind := range faultKinds {
		if rng.IntN(2) == 0 {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) == 0 {
		kinds = faultKinds
	}
	var out []fault
	for range 4 + rng.IntN(24) {
		at := 2*time.Second + time.Duration(rng.Int64N(int64(simCalm-4*time.Second)))
		last := time.Duration(rng.ExpFloat64() * float64(2*time.Second))
		out = append(out, fault{
			at: at.Round(time.Millisecond), last: min(last, simCalm-at).Round(time.Millisecond), kind: kinds[rng.IntN(len(kinds))],
			a: rng.IntN(simNodes), b: rng.IntN(simNodes), size: rng.Uint64() >> 16,
		})
	}
	slices.SortStableFunc(out, func(a, b fault) int { return int(a.at - b.at) })
	return out
}

// plan puts the faults into the queue.
func (f *fleet) plan(faults []fault) {
	for _, one := range faults {
		f.at(one.at, -1, func() {
			heal := f.begin(one)
			f.at(f.now+one.last, -1, heal)
		})
	}
	f.at(simCalm, -1, func() {
		f.cut, f.loss, f.dup, f.delay, f.wanted, f.storm = map[[2]int]bool{}, 0, 0, 0, nil, false
		for i, n := range f.nodes {
			n.stalled, n.lazy = 0, false
			f.mend(i)
		}
	})
}

// mend makes a node's disk well and starts it, if it is down.
func (f *fleet) mend(i int) {
	n := f.nodes[i]
	n.disk.Fill(false)
	n.disk.Break(false)
	n.disk.CrashAfter(0)
	if n.core == nil && !n.damaged {
		n.disk.Restart(f.some())
		f.open(i)
	}
}

// some says of each sector that was not synced whether it reached the disk.
func (f *fleet) some() func() bool {
	switch f.rng.IntN(3) {
	case 0:
		return func() bool { return false }
	case 1:
		return nil
	}
	return func() bool { return f.rng.IntN(2) == 0 }
}

// begin does what goes wrong, and returns what ends it.
func (f *fleet) begin(one fault) (heal func()) {
	a, n := one.a, f.nodes[one.a]
	nothing := func() {}
	switch one.kind {
	case "kill":
		f.down(a, nil)
	case "power":
		f.down(a, f.some())
	case "torn":
		n.disk.CrashAfter(1 + int(one.size%8))
	case "blackout":
		for i := range f.nodes {
			f.down(i, f.some())
		}
		return func() {
			for i := range f.nodes {
				f.mend(i)
			}
		}
	case "flip", "cut":
		return f.damage(one)
	case "split", "oneway", "partial", "bridge", "alone":
		return f.separate(one)
	case "loss":
		f.loss = float64(one.size%60) / 100
		return func() { f.loss = 0 }
	case "dup":
		f.dup = 0.3
		return func() { f.dup = 0 }
	case "delay":
		f.delay = time.Duration(one.size%1000) * time.Millisecond
		return func() { f.delay = 0 }
	case "storm":
		return f.elect(one)
	case "full":
		n.disk.Fill(true)
	case "sick":
		n.disk.Break(true)
	case "stall":
		n.stalled = f.now + one.last
		return nothing
	case "voters":
		f.wanted = f.draw(one.size)
		return nothing
	case "transfer":
		for _, n := range f.nodes {
			if n.core != nil && n.core.State().Leads {
				_ = n.core.Transfer(0) // where nobody is heard of it fails
				f.collect(slices.Index(f.nodes, n))
			}
		}
		return nothing
	}
	return func() { f.mend(a) }
}

// elect lets two nodes that do not hear each other ask for votes, while whoever
// votes loses its power at once.
func (f *fleet) elect(one fault) (heal func()) {
	f.storm, f.delay = true, 300*time.Millisecond
	for i, n := range f.nodes {
		n.lazy = i != one.a && i != one.b
		if n.core != nil && n.core.State().Leads {
			f.down(i, f.some())
		}
	}
	f.cut[[2]int{one.a, one.b}], f.cut[[2]int{one.b, one.a}] = true, true
	return func() {
		f.storm, f.delay = false, 0
		delete(f.cut, [2]int{one.a, one.b})
		delete(f.cut, [2]int{one.b, one.a})
		for i, n := range f.nodes {
			n.lazy = false
			f.mend(i)
		}
	}
}

// draw returns one to five members.
func (f *fleet) draw(bits uint64) []uint64 {
	var out []uint64
	for i, m := range f.newest.Living() {
		if bits>>i&1 == 1 {
			out = append(out, m.RaftID)
		}
	}
	slices.Sort(out)
	return out
}

// damage loses a node's power and some of what its disk had promised to keep. It
// happens to one node at a time: the fleet is to survive.
func (f *fleet) damage(one fault) (heal func()) {
	n := f.nodes[one.a]
	for _, other := range f.nodes {
		if other.hurt {
			return func() {}
		}
	}
	f.down(one.a, nil)
	if one.kind == "cut" {
		names := []string{"log-0", "log-1"}
		n.hurt = n.disk.Cut(names[one.size%2], int64(1+one.size/2%300))
	} else {
		names := n.disk.Names()
		name := names[one.size%uint64(len(names))]
		n.hurt = n.disk.Flip(name, int64(one.size/8)%max(1, n.disk.Used(name)), uint(one.size))
	}
	return func() {
		f.mend(one.a)
		// What counts is read whole when a node starts. What was not noticed
		// then hit what does not count.
		n.hurt = n.damaged
	}
}

// separate cuts links.
func (f *fleet) separate(one fault) (heal func()) {
	var links [][2]int
	for i := range f.nodes {
		for j := range f.nodes {
			side := func(n int) bool { return one.size>>n&1 == 1 }
			var cut bool
			switch one.kind {
			case "split":
				cut = side(i) != side(j)
			case "oneway":
				cut = side(i) && !side(j)
			case "partial":
				cut = i != j && one.size>>(8+5*i+j)&1 == 1
			case "bridge": // a reaches all, the halves do not reach each other
				cut = side(i) != side(j) && i != one.a && j != one.a
			case "alone":
				cut = i != j && (i == one.a || j == one.a)
			}
			if cut && i != j {
				links = append(links, [2]int{i, j})
			}
		}
	}
	for _, link := range links {
		f.cut[link] = true
	}
	return func() {
		for _, link := range links {
			delete(f.cut, link)
		}
	}
}
