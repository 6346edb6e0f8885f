package runtime

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of waiting and ended containers, in Kubernetes' words.
const (
	WaitingCreating     = "ContainerCreating"
	WaitingInit         = "PodInitializing"
	WaitingCrashLoop    = "CrashLoopBackOff"
	WaitingImageBackOff = "ImagePullBackOff"
	WaitingImageError   = "ErrImagePull"
	WaitingNeverPull    = "ErrImageNeverPull"
	WaitingImageName    = "InvalidImageName"
	WaitingSignature    = "SignatureValidationFailed"
	WaitingConfig       = "CreateContainerConfigError"
	WaitingCreate       = "CreateContainerError"
	WaitingFenced       = "Fenced"
	WaitingLease        = "WaitingForLease"
	EndedCompleted      = "Completed"
	EndedError          = "Error"
	EndedOOM            = "OOMKilled"
	EndedStart          = "StartError"
	EndedHook           = "PostStartHookError"
	EndedFenced         = "Fenced"
	EndedUnknown        = "ContainerStatusUnknown"
	FailedDeadline      = "DeadlineExceeded"
)

// Status returns the pod's status as kubectl shows it. prev is the status
// returned before, for the times of transitions; the zero status when there was
// none. It is the zero status when nothing is known of the pod's spec.
func Status(d Desired, p ObservedPod, prev corev1.PodStatus, now time.Time) corev1.PodStatus {
	object := p.object(d)
	if object == nil {
		return corev1.PodStatus{}
	}
	v := view{
		name: object.Name + "_" + object.Namespace + "(" + p.Instance + ")",
		spec: &object.Spec, pod: p, now: now,
	}
	v.overdue = v.spec.ActiveDeadlineSeconds != nil && !p.Admitted.IsZero() &&
		!now.Before(p.Admitted.Add(time.Duration(*v.spec.ActiveDeadlineSeconds)*time.Second))
	v.ended = ended(d, p)
	v.initialized = v.initDone() || v.ended == corev1.PodSucceeded
	v.unsure = d.Known && (&decision{desired: d, pod: p, now: now}).rightOf() != entitled

	out := corev1.PodStatus{
		HostIP:   object.Status.HostIP,
		HostIPs:  slices.Clone(object.Status.HostIPs),
		QOSClass: QOS(v.spec),
	}
	if !p.Admitted.IsZero() {
		started := metav1.NewTime(p.Admitted)
		out.StartTime = &started
	}
	for _, ip := range p.Sandbox.IPs {
		out.PodIPs = append(out.PodIPs, corev1.PodIP{IP: ip})
	}
	if len(out.PodIPs) > 0 {
		out.PodIP = out.PodIPs[0].IP
	}
	for i := range v.spec.InitContainers {
		out.InitContainerStatuses = append(out.InitContainerStatuses, v.container(&v.spec.InitContainers[i], true))
	}
	for i := range v.spec.Containers {
		out.ContainerStatuses = append(out.ContainerStatuses, v.container(&v.spec.Containers[i], false))
	}
	out.EphemeralContainerStatuses = v.debugStatuses()
	out.Phase = v.phase(out)
	if v.overdue && out.Phase == corev1.PodFailed {
		out.Reason = FailedDeadline
		out.Message = "Pod was active on the node longer than the specified deadline"
	}
	if p.evicted() && out.Phase == corev1.PodFailed {
		out.Reason, out.Message = p.Evicted.Reason, p.Evicted.Message
	}
	out.Conditions = v.conditions(out, prev)
	return out
}

// view is the work on one status.
type view struct {
	name        string // as kubelet names pods in messages
	spec        *corev1.PodSpec
	pod         ObservedPod
	now         time.Time
	overdue     bool
	initialized bool
	unsure      bool // it may not be started here now
	// ended is how it ended, though the machine may have nothing of it.
	ended corev1.PodPhase
}

func (v view) initDone() bool {
	if finished(v.spec, v.pod) && !initFailed(v.spec, v.pod) {
		return true
	}
	for i := range v.spec.InitContainers {
		if !passed(v.spec, v.pod, i) {
			return false
		}
	}
	return true
}

