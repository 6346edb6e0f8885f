// Package agent makes this machine run its pods. It is the rim of room runtime:
// it owns every goroutine, asks package runtime what to do, and does it.
//
// Each pod has one worker, so that whatever regards a pod happens one after
// the other, and no slow pod holds up another. A worker waits to be poked,
// looks at what the machine holds of its pod, decides, acts, reports, and
// looks again until nothing is left to do. Pokes carry nothing: they come from
// a new desired state, from containerd's events, from probes and from timers,
// and one lost is made good by listing everything now and then.
//
// Two things run beside the worker, because they may last: fetching images,
// and stopping containers. Both show in what the worker observes.
//
// The agent may be killed at any line. Its successor lists containers,
// sandboxes and records, adopts what runs, completes or removes what is half
// made, and disturbs nothing that is well.
package agent
