// Package members knows where the nodes of a fleet are and which of them are
// there, by way of memberlist.
//
// It is the second opinion. Leases say who is alive, and fast; this says at which
// address a node is found, which may change, and lets nodes find each other again
// after splits and moves. Nothing here has authority: whoever holds the gossip
// key could tell lies about who is alive, so no pod moves for what it says.
//
// # Cards
//
// Where a node is found stands on its card, which the node signs with its key and
// numbers, so that it may come from anybody and an old one never wins. A card is
// the metadata of a member. It also travels by itself, because memberlist keeps
// the old address of a member until it has given that member up. A node that
// hears of a newer card of its own than the one it has, after the loss of its
// files, numbers the next one higher.
//
// # Rejoining
//
// memberlist forgets a member half a minute after its death, on both sides of a
// split, and never looks for it again. So every five seconds, for ever, those of
// the roster that are not there are tried: at the address on their card, which is
// kept on disk, where the roster says, and at the seeds.
package members
