package keeper

// Verb is what the daemon asks for.
type Verb string

// The verbs of the protocol.
const (
	Open  Verb = "open"  // hold a container's FIFOs and write its log; idempotent by ID
	Tee   Verb = "tee"   // write what comes from now on to two more FIFOs, which somebody reads, until the container is closed
	Close Verb = "close" // drain the FIFOs, then let them go; unknown IDs are fine
	List  Verb = "list"
	Ping  Verb = "ping"
	Quit  Verb = "quit" // let everything go, without draining, and end
)

// Request is one line from the daemon.
type Request struct {
	Verb   Verb   `json:"verb"`
	ID     string `json:"id,omitempty"`
	Stdout string `json:"stdout,omitempty"` // path of a FIFO; "" for none; for Tee the one to write to
	Stderr string `json:"stderr,omitempty"`
	Path   string `json:"path,omitempty"` // of the log file
}

// Reply answers one request.
type Reply struct {
	Error   string   `json:"error,omitempty"`
	Held    []string `json:"held,omitempty"` // List: IDs, sorted
	Version string   `json:"version,omitempty"`
	PID     int      `json:"pid,omitempty"`
}
