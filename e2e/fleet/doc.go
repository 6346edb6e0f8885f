// Package fleet tests fleets end to end: several real daemons, each in a network
// namespace of its own, on real containerd, iptables and Git, and what becomes
// of their pods when machines die and networks split. It is built with the tag
// e2e; the environment variable SHOAL_E2E=full adds the long tests.
package fleet
