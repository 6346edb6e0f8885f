package fleet

import (
	"context"
	"time"

	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/consensus"
)

// What a machine that idles spends, it spends on waking up. So a node wakes up
// for the clock as seldom as its part allows, and does then all that is due: a
// leader, and a voter that has not just heard of one, every tick of the
// consensus, everybody else twice for every renewal.
const (
	turnEvery   = gossip.RenewEvery / 2
	ticksOfTurn = int(turnEvery / consensus.TickInterval)
	// turnsOfTick is how many turns pass between two ticks of the consensus on a
	// node that takes no part in elections: it has only its log to cut off.
	turnsOfTick = 4
)

// A pace is how a node keeps time.
type pace struct {
	slow         bool // it wakes up once a turn
	ticks, turns int
}

// due is what is to be done when a node wakes up.
type due struct {
	ticks int  // of the consensus
	turn  bool // twice for every renewal
	core  bool // the core looks at its leases
}

// every is the time to the next waking up.
func (p pace) every() time.Duration {
	if p.slow {
		return turnEvery
	}
	return consensus.TickInterval
}

// beat returns what is due now.
//
// A voter that hears the leader counts no ticks, but one a turn, which the next
// heartbeat undoes. When it heard nothing for a turn it counts the ticks of that
// turn and each that follows. So silence may be counted from a turn later than it
// began, and never from earlier.
func (p *pace) beat(s consensus.State, leads bool) due {
	p.ticks++
	d := due{turn: p.slow || p.ticks%ticksOfTurn == 0}
	if d.turn {
		p.turns++
	}
	d.core = leads || d.turn
	votes := s.Voter || s.Leads || s.Joint
	hears := s.Leader != 0 && !s.Leads && !s.Joint
	switch {
	case !votes:
		if d.turn && p.turns%turnsOfTick == 0 {
			d.ticks = 1
		}
		p.slow = !leads
	case !p.slow:
		d.ticks = 1
		p.slow = d.turn && hears && !leads && s.Quiet <= consensus.DefaultHeartbeatTicks
	case hears && s.Quiet == 0:
		d.ticks = 1
		p.slow = !leads
	default:
		d.ticks, p.slow = ticksOfTurn, false
	}
	return d
}

// tick tells the time to the core and to the consensus, and lets tend have its
// turns.
func (f *Fleet) tick(ctx context.Context) error {
	var p pace
	every := p.every()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return nil
		case now = <-ticker.C:
		}
		d := p.beat(f.log.State(), f.leads())
		if d.ticks > 0 {
			select {
			case f.ticks <- d.ticks:
			default: // the disk is slow
			}
		}
		if d.core {
			f.do(func() { f.core.Tick(f.cfg.Boot(), now) })
		}
		if d.turn {
			select {
			case f.turns <- struct{}{}:
			default: // it is still at the one before
			}
		}
		if next := p.every(); next != every {
			every = next
			ticker.Reset(every)
		}
	}
}

func (f *Fleet) leads() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.core.Leads()
}
