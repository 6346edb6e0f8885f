package runtime

import (
	corev1 "k8s.io/api/core/v1"
)

// initialized reports whether an init container has done its work for the
// sandbox that the pod has now. Init containers run again in a new sandbox.
func initialized(p ObservedPod, name string) bool {
	for _, c := range p.Containers {
		if c.Name == name && c.State == ContainerExited && c.ExitCode == 0 &&
			p.Sandbox.State == SandboxReady && c.Sandbox == p.Sandbox.ID {
			return true
		}
	}
	// While the pod's own containers run, nothing is initialized anew, even
	// if the init container's remains were lost.
	for _, c := range p.Containers {
		if !c.Init && c.State == ContainerRunning {
			return true
		}
	}
	return false
}

// restarts reports whether an attempt that has ended is followed by another.
// For init containers Always means OnFailure, and a success is final for its
// sandbox; sidecars always restart. Source: kubernetes.io, Init Containers, "Detailed behavior".
func restarts(spec *corev1.PodSpec, p ObservedPod, c Container) bool {
	policy := spec.RestartPolicy
	lost := p.Sandbox.State != SandboxReady || c.Sandbox != p.Sandbox.ID
	if sidecar(spec, c.Name) {
		return true
	}
	if c.Init {
		if c.ExitCode == 0 {
			return lost
		}
		return policy != corev1.RestartPolicyNever
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return c.ExitCode != 0
	default:
		return true
	}
}

// finished reports whether every container of the pod has ended for good.
func finished(spec *corev1.PodSpec, p ObservedPod) bool {
	if initFailed(spec, p) {
		return true
	}
	if spec.RestartPolicy != corev1.RestartPolicyNever && spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	for i := range spec.Containers {
		c, exists := p.latest(spec.Containers[i].Name)
		if !exists || c.State != ContainerExited || restarts(spec, p, c) {
			return false
		}
	}
	return true
}

// ended returns how the pod ended, as its leader remembers it: what the machine
// had of it may be gone. "" while it has not, and while something of it runs.
func ended(d Desired, p ObservedPod) corev1.PodPhase {
	pod, known := p.pod(d)
	if !known || p.Running() {
		return ""
	}
	return pod.Assignment.Ended
}

// evicted reports whether the machine ended the pod for good.
func (p ObservedPod) evicted() bool { return !p.Evicted.At.IsZero() }

// initFailed reports whether an init container failed for good.
func initFailed(spec *corev1.PodSpec, p ObservedPod) bool {
	if spec.RestartPolicy != corev1.RestartPolicyNever {
		return false
	}
	for i := range spec.InitContainers {
		c, exists := p.latest(spec.InitContainers[i].Name)
		if exists && c.State == ContainerExited && c.ExitCode != 0 && !IsSidecar(&spec.InitContainers[i]) {
			return true
		}
	}
	return false
}
