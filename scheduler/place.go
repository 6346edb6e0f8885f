package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"github.com/shoal-dev/shoal/api"
)

// A shape is all that placing needs to know of a template; identical pods share
// one.
type shape struct {
	requests  corev1.ResourceList
	amounts   amounts
	hostPorts []api.HostPort
	filter    filter
	priority  int32
	// stuck says why the last pod of this shape found no node; the second one
	// is for the pods that must leave a reserve.
	stuck [2]string
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
		priority: priorityOf(&template.Spec),
	}
}

func priorityOf(spec *corev1.PodSpec) int32 {
	if spec.Priority == nil {
		return 0
	}
	return *spec.Priority
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

// reserve is how full, in percent, the pods that replace lost ones may make a
// node while several nodes are lost: what is left over is for what cannot be
// foreseen.
const reserve = 80

// refusals lists why the pod does not fit on the node now. A careful one leaves
// the reserve.
func (s *shape) refusals(n *node, careful bool) []string {
	if reason := n.unusable(); reason != "" {
		return []string{reason}
	}
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
	if len(out) == 0 && careful && s.fills(n) {
		out = append(out, fmt.Sprintf("node(s) would be filled by more than %d %%", reserve))
	}
	slices.Sort(out)
	return out
}

// fills reports whether the pod would take from a node what is kept in reserve.
func (s *shape) fills(n *node) bool {
	if beyondReserve(n, corev1.ResourcePods, 1) {
		return true
	}
	for name, amount := range s.amounts {
		if amount > 0 && beyondReserve(n, name, amount) {
			return true
		}
	}
	return false
}

func beyondReserve(n *node, name corev1.ResourceName, amount int64) bool {
	all := n.total[name]
	return all-n.free[name]+amount > all/100*reserve+all%100*reserve/100
}

// A placement is a pod that needs a node.
type placement struct {
	pod       *pod
	shape     *shape
	exclusive bool
}

// A placer gives pods to nodes.
type placer struct {
	in       *input
	byName   map[string]*node
	brake    brake
	assigned []api.Assignment
	pending  []api.Unplaced
	claims   []ClaimRequest
}

// place gives each pod the best node that it fits on: those of a higher priority
// first, then the oldest. Pods that are placed already, and those that are going
// until they are gone, keep what they occupy.
func place(in *input, kept []*pod, going []api.Removal, starts []placement) *placer {
	p := &placer{in: in, byName: make(map[string]*node, len(in.nodes)), assigned: make([]api.Assignment, 0, len(kept)+len(starts))}
	for i := range in.nodes {
		p.byName[in.nodes[i].info.Name] = &in.nodes[i]
	}
	for _, k := range kept {
		p.assigned = append(p.assigned, k.assignment())
	}
	if len(starts) > 0 { // else nobody asks what is left
		for _, k := range kept {
			p.book(k.node, k.Workload(), k.requests, k.hostPorts)
		}
		for _, r := range going {
			p.book(r.Assignment.Node, r.Assignment.Pod.Workload(), r.Assignment.Requests, r.Assignment.HostPorts)
		}
	}
	slices.SortStableFunc(starts, func(a, b placement) int {
		return cmp.Or(cmp.Compare(b.shape.priority, a.shape.priority), a.pod.created.Compare(b.pod.created), a.pod.Compare(b.pod.Pod))
	})
	p.brake = newBrake(in, kept, starts)
	for _, s := range starts {
		p.put(s)
	}
	slices.SortFunc(p.assigned, func(a, b api.Assignment) int { return a.Pod.Compare(b.Pod) })
	slices.SortFunc(p.pending, func(a, b api.Unplaced) int { return a.Pod.Compare(b.Pod) })
	slices.SortFunc(p.claims, func(a, b ClaimRequest) int { return a.Identity.Compare(b.Identity) })
	return p
}

func (p *placer) book(name string, workload api.Identity, requests corev1.ResourceList, ports []api.HostPort) {
	if n := p.byName[name]; n != nil {
		n.take(workload, newAmounts(requests), ports)
	}
}

func (p *placer) put(s placement) {
	replaces := s.pod.reason == reasonLost
	if replaces {
		if reason := p.brake.refuse(); reason != "" {
			p.wait(s, reason)
			return
		}
	}
	careful := replaces && p.brake.careful
	var n *node
	switch {
	case s.exclusive:
		n = p.claimed(s, careful)
	case s.pod.Kind == "DaemonSet":
		n = p.bound(s)
	default:
		if n = s.shape.best(p.in.nodes, s.pod.Workload(), careful); n == nil {
			p.wait(s, s.shape.why(careful))
		}
	}
	if n == nil {
		return
	}
	s.pod.node, s.pod.requests, s.pod.hostPorts = n.info.Name, s.shape.requests, s.shape.hostPorts
	n.take(s.pod.Workload(), s.shape.amounts, s.shape.hostPorts)
	p.assigned = append(p.assigned, s.pod.assignment())
	if replaces {
		p.brake.started++
	}
}

// wait leaves a pod without a node, with the reason.
func (p *placer) wait(s placement, reason string) {
	p.pending = append(p.pending, api.Unplaced{
		Pod: s.pod.Pod, Unit: s.pod.unit, Commit: s.pod.commit, Created: s.pod.created, Why: s.pod.reason, Reason: reason,
	})
}

// bound returns the one node that the pod of a DaemonSet is for, once it fits.
func (p *placer) bound(s placement) *node {
	i, known := p.in.index[s.pod.Slot]
	if !known {
		p.wait(s, explain(nil, s.shape, false))
		return nil
	}
	if only := p.in.nodes[i : i+1]; len(s.shape.refusals(&only[0], false)) > 0 {
		p.wait(s, explain(only, s.shape, false))
		return nil
	}
	return &p.in.nodes[i]
}

// claimed returns the node of an exclusive pod once the claim of its identity
// names it. Until then the pod waits, and where nobody else can be running it
// the claim is asked for.
func (p *placer) claimed(s placement, careful bool) *node {
	if !p.in.authority.Quorate {
		p.wait(s, waitsForQuorum)
		return nil
	}
	holder, granted := p.in.board.Claims[s.pod.Identity.String()]
	if granted && !holder.Released {
		n := p.byName[holder.Node]
		if n == nil || n.unusable() != "" {
			p.wait(s, waitsForRelease)
			return nil
		}
		if len(s.shape.refusals(n, careful)) == 0 {
			s.pod.claim = holder.Claim
			return n
		}
	}
	n := s.shape.best(p.in.nodes, s.pod.Workload(), careful)
	if n == nil {
		p.wait(s, s.shape.why(careful))
		return nil
	}
	n.take(s.pod.Workload(), s.shape.amounts, s.shape.hostPorts) // nobody else gets it meanwhile
	p.claims = append(p.claims, ClaimRequest{Identity: s.pod.Identity, Node: n.info.Name, Expect: holder.Claim})
	p.wait(s, waitsForClaim)
	return nil
}

// best returns the node for one more pod of a workload, nil when none fits. The
// score is lexical: fewest pods of the workload first, so that its replicas are
// spread and the loss of one node takes as few of them as possible; then least
// allocated, the largest mean share of CPU and memory left; then by name.
//
// Capacity only shrinks while pods are placed, so a shape that was stuck once
// stays stuck.
func (s *shape) best(nodes []node, workload api.Identity, careful bool) *node {
	if s.why(careful) != "" {
		return nil
	}
	var best *node
	for i := range nodes {
		n := &nodes[i]
		if best != nil && cmp.Or(cmp.Compare(n.count[workload], best.count[workload]), cmp.Compare(best.room, n.room)) >= 0 {
			continue
		}
		if len(s.refusals(n, careful)) == 0 {
			best = n
		}
	}
	if best == nil {
		s.stuck[careIndex(careful)] = explain(nodes, s, careful)
	}
	return best
}

// why says why a pod of this shape found no node; "" when it did or was not
// tried.
func (s *shape) why(careful bool) string { return s.stuck[careIndex(careful)] }

func careIndex(careful bool) int {
	if careful {
		return 1
	}
	return 0
}

// explain says why a shape fits on no node, in kube-scheduler's words: how many
// nodes there are, and for each obstacle how many it is on.
func explain(nodes []node, s *shape, careful bool) string {
	count := map[string]int{}
	for i := range nodes {
		for _, reason := range s.refusals(&nodes[i], careful) {
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
