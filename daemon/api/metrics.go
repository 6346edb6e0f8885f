package api

import (
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/shoal-dev/shoal/api"
)

// The resource metrics API, which kubectl top reads. Its objects have the names of
// nodes and pods, and their labels, and exist as long as something is known of
// what these use. They cannot be watched, as with metrics-server.
// Source: k8s.io/metrics, v1beta1.

// metricsGroup is the group and version of the resource metrics API.
var metricsGroup = metricsv1beta1.SchemeGroupVersion

func metricsResources() metav1.APIResourceList {
	verbs := metav1.Verbs{"get", "list"}
	return metav1.APIResourceList{
		TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: metricsGroup.String(),
		APIResources: []metav1.APIResource{
			{Name: "nodes", Kind: "NodeMetrics", Verbs: verbs},
			{Name: "pods", Kind: "PodMetrics", Namespaced: true, Verbs: verbs},
		},
	}
}

// serveMetrics answers requests below /apis/metrics.k8s.io/v1beta1.
func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) {
	// The resources have the names and selectors of those in the core group.
	q, err := parse("/api/v1/" + r.PathValue("path"))
	if err != nil || q.subresource != "" || q.kind.Kind != "Node" && q.kind.Kind != "Pod" {
		s.fail(w, r, notFoundPath(r))
		return
	}
	match, err := matcher(r, q)
	if err != nil {
		s.fail(w, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	s.gather(r.Context(), q.kind.Kind+"Metrics")
	s.update()
	entries, version := s.store.list(q.kind.GroupKind(), func(o api.KubeObject) bool {
		return match(o) && (q.name == "" || q.name == o.GetName())
	})
	usage := s.cfg.Usage()
	if q.kind.Kind == "Node" {
		answerMetrics(s, w, r, q, metricsv1beta1.NodeMetricsList{
			TypeMeta: metricsType("NodeMetricsList"), ListMeta: metav1.ListMeta{ResourceVersion: format64(version)}, Items: nodeMetrics(entries, usage),
		}, func(l metricsv1beta1.NodeMetricsList) []metricsv1beta1.NodeMetrics { return l.Items })
		return
	}
	answerMetrics(s, w, r, q, metricsv1beta1.PodMetricsList{
		TypeMeta: metricsType("PodMetricsList"), ListMeta: metav1.ListMeta{ResourceVersion: format64(version)}, Items: podMetrics(entries, usage),
	}, func(l metricsv1beta1.PodMetricsList) []metricsv1beta1.PodMetrics { return l.Items })
}

// answerMetrics answers with a list, or with the one object that was asked for.
func answerMetrics[L, I any](s *Server, w http.ResponseWriter, r *http.Request, q request, list L, items func(L) []I) {
	all := items(list)
	switch {
	case q.name == "":
		s.writeJSON(w, r, list)
	case len(all) == 0:
		s.fail(w, r, apierrors.NewNotFound(schema.GroupResource{Group: metricsGroup.Group, Resource: q.kind.Plural}, q.name))
	default:
		s.writeJSON(w, r, all[0])
	}
}

func metricsType(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{Kind: kind, APIVersion: metricsGroup.String()}
}

func metricsMeta(object api.KubeObject, u api.Usage) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: object.GetName(), Namespace: object.GetNamespace(), Labels: object.GetLabels(), CreationTimestamp: metav1.NewTime(u.Time),
	}
}

func nodeMetrics(entries []entry, usage []api.Usage) []metricsv1beta1.NodeMetrics {
	out := []metricsv1beta1.NodeMetrics{}
	for _, e := range entries {
		i := slices.IndexFunc(usage, func(u api.Usage) bool { return u.Node == e.object.GetName() })
		if i < 0 || len(usage[i].Used) == 0 {
			continue
		}
		u := usage[i]
		out = append(out, metricsv1beta1.NodeMetrics{
			TypeMeta: metricsType("NodeMetrics"), ObjectMeta: metricsMeta(e.object, u), Timestamp: metav1.NewTime(u.Time), Window: metav1.Duration{Duration: u.Window}, Usage: u.Used,
		})
	}
	return out
}

// podMetrics lists the pods of which processor time and memory are known. Where
// nothing is known of its containers, a pod with several is one container without
// a name.
func podMetrics(entries []entry, usage []api.Usage) []metricsv1beta1.PodMetrics {
	out := []metricsv1beta1.PodMetrics{}
	byNode := make(map[string]api.Usage, len(usage))
	for _, u := range usage {
		byNode[u.Node] = u
	}
	for _, e := range entries {
		pod, ok := e.object.(*corev1.Pod)
		if !ok {
			continue
		}
		u := byNode[pod.Spec.NodeName]
		whole := u.Pods[string(pod.UID)]
		if _, measured := whole[corev1.ResourceCPU]; !measured {
			continue
		}
		m := metricsv1beta1.PodMetrics{
			TypeMeta: metricsType("PodMetrics"), ObjectMeta: metricsMeta(pod, u), Timestamp: metav1.NewTime(u.Time), Window: metav1.Duration{Duration: u.Window},
		}
		within := u.Containers[string(pod.UID)]
		for name, used := range within {
			m.Containers = append(m.Containers, metricsv1beta1.ContainerMetrics{Name: name, Usage: used})
		}
		slices.SortFunc(m.Containers, func(a, b metricsv1beta1.ContainerMetrics) int { return strings.Compare(a.Name, b.Name) })
		if len(within) == 0 {
			name := ""
			if len(pod.Spec.Containers) == 1 {
				name = pod.Spec.Containers[0].Name
			}
			m.Containers = []metricsv1beta1.ContainerMetrics{{Name: name, Usage: whole}}
		}
		out = append(out, m)
	}
	return out
}
