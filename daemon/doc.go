// Package daemon wires the rooms together. It is the only package that imports
// them all, and holds no decisions of its own beyond what to do next:
//
//	snapshot := gitsync.Latest()                         // desired: what Git says
//	board    := the machines' own records                // observed
//	decision := scheduler.Schedule(snapshot, board, facts, authority, now)
//	runtime.Sync(assigned pods, pods to remove)          // make this machine run its pods
//	policy.Set(rules and names)                          // make this machine route its traffic
//
// [Run] is one long straight function: open in order, close in reverse, start
// the loops, wait. control.go is the loop above, traffic.go its last line, on a
// goroutine of its own because programming packet rules takes longer than
// deciding. A pod is told to stop only after the rules no longer lead to it.
//
// Nothing here is global, and nothing ends the process: tests start whole
// daemons in theirs.
package daemon
