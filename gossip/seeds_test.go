package gossip

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	oneSeed   = flag.Int64("seed", -1, "the seed that TestSeed runs")
	theFaults = flag.String("faults", "", "of its faults, those with these numbers; all when empty")
	theBug    = flag.Int("bug", 0, "the mistake that is planted, see Planted")
)

// outcome is how a run ended.
type outcome struct {
	broken string
	trace  uint64
}

// play runs a seed with some of its faults.
func play(t testing.TB, seed uint64, faults []mishap, planted Planted) outcome {
	t.Helper()
	d := newDrill(t, seed, planted)
	d.verbose = *oneSeed >= 0
	conduct := d.conduct(faults)
	d.run(drillCalm+drillMerge, conduct)
	if d.broken == "" {
		d.merged()
	}
	d.run(drillLong, conduct)
	if d.ghosts.handed {
		for limit := drillCalm + 100*time.Second; d.broken == "" && d.now < limit && len(d.served()) > 0; {
			d.run(d.now+time.Second, conduct)
		}
	}
	if missing := d.served(); len(missing) > 0 {
		d.breaks("nobody runs %v", missing)
	}
	for limit := d.now + 5*time.Second; d.broken == "" && !d.agreed(); {
		if d.run(d.now+drillStep, conduct); d.now > limit {
			d.breaks("not all know the same")
		}
	}
	return outcome{d.broken, d.trace.Sum64()}
}

// shrink returns the numbers of few faults that still break the run.
func shrink(t testing.TB, seed uint64, faults []mishap, planted Planted) ([]int, outcome) {
	t.Helper()
	left := make([]int, len(faults))
	for i := range left {
		left[i] = i
	}
	last := play(t, seed, faults, planted)
	for size := max(1, len(left)/2); size > 0; size /= 2 {
		for from := 0; from < len(left); {
			less := slices.Delete(slices.Clone(left), from, min(from+size, len(left)))
			if r := play(t, seed, chosen(faults, less), planted); r.broken != "" {
				left, last = less, r
			} else {
				from += size
			}
		}
	}
	return left, last
}

func chosen(faults []mishap, numbers []int) []mishap {
	var out []mishap
	for _, i := range numbers {
		out = append(out, faults[i])
	}
	return out
}

// report returns one line that reproduces the run, and what is left of it.
func report(t testing.TB, seed uint64, planted Planted) string {
	t.Helper()
	faults := mishaps(seed)
	left, r := shrink(t, seed, faults, planted)
	bug := ""
	if planted != PlantedNothing {
		bug = fmt.Sprintf(" -bug=%d", planted)
	}
	var lines strings.Builder
	for _, one := range chosen(faults, left) {
		fmt.Fprintln(&lines, one)
	}
	return fmt.Sprintf("go test ./gossip -run 'TestSeed$' -seed=%d -faults=%s%s\n%s\n%s", seed,
		strings.Trim(strings.ReplaceAll(fmt.Sprint(left), " ", ","), "[]"), bug, r.broken, &lines)
}

// seeds returns how many seeds are run: SHOAL_SEEDS, or as many as take seconds.
func seeds(t *testing.T, few int) uint64 {
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

// TestSeeds: no fault makes two nodes run one exclusive identity, a forged record
// be believed, a node be lost that is heard of, or two lead that hear each other;
// and when it is calm all are one again and everything runs.
func TestSeeds(t *testing.T) {
	for seed := range seeds(t, 60) {
		if r := play(t, seed, mishaps(seed), PlantedNothing); r.broken != "" {
			t.Error(report(t, seed, PlantedNothing))
			return
		}
	}
}

// TestSeed runs the one seed of the flag -seed.
func TestSeed(t *testing.T) {
	if *oneSeed < 0 {
		return
	}
	faults := mishaps(uint64(*oneSeed))
	if *theFaults != "" {
		var numbers []int
		for word := range strings.SplitSeq(*theFaults, ",") {
			n, err := strconv.Atoi(word)
			if err != nil || n >= len(faults) {
				t.Fatalf("-faults: %q", word)
			}
			numbers = append(numbers, n)
		}
		faults = chosen(faults, numbers)
	}
	for _, one := range faults {
		t.Log(one)
	}
	r := play(t, uint64(*oneSeed), faults, Planted(*theBug))
	t.Logf("trace %x", r.trace)
	if r.broken != "" {
		t.Error(r.broken)
	}
}

// TestSeedsAreExact: the same seed gives the same run.
func TestSeedsAreExact(t *testing.T) {
	for seed := range uint64(5) {
		first, second := play(t, seed, mishaps(seed), PlantedNothing), play(t, seed, mishaps(seed), PlantedNothing)
		if first != second {
			t.Errorf("seed %d: %+v, then %+v", seed, first, second)
		}
	}
}

// TestPlantedMistakesAreFound: every planted mistake is found within some
// hundred seeds: the invariants and the faults are good for something.
func TestPlantedMistakesAreFound(t *testing.T) {
	for planted, name := range map[Planted]string{
		PlantedUnverifiedLease:   "a lease is granted before a quorum has confirmed the leader",
		PlantedHastyRelease:      "a new leader does not wait for renewals that it knows nothing of",
		PlantedForgottenHandover: "claims are released while a long lease runs",
		PlantedUnnotedHandover:   "a long lease is granted that the next leader knows nothing of",
		PlantedForeignBoot:       "a lease counts though it is of before the start",
		PlantedActingRelease:     "a leader without a quorum releases claims",
		PlantedOlderRecord:       "of two records the one that came last is kept",
		PlantedUnsignedRecord:    "anybody may write anybody's record",
		PlantedUnsignedRelay:     "a relay may say anything in another's name",
		PlantedHastyLoss:         "a node that is suspect is lost",
		PlantedNoSecondLook:      "a leader does not doubt its own connection",
		PlantedNoDamping:         "a node may come and go as often as it likes",
		PlantedStubbornLeader:    "an acting leader stays when a better one is there",
		PlantedObeyDeposed:       "a leader that was deposed is obeyed",
		PlantedUninformed:        "a lease is granted to a node that does not know what was taken from it",
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(400) {
				if r := play(t, seed, mishaps(seed), planted); r.broken != "" {
					t.Logf("seed %d: %s", seed, r.broken)
					return
				}
			}
			t.Error("not found")
		})
	}
}
