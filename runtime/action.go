package runtime

import (
	"fmt"
	"time"
)

// Verb says what to do.
type Verb string

// The verbs, in the order in which the actions of one pod are returned.
const (
	StopContainer   Verb = "StopContainer"   // preStop, TERM, and KILL after Grace; does not wait
	RemoveContainer Verb = "RemoveContainer" // one that does not run
	RemoveSandbox   Verb = "RemoveSandbox"
	RemovePod       Verb = "RemovePod"     // volumes, logs and the record: the machine forgets the pod
	EnsureImage     Verb = "EnsureImage"   // does not wait
	MountVolumes    Verb = "MountVolumes"  // idempotent
	CreateSandbox   Verb = "CreateSandbox" // record first, then namespaces, then network
	StartContainer  Verb = "StartContainer"
)

// Reason says why, in a closed set of sentences.
type Reason string

// Every reason that Decide gives.
const (
	ReasonUnwanted       Reason = "the assignment was withdrawn"
	ReasonForgotten      Reason = "nothing of the pod runs and no assignment names it"
	ReasonNeverStarted   Reason = "the container was created but never started"
	ReasonSuperseded     Reason = "a newer attempt of the container has ended"
	ReasonNotInSpec      Reason = "the pod's spec does not name the container"
	ReasonLiveness       Reason = "the liveness probe failed"
	ReasonStartup        Reason = "the startup probe failed"
	ReasonSandboxHalf    Reason = "the pod's network is half made"
	ReasonSandboxLost    Reason = "the pod's network is gone"
	ReasonFinished       Reason = "the pod has finished"
	ReasonDeadline       Reason = "the pod ran longer than activeDeadlineSeconds"
	ReasonEvicted        Reason = "the machine runs short of something that the pod uses"
	ReasonOutclaimed     Reason = "another node was given the right to run the pod"
	ReasonImageMissing   Reason = "the image is not on this machine"
	ReasonStart          Reason = "the pod is assigned to this node"
	ReasonInit           Reason = "it is the next init container"
	ReasonRestart        Reason = "the container has ended and its policy is to restart"
	ReasonDebug          Reason = "somebody looks into the pod"
	ReasonRestartSandbox Reason = "the container ended with the pod's network"
)

// Action is one step towards the desired state.
type Action struct {
	Verb      Verb
	Instance  string
	Container string        // name; "" for actions on the whole pod
	ID        string        // of the container, for StopContainer and RemoveContainer
	Init      bool          // for StartContainer
	Attempt   int32         // for StartContainer
	Crashes   int32         // for StartContainer, see Container.Crashes
	Grace     time.Duration // for StopContainer
	Reason    Reason
}

// String returns the action as logs and golden tests print it.
func (a Action) String() string {
	s := string(a.Verb) + " " + a.Instance
	if a.Container != "" {
		s += "/" + a.Container
	}
	switch a.Verb {
	case StartContainer:
		s += fmt.Sprintf(" attempt %d", a.Attempt)
	case StopContainer:
		s += fmt.Sprintf(" within %s", a.Grace)
	}
	return s + ": " + string(a.Reason)
}
