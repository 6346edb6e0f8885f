package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-dev/shoal/api"
)

// statefulSet makes a StatefulSet from what a scenario says: order, start,
// partition, unavailable, strategy=OnDelete, claims=NAME+NAME with size and class,
// whenScaled=Delete and whenDeleted=Delete.
func (s spec) statefulSet(meta metav1.ObjectMeta, selector *metav1.LabelSelector) *appsv1.StatefulSet {
	out := &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{
		Replicas: &s.replicas, Selector: selector, Template: s.template(), MinReadySeconds: s.minReady, RevisionHistoryLimit: &s.history,
		PodManagementPolicy: appsv1.PodManagementPolicyType(s.more["order"]), ServiceName: s.name,
		PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
			WhenScaled:  appsv1.PersistentVolumeClaimRetentionPolicyType(cmp.Or(s.more["whenScaled"], "Retain")),
			WhenDeleted: appsv1.PersistentVolumeClaimRetentionPolicyType(cmp.Or(s.more["whenDeleted"], "Retain")),
		},
	}}
	out.Spec.UpdateStrategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
	out.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: new(int32(number(s.more["partition"], 0)))}
	if s.unavailable != "" {
		value := intstr.Parse(s.unavailable)
		out.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = &value
	}
	if s.more["strategy"] == "OnDelete" {
		out.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}
	}
	if start, given := s.more["start"]; given {
		out.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: int32(number(start, 0))}
	}
	for name := range strings.SplitSeq(s.more["claims"], "+") {
		if name != "" {
			out.Spec.VolumeClaimTemplates = append(out.Spec.VolumeClaimTemplates, *s.claim(metav1.ObjectMeta{Name: name}))
		}
	}
	return out
}

// claim makes a PersistentVolumeClaim: size, class and access.
func (s spec) claim(meta metav1.ObjectMeta) *corev1.PersistentVolumeClaim {
	out := &corev1.PersistentVolumeClaim{ObjectMeta: meta, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.PersistentVolumeAccessMode(cmp.Or(s.more["access"], "ReadWriteOnce"))},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(cmp.Or(s.more["size"], "1Gi"))}},
	}}
	if class, given := s.more["class"]; given {
		out.Spec.StorageClassName = &class
	}
	return out
}

// mount adds the claims of pvc=NAME+NAME to a template.
func (s spec) mount(t *corev1.PodTemplateSpec) {
	for name := range strings.SplitSeq(s.more["pvc"], "+") {
		if name != "" {
			t.Spec.Volumes = append(t.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name},
			}})
		}
	}
}

// runSets runs the commands that concern StatefulSets and volumes.
func (m *model) runSets(command, name string) (string, bool) {
	var out strings.Builder
	switch command {
	case "set":
		m.describeSet(&out, name)
	case "volumes":
		for _, id := range slices.Sorted(maps.Keys(m.facts.Volumes)) {
			v := m.facts.Volumes[id]
			fmt.Fprintf(&out, "%s: claim %d, %d MiB on %s", id, v.Claim.Index, v.Bytes>>20, v.Node)
			if _, there := m.claims[id]; !there {
				out.WriteString(", not in the ledger")
			}
			out.WriteString("\n")
		}
		for _, d := range m.facts.Discards {
			fmt.Fprintf(&out, "%s: claim %d on %s is to be deleted\n", d.Identity, d.Claim.Index, d.Node)
		}
	case "delete": // the nodes delete what they are told to
		for _, d := range m.facts.Discards {
			id, _ := api.ParseVolumeClaim(d.Identity)
			if m.claims[d.Identity].Claim == d.Claim || m.away(d.Node) {
				continue
			}
			n := m.nodes[d.Node]
			n.Volumes = slices.DeleteFunc(slices.Clone(n.Volumes), func(v string) bool { return v == api.VolumeName(id, d.Claim) })
			m.nodes[d.Node] = n
		}
	case "removed": // a node leaves the fleet for good
		delete(m.nodes, name)
		delete(m.silent, name)
		for instance := range m.states {
			if m.where[instance] == name {
				delete(m.states, instance)
			}
		}
		m.health[name] = api.NodeHealth{Node: name, Status: api.NodeLeft, Since: m.now}
		m.claims = maps.Clone(m.claims)
		for id, holder := range m.claims {
			if holder.Node == name {
				m.claims[id] = api.ClaimHolder{Claim: holder.Claim, Node: name + " (removed, 0123456789ab)", Released: true}
			}
		}
	case "recovered": // the ledger has lost the claims of a kind
		m.claims = maps.Clone(m.claims)
		maps.DeleteFunc(m.claims, func(id string, _ api.ClaimHolder) bool { return strings.Contains(id, "/"+name+"/") })
	default:
		return "", false
	}
	return out.String(), true
}

func (m *model) describeSet(out *strings.Builder, name string) {
	none := func(string, api.Commit) api.Snapshot { return api.Snapshot{} }
	for _, o := range Workloads("fleet", m.snapshot(), none, m.board(), m.facts, m.now) {
		if set, ok := o.(*appsv1.StatefulSet); ok && set.Name == name {
			s := set.Status
			fmt.Fprintf(out, "%s generation %d: %d of %d, %d ready, %d available; %d at %s, %d at %s\n", name, s.ObservedGeneration, s.Replicas, *set.Spec.Replicas,
				s.ReadyReplicas, s.AvailableReplicas, s.CurrentReplicas, s.CurrentRevision, s.UpdatedReplicas, s.UpdateRevision)
		}
	}
}

// noteVolumes lets a node make the directories of a pod's volumes.
func (m *model) noteVolumes(a api.Assignment) {
	for _, v := range m.set.Molds[a.Pod.MoldKey()].Volumes {
		id := v.Of(a.Pod.Identity)
		volume := api.VolumeName(id, m.claims[id.String()].Claim)
		n := m.nodes[a.Node]
		if !slices.Contains(n.Volumes, volume) {
			n.Volumes = append(slices.Clone(n.Volumes), volume)
			slices.Sort(n.Volumes)
			m.nodes[a.Node] = n
		}
	}
}

func setOf(o api.Object) *appsv1.StatefulSet { return o.Value.(*appsv1.StatefulSet) }
