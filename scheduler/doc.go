// Package scheduler decides what should exist and where. It is pure: values go
// in, values come out, and there is no clock, no randomness and no I/O in it.
// The leader of a fleet, `shoal plan` and the tests all run the same code:
//
//	decision := scheduler.Schedule(snapshot, board, facts, authority, now)
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
// What may be done depends on what is known of the nodes and on the leader's
// authority (crew.go, brake.go, exclusive.go):
//
//   - The pods of a node that is lost count as gone. Others start in their place
//     at once, unless nothing but that node is for them. They themselves are
//     told nothing; when the node returns, the pod of a slot that has been ready
//     for longest stays, and the other goes after half a minute.
//   - An exclusive pod starts only under the claim of its identity, which
//     consensus grants, and only once whatever ran under the claim before is
//     known to be gone. A leader without a quorum leaves exclusive pods alone.
//   - A storm brake limits how many pods are started in the place of lost ones.
//
// What a Job or a CronJob has done outlives its pods (job.go, cronjob.go): it is
// kept in the facts, and each end of a pod is counted there once. Only their
// clock can be stopped, for plans.
//
// What a workload wants may be an autoscaler's to say (autoscale.go): it begins
// with the number in Git, and from then on the number is in the facts, and nobody
// else writes it. It follows the usage on the board, which wakes nobody, so it asks
// to be called again every 15 s.
//
// What the fleet takes away of its own will, because of a drain for instance, is
// decided last (budget.go): once all else that goes is counted, each
// PodDisruptionBudget says whether one pod more may go, and else why not. A taint
// that ends pods (taint.go) asks nobody.
//
// Three rules hold throughout. What is not known removes nothing: neither an
// unknown desire, nor a node that is lost or has not reported. What runs stays
// where it runs, unless its node is drained. A second call with the result of
// the first decides nothing new.
package scheduler
