package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-dev/shoal/api"
)

// runQuotas runs the commands that concern ResourceQuotas: "quota NAME HARD=N ...
// scope=S", and "quotas" to print them.
func (m *model) runQuotas(command string, args []string) (string, bool) {
	switch command {
	case "quota":
		m.commit++
		value := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: args[0], Namespace: "ns"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{}}}
		for name, text := range pairs(args[1:]) {
			if name == "scope" {
				value.Spec.Scopes = []corev1.ResourceQuotaScope{corev1.ResourceQuotaScope(text)}
				continue
			}
			value.Spec.Hard[corev1.ResourceName(name)] = resource.MustParse(text)
		}
		m.objects["ResourceQuota/"+args[0]] = api.Object{
			GVK: schema.GroupVersionKind{Version: "v1", Kind: "ResourceQuota"}, Value: value,
			Source: api.Source{Unit: "main", Commit: m.hash(), File: args[0] + ".yaml", Line: 1},
		}
	case "quotas":
		var out strings.Builder
		for _, object := range m.shown() {
			q, ok := object.(*corev1.ResourceQuota)
			if !ok {
				continue
			}
			fmt.Fprintf(&out, "%s:", q.Name)
			for _, name := range slices.Sorted(maps.Keys(q.Status.Hard)) {
				used, hard := q.Status.Used[name], q.Status.Hard[name]
				fmt.Fprintf(&out, " %s %s/%s", name, used.String(), hard.String())
			}
			out.WriteString("\n")
		}
		return out.String(), true
	default:
		return "", false
	}
	return "", true
}
