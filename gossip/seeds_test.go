package gossip

import (
	"testing"
	"time"

	"github.com/shoal-dev/shoal/internal/seeds"
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
	_, _, d.verbose = seeds.Asked()
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

// report returns one line that reproduces the run, and what is left of it.
func report(t testing.TB, seed uint64, planted Planted) string {
	t.Helper()
	return seeds.Report("gossip", seed, int(planted), mishaps(seed), func(faults []mishap) string { return play(t, seed, faults, planted).broken })
}

// TestSeeds: no fault makes two nodes run one exclusive identity, a forged record
// be believed, a node be lost that is heard of, or two lead that hear each other;
// and when it is calm all are one again and everything runs.
func TestSeeds(t *testing.T) {
	for seed := range seeds.Count(t, 60) {
		if r := play(t, seed, mishaps(seed), PlantedNothing); r.broken != "" {
			t.Error(report(t, seed, PlantedNothing))
			return
		}
	}
}

// TestSeed runs the one seed of the flag -seed.
func TestSeed(t *testing.T) {
	seed, bug, asked := seeds.Asked()
	if !asked {
		return
	}
	faults := seeds.Chosen(t, mishaps(seed))
	for _, one := range faults {
		t.Log(one)
	}
	r := play(t, seed, faults, Planted(bug))
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
