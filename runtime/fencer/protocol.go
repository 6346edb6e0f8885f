package fencer

import "github.com/shoal-dev/shoal/runtime/fence"

// Verb is what the daemon asks for.
type Verb string

// The verbs of the protocol. Absence releases nothing: a daemon that has just
// started does not know yet what is held.
const (
	Hold    Verb = "hold"    // fence a pod from now on; idempotent by instance
	Release Verb = "release" // fence it no more; unknown instances are fine
	Renew   Verb = "renew"   // only brings the lease
	List    Verb = "list"
	Ping    Verb = "ping"
	Quit    Verb = "quit" // let everything run on, and end
)

// Request is one line from the daemon.
type Request struct {
	Verb     Verb        `json:"verb"`
	Pod      fence.Pod   `json:"pod,omitzero"`      // for Hold
	Instance string      `json:"instance,omitzero"` // for Release
	Lease    fence.Lease `json:"lease,omitzero"`    // comes with every request; older ones are passed over
}

// Reply answers one request.
type Reply struct {
	Error    string      `json:"error,omitempty"`
	Fenced   []string    `json:"fenced,omitempty"` // instances that are shut, sorted
	Pods     []fence.Pod `json:"pods,omitempty"`   // for List, sorted by instance
	Lease    fence.Lease `json:"lease,omitzero"`   // for List
	Version  string      `json:"version,omitempty"`
	PID      int         `json:"pid,omitempty"`
	Degraded []string    `json:"degraded,omitempty"` // for Ping: what the machine does not permit
}
