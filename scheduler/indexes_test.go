package scheduler

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestIndexes(t *testing.T) {
	for text, want := range map[string]string{
		"1,3,4,5,7": "1,3-5,7", "": "", "0": "0", "0,1": "0,1", "0-1,2": "0-2", "5-3": "", "x,2,-1,4-": "2", "8,9,10,11": "8,9", "3,1,2": "3", "2-20": "2-9",
	} {
		if got := parseIndexes(text, 10).String(); got != want {
			t.Errorf("%q is read as %q, want %q", text, got, want)
		}
	}
}

// TestIndexesAsASet compares with a map, which is obviously right.
func TestIndexesAsASet(t *testing.T) {
	draw := func(t *rapid.T, name string) (indexes, map[int]bool) {
		var x indexes
		oracle := map[int]bool{}
		for _, i := range rapid.SliceOf(rapid.IntRange(0, 20)).Draw(t, name) {
			before := x.String()
			next := x.add(i)
			if x.String() != before {
				t.Fatalf("adding %d changed %s to %s", i, before, x)
			}
			x, oracle[i] = next, true
		}
		return x, oracle
	}
	rapid.Check(t, func(t *rapid.T) {
		a, inA := draw(t, "a")
		b, inB := draw(t, "b")
		both := 0
		for i := range 22 {
			if a.has(i) != inA[i] {
				t.Fatalf("%s has %d: %v", a, i, a.has(i))
			}
			if inA[i] && inB[i] {
				both++
			}
			next := i
			for inA[next] {
				next++
			}
			if got := a.after(i); got != next {
				t.Fatalf("after %d in %s comes %d, want %d", i, a, got, next)
			}
		}
		if a.count() != len(inA) || a.common(b) != both {
			t.Fatalf("%s has %d numbers and %d of %s", a, a.count(), a.common(b), b)
		}
		if again := parseIndexes(a.String(), math.MaxInt); again.String() != a.String() {
			t.Fatalf("%s is read as %s", a, again)
		}
	})
}
