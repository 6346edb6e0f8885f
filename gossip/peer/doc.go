// Package peer carries what nodes say to each other: messages, questions and
// opaque streams, over gRPC on mutual TLS in which each end proves the node key
// that the roster knows it by.
//
// A message is sent without waiting and may be lost; those to one node arrive in
// the order in which they were sent, in each of two lanes: what keeps leases and
// the consensus alive does not queue behind records and assignments. One
// connection to each node that something is sent to, made when it is needed and
// ended when it was idle for a minute.
package peer
