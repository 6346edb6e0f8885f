// Package sim runs whole fleets in one process, in virtual time: every node is
// the daemon that `shoal run` starts, with real consensus, real memberlist and
// real streams, on a network, containers and packet rules in memory and folders
// on disk. Machines die, processes are killed, hosts stall, links are cut in one
// or both directions, packets are lost, commits arrive; a referee looks at what
// must always hold (see referee.go) all the while.
//
// Scenarios are txtar scripts in testdata; random ones are made from a seed. The
// order in which goroutines run is not the seed's, so a failure may not come back
// with the same seed: what the leaders decided, and from what, is in the journal
// that a failure leaves, and that can be decided again (see journal.go).
//
// Everything runs in a bubble of testing/synctest. Nothing here may wait for the
// world outside, or time stands still.
package sim
