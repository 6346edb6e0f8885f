// Package fence decides when exclusive pods must end because their node has lost
// touch with its fleet.
//
// An exclusive pod runs only while its node's lease lasts. The lease is counted
// from the moment at which the node sent the renewal that a quorum confirmed,
// not from the moment at which the answer came: whoever waits for the lease to
// end counts from the receipt, which is later. Seven seconds after the sending
// the pods are asked to end, after ten they are killed; the leader gives their
// claims to others after fifteen. All times are of CLOCK_BOOTTIME, which never
// steps and which counts while the machine sleeps.
//
// Before a planned restart of the daemon the lease is made longer, see
// [Handover]: the fencer's process keeps the time, and the leader waits longer.
//
// Not fenced is what needs no fence: in a fleet of one there is nobody else to
// run the pod, and a pod that is bound to a volume of its node runs nowhere else.
//
// The package decides and does nothing; package runtime/fencer acts. It imports
// nothing but the standard library, because that process must stay small.
package fence
