package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-dev/shoal/api"
)

// A model is a fleet on paper: a desired state, nodes, and pods that do what
// the scheduler says when they are told to.
type model struct {
	now     time.Time
	objects map[string]api.Object
	known   bool
	nodes   map[string]api.NodeInfo
	states  map[string]api.PodState // by instance
	where   map[string]string
	set     api.AssignmentSet
	facts   api.Facts
	commit  int
}

func newModel() *model {
	return &model{
		now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), objects: map[string]api.Object{}, known: true,
		nodes: map[string]api.NodeInfo{}, states: map[string]api.PodState{}, where: map[string]string{},
	}
}

func (m *model) snapshot() api.Snapshot {
	if !m.known {
		return api.Snapshot{}
	}
	objects := make([]api.Object, 0, len(m.objects))
	for _, o := range m.objects {
		objects = append(objects, o)
	}
	return api.NewSnapshot(map[string]api.Commit{"main": m.hash()}, objects)
}

func (m *model) hash() api.Commit { return api.Commit(fmt.Sprintf("c%d", m.commit)) }

func (m *model) board() api.Board {
	b := api.Board{Assigned: m.set}
	records := map[string]*api.PodStates{}
	for name, n := range m.nodes {
		b.Nodes = append(b.Nodes, n)
		records[name] = &api.PodStates{Node: name, Seq: api.Seq{N: 1}}
	}
	for instance, state := range m.states {
		r := records[m.where[instance]]
		r.Pods = append(r.Pods, state)
	}
	for _, r := range records {
		slices.SortFunc(r.Pods, func(a, c api.PodState) int { return a.Pod.Compare(c.Pod) })
		b.Pods = append(b.Pods, *r)
	}
	slices.SortFunc(b.Nodes, func(a, c api.NodeInfo) int { return strings.Compare(a.Name, c.Name) })
	slices.SortFunc(b.Pods, func(a, c api.PodStates) int { return strings.Compare(a.Node, c.Node) })
	return b
}

// schedule decides once.
func (m *model) schedule() time.Time {
	set, facts, wake := Schedule(m.snapshot(), m.board(), m.facts, m.now)
	set.Leader = "n1"
	m.set, m.facts = set, facts
	return wake
}

// obey lets the nodes start what is assigned and drop what is removed. Started
// pods are not ready yet.
func (m *model) obey() {
	for _, a := range m.set.Pods {
		if _, there := m.states[a.Pod.Instance]; !there {
			m.states[a.Pod.Instance] = api.PodState{Pod: a.Pod, Commit: a.Commit, Unit: a.Unit, Phase: corev1.PodRunning, Started: m.now}
			m.where[a.Pod.Instance] = a.Node
		}
	}
	for _, r := range m.set.Remove {
		delete(m.states, r.Assignment.Pod.Instance)
	}
}

// ready makes pods of an owner ready or not, those of one revision if it is
// not empty.
func (m *model) ready(owner, revision string, ready bool) {
	for instance, s := range m.states {
		if s.Pod.Owner != owner || revision != "" && s.Pod.Revision != revision || s.Ready == ready {
			continue
		}
		s.Ready, s.ReadyAt = ready, time.Time{}
		if ready {
			s.ReadyAt = m.now
		}
		m.states[instance] = s
	}
}

// settle goes on until nothing changes; pods become ready at once, but for those
// of revisions that start with "bad".
func (m *model) settle(limit int) error {
	for range limit {
		m.schedule()
		before := m.describe()
		m.obey()
		for _, s := range m.states {
			if !strings.HasPrefix(s.Pod.Revision, "bad") {
				m.ready(s.Pod.Owner, s.Pod.Revision, true)
			}
		}
		m.now = m.now.Add(time.Second)
		m.schedule()
		if m.describe() == before {
			return nil
		}
	}
	return fmt.Errorf("not settled after %d rounds:\n%s", limit, m.describe())
}

