// Package simnet is a network in memory, with faults: machines die without a
// word and processes with one, hosts stall, parts are cut off from each other in
// one or both directions, packets are late or lost. It carries memberlist's
// packets (memberlist's own MockNetwork waits for ever on a node that is dead)
// and streams that behave as TCP does: what cannot be delivered waits, and after
// a while its sender gives up. It works on the clock of testing/synctest.
package simnet
