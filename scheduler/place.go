package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/shoal-dev/shoal/api"
)

// A node is a node of the board and what is left of it while pods are placed.
type node struct {
	info   api.NodeInfo
	object *corev1.Node // for the affinity helpers: name and labels
	ready  bool
	total  amounts
	free   amounts
	ports  map[api.HostPort]bool
	count  map[api.Identity]int // pods by workload
}

// amounts are quantities by resource name: CPU in thousandths, everything else
// in its base unit.
type amounts map[corev1.ResourceName]int64

func newAmounts(list corev1.ResourceList) amounts {
	out := make(amounts, len(list))
	for name, quantity := range list {
		if name == corev1.ResourceCPU {
			out[name] = quantity.MilliValue()
			continue
		}
		out[name] = quantity.Value()
	}
	return out
}

func newNodes(infos []api.NodeInfo) []node {
	out := make([]node, len(infos))
	for i, info := range infos {
		out[i] = node{
			info:   info,
			object: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: info.Name, Labels: info.Labels}},
			ready:  isReady(info),
			total:  newAmounts(info.Allocatable),
			free:   newAmounts(info.Allocatable),
			ports:  map[api.HostPort]bool{},
			count:  map[api.Identity]int{},
		}
	}
	slices.SortFunc(out, func(a, b node) int { return strings.Compare(a.info.Name, b.info.Name) })
	return out
}

func isReady(info api.NodeInfo) bool {
	for _, c := range info.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return true
}

// take books what a pod occupies.
func (n *node) take(workload api.Identity, requests amounts, ports []api.HostPort) {
	for name, amount := range requests {
		n.free[name] -= amount
	}
	n.free[corev1.ResourcePods]--
	for _, port := range ports {
		n.ports[port] = true
	}
	n.count[workload]++
}

// A shape is all that placing needs to know of a template; identical pods share
// one.
type shape struct {
	requests  corev1.ResourceList
	amounts   amounts
	hostPorts []api.HostPort
	filter    filter
	stuck     string // why the last pod of this shape found no node
}

// lazyShape returns a function that works the shape out when it is first asked
// for: most workloads place nothing most of the time.
func lazyShape(template *corev1.PodTemplateSpec) func() *shape {
	var made *shape
	return func() *shape {
		if made == nil {
			made = newShape(template)
		}
		return made
	}
}

func newShape(template *corev1.PodTemplateSpec) *shape {
	requests := resource.PodRequests(&corev1.Pod{Spec: template.Spec}, resource.PodResourcesOptions{})
	return &shape{
		requests: requests, amounts: newAmounts(requests), hostPorts: hostPorts(&template.Spec), filter: newFilter(template),
	}
}

func hostPorts(spec *corev1.PodSpec) []api.HostPort {
	var out []api.HostPort
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for _, c := range containers {
			for _, p := range c.Ports {
				if p.HostPort > 0 {
					out = append(out, api.HostPort{Protocol: cmp.Or(p.Protocol, corev1.ProtocolTCP), IP: p.HostIP, Port: p.HostPort})
				}
			}
		}
	}
	return out
}

// A filter holds the conditions a node must meet whatever runs on it.
type filter struct {
	nodeName    string
	affinity    nodeaffinity.RequiredNodeAffinity
	tolerations []corev1.Toleration
}

func newFilter(template *corev1.PodTemplateSpec) filter {
	return filter{
		nodeName:    template.Spec.NodeName,
		affinity:    nodeaffinity.NewRequiredNodeAffinity(template.Spec.NodeSelector, template.Spec.Affinity),
		tolerations: template.Spec.Tolerations,
	}
}

func (f filter) matches(n *node) bool { return f.refuse(n) == "" }

// refuse says why the node is not for this template, "" when it is. The words
// are kube-scheduler's.
func (f filter) refuse(n *node) string {
	if f.nodeName != "" && f.nodeName != n.info.Name {
		return "node(s) didn't match the requested node name"
	}
	if ok, err := f.affinity.Match(n.object); err != nil || !ok {
		return "node(s) didn't match Pod's node affinity/selector"
	}
	taints := n.info.Taints
	if !n.ready {
		taints = append(slices.Clip(taints), corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute})
	}
	for i := range taints {
		if taints[i].Effect != corev1.TaintEffectPreferNoSchedule && !f.tolerates(&taints[i]) {
			return fmt.Sprintf("node(s) had untolerated taint(s) {%s: %s}", taints[i].Key, taints[i].Value)
		}
	}
	return ""
}

// tolerates reports whether a toleration matches the taint.
// Source: Kubernetes, "Taints and Tolerations".
func (f filter) tolerates(taint *corev1.Taint) bool {
	return slices.ContainsFunc(f.tolerations, func(t corev1.Toleration) bool {
		if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
			return false
		}
		if t.Operator == corev1.TolerationOpExists {
			return true
		}
		return (t.Operator == "" || t.Operator == corev1.TolerationOpEqual) && t.Key != "" && t.Value == taint.Value
	})
}

