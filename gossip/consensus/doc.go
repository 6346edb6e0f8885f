// Package consensus keeps the gossip.Ledger the same on every node that votes.
// It is the only importer of go.etcd.io/raft.
//
// There are three layers, each usable without the one above:
//
//   - Store writes the raft log, the vote and snapshots to a Disk: checksummed,
//     in files that are preallocated, so that a full disk stops no vote. Bytes
//     that were acknowledged and cannot be read back make it damaged, and a
//     damaged voter comes back under another raft ID or not at all.
//
//   - Core is one node without goroutines, clocks or network. It is told the
//     time by ticks, and messages and proposals by calls:
//
//     core.Tick()
//     core.Step(from, message)
//     for _, m := range core.Ready().Messages {
//     send(m)
//     }
//
//     Equal calls (and equal randomness for elections) give equal results, so
//     thousands of fleets with faults are run by seed: see TestSeeds.
//
//   - Node is the loop around a Core: channels, deadlines, and values that other
//     goroutines may read.
//
// A fleet begins with Bootstrap on its first node. Every other node begins with
// Join under the raft ID that the ledger gave it, and waits to be made a
// learner, then a voter; who votes is said by the leader's owner with SetVoters,
// and brought about one joint change at a time. Only voters and those on their
// way to vote are part of the raft configuration; all others are handed the
// ledger by other means (Node.Inform).
//
// When most voters are gone for good, Recover starts a new epoch from a ledger.
// Every message carries its epoch and its lineage, a number that follows from
// what the epoch began with: two parts of a fleet that were recovered
// differently never mix.
//
// raft panics where its assumptions break: a log that lost what it had
// acknowledged, or messages no honest peer sends. A Core recovers from that,
// takes part no more, and says why; so it does after any error of its disk.
// Nothing in this package ends the process.
package consensus
