// Package iptables applies the rule set of package policy to this machine, or
// rather to the network namespace in which the daemon runs.
//
// It is a setter of a whole state. The first call brings the kernel to that
// state whatever a former daemon left behind; later calls feed only the chains
// that changed to iptables-restore, because reading the rules back would cost
// seconds at some thousand Services. Jumps from the built-in chains are made
// and checked with go-iptables. Every chain is named SHOAL-*; no other rule is
// ever touched.
package iptables
