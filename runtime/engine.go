package runtime

import (
	"errors"
	"io"

	"github.com/shoal-dev/shoal/api"
)

// ContainerSpec is everything that an engine needs to make one container. All
// references are resolved: it holds values and paths only.
type ContainerSpec struct {
	ID         string // unique on the machine, see ContainerID
	Assignment api.Assignment
	Namespace  string
	Pod        string // name
	Name       string
	Init       bool
	Attempt    int32
	Crashes    int32
	Sandbox    string

	Image      string   // as in the pod's spec
	Command    []string // replaces the image's entrypoint and drops its arguments; nil keeps both
	Args       []string // replaces the image's arguments
	Env        []string // NAME=value, over the image's own
	WorkingDir string   // "" keeps the image's
	TTY        bool

	Namespaces Namespaces
	Hostname   string
	Mounts     []Mount
	Resources  Resources
	Security   Security
	Sysctls    map[string]string
	Stdin      string // path of a FIFO; "" for no input
	Stdout     string // path of a FIFO that is being read; "" discards
	Stderr     string
}

// Namespaces are the paths of the namespaces that a pod's containers join. An
// empty path means the host's, but for PID.
type Namespaces struct {
	Net, IPC, UTS string
	PID           string // of a container whose processes are seen; "" for its own
	HostPID       bool
	HostNetwork   bool // Net is a path to the host's
}

// Mount binds a path of the machine into a container.
type Mount struct {
	Source      string
	Target      string
	ReadOnly    bool
	Recursive   bool     // what is mounted below it is read-only, too
	Propagation string   // "rprivate", "rslave" or "rshared"
	Options     []string // "noexec", "nodev", "nosuid"
}

// Resources are the limits of a container, of a pod, or of all pods.
type Resources struct {
	CPUShares   uint64
	CPUQuota    int64 // microseconds per 100 ms; 0: no limit
	MemoryLimit int64 // bytes; 0: no limit
	PIDs        int64 // processes and threads; 0: no limit
	OOMScoreAdj int
}

// Held is a container that an engine holds. Started is zero for one that has
// ended and was never recorded as started.
type Held struct {
	Container
	Assignment api.Assignment
	Namespace  string
	Pod        string
	PID        int
}

// DiskUse is what something takes of a disk.
type DiskUse struct {
	Bytes  int64
	Inodes int64
}

// Add returns the sum of two.
func (u DiskUse) Add(o DiskUse) DiskUse { return DiskUse{u.Bytes + o.Bytes, u.Inodes + o.Inodes} }

// Streams are where a command in a container reads and writes. Nil ones are
// left out. A writer that does not return holds the command back; it and Stdin
// must return once the command's context has ended. With a TTY everything goes to
// Stdout, and Resize brings the sizes of the terminal, until it is closed.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool
	Resize         <-chan Size
}

// Size is the size of a terminal, in characters. Its JSON is Kubernetes'.
type Size struct {
	Width  uint16
	Height uint16
}

// What an engine's errors mean. Engines wrap these.
var (
	// ErrNotFound: there is no such image or container.
	ErrNotFound = errors.New("not found")
	// ErrUnavailable: the engine does not answer.
	ErrUnavailable = errors.New("container engine unavailable")
	// ErrConfig: the container's configuration cannot work; trying again
	// changes nothing until the pod or the image changes.
	ErrConfig = errors.New("invalid container configuration")
	// ErrStart: the container was made, and what it should run cannot be run.
	// It is held as one that has ended.
	ErrStart = errors.New("container cannot run")
)

// ContainerID returns the ID of one try at making an attempt of a pod's
// container. nonce differs for every try: what is left of one that was
// interrupted never stands in the way of the next.
func ContainerID(instance, name string, attempt int32, nonce string) string {
	return instance + "-" + api.SafeHash(name+"/"+nonce, 8) + "-" + itoa(int64(attempt))
}

// LogPath returns where an attempt's log lies below the log directory, as
// kubelet lays it out.
func LogPath(namespace, pod, instance, container string, attempt int32) string {
	return LogFolder(namespace, pod, instance) + "/" + container + "/" + itoa(int64(attempt)) + ".log"
}

// LogFolder returns the folder of a pod's logs below the log directory.
func LogFolder(namespace, pod, instance string) string {
	return namespace + "_" + pod + "_" + instance
}
