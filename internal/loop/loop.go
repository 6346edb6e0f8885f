// Package loop runs a step soon after a poke, never more often than Min, and at
// least every Max. All control loops of Shoal are one of these: an event carries
// nothing, it only makes the step look again.
package loop

import (
	"context"
	"sync"
	"time"
)

// Config bounds how often the step runs.
type Config struct {
	Min time.Duration // from the end of a run to the start of the next, whatever the pokes
	Max time.Duration // after which it runs though nothing poked; 0: never
}

// Run runs step at once and then again and again until ctx ends, one at a time.
// A poke that arrives while the step runs makes it run once more. step returns
// the time at which it wants to run again though nothing changed, zero when it
// does not.
func Run(ctx context.Context, cfg Config, step func(context.Context) time.Time, pokes ...<-chan struct{}) {
	merged := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, poke := range pokes {
		wg.Go(func() { forward(ctx, poke, merged) })
	}
	for ctx.Err() == nil {
		wake := step(ctx)
		if !sleep(ctx, cfg.Min, nil) {
			return
		}
		wait := cfg.Max
		if !wake.IsZero() {
			if until := max(time.Until(wake), time.Millisecond); wait == 0 || until < wait {
				wait = until
			}
		}
		if !sleep(ctx, wait, merged) {
			return
		}
	}
}

// sleep waits for d or a poke, and reports whether ctx still lives. Without a
// poke channel zero means not at all, with one it means for ever.
func sleep(ctx context.Context, d time.Duration, poke <-chan struct{}) bool {
	var timeout <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		timeout = timer.C
	} else if poke == nil {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-timeout:
	case <-poke:
	}
	return true
}

func forward(ctx context.Context, from <-chan struct{}, to chan<- struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-from:
			if !open {
				return
			}
			Poke(to)
		}
	}
}

// Poke pokes a channel of capacity one; a poke that is waiting already is
// enough.
func Poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
