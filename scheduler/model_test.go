package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
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
	now      time.Time
	objects  map[string]api.Object
	known    bool
	nodes    map[string]api.NodeInfo
	states   map[string]api.PodState // by instance
	where    map[string]string
	set      api.AssignmentSet
	facts    api.Facts
	commit   int
	health   map[string]api.NodeHealth
	stale    map[string][]api.PodState // what a node that is lost said last
	silent   map[string]bool           // nodes that said nothing of their pods yet
	claims   map[string]api.ClaimHolder
	checked  time.Time
	acting   bool              // the leader has no quorum
	term     uint64            // of the leader
	slow     bool              // consensus grants no claim now
	base     api.Snapshot      // before a change
	quiet    bool              // scenarios print no decisions
	demands  map[string]demand // by owner
	usageAge time.Duration     // below zero: nobody tells
	told     struct {
		set   api.AssignmentSet
		facts api.Facts
	} // as of the last events
}

func newModel() *model {
	return &model{
		now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), objects: map[string]api.Object{}, known: true,
		nodes: map[string]api.NodeInfo{}, states: map[string]api.PodState{}, where: map[string]string{},
		health: map[string]api.NodeHealth{}, stale: map[string][]api.PodState{}, silent: map[string]bool{},
		demands: map[string]demand{},
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
	b := api.Board{Assigned: m.set, Claims: m.claims, ConnectivityChecked: m.checked, Usage: m.usage()}
	for name, n := range m.nodes {
		b.Nodes = append(b.Nodes, n)
		if m.silent[name] {
			continue
		}
		r := api.PodStates{Node: name, Seq: api.Seq{N: 1}}
		if m.away(name) {
			r.Pods = m.stale[name]
		} else {
			r.Pods = m.on(name)
		}
		b.Pods = append(b.Pods, r)
	}
	for _, h := range m.health {
		b.Health = append(b.Health, h)
	}
	slices.SortFunc(b.Nodes, func(a, c api.NodeInfo) int { return strings.Compare(a.Name, c.Name) })
	slices.SortFunc(b.Pods, func(a, c api.PodStates) int { return strings.Compare(a.Node, c.Node) })
	slices.SortFunc(b.Health, func(a, c api.NodeHealth) int { return strings.Compare(a.Node, c.Node) })
	return b
}

// on lists what runs on a node.
func (m *model) on(name string) []api.PodState {
	var out []api.PodState
	for instance, state := range m.states {
		if m.where[instance] == name {
			out = append(out, state)
		}
	}
	slices.SortFunc(out, func(a, c api.PodState) int { return a.Pod.Compare(c.Pod) })
	return out
}

func (m *model) away(name string) bool { return m.health[name].Gone() }

// judge changes what the leader believes of a node.
func (m *model) judge(name string, status api.NodeStatus) {
	if (api.NodeHealth{Status: status}).Gone() && !m.away(name) {
		m.stale[name] = m.on(name)
	}
	if !(api.NodeHealth{Status: status}).Gone() { // it may run again what it holds
		m.claims = maps.Clone(m.claims)
		for id, holder := range m.claims {
			if holder.Node == name {
				holder.Released = false
				m.claims[id] = holder
			}
		}
	}
	m.health[name] = api.NodeHealth{Node: name, Status: status, Since: m.now, Unstable: m.health[name].Unstable}
}

// release says of every claim whose node is lost that it runs there no more,
// which is then so: the fencer has done its work. Pods with volumes it leaves
// alone.
func (m *model) release() {
	next := maps.Clone(m.claims)
	for id, holder := range next {
		if !m.away(holder.Node) {
			continue
		}
		holder.Released = true
		next[id] = holder
		for instance, s := range m.states {
			if m.where[instance] == holder.Node && s.Pod.Identity.String() == id && len(m.set.Molds[s.Pod.MoldKey()].Volumes) == 0 {
				delete(m.states, instance)
			}
		}
	}
	m.claims = next
}

func (m *model) authority() Authority {
	return Authority{Leader: "n1", Fleet: "fleet", Term: m.term, Quorate: !m.acting}
}

