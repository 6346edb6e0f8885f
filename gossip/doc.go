// Package gossip decides what nodes tell each other: who is there, who leads and
// with what authority, what each node says of itself, and who may run what must
// not run twice.
//
// It is the pure part of the room. [Core] is one node's share of it, a state
// machine that is given time and messages and asked for messages; its loop is in
// its comment. [Records] are what nodes say of themselves, each record written
// and signed by its own node, so that it may come from anybody; merging them is
// commutative, associative and idempotent. [Ledger] is what must never fork; it
// is replicated by package consensus.
//
// What happens in the world is in the packages below: identity holds the keys,
// peer the streams between nodes, members the membership, consensus the log.
//
// # Who leads
//
// The leader is the one of the consensus, when there is one: it has a quorum. A
// node that hears of none for three seconds asks all nodes with a lower ID; when
// none answers within a second it acts as leader, with fewer rights, and the
// others follow the lowest one they reach. So every part of a split fleet has
// exactly one leader after a few seconds, and at most one of them has a quorum.
//
// # Who is alive
//
// Nodes renew a lease with their leader every half second, directly or, when
// that way is cut, through up to three others. After 1.5 s of silence a node is
// suspect and peers are asked whether they reach it; after 2.5 s without a sign
// it is lost. Membership by gossip is too slow for this at safe settings, and
// wrong at fast ones.
package gossip
