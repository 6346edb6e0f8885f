// Package evict decides which pod has to go when its machine runs short of
// memory, disk, inodes or processes. It is pure: what was measured comes in, and
// what to do comes out.
//
//	for each look at the machine {
//		d := evict.Decide(policy, readings and pods, memory, now)
//		the node has d.Conditions; memory = d.Memory
//		if d.Reclaim  { free what no pod needs, measure again, decide again }
//		if d.Victim   { end that pod }
//	}
//
// The rules are those of Kubernetes. Source: Kubernetes, "Node-pressure Eviction".
package evict