// decide decides once, and again when consensus granted what it asked for.
func (m *model) decide() Decision {
	d := Schedule(m.snapshot(), m.board(), m.facts, m.authority(), m.now)
	if len(d.Claims) > 0 && !m.slow {
		m.claims = Grant(m.claims, d.Claims)
		d = Schedule(m.snapshot(), m.board(), m.facts, m.authority(), m.now)
	}
	return d
}

// schedule decides and remembers it.
func (m *model) schedule() time.Time {
	d := m.decide()
	m.set, m.facts = d.Set, d.Facts
	if len(d.Release) > 0 {
		m.claims = maps.Clone(m.claims)
		maps.DeleteFunc(m.claims, func(id string, holder api.ClaimHolder) bool { return d.Release[id] == holder.Claim })
	}
	return d.Wake
}

// obey lets the nodes start what is assigned and drop what is removed, but for
// those that are lost: they run on. Started pods are not ready yet.
func (m *model) obey() {
	for _, a := range m.set.Pods {
		if _, there := m.states[a.Pod.Instance]; !there && !m.away(a.Node) && m.granted(a) {
			m.states[a.Pod.Instance] = api.PodState{Pod: a.Pod, Commit: a.Commit, Unit: a.Unit, Phase: corev1.PodRunning, Started: m.now, Claim: a.Claim}
			m.where[a.Pod.Instance] = a.Node
			m.noteVolumes(a)
		}
	}
	for _, r := range m.set.Remove {
		if !m.away(r.Assignment.Node) {
			delete(m.states, r.Assignment.Pod.Instance)
		}
	}
}

// granted reports whether a node may start a pod: an exclusive one only under
// the claim in force.
func (m *model) granted(a api.Assignment) bool {
	return a.Claim == api.Claim{} || m.claims[a.Pod.Identity.String()].Claim == a.Claim
}

// ready makes pods of an owner ready or not, those of one revision if it is
// not empty.
func (m *model) ready(owner, revision string, ready bool) {
	for instance, s := range m.states {
		if s.Pod.Owner != owner || revision != "" && s.Pod.Revision != revision || s.Ready == ready || m.away(m.where[instance]) || over(s) {
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
		if a.Ended != "" {
			state = strings.ToLower(string(a.Ended))
		}
		if m.away(a.Node) {
			state = "lost"
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
	exclusive            bool
	hostname             string // of the one node it is for
	priority             int32
	minReady, deadline   int32
	cpu                  string
	hostPort             int32
	history              int32
	more                 map[string]string // what a scenario says beside that, for Jobs
}

func (s spec) template() corev1.PodTemplateSpec {
	c := corev1.Container{Name: "c", Image: s.revision}
	if s.cpu != "" {
		c.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(s.cpu)}
	}
	if s.hostPort != 0 {
		c.Ports = []corev1.ContainerPort{{ContainerPort: s.hostPort, HostPort: s.hostPort, Protocol: corev1.ProtocolTCP}}
	}
	t := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": s.name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{c}},
	}
	if s.exclusive {
		t.Annotations = map[string]string{exclusiveAnnotation: "true"}
	}
	if s.hostname != "" {
		t.Spec.NodeSelector = map[string]string{corev1.LabelHostname: s.hostname}
	}
	for _, text := range strings.FieldsFunc(s.more["tolerates"], func(r rune) bool { return r == '+' }) {
		key, seconds, given := strings.Cut(text, ":")
		toleration := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists}
		if given {
			toleration.Effect, toleration.TolerationSeconds = corev1.TaintEffectNoExecute, new(number(seconds, 0))
		}
		t.Spec.Tolerations = append(t.Spec.Tolerations, toleration)
	}
	s.relate(&t)
	if s.priority != 0 {
		t.Spec.Priority = &s.priority
	}
	s.mount(&t)
	return t
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
		meta.Labels, meta.Annotations = t.Labels, t.Annotations
		value = &corev1.Pod{ObjectMeta: meta, Spec: t.Spec}
	case "StatefulSet":
		value = s.statefulSet(meta, selector)
	case "PersistentVolumeClaim":
		group = ""
		s.revision = ""
		value = s.claim(meta)
	case "Job":
		group = "batch"
		value = &batchv1.Job{ObjectMeta: meta, Spec: s.job(s.template())}
	case "CronJob":
		group = "batch"
		value = s.cronJob(meta)
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
