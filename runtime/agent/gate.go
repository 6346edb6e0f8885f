package agent

import (
	"context"
	"slices"
	"sync"

	"golang.org/x/time/rate"
)

// gate lets only so many pulls go on at once, and no more begin in a second than
// allowed. Those that pods wait for go before the others, each kind in the order
// in which it came. It may be used concurrently.
type gate struct {
	slots   int // 0: any number
	limiter *rate.Limiter

	mu    sync.Mutex
	busy  int
	queue []*ticket // urgent ones first
}

// ticket is a place in the queue of a gate. Its fields belong to the gate.
type ticket struct {
	urgent bool
	turn   chan struct{} // closed when it is this one's turn
}

// newGate returns a gate for as many pulls at once as slots says, and as many a
// second as perSecond says, burst of them at once; 0 slots or perSecond are no
// limit.
func newGate(slots int, perSecond float64, burst int) *gate {
	limit := rate.Inf
	if perSecond > 0 {
		limit = rate.Limit(perSecond)
	}
	return &gate{slots: slots, limiter: rate.NewLimiter(limit, max(1, burst))}
}

// queueUp takes a place in the queue.
func (g *gate) queueUp(urgent bool) *ticket {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := &ticket{urgent: urgent, turn: make(chan struct{})}
	g.insert(t)
	g.admit()
	return t
}

// insert puts a ticket behind those of its kind. g.mu is held.
func (g *gate) insert(t *ticket) {
	at := len(g.queue)
	if t.urgent {
		if at = slices.IndexFunc(g.queue, func(other *ticket) bool { return !other.urgent }); at < 0 {
			at = len(g.queue)
		}
	}
	g.queue = slices.Insert(g.queue, at, t)
}

// admit lets in whoever there is room for. g.mu is held.
func (g *gate) admit() {
	for len(g.queue) > 0 && (g.slots == 0 || g.busy < g.slots) {
		close(g.queue[0].turn)
		g.queue = g.queue[1:]
		g.busy++
	}
}

// hurry makes a ticket urgent.
func (g *gate) hurry(t *ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.urgent {
		return
	}
	t.urgent = true
	if i := slices.Index(g.queue, t); i >= 0 {
		g.queue = slices.Delete(g.queue, i, i+1)
		g.insert(t)
	}
}

// waits reports whether it is not yet a ticket's turn.
func (t *ticket) waits() bool {
	select {
	case <-t.turn:
		return false
	default:
		return true
	}
}

// pass waits until the holder of a ticket may go on; it calls leave when it is
// done. An error is that of ctx.
func (g *gate) pass(ctx context.Context, t *ticket) (leave func(), err error) {
	select {
	case <-t.turn:
	case <-ctx.Done():
		g.abandon(t)
		return nil, ctx.Err()
	}
	if err := g.limiter.Wait(ctx); err != nil {
		g.leave()
		return nil, err
	}
	return g.leave, nil
}

// abandon gives a place in the queue up, or the slot that came of it.
func (g *gate) abandon(t *ticket) {
	g.mu.Lock()
	i := slices.Index(g.queue, t)
	if i >= 0 {
		g.queue = slices.Delete(g.queue, i, i+1)
	}
	g.mu.Unlock()
	if i < 0 {
		g.leave()
	}
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy--
	g.admit()
}
