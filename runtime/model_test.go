package runtime_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/runtime"
)

// model is a machine that does what it is told, and to which things happen.
type model struct {
	desired runtime.Desired
	pods    map[string]*runtime.ObservedPod
	now     time.Time
	next    int
}

func (m *model) observed() runtime.Observed {
	out := runtime.Observed{Known: true}
	for _, p := range m.pods {
		copied := *p
		copied.Containers = slices.Clone(p.Containers)
		copied.Probes = map[string]runtime.Probes{}
		for _, c := range p.Containers {
			if c.State == runtime.ContainerRunning {
				copied.Probes[c.Name] = runtime.Probes{Attempt: c.Attempt, Started: true, Ready: true}
			}
		}
		out.Pods = append(out.Pods, copied)
	}
	slices.SortFunc(out.Pods, func(a, b runtime.ObservedPod) int { return strings.Compare(a.Instance, b.Instance) })
	return out
}

// apply carries out one action as the agent would.
func (m *model) apply(t *rapid.T, a runtime.Action) {
	p := m.pods[a.Instance]
	if p == nil {
		p = &runtime.ObservedPod{Instance: a.Instance, Images: map[string]runtime.Image{}, Admitted: m.now}
		m.pods[a.Instance] = p
	}
	i := slices.IndexFunc(p.Containers, func(c runtime.Container) bool { return c.ID == a.ID })
	switch a.Verb {
	case runtime.StopContainer:
		if i < 0 || p.Containers[i].State != runtime.ContainerRunning {
			t.Fatalf("%s: it does not run", a)
		}
		if others := func(c runtime.Container) bool { return c.Name != "proxy" && c.State == runtime.ContainerRunning }; a.Container == "proxy" && slices.ContainsFunc(p.Containers, others) {
			t.Fatalf("%s: other containers run", a)
		}
		p.Containers[i] = ended(p.Containers[i], 143, m.now)
	case runtime.RemoveContainer:
		if i < 0 || p.Containers[i].State == runtime.ContainerRunning {
			t.Fatalf("%s: it runs or does not exist", a)
		}
		p.Containers = slices.Delete(p.Containers, i, i+1)
	case runtime.RemoveSandbox:
		if p.Running() {
			t.Fatalf("%s: containers run in it", a)
		}
		p.Sandbox = runtime.Sandbox{}
	case runtime.RemovePod:
		if len(p.Containers) > 0 || p.Sandbox.State != runtime.SandboxNone {
			t.Fatalf("%s: it is not empty", a)
		}
		delete(m.pods, a.Instance)
	case runtime.EnsureImage:
		p.Images[a.Container] = runtime.Image{State: runtime.ImagePresent}
	case runtime.MountVolumes:
		p.Volumes.Ready = true
		if want, found := m.desired.Lookup(a.Instance); found {
			p.Record = &want
		}
	case runtime.CreateSandbox:
		m.next++
		p.Sandbox = runtime.Sandbox{State: runtime.SandboxReady, ID: fmt.Sprint(m.next)}
	case runtime.StartContainer:
		m.start(t, p, a)
	}
}

func (m *model) start(t *rapid.T, p *runtime.ObservedPod, a runtime.Action) {
	if p.Sandbox.State != runtime.SandboxReady || !p.Volumes.Ready {
		t.Fatalf("%s: the pod is not prepared", a)
	}
	for _, c := range p.Containers {
		if c.Name == a.Container && c.State == runtime.ContainerRunning {
			t.Fatalf("%s: an attempt runs", a)
		}
		if c.Name == a.Container && c.Attempt >= a.Attempt {
			t.Fatalf("%s: attempt %d exists", a, c.Attempt)
		}
	}
	m.next++
	p.Containers = append(p.Containers, runtime.Container{
		ID: fmt.Sprint("c", m.next), Name: a.Container, Init: a.Init, Attempt: a.Attempt, Crashes: a.Crashes,
		Sandbox: p.Sandbox.ID, State: runtime.ContainerRunning, Started: m.now,
	})
	slices.SortFunc(p.Containers, func(x, y runtime.Container) int {
		if c := strings.Compare(x.Name, y.Name); c != 0 {
			return c
		}
		return int(x.Attempt - y.Attempt)
	})
}

func ended(c runtime.Container, code int32, now time.Time) runtime.Container {
	c.State, c.ExitCode, c.Finished = runtime.ContainerExited, code, now
	return c
}

// settle decides and applies until nothing is left to do, letting init
// containers succeed.
func (m *model) settle(t *rapid.T) {
	for range 200 {
		actions, wake := runtime.Decide(m.desired, m.observed(), m.now)
		for _, a := range actions {
			m.apply(t, a)
		}
		moved := m.finishInits()
		if len(actions) == 0 && !moved {
			if wake.IsZero() {
				return
			}
			if !wake.After(m.now) {
				t.Fatalf("wake at %s is not after %s", wake, m.now)
			}
			m.now = wake
		}
	}
	actions, _ := runtime.Decide(m.desired, m.observed(), m.now)
	t.Fatalf("it does not settle: %v", actions)
}

func (m *model) finishInits() (moved bool) {
	for _, p := range m.pods {
		for i, c := range p.Containers {
			if c.Init && c.State == runtime.ContainerRunning && c.Name != "proxy" {
				p.Containers[i] = ended(c, 0, m.now)
				moved = true
			}
		}
	}
	return moved
}

var policies = []corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}