// refusals lists why the pod does not fit on the node now.
func (s *shape) refusals(n *node) []string {
	if reason := s.filter.refuse(n); reason != "" {
		return []string{reason}
	}
	var out []string
	if n.free[corev1.ResourcePods] < 1 {
		out = append(out, "Too many pods")
	}
	for name, amount := range s.amounts {
		if amount > 0 && amount > n.free[name] {
			out = append(out, "Insufficient "+string(name))
		}
	}
	if slices.ContainsFunc(s.hostPorts, n.occupies) {
		out = append(out, "node(s) didn't have free ports for the requested pod ports")
	}
	slices.Sort(out)
	return out
}

// occupies reports whether a port collides with one in use: the same port and
// protocol on the same address, or on all of them.
func (n *node) occupies(want api.HostPort) bool {
	for port := range n.ports {
		if port.Port == want.Port && port.Protocol == want.Protocol && (wildcard(port.IP) || wildcard(want.IP) || port.IP == want.IP) {
			return true
		}
	}
	return false
}

func wildcard(ip string) bool { return ip == "" || ip == "0.0.0.0" }

// A placement is a pod that needs a node.
type placement struct {
	pod   *pod
	shape *shape
}

// place gives each pod the best node that it fits on, oldest pods first, and
// returns all assignments and what is left over, both sorted by pod. Pods that
// are placed already, and those that are going until they are gone, keep what
// they occupy.
func place(nodes []node, kept []*pod, going []api.Removal, starts []placement) ([]api.Assignment, []api.Unplaced) {
	byName := make(map[string]*node, len(nodes))
	for i := range nodes {
		byName[nodes[i].info.Name] = &nodes[i]
	}
	assigned := make([]api.Assignment, 0, len(kept)+len(starts))
	for _, p := range kept {
		if n := byName[p.node]; n != nil {
			n.take(p.Workload(), newAmounts(p.requests), p.hostPorts)
		}
		assigned = append(assigned, p.assignment())
	}
	for _, r := range going {
		if n := byName[r.Assignment.Node]; n != nil {
			n.take(r.Assignment.Pod.Workload(), newAmounts(r.Assignment.Requests), r.Assignment.HostPorts)
		}
	}
	slices.SortStableFunc(starts, func(a, b placement) int {
		return cmp.Or(a.pod.created.Compare(b.pod.created), a.pod.Compare(b.pod.Pod))
	})
	var pending []api.Unplaced
	for _, s := range starts {
		best := s.shape.best(nodes, s.pod.Workload())
		if best == nil {
			pending = append(pending, api.Unplaced{
				Pod: s.pod.Pod, Unit: s.pod.unit, Commit: s.pod.commit, Created: s.pod.created, Why: s.pod.reason, Reason: s.shape.stuck,
			})
			continue
		}
		s.pod.node, s.pod.requests, s.pod.hostPorts = best.info.Name, s.shape.requests, s.shape.hostPorts
		best.take(s.pod.Workload(), s.shape.amounts, s.shape.hostPorts)
		assigned = append(assigned, s.pod.assignment())
	}
	slices.SortFunc(assigned, func(a, b api.Assignment) int { return a.Pod.Compare(b.Pod) })
	slices.SortFunc(pending, func(a, b api.Unplaced) int { return a.Pod.Compare(b.Pod) })
	return assigned, pending
}

// best returns the node with the fewest pods of the workload, then the one with
// the most CPU and memory left; nil when none fits. Capacity only shrinks while
// pods are placed, so a shape that was stuck once stays stuck.
func (s *shape) best(nodes []node, workload api.Identity) *node {
	if s.stuck != "" {
		return nil
	}
	var best *node
	for i := range nodes {
		n := &nodes[i]
		if len(s.refusals(n)) > 0 {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(n.count[workload], best.count[workload]), cmp.Compare(best.headroom(), n.headroom())) < 0 {
			best = n
		}
	}
	if best == nil {
		s.stuck = explain(nodes, s)
	}
	return best
}

// headroom is the mean share of CPU and memory that is free, from 0 to 2000.
func (n *node) headroom() int64 {
	share := func(name corev1.ResourceName) int64 {
		all := n.total[name]
		if all <= 0 {
			return 0
		}
		return 1000 * max(n.free[name], 0) / all
	}
	return share(corev1.ResourceCPU) + share(corev1.ResourceMemory)
}

// explain says why a shape fits on no node, in kube-scheduler's words: how many
// nodes there are, and for each obstacle how many it is on.
func explain(nodes []node, s *shape) string {
	count := map[string]int{}
	for i := range nodes {
		for _, reason := range s.refusals(&nodes[i]) {
			count[reason]++
		}
	}
	parts := make([]string, 0, len(count))
	for reason, n := range count {
		parts = append(parts, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		return "no nodes available to schedule pods"
	}
	return fmt.Sprintf("0/%d nodes are available: %s.", len(nodes), strings.Join(parts, ", "))
}