// describe writes the decision for people. Instances are left out: only how
// many pods of which slot and revision there are matters.
func (m *model) describe() string {
	var lines []string
	for _, a := range m.set.Pods {
		state := "assigned"
		if s, there := m.states[a.Pod.Instance]; there {
			state = map[bool]string{true: "ready", false: "not ready"}[s.Ready]
		}
		lines = append(lines, fmt.Sprintf("%-22s %-5s on %s  %-9s  %s", a.Pod.Identity, a.Pod.Revision, a.Node, state, a.Reason))
	}
	for _, u := range m.set.Pending {
		lines = append(lines, fmt.Sprintf("%-22s %-5s pending: %s", u.Pod.Identity, u.Pod.Revision, u.Reason))
	}
	for _, r := range m.set.Remove {
		if _, there := m.states[r.Assignment.Pod.Instance]; there {
			lines = append(lines, fmt.Sprintf("%-22s %-5s stops: %s", r.Assignment.Pod.Identity, r.Assignment.Pod.Revision, r.Reason))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// addNode adds a node with a number of CPUs and pods.
func (m *model) addNode(name string, cpu, pods int64, taint string) {
	n := api.NodeInfo{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}, Allocatable: corev1.ResourceList{
		corev1.ResourceCPU: *resource.NewQuantity(cpu, resource.DecimalSI), corev1.ResourceMemory: resource.MustParse("8Gi"),
		corev1.ResourcePods: *resource.NewQuantity(pods, resource.DecimalSI),
	}}
	if taint != "" {
		n.Taints = []corev1.Taint{{Key: taint, Effect: corev1.TaintEffectNoSchedule}}
	}
	m.nodes[name] = n
}

// A spec is what a scenario says of a workload.
type spec struct {
	kind, name, revision string
	replicas             int32
	surge, unavailable   string
	recreate, paused     bool
	minReady, deadline   int32
	cpu                  string
	hostPort             int32
	history              int32
}

func (s spec) template() corev1.PodTemplateSpec {
	c := corev1.Container{Name: "c", Image: s.revision}
	if s.cpu != "" {
		c.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(s.cpu)}
	}
	if s.hostPort != 0 {
		c.Ports = []corev1.ContainerPort{{ContainerPort: s.hostPort, HostPort: s.hostPort, Protocol: corev1.ProtocolTCP}}
	}
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": s.name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{c}},
	}
}

// commitSpec puts a workload into Git.
func (m *model) commitSpec(s spec) {
	m.commit++
	meta := metav1.ObjectMeta{Name: s.name, Namespace: "ns"}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": s.name}}
	var value api.KubeObject
	group := "apps"
	switch s.kind {
	case "Deployment":
		value = s.deployment(meta, selector)
	case "ReplicaSet":
		value = &appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Replicas: &s.replicas, Selector: selector, Template: s.template()}}
	case "ReplicationController":
		group = ""
		t := s.template()
		value = &corev1.ReplicationController{ObjectMeta: meta, Spec: corev1.ReplicationControllerSpec{Replicas: &s.replicas, Template: &t}}
	case "DaemonSet":
		d := &appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Selector: selector, Template: s.template(), MinReadySeconds: s.minReady}}
		d.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType, RollingUpdate: &appsv1.RollingUpdateDaemonSet{
			MaxUnavailable: amount(s.unavailable, "1"), MaxSurge: amount(s.surge, "0"),
		}}
		value = d
	case "Pod":
		group = ""
		t := s.template()
		meta.Labels = t.Labels
		value = &corev1.Pod{ObjectMeta: meta, Spec: t.Spec}
	}
	m.objects[s.kind+"/"+s.name] = api.Object{
		GVK: schema.GroupVersionKind{Group: group, Version: "v1", Kind: s.kind}, Value: value, Revision: s.revision,
		Source: api.Source{Unit: "main", Commit: m.hash(), File: s.name + ".yaml", Line: 1},
	}
}

func (s spec) deployment(meta metav1.ObjectMeta, selector *metav1.LabelSelector) *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
		Replicas: &s.replicas, Selector: selector, Template: s.template(), Paused: s.paused, MinReadySeconds: s.minReady,
		RevisionHistoryLimit: &s.history,
	}}
	if s.deadline > 0 {
		d.Spec.ProgressDeadlineSeconds = &s.deadline
	}
	d.Spec.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: amount(s.surge, "25%"), MaxUnavailable: amount(s.unavailable, "25%")}
	if s.recreate {
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	}
	return d
}

func amount(text, or string) *intstr.IntOrString {
	v := intstr.Parse(cmp.Or(text, or))
	return &v
}
