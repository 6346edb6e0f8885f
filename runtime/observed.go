package runtime

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// Observed is what the machine holds.
type Observed struct {
	// Known is false while the container engine does not answer: then nothing
	// is decided.
	Known bool
	Pods  []ObservedPod // sorted by Instance
}

// Lookup returns what the machine holds of an instance.
func (o Observed) Lookup(instance string) (ObservedPod, bool) {
	for _, p := range o.Pods {
		if p.Instance == instance {
			return p, true
		}
	}
	return ObservedPod{}, false
}

// ObservedPod is what the machine holds of one pod.
type ObservedPod struct {
	Instance string
	// Record is what the machine remembers of the pod: its assignment and its
	// object. It is nil when the machine never saw the pod or lost its memory
	// in a reboot.
	Record *Pod
	// Labels are the identity as the containers carry it; zero when there is no
	// container. It outlives the record.
	Labels api.Assignment

	Sandbox    Sandbox
	Containers []Container // every attempt that exists, sorted by Name, then Attempt
	// Debug are the containers that were added to the pod while it ran.
	Debug []corev1.EphemeralContainer
	// Images maps a container's name to the state of its image.
	Images map[string]Image
	// Failures maps a container's name to why it could not be started; it is
	// forgotten when it starts.
	Failures map[string]Failure
	Volumes  Volumes
	// Probes maps a container's name to what its probes say of the attempt
	// that runs.
	Probes map[string]Probes
	// Admitted is when this machine first saw the pod.
	Admitted time.Time
	// Removing is when the removal of the pod began; zero when it did not. Once
	// begun it is always finished.
	Removing time.Time
	// Evicted is why the machine itself ended the pod for good; the zero Eviction
	// while it has not.
	Evicted Eviction
	// Leftovers reports that folders of the pod remain, which nothing above
	// tells of.
	Leftovers bool
}

// Eviction is why a machine ends a pod for good.
type Eviction struct {
	At      time.Time     `json:"at"`
	Reason  string        `json:"reason"` // "Evicted"
	Message string        `json:"message"`
	Grace   time.Duration `json:"grace,omitempty"` // that its containers have; 0: none
	// Unadmitted says that the pod never began.
	Unadmitted bool `json:"unadmitted,omitempty"`
}

// Sandbox is the network and the other namespaces that a pod's containers share.
type Sandbox struct {
	State SandboxState
	ID    string // differs for every sandbox a pod ever had
	IPs   []string
	// Failure says why the last attempt to make it did not succeed.
	Failure Failure
}

// SandboxState says how far a sandbox is.
type SandboxState string

// The states of a sandbox.
const (
	SandboxNone   SandboxState = ""       // there is none
	SandboxReady  SandboxState = "Ready"  // complete
	SandboxBroken SandboxState = "Broken" // half made or half removed
)

// Container is one attempt at running a container of a pod.
type Container struct {
	ID      string
	Name    string
	Init    bool
	Attempt int32  // 0 for the first; the restart count
	Crashes int32  // how many attempts ended in a row before this one, see NextCrashes
	Sandbox string // Sandbox.ID it was started in
	State   ContainerState

	Started  time.Time
	Finished time.Time
	ExitCode int32
	Reason   string // of the end: "Completed", "Error", "OOMKilled", "StartError", ...
	Message  string // termination message

	Image   string // as resolved: "docker.io/library/redis:7"
	ImageID string // "docker.io/library/redis@sha256:..."
	// Stopping is true while its termination is under way.
	Stopping bool
	// Recorded is true once its end is written where a daemon restart finds it.
	Recorded bool
}

// ContainerState says whether a container runs.
type ContainerState string

// The states of a container.
const (
	ContainerCreated ContainerState = "Created" // exists, was never started
	ContainerRunning ContainerState = "Running"
	ContainerExited  ContainerState = "Exited"
)

// Image is the state of the image that a container waits for.
type Image struct {
	State   ImageState
	Failure Failure
	// Ref is what is being fetched, Queued that others are fetched first, and
	// Progress how far it is.
	Ref      string
	Queued   bool
	Progress Progress
}

// story says how far the fetching of an image is, "" when there is nothing to say.
func (i Image) story() string {
	switch {
	case i.State != ImagePulling || i.Ref == "":
		return ""
	case i.Queued:
		return fmt.Sprintf("Pulling image %q: waiting until other images have been pulled", i.Ref)
	case i.Progress.Total > 0:
		return fmt.Sprintf("Pulling image %q: %s", i.Ref, i.Progress)
	}
	return ""
}

// ImageState says whether an image can be used.
type ImageState string

// The states of an image.
const (
	ImageAbsent  ImageState = ""        // must be fetched first
	ImagePulling ImageState = "Pulling" // is being fetched
	ImagePresent ImageState = "Present"
	ImageFailed  ImageState = "Failed" // could not be fetched, see Image.Failure
)

// Failure is why something was not done, and when to try again.
type Failure struct {
	Reason  string // "ErrImagePull", "CreateContainerConfigError", "FailedMount", ...
	Message string
	Count   int       // tries in a row
	Retry   time.Time // not before; zero: at once
}

// Failed reports whether there is a failure.
func (f Failure) Failed() bool { return f.Reason != "" }

// Volumes is the state of a pod's volumes.
type Volumes struct {
	Ready   bool
	Failure Failure
}

// Probes is what a container's probes say.
type Probes struct {
	Attempt int32
	Started bool // the startup probe succeeded, or there is none
	Ready   bool // the readiness probe succeeds, or there is none, and Started
	// Unhealthy is why the container must be killed: "Liveness" or "Startup";
	// "" while it need not.
	Unhealthy string
	// Message is what the last probe that failed said, "" once the container
	// is ready.
	Message string
	Since   time.Time // of Ready
}

// latest returns the newest attempt of a container.
func (p ObservedPod) latest(name string) (Container, bool) {
	var out Container
	found := false
	for _, c := range p.Containers {
		if c.Name == name && (!found || c.Attempt >= out.Attempt) {
			out, found = c, true
		}
	}
	return out, found
}

// previous returns the newest attempt older than the given one.
func (p ObservedPod) previous(name string, attempt int32) (Container, bool) {
	var out Container
	found := false
	for _, c := range p.Containers {
		if c.Name == name && c.Attempt < attempt && (!found || c.Attempt >= out.Attempt) {
			out, found = c, true
		}
	}
	return out, found
}

// Running reports whether any container of the pod runs.
func (p ObservedPod) Running() bool {
	for _, c := range p.Containers {
		if c.State == ContainerRunning {
			return true
		}
	}
	return false
}

// Empty reports whether the machine holds nothing of the pod.
func (p ObservedPod) Empty() bool {
	return len(p.Containers) == 0 && p.Sandbox.State == SandboxNone && p.Record == nil && !p.Leftovers
}

// Pod returns what is known of the pod: as desired, else as recorded.
func (p ObservedPod) pod(d Desired) (Pod, bool) {
	if want, found := d.Lookup(p.Instance); found {
		return want, true
	}
	if p.Record != nil {
		return *p.Record, p.Record.Object != nil
	}
	return Pod{}, false
}

// object returns the pod's spec holder or nil.
func (p ObservedPod) object(d Desired) *corev1.Pod {
	pod, found := p.pod(d)
	if !found {
		return nil
	}
	return pod.Object
}
