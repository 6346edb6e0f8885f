package daemon

import (
	"errors"
	"fmt"
	"slices"

	"github.com/shoal-dev/shoal/scheduler"
)

// neededImages returns what the commit in force and the one before it name. It
// may be called from any goroutine.
func (c *control) neededImages() ([]string, error) {
	snapshot := c.repo.Latest()
	if !snapshot.Known() {
		return nil, errors.New("no commit is in force yet")
	}
	out := scheduler.Images(snapshot)
	previous := c.repo.Previous()
	if previous == "" || !c.repo.Has(previous) {
		return out, nil
	}
	before, err := c.repo.At(previous)
	if err != nil {
		return nil, fmt.Errorf("read the previous commit: %w", err)
	}
	out = append(out, scheduler.Images(before)...)
	slices.Sort(out)
	return slices.Compact(out), nil
}
