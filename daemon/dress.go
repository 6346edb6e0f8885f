package daemon

import (
	"sync"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"

	"github.com/shoal-dev/shoal/api"
)

// withheld marks a Secret whose data the API keeps to itself.
const withheld = "fleet.shoal.dev/data-withheld"

// A wardrobe keeps the objects of the repository as the API shows them, so that
// ten thousand that did not change are neither copied nor compared again. Its
// methods may be called concurrently.
type wardrobe struct {
	mu   sync.Mutex
	worn map[api.KubeObject]api.KubeObject // by the object of the snapshot
}

// dress returns the objects of a view that are shown as they are in Git, in the
// same copies as the last time as far as they are the same.
func (w *wardrobe) dress(v *view) []api.KubeObject {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := make(map[api.KubeObject]api.KubeObject, len(w.worn))
	var out []api.KubeObject
	for object := range v.snapshot.Objects() {
		if shownElsewhere(object) {
			continue
		}
		shown, known := w.worn[object.Value]
		if !known {
			shown = v.dressed(withoutData(object.Value))
		}
		next[object.Value] = shown
		out = append(out, shown)
	}
	w.worn = next
	return out
}

// shownElsewhere reports whether the API shows the object with a status or an
// address that does not stand in Git.
func shownElsewhere(object api.Object) bool {
	switch object.Value.(type) {
	case *corev1.Pod, *corev1.Service, *corev1.PersistentVolumeClaim, *corev1.ResourceQuota, *policyv1.PodDisruptionBudget,
		*autoscalingv2.HorizontalPodAutoscaler:
		return true
	}
	return isWorkload(object.GVK.Kind)
}

// withoutData takes the values out of a Secret and leaves its keys: no reader of
// the API has a right to them, whoever it is. Other objects are returned as
// they are.
func withoutData(object api.KubeObject) api.KubeObject {
	secret, ok := object.(*corev1.Secret)
	if !ok {
		return object
	}
	out := secret.DeepCopy()
	for key := range out.Data {
		out.Data[key] = []byte{}
	}
	out.StringData = nil
	if out.Annotations == nil {
		out.Annotations = map[string]string{}
	}
	out.Annotations[withheld] = "true"
	return out
}
