// Package memberstest is a network in memory for memberlist, with faults: nodes
// crash and stall, parts are cut off from each other, packets are late or lost.
// memberlist's own MockNetwork waits for ever on a node that is dead. It works on
// the clock of testing/synctest.
package memberstest
