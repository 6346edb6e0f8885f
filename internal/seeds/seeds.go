// Package seeds is for tests in which a seed decides everything, and with it a
// list of faults: it says how many seeds to run, runs one again by the flags of
// the test, and finds few faults that are enough to break it.
//
//	for seed := range seeds.Count(t, 60) { ... }
//	t.Error(seeds.Report(seed, faults, breaks) + ...)
//	go test ./package -run 'TestSeed$' -seed=17 -faults=3,9
package seeds

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	oneSeed   = flag.Int64("seed", -1, "the seed that TestSeed runs")
	theFaults = flag.String("faults", "", "of its faults, those with these numbers; all when empty")
	theBug    = flag.Int("bug", 0, "the number of the mistake that is planted")
)

// Count returns how many seeds are run: SHOAL_SEEDS, or as many as take seconds.
func Count(t testing.TB, few int) uint64 {
	t.Helper()
	text := os.Getenv("SHOAL_SEEDS")
	if text == "" {
		return uint64(few)
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatalf("SHOAL_SEEDS: %v", err)
	}
	return n
}

// Asked returns the seed and the mistake that the flags name; false when they
// name none.
func Asked() (seed uint64, bug int, asked bool) {
	return uint64(max(*oneSeed, 0)), *theBug, *oneSeed >= 0
}

// Chosen returns those of the faults that the flags name.
func Chosen[F any](t testing.TB, faults []F) []F {
	t.Helper()
	if *theFaults == "" {
		return faults
	}
	var numbers []int
	for word := range strings.SplitSeq(*theFaults, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 0 || n >= len(faults) {
			t.Fatalf("-faults: %q", word)
		}
		numbers = append(numbers, n)
	}
	return pick(faults, numbers)
}

func pick[F any](faults []F, numbers []int) []F {
	out := make([]F, 0, len(numbers))
	for _, i := range numbers {
		out = append(out, faults[i])
	}
	return out
}

// shrink returns the numbers of few faults with which the run still breaks.
func shrink[F any](faults []F, breaks func([]F) string) []int {
	left := make([]int, len(faults))
	for i := range left {
		left[i] = i
	}
	for size := max(1, len(left)/2); size > 0; size /= 2 {
		for from := 0; from < len(left); {
			less := slices.Delete(slices.Clone(left), from, min(from+size, len(left)))
			if breaks(pick(faults, less)) != "" {
				left = less
			} else {
				from += size
			}
		}
	}
	return left
}

// Report returns a line that runs the seed of a package of this module again with
// the few faults that break it, what is broken then, and those faults. breaks
// runs the seed with some of its faults and says what broke.
func Report[F any](in string, seed uint64, bug int, faults []F, breaks func([]F) string) string {
	left := shrink(faults, breaks)
	words := make([]string, len(left))
	for i, n := range left {
		words[i] = strconv.Itoa(n)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "go test ./%s -run 'TestSeed$' -seed=%d -faults=%s", in, seed, strings.Join(words, ","))
	if bug > 0 {
		fmt.Fprintf(&b, " -bug=%d", bug)
	}
	fmt.Fprintln(&b)
	fmt.Fprintln(&b, breaks(pick(faults, left)))
	lines(&b, pick(faults, left))
	return b.String()
}

// lines writes faults, a line each.
func lines[F any](b *strings.Builder, faults []F) {
	for _, one := range faults {
		fmt.Fprintln(b, one)
	}
}
