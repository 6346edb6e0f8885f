// Package fleet is one node's part in its fleet: it runs the decisions of
// package gossip on the streams of package peer and the log of package consensus,
// founds fleets, and lets nodes join.
package fleet
