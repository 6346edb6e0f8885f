package scheduler

// The reasons of every decision. This is a closed list: the log, `shoal plan`,
// events and the golden tests print these sentences and no others; only a pod
// that fits nowhere carries a sentence of its own, made by explain.
const (
	// Why a pod exists.
	reasonMissing  = "fewer pods than the workload asks for"
	reasonRollout  = "the pod template changed"
	reasonReplace  = "the pod before it has ended"
	reasonNodeJoin = "the node matches the DaemonSet and has no pod of it"
	reasonAdopted  = "found running"

	// Why a pod stops.
	reasonGone         = "the workload is no longer in Git"
	reasonSurplus      = "more pods than the workload asks for"
	reasonSuperseded   = "replaced by a pod of the new template"
	reasonRecreate     = "the pod template changed and the strategy is Recreate"
	reasonTemplate     = "the pod changed in Git"
	reasonEnded        = "the pod has ended and its workload wants it running"
	reasonNodeMismatch = "the node no longer matches the DaemonSet"
)
