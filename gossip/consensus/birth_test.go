package consensus_test

import (
	"errors"
	"testing"

	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/consensus"
	"github.com/shoal-dev/shoal/gossip/consensus/consensustest"
)

func TestSalvage(t *testing.T) {
	disk := &consensustest.Disk{}
	if err := consensus.Bootstrap(disk, newLedger(t)); err != nil {
		t.Fatal(err)
	}
	core, err := consensus.OpenPlanted(disk, consensus.DefaultSegment, consensus.CoreConfig{}, consensus.PlantedNothing)
	if err != nil {
		t.Fatal(err)
	}
	var want gossip.Ledger
	for n := range uint64(10) {
		want = core.Ledger()
		if err := core.Propose(n+1, addToken(int(n))); err != nil {
			t.Fatal(err)
		}
	}
	if !disk.Cut("log-1", 1) {
		t.Fatal("there is no log")
	}
	if _, err := consensus.OpenStore(disk, consensus.DefaultSegment); err == nil {
		t.Fatal("the damage is not noticed")
	}
	got, ok := consensus.Salvage(disk, consensus.DefaultSegment)
	if !ok || got.Index != want.Index || got.Hash != want.Hash {
		t.Fatalf("got %d (%v), want %d", got.Index, ok, want.Index)
	}
	next, err := got.Recovered(2, []uint64{1})
	if err != nil {
		t.Fatal(err)
	}
	if err := consensus.Recover(disk, 1, 9, next); err != nil {
		t.Fatal(err)
	}
	core, err = consensus.OpenPlanted(disk, consensus.DefaultSegment, consensus.CoreConfig{}, consensus.PlantedNothing)
	if err != nil {
		t.Fatal(err)
	}
	if s := core.State(); !s.Leads || s.Epoch != 2 || s.Term < 9 {
		t.Errorf("got %+v", s)
	}
	if _, ok := consensus.Salvage(&consensustest.Disk{}, 4096); ok {
		t.Error("something was salvaged from nothing")
	}
}

// Two recoveries from different ledgers do not hear each other.
func TestLineagesDoNotMix(t *testing.T) {
	l := newLedger(t)
	for i := 2; i <= 3; i++ {
		for _, command := range []gossip.Command{addToken(i), addMember(i)} {
			var err error
			if l, err = l.Apply(l.Index+1, command); err != nil {
				t.Fatal(err)
			}
		}
	}
	more, err := l.Apply(l.Index+1, addToken(9))
	if err != nil {
		t.Fatal(err)
	}
	for _, planted := range []consensus.Planted{consensus.PlantedNothing, consensus.PlantedAnyLineage} {
		cores := map[uint64]*consensus.Core{}
		for id, ledger := range map[uint64]gossip.Ledger{1: l, 2: l, 3: more} {
			recovered, err := ledger.Recovered(2, []uint64{1, 2, 3})
			if err != nil {
				t.Fatal(err)
			}
			disk := &consensustest.Disk{}
			if err := consensus.Recover(disk, id, 1, recovered); err != nil {
				t.Fatal(err)
			}
			if cores[id], err = consensus.OpenPlanted(disk, smallSegment*4, consensus.CoreConfig{}, planted); err != nil {
				t.Fatal(err)
			}
		}
		strangers := 0
		for range 200 {
			for _, id := range []uint64{1, 2, 3} {
				cores[id].Tick()
				for _, m := range cores[id].Ready().Messages {
					if errors.Is(cores[m.To()].Step(id, m), consensus.ErrEpoch) {
						strangers++
					}
				}
			}
		}
		hashes := []string{cores[1].Ledger().Hash.String(), cores[2].Ledger().Hash.String(), cores[3].Ledger().Hash.String()}
		mixed := cores[3].State().Leader != 0 && cores[3].State().Term == cores[1].State().Term
		if (planted == consensus.PlantedNothing) == mixed {
			t.Errorf("planted %d: %v, leaders %d %d %d", planted, hashes, cores[1].State().Leader, cores[2].State().Leader, cores[3].State().Leader)
		}
		if planted == consensus.PlantedNothing && (strangers == 0 || cores[1].State().Leader == 0 || hashes[0] != hashes[1]) {
			t.Errorf("%d messages were refused; leaders %d and %d", strangers, cores[1].State().Leader, cores[2].State().Leader)
		}
	}
}
