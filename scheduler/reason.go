package scheduler

// The reasons of every decision. This is a closed list: the log, `shoal plan`,
// events and the golden tests print these sentences and no others; only a pod
// that fits nowhere carries a sentence of its own, made by explain.
const (
	// Why a pod exists.
	reasonMissing  = "fewer pods than the workload asks for"
	reasonRollout  = "the pod template changed"
	reasonBack     = "the rollout of the newer pod template failed"
	reasonReplace  = "the pod before it has ended"
	reasonNodeJoin = "the node matches the DaemonSet and has no pod of it"
	reasonAdopted  = "found running"
	reasonLost     = "the node of the pod before it was lost"
	reasonMove     = "the node of the pod before it is drained"
	reasonRetry    = "the pod before it failed"
	reasonBalance  = "it has more room here: the fleet is balanced"

	// Why a pod stops.
	reasonGone         = "the workload is no longer in Git"
	reasonSurplus      = "more pods than the workload asks for"
	reasonSuperseded   = "replaced by a pod of the new template"
	reasonFailed       = "the rollout of its pod template failed and is rolled back"
	reasonRecreate     = "the pod template changed and the strategy is Recreate"
	reasonTemplate     = "the pod changed in Git"
	reasonEnded        = "the pod has ended and its workload wants it running"
	reasonNodeMismatch = "the node no longer matches the DaemonSet"
	reasonDouble       = "its slot was filled elsewhere while its node was away"
	reasonDrained      = "its node is drained"
	reasonBalanced     = "moved to balance the fleet"
	reasonUnmoved      = "it was to balance the fleet, and is not wanted or not available in its time"
	reasonTainted      = "its node has a taint that it does not tolerate, or not for longer"
	reasonPreempted    = "preempted: a pod of a higher priority needs its room"
	reasonOutclaimed   = "another node holds the claim of its identity"
	reasonJobOver      = "its Job is over"
	reasonJobChanged   = "its Job changed in Git"
	reasonSuspended    = "its Job is suspended"
	reasonPieceDone    = "its part of the Job's work is over"
	reasonKept         = "enough pods of its Job that have ended are kept"
	reasonExpired      = "ttlSecondsAfterFinished of its Job has passed"
	reasonHistory      = "the history of its CronJob is full"
	reasonReplacedRun  = "the next run of its CronJob replaces it"

	// Why a pod waits though it might fit somewhere.
	waitsForQuorum       = "waits for a leader with a quorum: only one pod of its identity may run"
	waitsForClaim        = "waits for the claim of its identity"
	waitsForRelease      = "waits until the node that holds the claim of its identity cannot be running it any more"
	waitsForNode         = "waits for its node: no other may have it"
	waitsForVolume       = "waits for the claim of its volume"
	waitsForVolumeQuorum = "waits for a leader with a quorum: its volume has no node yet"
	waitsForVictims      = "waits until the pods that it preempts are gone"
	waitsForBrake        = "waits: many pods were replaced within 30 s"
	reasonOwnVolume      = "no other node may have it: its volume is here"
	waitsForCheck        = "waits: most nodes were lost within 30 s, and the leader has not made sure yet that it is not cut off itself"
)
