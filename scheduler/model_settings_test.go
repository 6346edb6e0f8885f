package scheduler

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
)

// runSettings runs the commands about the settings of the fleet, and what comes of
// them.
func (m *model) runSettings(command string, args []string) (string, bool) {
	switch command {
	case "fleet":
		o := pairs(args)
		m.commitSettings(api.FleetSpec{OnFailedRollout: api.FailedRollout(o["onFailedRollout"]), Rebalance: api.Rebalance(o["rebalance"])})
	case "deployment":
		var out strings.Builder
		for _, object := range m.shown() {
			d, ok := object.(*appsv1.Deployment)
			if !ok || d.Name != args[0] {
				continue
			}
			s := d.Status
			fmt.Fprintf(&out, "%d replicas, %d updated, %d available\n", s.Replicas, s.UpdatedReplicas, s.AvailableReplicas)
			i := slices.IndexFunc(s.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == appsv1.DeploymentProgressing })
			fmt.Fprintf(&out, "Progressing %s %s: %s\n", s.Conditions[i].Status, s.Conditions[i].Reason, s.Conditions[i].Message)
		}
		for _, alarm := range Deviations(m.facts) {
			fmt.Fprintf(&out, "alarm: %s\n", alarm)
		}
		return out.String(), true
	default:
		return "", false
	}
	return "", true
}

func (m *model) commitSettings(spec api.FleetSpec) {
	m.commit++
	m.objects["Fleet/ns"] = api.Object{
		GVK: api.FleetKind, Source: api.Source{Unit: "main", Commit: m.hash(), File: "fleet.yaml", Line: 1},
		Value: &api.Fleet{ObjectMeta: metav1.ObjectMeta{Name: "ns"}, Spec: spec},
	}
}

func (m *model) randomSettings(t *rapid.T) {
	m.commitSettings(api.FleetSpec{
		OnFailedRollout: rapid.SampledFrom([]api.FailedRollout{api.FailedRolloutNone, api.FailedRolloutBack}).Draw(t, "onFailedRollout"),
		Rebalance:       rapid.SampledFrom([]api.Rebalance{api.RebalanceNone, api.RebalanceGentle}).Draw(t, "rebalance"),
	})
}