// container returns the status of one container.
func (v view) container(spec *corev1.Container, init bool) corev1.ContainerStatus {
	latest, exists := v.pod.latest(spec.Name)
	out := corev1.ContainerStatus{Name: spec.Name, Image: spec.Image}
	if exists && latest.State == ContainerCreated {
		latest, exists = v.pod.previous(spec.Name, latest.Attempt)
	}
	if !exists {
		if v.ended != "" {
			out.State.Terminated = v.lostEnd()
		} else {
			out.State.Waiting = v.waiting(spec.Name, init, "", "")
		}
		no := false
		out.Started = &no
		return out
	}
	out.RestartCount = latest.Attempt
	out.ContainerID = containerID(latest)
	out.ImageID = latest.ImageID
	if latest.Image != "" {
		out.Image = latest.Image
	}
	started := false
	switch {
	case latest.State == ContainerRunning:
		out.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(latest.Started)}
		probes := v.probes(latest)
		started = probes.Started
		out.Ready = probes.Ready && (!init || IsSidecar(spec))
		if previous, found := v.pod.previous(spec.Name, latest.Attempt); found {
			out.LastTerminationState.Terminated = terminatedAs(previous)
		}
	case v.unsure && latest.State == ContainerExited && !init && restarts(v.spec, v.pod, latest):
		out.State.Waiting = v.waiting(spec.Name, init, WaitingFenced, fencedMessage)
		out.LastTerminationState.Terminated = terminatedAs(latest)
	case v.waitsToRestart(latest):
		out.State.Waiting = v.waiting(spec.Name, init, WaitingCrashLoop, v.crashMessage(spec.Name, latest))
		out.LastTerminationState.Terminated = terminatedAs(latest)
	default:
		out.State.Terminated = terminatedAs(latest)
		out.Ready = init && latest.ExitCode == 0 && !IsSidecar(spec)
		if previous, found := v.pod.previous(spec.Name, latest.Attempt); found {
			out.LastTerminationState.Terminated = terminatedAs(previous)
		}
	}
	out.Started = &started
	return out
}

// lostEnd is the end of a container of which nothing is left, in kubelet's words.
func (v view) lostEnd() *corev1.ContainerStateTerminated {
	out := &corev1.ContainerStateTerminated{Reason: EndedUnknown, Message: "The container could not be located when the pod was terminated"}
	if v.ended != corev1.PodSucceeded {
		out.ExitCode = 137
	}
	return out
}

// probes returns what the probes of a running container say; without a word
// from them the container is not ready.
func (v view) probes(c Container) Probes {
	if p, known := v.pod.Probes[c.Name]; known && p.Attempt == c.Attempt {
		return p
	}
	return Probes{}
}

// waitsToRestart reports whether an ended attempt will be followed by another.
// The moment between the end and an immediate restart shows as ended.
func (v view) waitsToRestart(c Container) bool {
	if !v.pod.Removing.IsZero() || v.overdue || v.pod.evicted() || finished(v.spec, v.pod) || !restarts(v.spec, v.pod, c) {
		return false
	}
	if c.Init && c.ExitCode == 0 && !sidecar(v.spec, c.Name) {
		return false
	}
	return v.pod.Failures[c.Name].Failed() || v.pod.Images[c.Name].State == ImageFailed || NextCrashes(c) > 1
}

const fencedMessage = "it must not run twice and was ended, because the fleet could not be heard of; it starts again once the fleet says that it may run here"

func (v view) crashMessage(name string, c Container) string {
	wait := Backoff(int(NextCrashes(c)) - 1)
	return fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", wait, name, v.name)
}

