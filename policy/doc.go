// Package policy decides how a machine routes and filters its traffic. It is
// pure: Services and pods go in, and complete states come out, which adapters
// in the packages below apply as a whole.
//
//	services := policy.Endpoints(objects, addresses, pods) // who answers for a Service
//	rules    := policy.Rules(config, services, pods)       // packet rules, for policy/iptables
//	zone     := policy.RecordsOf(domain, services)         // names, for policy/dns
//
// Every node computes the same endpoints from the same board, so no node asks
// another one where to send a packet. Addresses of Services come from
// [Allocate]; once given they stay.
package policy
