// Package scheduler decides what should exist and where. It is pure: values go
// in, values come out, and there is no clock, no randomness and no I/O in it.
// The leader of a fleet, `shoal plan` and the tests all run the same code:
//
//	set, facts, wake := scheduler.Schedule(snapshot, board, facts, now)
//
// It asks two questions, one after the other, and keeps them apart.
//
// What should exist (expand.go, one file per kind; rollout.go): every workload
// of the snapshot is expanded into the pods it wants; those are compared with
// the pods that exist; the result is a list of pods to start and of pods to
// stop now. Nothing here looks at the capacity of a node.
//
// Where it goes (place.go): every pod to start is given the best node that
// passes all filters. Nothing here looks at rollouts. What fits nowhere stays
// pending with a reason.
//
// Three rules hold throughout. An unknown desire removes nothing. What runs
// stays where it runs. A second call with the result of the first decides
// nothing new.
package scheduler