// waiting returns why a container waits; otherwise is the reason when neither
// its image nor its configuration is to blame.
func (v view) waiting(name string, init bool, otherwise, message string) *corev1.ContainerStateWaiting {
	if f := v.pod.Failures[name]; f.Failed() {
		return &corev1.ContainerStateWaiting{Reason: f.Reason, Message: f.Message}
	}
	if image := v.pod.Images[name]; image.State == ImageFailed {
		return &corev1.ContainerStateWaiting{Reason: image.Failure.Reason, Message: image.Failure.Message}
	}
	if otherwise != "" {
		return &corev1.ContainerStateWaiting{Reason: otherwise, Message: message}
	}
	if v.unsure {
		return &corev1.ContainerStateWaiting{Reason: WaitingLease, Message: "it must not run twice, and waits for the fleet to say that it may run here"}
	}
	story := v.pod.Images[name].story()
	if !init && !v.initialized {
		return &corev1.ContainerStateWaiting{Reason: WaitingInit, Message: story}
	}
	if init && len(v.spec.InitContainers) > 1 && v.spec.InitContainers[0].Name != name {
		return &corev1.ContainerStateWaiting{Reason: WaitingInit, Message: story}
	}
	for _, f := range []Failure{v.pod.Volumes.Failure, v.pod.Sandbox.Failure} {
		if f.Failed() {
			return &corev1.ContainerStateWaiting{Reason: WaitingCreating, Message: f.Message}
		}
	}
	return &corev1.ContainerStateWaiting{Reason: WaitingCreating, Message: story}
}

func containerID(c Container) string { return "containerd://" + c.ID }

// terminatedAs returns the terminated state of an attempt.
func terminatedAs(c Container) *corev1.ContainerStateTerminated {
	out := &corev1.ContainerStateTerminated{
		ExitCode:    c.ExitCode,
		Reason:      c.Reason,
		Message:     c.Message,
		FinishedAt:  metav1.NewTime(c.Finished),
		ContainerID: containerID(c),
	}
	if !c.Started.IsZero() {
		out.StartedAt = metav1.NewTime(c.Started)
	}
	if c.ExitCode > 128 && c.ExitCode < 160 {
		out.Signal = c.ExitCode - 128
	}
	if out.Reason == "" {
		out.Reason = EndedError
		if c.ExitCode == 0 {
			out.Reason = EndedCompleted
		}
	}
	return out
}

// phase follows kubelet's getPhase. Source: kubernetes.io, Pod Lifecycle, "Pod phase".
func (v view) phase(s corev1.PodStatus) corev1.PodPhase {
	if v.ended != "" {
		return v.ended
	}
	if (v.overdue || v.pod.evicted()) && !v.pod.Running() {
		return corev1.PodFailed
	}
	if initFailed(v.spec, v.pod) {
		return corev1.PodFailed
	}
	if !v.initialized {
		return corev1.PodPending
	}
	var waiting, running, ended, succeeded int
	for _, c := range s.ContainerStatuses {
		switch {
		case c.State.Running != nil:
			running++
		case c.State.Terminated != nil:
			ended++
			if c.State.Terminated.ExitCode == 0 {
				succeeded++
			}
		case c.LastTerminationState.Terminated != nil:
			ended++
		default:
			waiting++
		}
	}
	switch {
	case waiting > 0:
		return corev1.PodPending
	case running > 0 || v.spec.RestartPolicy == corev1.RestartPolicyAlways || v.spec.RestartPolicy == "":
		return corev1.PodRunning
	case ended == succeeded:
		return corev1.PodSucceeded
	case v.spec.RestartPolicy == corev1.RestartPolicyNever:
		return corev1.PodFailed
	default:
		return corev1.PodRunning
	}
}

// QOS returns the quality-of-service class.
// Source: kubernetes.io, Pod Quality of Service Classes.
func QOS(spec *corev1.PodSpec) corev1.PodQOSClass {
	guaranteed, any := true, false
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			r := containers[i].Resources
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				request, limit := r.Requests[name], r.Limits[name]
				if !request.IsZero() || !limit.IsZero() {
					any = true
				}
				if limit.IsZero() || (!request.IsZero() && request.Cmp(limit) != 0) {
					guaranteed = false
				}
			}
		}
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	default:
		return corev1.PodQOSBurstable
	}
}
