// Package runtime decides what a machine does to run its pods.
//
// [Decide] compares what the machine should be ([Desired]) with what it is
// ([Observed]) and returns the next steps, each with a reason; [Status] and
// [State] turn the same observation into what kubectl shows and what the other
// nodes need to know. All of it is pure: no clock, no input, no output. The
// rooms below act:
//
//	runtime/agent       the loop: list, Decide, act, report; owns every goroutine
//	runtime/containerd  images and containers
//	runtime/network     pinned namespaces, CNI, resolv.conf and hosts
//	runtime/volume      what is mounted into containers
//	runtime/probe       liveness, readiness and startup probes
//	runtime/logs        the CRI log files and the keeper that writes them
//
// The loop for one pod, which runs until there is nothing left to do:
//
//	observed := list(machine)
//	actions, wake := runtime.Decide(desired, observed, now)
//	for _, action := range actions { act(action) }
//
// The machine is the database. Containers carry their identity as labels; a
// pod's record lies beside its pinned namespaces. Whatever line the process
// dies at, the next one lists, decides and goes on.
//
// Absence kills nothing. A pod is stopped only when [Desired].Remove names its
// instance; a pod that no assignment mentions runs on, and is restarted when it
// crashes, from the record that the machine holds.
package runtime
