package runtime

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// leastGrace is what a sidecar has to end at least when the others have used the
// grace period up, as with kubelet.
const leastGrace = 2 * time.Second

// IsSidecar reports whether an init container runs on beside the pod's containers:
// it starts in its turn, the next one does once it has started, and it ends after
// them. Source: Kubernetes, "Sidecar Containers".
func IsSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// sidecar reports whether the container of this name is one.
func sidecar(spec *corev1.PodSpec, name string) bool {
	if spec == nil {
		return false
	}
	for i := range spec.InitContainers {
		if c := &spec.InitContainers[i]; c.Name == name {
			return IsSidecar(c)
		}
	}
	return false
}

// passed reports whether the init container at a place in the spec lets the next
// one begin: it has done its work, or it is a sidecar that has started, or that had
// before something after it began.
func passed(spec *corev1.PodSpec, p ObservedPod, i int) bool {
	c := &spec.InitContainers[i]
	if !IsSidecar(c) {
		return initialized(p, c.Name)
	}
	if latest, exists := p.latest(c.Name); exists && latest.State == ContainerRunning && latest.Sandbox == p.Sandbox.ID {
		if probes, known := p.Probes[c.Name]; known && probes.Attempt == latest.Attempt && probes.Started {
			return true
		}
	}
	return slices.ContainsFunc(names(spec.InitContainers[i+1:]), p.begun) || slices.ContainsFunc(p.Containers, func(c Container) bool {
		return !c.Init && (c.State == ContainerRunning || p.begun(c.Name))
	})
}

// begun reports whether a container has run in the sandbox that the pod has now.
func (p ObservedPod) begun(name string) bool {
	for _, c := range p.Containers {
		if c.Name == name && c.State != ContainerCreated && p.Sandbox.State == SandboxReady && c.Sandbox == p.Sandbox.ID {
			return true
		}
	}
	return false
}

// stopSidecars stops sidecars once nothing else runs, one after the other, the last
// of the spec first. What the other containers have used of the grace period is
// gone.
func (d *decision) stopSidecars(why Reason) {
	grace := d.grace()
	if !d.pod.Removing.IsZero() {
		grace = min(grace, max(leastGrace, grace-d.now.Sub(d.pod.Removing)))
	}
	for _, name := range slices.Backward(names(d.spec.InitContainers)) {
		for _, c := range d.pod.Containers {
			if c.Name == name && c.State == ContainerRunning {
				d.stop(c, grace, why)
				return
			}
		}
	}
}
