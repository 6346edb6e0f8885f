// Package dns answers for the cluster domain on this node, and passes every
// other question on to the servers of the machine's own resolv.conf.
//
// Every node answers for itself on the same address, which is put on the
// loopback interface; no question leaves a node but those for outside names.
// The zone is a whole state that package policy works out; see [Server.Set].
package dns