// TestModelSettles lets random things happen to a machine and checks, after
// each, that following Decide leads to rest, that what should run runs, and
// that nothing was stopped without being named.
func TestModelSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{pods: map[string]*runtime.ObservedPod{}, now: t0, desired: runtime.Desired{Known: true}}
		for i := range rapid.IntRange(1, 4).Draw(t, "pods") {
			containers := []string{"app"}
			if rapid.Bool().Draw(t, "two") {
				containers = append(containers, "side")
			}
			if rapid.Bool().Draw(t, "init") {
				containers = append(containers, "init:prepare")
			}
			if rapid.Bool().Draw(t, "sidecar") {
				containers = append(containers, "sidecar:proxy", "init:late")
			}
			policy := rapid.SampledFrom(policies).Draw(t, "policy")
			m.desired.Pods = append(m.desired.Pods, aPod(fmt.Sprint("i", i), policy, containers...))
		}
		m.settle(t)
		for range rapid.IntRange(0, 8).Draw(t, "steps") {
			m.happen(t)
			m.now = m.now.Add(time.Second)
			m.settle(t)
			m.check(t)
		}
	})
}

// happen lets one thing happen to the machine.
func (m *model) happen(t *rapid.T) {
	instance := fmt.Sprint("i", rapid.IntRange(0, len(m.desired.Pods)-1).Draw(t, "which"))
	p := m.pods[instance]
	switch rapid.SampledFrom([]string{"crash", "reboot", "remove", "half", "lost", "unborn"}).Draw(t, "what") {
	case "crash":
		for i := range held(p) {
			if p.Containers[i].State == runtime.ContainerRunning {
				p.Containers[i] = ended(p.Containers[i], rapid.SampledFrom([]int32{0, 1, 137}).Draw(t, "code"), m.now)
			}
		}
	case "reboot":
		for _, p := range m.pods {
			p.Sandbox, p.Volumes, p.Record = runtime.Sandbox{}, runtime.Volumes{}, nil
			for i, c := range p.Containers {
				if c.State == runtime.ContainerRunning {
					p.Containers[i] = ended(c, 137, m.now)
				}
			}
		}
	case "remove":
		if !m.desired.Removes(instance) {
			m.desired.Remove = append(slices.Clone(m.desired.Remove), instance)
			slices.Sort(m.desired.Remove)
		}
	case "half":
		if p != nil && !p.Running() {
			p.Sandbox.State = runtime.SandboxBroken
		}
	case "lost":
		if p != nil {
			p.Sandbox = runtime.Sandbox{}
		}
	case "unborn":
		if p != nil && !p.Running() && p.Sandbox.State == runtime.SandboxReady {
			last := int32(0)
			for _, c := range p.Containers {
				if c.Name == "app" {
					last = c.Attempt + 1
				}
			}
			m.next++
			p.Containers = append(p.Containers, runtime.Container{
				ID: fmt.Sprint("c", m.next), Name: "app", Attempt: last, State: runtime.ContainerCreated,
			})
		}
	}
}

// check fails the test unless the machine is as desired.
func (m *model) check(t *rapid.T) {
	for _, want := range m.desired.Pods {
		p, held := m.pods[want.Instance()]
		if m.desired.Removes(want.Instance()) {
			if held {
				t.Fatalf("%s was to be removed and is held", want.Instance())
			}
			continue
		}
		if !held {
			t.Fatalf("%s is wanted and not held", want.Instance())
		}
		if want.Object.Spec.RestartPolicy == corev1.RestartPolicyAlways {
			for _, c := range slices.Concat(want.Object.Spec.Containers, sidecars(want.Object)) {
				if !slices.ContainsFunc(p.Containers, func(h runtime.Container) bool {
					return h.Name == c.Name && h.State == runtime.ContainerRunning
				}) {
					t.Fatalf("%s/%s does not run", want.Instance(), c.Name)
				}
			}
		}
		status := runtime.Status(m.desired, *p, corev1.PodStatus{}, m.now)
		if !slices.Contains([]corev1.PodPhase{corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed}, status.Phase) {
			t.Fatalf("%s is %s", want.Instance(), status.Phase)
		}
	}
}

func sidecars(pod *corev1.Pod) (out []corev1.Container) {
	for _, c := range pod.Spec.InitContainers {
		if runtime.IsSidecar(&c) {
			out = append(out, c)
		}
	}
	return out
}

// TestAbsenceDoesNotKill: whatever a machine holds, no container is stopped
// while its instance is not named, and nothing at all is removed while the
// desired state is not known.
func TestAbsenceDoesNotKill(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{pods: map[string]*runtime.ObservedPod{}, now: t0, desired: runtime.Desired{Known: true}}
		for i := range rapid.IntRange(1, 4).Draw(t, "pods") {
			m.desired.Pods = append(m.desired.Pods, aPod(fmt.Sprint("i", i), rapid.SampledFrom(policies).Draw(t, "policy"), "app"))
		}
		m.settle(t)
		known := rapid.Bool().Draw(t, "known")
		m.desired = runtime.Desired{Known: known}
		for _, p := range m.pods {
			if rapid.Bool().Draw(t, "record lost") {
				p.Record = nil
			}
		}
		actions, _ := runtime.Decide(m.desired, m.observed(), m.now)
		for _, a := range actions {
			switch a.Verb {
			case runtime.StopContainer, runtime.RemovePod, runtime.RemoveSandbox, runtime.RemoveContainer:
				t.Fatalf("known=%t: %s", known, a)
			}
		}
	})
}

func held(p *runtime.ObservedPod) []runtime.Container {
	if p == nil {
		return nil
	}
	return p.Containers
}
