package probe

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// counter turns single results into a verdict. Pure.
type counter struct {
	success, failure int32 // thresholds
	passing          bool  // the verdict
	last             bool  // the last result
	run              int32 // how many like it in a row
	ever             bool  // whether it ever passed
}

func newCounter(p *corev1.Probe, passing bool) counter {
	return counter{
		success: max(1, p.SuccessThreshold),
		failure: orDefault(p.FailureThreshold, 3),
		passing: passing,
		ever:    passing,
	}
}

// observe takes one result. changed reports that the verdict is another one
// now, failed that failures have reached their threshold.
func (c *counter) observe(ok bool) (changed, failed bool) {
	if c.run == 0 || ok != c.last {
		c.last, c.run = ok, 0
	}
	c.run++
	switch {
	case ok && c.run >= c.success:
		changed = !c.passing
		c.passing, c.ever = true, true
	case !ok && c.run >= c.failure:
		changed = c.passing
		c.passing, failed = false, true
	}
	return changed, failed
}

// early returns how long to wait after the n-th try of a container that has
// never passed, at most its period.
func early(n int, period time.Duration) time.Duration {
	wait := 50 * time.Millisecond
	for range n {
		wait = wait * 3 / 2
		if wait >= period {
			return period
		}
	}
	return wait
}

func orDefault(n, otherwise int32) int32 {
	if n <= 0 {
		return otherwise
	}
	return n
}

func seconds(n, otherwise int32) time.Duration {
	return time.Duration(orDefault(n, otherwise)) * time.Second
}
