// Package place gives nodes to pods, as kube-scheduler would, a group of
// identical pods at a time. It is pure: values go in, values come out.
//
//	fleet, err := place.NewFleet(nodes, namespaces)
//	fleet.Book(template, "n1", 3)                          // what runs
//	placed := fleet.Place(place.Demand{Template: web}, 10) // and is booked
//	eviction, reason := fleet.Preempt(place.Demand{Template: web})
//
// A [Template] is a pod's spec made ready once, by [Compile]. What it means to
// other pods is its [api.Mold], a small value that other nodes keep of pods whose
// spec they do not know any more.
//
// # How it works
//
// Everything is counted by group and node, and by domain where rules are about
// domains. A demand looks at every node once, filters and scores it (run.go,
// rules.go, score.go), and then takes the best node for each replica (ranking.go,
// queue.go). A replica changes the node that it takes, and a few numbers: only
// nodes for which those numbers matter are looked at again. The result is what
// looking at all nodes again for every pod would give; the tests compare it with
// an oracle that does. No node is left out of it, and ties are broken by name, so
// that no result depends on the order of anything.
//
// # Filters
//
// The name of the node, required node affinity and node selector, taints, volumes
// (as the caller gives them), number of pods and resources, host ports, topology
// spread, inter-pod affinity and anti-affinity. The first that a node does not
// pass is told; of a node that lacks room, everything that it lacks. Nodes that are
// [Node.Gone] are no domains of topology spread.
//
// # Scores
//
// Those of kube-scheduler's default plugins, measured as it does, from 0 to 100,
// with its weights: taints to be avoided 3, preferred node affinity 2, topology
// spread 2, preferred inter-pod affinity 2, resources left 1, balance of resources
// 1, images 1.
//
// # Where it differs from kube-scheduler
//
//   - Pods of a workload that ask for no topology spread are spread more strictly
//     than by kube-scheduler's default constraints: loss of a node should take as
//     few of them as possible. Of nodes that are equal in what the pod's author
//     gives points for (taints, node affinity, inter-pod affinity) the one with the
//     fewest pods of the workload wins, then the zone with the fewest, then
//     resources and images decide. It is one sum: a pod on the node weighs as much
//     as 20 in its zone, one in the zone more than everything that resources and
//     images can, and a fully preferred node (200 points) as much as three pods on
//     it. Pods of all revisions count. Nodes without a zone are a zone.
//   - All nodes are scored, not a sample; kube-scheduler picks among the best at
//     random.
//   - Amounts saturate at 2^49 (512 TiB, 5 * 10^11 CPUs), and a node has less than
//     that of everything, and fewer than 8192 pods.
//   - An empty selector of a PodDisruptionBudget selects all pods of the
//     namespace, as policy/v1 says; kube-scheduler takes it to select none. An
//     empty selector of a spread constraint counts no pods, as with kube-scheduler.
//   - Shares are computed in whole numbers, so that all processors agree. A score
//     may be off by one from kube-scheduler's.
//   - Preemption tries every node, not a sample; victims of the same pass, once
//     they are evicted, are gone for it.
//   - A toleration of NoExecute for no time at all is none: kube-scheduler may place
//     a pod where it is ended at once.
//   - Dynamic resource allocation, and volumes other than by the nodes that they
//     can be reached from, are not looked at.
package place
