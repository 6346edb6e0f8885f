package agent

import "context"

// discard deletes the persistent volumes that a quorum has given up, beside the
// work on pods: it may take long. What cannot be deleted now is tried again.
func (a *Agent) discard(ctx context.Context) {
	a.mu.Lock()
	names := a.desired.Discard
	busy := a.discarding || len(names) == 0 || !a.listed || len(a.strangers) > 0
	a.discarding = a.discarding || !busy
	a.mu.Unlock()
	if busy {
		return
	}
	a.wg.Go(func() {
		said := ""
		for _, name := range names {
			if ctx.Err() != nil {
				break
			}
			if err := a.volumes.Discard(name); err != nil {
				said = err.Error()
			}
		}
		a.mu.Lock()
		news := said != "" && said != a.discardSaid
		a.discarding, a.discardSaid = false, said
		a.mu.Unlock()
		if news {
			a.nodeEvent("FailedDiscard", said)
		}
	})
}
