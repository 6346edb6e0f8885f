package fleet

import (
	"context"
	"time"

	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/consensus"
)

// What a machine that idles spends, it spends on waking up. So a node wakes up
// for the clock as seldom as its part allows, and does then all that is due: a
// voter every tick of the consensus, everybody else twice for every renewal.
const (
	turnEvery   = gossip.RenewEvery / 2
	ticksOfTurn = int(turnEvery / consensus.TickInterval)
	// turnsOfTick is how many turns pass between two ticks of the consensus on a
	// node that takes no part in elections: it has only its log to cut off.
	turnsOfTick = 4
)

// tick tells the time to the core and to the consensus, and lets tend have its
// turns.
func (f *Fleet) tick(ctx context.Context) error {
	pace := consensus.TickInterval
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	ticks, turns := 0, 0
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return nil
		case now = <-ticker.C:
		}
		ticks++
		turn := pace == turnEvery || ticks%ticksOfTurn == 0
		if turn {
			turns++
		}
		state := f.log.State()
		votes := state.Voter || state.Leads || state.Joint
		if votes || turn && turns%turnsOfTick == 0 {
			select {
			case f.ticks <- now:
			default: // the disk is slow
			}
		}
		leads := f.leads()
		if leads || turn {
			f.do(func() { f.core.Tick(f.cfg.Boot(), now) })
		}
		if turn {
			select {
			case f.turns <- struct{}{}:
			default: // it is still at the one before
			}
		}
		wanted := consensus.TickInterval
		if !votes && !leads {
			wanted = turnEvery
		}
		if wanted != pace {
			pace = wanted
			ticker.Reset(pace)
		}
	}
}

func (f *Fleet) leads() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.core.Leads()
}
