package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-dev/shoal/api"
)

// commitBudget puts a PodDisruptionBudget into Git: of the pods of one owner, of
// all ("app=*"), of none ("app="), of those with a label ("label=KEY:VALUE"), or of
// those of the Job with a UID ("job=NAME").
func (m *model) commitBudget(name string, o map[string]string) {
	m.commit++
	value := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}}
	switch owner, given := o["app"]; {
	case owner == "*":
		value.Spec.Selector = &metav1.LabelSelector{}
	case owner != "" || !given:
		value.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": cmp.Or(owner, name)}}
	}
	if key, label, given := strings.Cut(o["label"], ":"); given {
		value.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{key: label}}
	}
	if job, given := o["job"]; given {
		uid := string(api.UID("fleet", api.Key{Group: "batch", Kind: "Job", Namespace: "ns", Name: job}))
		value.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"batch.kubernetes.io/controller-uid": uid}}
	}
	if text, given := o["min"]; given {
		value.Spec.MinAvailable = amount(text, "")
	}
	if text, given := o["max"]; given {
		value.Spec.MaxUnavailable = amount(text, "")
	}
	if o["always"] == "true" {
		value.Spec.UnhealthyPodEvictionPolicy = new(policyv1.AlwaysAllow)
	}
	m.objects["PodDisruptionBudget/"+name] = api.Object{
		GVK: schema.GroupVersionKind{Group: "policy", Version: "v1", Kind: "PodDisruptionBudget"}, Value: value,
		Source: api.Source{Unit: "main", Commit: m.hash(), File: name + ".yaml", Line: 1},
	}
}

// runBudgets runs the commands that concern PodDisruptionBudgets.
func (m *model) runBudgets(command string, args []string) (string, bool) {
	switch command {
	case "pdb":
		m.commitBudget(args[0], pairs(args[1:]))
	case "pdbs":
		var out strings.Builder
		for _, object := range m.shown() {
			b, ok := object.(*policyv1.PodDisruptionBudget)
			if !ok {
				continue
			}
			s := b.Status
			fmt.Fprintf(&out, "%s: %d healthy, %d desired, %d expected, %d may go: %s %s\n", b.Name, s.CurrentHealthy, s.DesiredHealthy, s.ExpectedPods,
				s.DisruptionsAllowed, s.Conditions[0].Reason, s.Conditions[0].Message)
		}
		return out.String(), true
	case "taint", "untaint":
		n := m.nodes[args[0]]
		n.Taints = slices.DeleteFunc(slices.Clone(n.Taints), func(t corev1.Taint) bool { return t.Key == args[1] })
		if command == "taint" {
			n.Taints = append(n.Taints, corev1.Taint{Key: args[1], Effect: corev1.TaintEffectNoExecute})
		}
		m.nodes[args[0]] = n
	case "hindered":
		return strings.Join(append(Hindrances(m.facts), ""), "\n"), true
	default:
		return "", false
	}
	return "", true
}

// shown is what kubectl shows.
func (m *model) shown() []api.KubeObject {
	return Workloads("fleet", m.snapshot(), func(string, api.Commit) api.Snapshot { return api.Snapshot{} }, m.board(), m.facts, m.now)
}
