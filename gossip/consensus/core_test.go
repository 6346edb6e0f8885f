package consensus_test

import (
	"errors"
	"testing"

	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/consensus"
	"github.com/shoal-dev/shoal/gossip/consensus/consensustest"
)

// trio is three voters in lockstep, whose messages take no time.
type trio struct {
	cores   map[uint64]*consensus.Core
	disks   map[uint64]*consensustest.Disk
	applied map[uint64]error // by number of the proposal
	lost    func(from, to uint64) bool
}

func newTrio(t *testing.T, segment int64) *trio {
	t.Helper()
	l := newLedger(t)
	for i := 2; i <= 3; i++ {
		for _, command := range []gossip.Command{addToken(i), addMember(i)} {
			var err error
			if l, err = l.Apply(l.Index+1, command); err != nil {
				t.Fatal(err)
			}
		}
	}
	l, err := l.Recovered(2, []uint64{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	three := &trio{cores: map[uint64]*consensus.Core{}, disks: map[uint64]*consensustest.Disk{}, applied: map[uint64]error{}}
	for id := uint64(1); id <= 3; id++ {
		disk := &consensustest.Disk{}
		if err := consensus.Recover(disk, id, 1, l); err != nil {
			t.Fatal(err)
		}
		core, err := consensus.OpenPlanted(disk, segment, consensus.CoreConfig{CompactEvery: 20, Keep: 5}, consensus.PlantedNothing)
		if err != nil {
			t.Fatal(err)
		}
		three.cores[id], three.disks[id] = core, disk
	}
	return three
}

// tick lets time pass for all.
func (three *trio) tick(n int) {
	for range n {
		for id := uint64(1); id <= 3; id++ {
			three.cores[id].Tick()
		}
		three.settle()
	}
}

// settle delivers messages until there are none.
func (three *trio) settle() {
	for busy := true; busy; {
		busy = false
		for id := uint64(1); id <= 3; id++ {
			out := three.cores[id].Ready()
			for _, a := range out.Applied {
				if a.Number != 0 {
					three.applied[a.Number] = a.Refused
				}
			}
			for _, m := range out.Messages {
				busy = true
				if three.lost != nil && three.lost(id, m.To()) {
					continue
				}
				_ = three.cores[m.To()].Step(id, m) // as lost
			}
		}
	}
}

func (three *trio) leader(t *testing.T) *consensus.Core {
	t.Helper()
	for range 100 {
		for id := uint64(1); id <= 3; id++ {
			if three.cores[id].State().Leads {
				return three.cores[id]
			}
		}
		three.tick(1)
	}
	t.Fatal("nobody leads")
	return nil
}

// With all disks full, commands are refused when the log is; there is a leader
// all the time, and all goes on when there is space again.
func TestAFleetOnFullDisks(t *testing.T) {
	three := newTrio(t, 16<<10)
	three.leader(t)
	for _, disk := range three.disks {
		disk.Fill(true)
	}
	number, refused := uint64(0), false
	for range 400 {
		number++
		proposer := three.leader(t)
		if number%3 == 0 {
			proposer = three.cores[1+number%2] // mostly one that hands it on
		}
		switch err := proposer.Propose(number, addToken(int(number%8))); {
		case errors.Is(err, consensus.ErrFull):
			refused = true
		case err != nil && !errors.Is(err, consensus.ErrNoLeader):
			t.Fatal(err)
		}
		three.tick(1)
	}
	if !refused || len(three.applied) < 20 {
		t.Fatalf("%d commands were applied, and one was refused: %v", len(three.applied), refused)
	}
	full := 0
	for id, core := range three.cores {
		s := core.State()
		if s.Failed != nil {
			t.Errorf("%d takes part no more: %v", id, s.Failed)
		}
		if s.Full {
			full++
		}
	}
	if full == 0 {
		t.Error("nobody says that its disk is full")
	}
	// Elections need little space, and when there is none, no node fails.
	for range 1200 {
		for id := uint64(1); id <= 3; id++ {
			if three.cores[id].Transfer(0) == nil {
				break
			}
		}
		three.tick(2)
	}
	for id, core := range three.cores {
		if s := core.State(); s.Failed != nil {
			t.Errorf("%d takes part no more: %v", id, s.Failed)
		}
	}
	// The disks have space for snapshots again, and full logs are cut off.
	for _, disk := range three.disks {
		disk.Fill(false)
	}
	three.tick(250)
	old := three.leader(t)
	if err := old.Transfer(0); err != nil {
		t.Error(err)
	}
	three.tick(20)
	if three.leader(t) == old {
		t.Error("leadership was not handed over")
	}
	for _, disk := range three.disks {
		disk.Fill(false)
	}
	three.tick(250)
	number++
	if err := three.leader(t).Propose(number, addToken(1)); err != nil {
		t.Fatal(err)
	}
	three.tick(5)
	if _, applied := three.applied[number]; !applied {
		t.Error("with space on the disk, a command is not applied")
	}
	for id, core := range three.cores {
		if core.State().Full {
			t.Errorf("%d still says that its disk is full", id)
		}
	}
}

// A leader whose disk alone is full lets another one lead.
func TestALeaderOnAFullDiskHandsOver(t *testing.T) {
	three := newTrio(t, 16<<10)
	leader := three.leader(t)
	id := leader.State().RaftID
	three.disks[id].Fill(true)
	for number := uint64(1); number < 300 && leader.State().Leads; number++ {
		_ = leader.Propose(number, addToken(int(number%8))) // until it is full
		three.tick(1)
	}
	three.tick(10)
	if leader.State().Leads {
		t.Error("the leader whose disk is full goes on leading")
	}
}

// An error of the disk takes a node out, and only that.
func TestABrokenDiskTakesANodeOut(t *testing.T) {
	three := newTrio(t, 64<<10)
	leader := three.leader(t)
	id := leader.State().RaftID
	three.disks[id].Break(true)
	if err := leader.Propose(1, addToken(1)); err != nil && !errors.Is(err, consensustest.ErrIO) {
		t.Errorf("got %v", err)
	}
	three.settle()
	if s := leader.State(); !errors.Is(s.Failed, consensustest.ErrIO) || s.Leads {
		t.Errorf("got %+v", s)
	}
	three.disks[id].Break(false)
	three.tick(60)
	if next := three.leader(t); next == leader {
		t.Error("a node whose disk broke leads")
	}
	if err := leader.Verify(3); err == nil {
		t.Error("a node whose disk broke confirms that it leads")
	}
}

// A fleet of one grows to three, and at one moment, whichever, its leader is
// neither heard nor hears for a while. What it had begun goes on after that. A
// voter may then not know yet that it is one, and the leader needs its vote.
func TestALeaderThatStallsWhileTheFleetGrows(t *testing.T) {
	grow := func(t *testing.T, moment int) (messages int) {
		t.Helper()
		l := newLedger(t)
		for i := 2; i <= 3; i++ {
			for _, command := range []gossip.Command{addToken(i), addMember(i)} {
				l, _ = l.Apply(l.Index+1, command) // as in newTrio
			}
		}
		one, err := l.Recovered(2, []uint64{1})
		if err != nil {
			t.Fatal(err)
		}
		three := &trio{cores: map[uint64]*consensus.Core{}, disks: map[uint64]*consensustest.Disk{}, applied: map[uint64]error{}}
		for id := uint64(1); id <= 3; id++ {
			disk := &consensustest.Disk{}
			if id == 1 {
				err = consensus.Recover(disk, id, 1, one)
			} else {
				err = consensus.Join(disk, id, 2)
			}
			if err != nil {
				t.Fatal(err)
			}
			if three.cores[id], err = consensus.OpenPlanted(disk, smallSegment*4, consensus.CoreConfig{}, consensus.PlantedNothing); err != nil {
				t.Fatal(err)
			}
		}
		three.lost = func(from, to uint64) bool {
			messages++
			return messages > moment && (from == 1 || to == 1)
		}
		three.leader(t).SetVoters([]uint64{1, 2, 3})
		three.tick(150)
		three.lost = nil
		three.tick(150)
		if !three.cores[1].State().Leads && !three.cores[2].State().Leads && !three.cores[3].State().Leads {
			t.Fatalf("cut off at message %d: nobody leads: %+v, %+v, %+v", moment, three.cores[1].State(), three.cores[2].State(), three.cores[3].State())
		}
		if voters := three.leader(t).State().Voters; len(voters) != 3 {
			t.Errorf("cut off at message %d: %v vote", moment, voters)
		}
		return messages
	}
	most := grow(t, 1<<30)
	for moment := range min(most, 120) {
		grow(t, moment)
		if t.Failed() {
			t.Fatalf("the leader was cut off at message %d of %d", moment, most)
		}
	}
}
