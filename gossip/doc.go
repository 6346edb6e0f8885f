// Package gossip will hold what nodes tell each other: membership, the board,
// leadership. A fleet of one needs none of it; what it needs of this room is
// the identity of the fleet, in package identity.
package gossip
