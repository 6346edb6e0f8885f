package consensus_test

import (
	"slices"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/gossip/consensus"
	"github.com/shoal-dev/shoal/internal/seeds"
)

// result is how a run ended.
type result struct {
	broken  string
	trace   uint64
	answers int
}

// play runs a seed with some of its faults.
func play(t *testing.T, seed uint64, faults []fault, plant bug) result {
	t.Helper()
	f := newFleet(t, seed, plant.core)
	f.reuse = plant.reuse
	f.plan(faults)
	f.run(simLength)
	if f.broken == "" {
		f.settled()
	}
	return result{f.broken, f.trace.Sum64(), f.answers}
}

// report returns one line that reproduces the run, and what is left of it.
func report(t *testing.T, seed uint64, plant bug) string {
	t.Helper()
	return seeds.Report("gossip/consensus", seed, plant.at, schedule(seed), func(faults []fault) string { return play(t, seed, faults, plant).broken })
}

// No fault makes two lead, two ledgers differ, a claim shrink or an
// acknowledged command disappear.
func TestSeeds(t *testing.T) {
	answers := 0
	for seed := range seeds.Count(t, 100) {
		r := play(t, seed, schedule(seed), bug{})
		if r.broken != "" {
			t.Logf("seed %d: %s", seed, r.broken)
			t.Error(report(t, seed, bug{}))
			return
		}
		answers += r.answers
	}
	t.Logf("%d commands were acknowledged", answers)
}

// TestSeed runs the one seed of the flag -seed.
func TestSeed(t *testing.T) {
	seed, plant, asked := seeds.Asked()
	if !asked {
		return
	}
	faults := seeds.Chosen(t, schedule(seed))
	for _, one := range faults {
		t.Log(one)
	}
	r := play(t, seed, faults, bugs()[plant])
	t.Logf("%d commands were acknowledged, trace %x", r.answers, r.trace)
	if r.broken != "" {
		t.Error(r.broken)
	}
}

// The same seed gives the same run.
func TestSeedsAreExact(t *testing.T) {
	for seed := range uint64(5) {
		first, second := play(t, seed, schedule(seed), bug{}), play(t, seed, schedule(seed), bug{})
		if first != second {
			t.Errorf("seed %d: %+v, then %+v", seed, first, second)
		}
	}
}

// bug is a mistake that is planted.
type bug struct {
	name  string
	core  consensus.Planted
	reuse bool
	at    int
}

// bugs returns all mistakes; the first is none.
func bugs() []bug {
	all := []bug{
		{name: "none"},
		{name: "writes are acknowledged before they are durable", core: consensus.PlantedNoSync},
		{name: "a vote is not written", core: consensus.PlantedForgetVote},
		{name: "messages leave before what they promise is written", core: consensus.PlantedSendFirst},
		{name: "a command is acknowledged when it is proposed", core: consensus.PlantedEarlyAnswer},
		{name: "a log that lost its end is read as if it ended there", core: consensus.PlantedIgnoreDamage},
		{name: "leadership is confirmed without asking anybody", core: consensus.PlantedStaleRead},
		{name: "the ledger depends on the node", core: consensus.PlantedNodeLedger},
		{name: "a claim gets a number that is too low", core: consensus.PlantedShrinkingClaim},
		{name: "entries after the snapshot are cut off", core: consensus.PlantedCutTooMuch},
		{name: "a claim is granted though another one came before it", core: consensus.PlantedBlindClaim},
		{name: "a node that lost its log comes back as if it had it", reuse: true},
	}
	for i := range all {
		all[i].at = i
	}
	return all
}

// Every planted mistake is found within some hundred seeds: the invariants and
// the faults are good for something.
func TestPlantedMistakesAreFound(t *testing.T) {
	for _, plant := range bugs()[1:] {
		t.Run(plant.name, func(t *testing.T) {
			for seed := range uint64(400) {
				if r := play(t, seed, schedule(seed), plant); r.broken != "" {
					t.Logf("seed %d: %s", seed, r.broken)
					return
				}
			}
			t.Error("not found")
		})
	}
}

// A fleet whose leader dies has another one within 1.5 s, nearly always.
func TestANewLeaderComesSoon(t *testing.T) {
	var took []time.Duration
	for seed := range uint64(150) {
		f := newFleet(t, seed, consensus.PlantedNothing)
		f.run(5*time.Second + time.Duration(seed)*time.Millisecond)
		old := f.leading()
		if old < 0 {
			t.Fatalf("seed %d: nobody leads after 5 s", seed)
		}
		f.down(old, nil)
		began := f.now
		for f.leading() < 0 && f.now < began+10*time.Second {
			f.run(f.now + 10*time.Millisecond)
		}
		took = append(took, f.now-began)
	}
	slices.Sort(took)
	p50, p99, last := took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	t.Logf("p50 %v, p99 %v, max %v", p50, p99, last)
	if p99 > 2*time.Second {
		t.Errorf("in one of 100 cases it takes longer than %v", p99)
	}
}

// leading returns the node that leads, -1 when none does.
func (f *fleet) leading() int {
	return slices.IndexFunc(f.nodes, func(n *simNode) bool { return n.core != nil && n.core.State().Leads })
}
