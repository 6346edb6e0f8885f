package runtime

import "time"

// Kubernetes' back-off of crashing containers and failing image pulls.
// Source: kubernetes.io, Pod Lifecycle, "Container restart policy".
const (
	backoffFirst = 10 * time.Second
	backoffMax   = 5 * time.Minute
	// backoffReset is how long a container must have run for its crashes to be
	// forgotten.
	backoffReset = 10 * time.Minute
)

// Backoff returns how long to wait before the try that follows n failures in a
// row: 10 s after the first, doubling to 5 min.
func Backoff(n int) time.Duration {
	if n <= 0 {
		return 0
	}
	d := backoffFirst
	for range n - 1 {
		d *= 2
		if d >= backoffMax {
			return backoffMax
		}
	}
	return d
}

// NextCrashes returns the Crashes of the attempt that follows c, which has
// ended: one more than c's, or 1 when c ran for long. To be fenced is no crash.
func NextCrashes(c Container) int32 {
	if c.Fenced() {
		return c.Crashes
	}
	if !c.Started.IsZero() && c.Finished.Sub(c.Started) >= backoffReset {
		return 1
	}
	return c.Crashes + 1
}

// restartAt returns when the attempt that follows c may start. The first
// restart is immediate.
func restartAt(c Container) time.Time {
	return c.Finished.Add(Backoff(int(NextCrashes(c)) - 1))
}
