package api

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shoal-dev/shoal/internal/kube"
)

// debugging is the subresource of pods through which containers are added.
const debugging = "ephemeralcontainers"

// adds reports whether a request adds containers to a pod.
func (q request) adds() bool {
	return q.kind.Group == "" && q.kind.Kind == "Pod" && q.subresource == debugging
}

// maxPatch bounds what a client may send, in bytes.
const maxPatch = 1 << 20

// serveDebug adds containers to a pod. That is no change of the desired state: they
// go with the pod, as a command that runs in it does.
func (s *Server) serveDebug(w http.ResponseWriter, r *http.Request, q request) {
	pod, err := s.pod(q)
	if err == nil {
		err = connectable(pod, "exec")
	}
	var added []corev1.EphemeralContainer
	if err == nil {
		added, err = additions(w, r, pod)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	to := Target{Instance: string(pod.UID), Pod: pod.Namespace + "/" + pod.Name, User: r.TLS.PeerCertificates[0].Subject.CommonName}
	shown := pod.DeepCopy()
	for _, c := range added {
		if err := s.cfg.Containers.Debug(r.Context(), to, c); err != nil {
			s.fail(w, r, apierrors.NewBadRequest(err.Error()))
			return
		}
		shown.Spec.EphemeralContainers = append(shown.Spec.EphemeralContainers, c)
	}
	f, err := negotiate(r)
	if err != nil {
		f = jsonFormat()
	}
	s.write(w, r, f, http.StatusOK, shown)
}

// additions returns the containers that a request adds to a pod, by a patch or by
// the whole of it. Nothing else of the request is looked at.
func additions(w http.ResponseWriter, r *http.Request, pod *corev1.Pod) ([]corev1.EphemeralContainer, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPatch))
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if r.Method == http.MethodPatch {
		kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || types.PatchType(kind) != types.StrategicMergePatchType {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("a patch of ephemeral containers is of the type %s", types.StrategicMergePatchType))
		}
		was, err := json.Marshal(pod)
		if err != nil {
			return nil, err
		}
		if body, err = strategicpatch.StrategicMergePatch(was, body, corev1.Pod{}); err != nil {
			return nil, apierrors.NewBadRequest("apply the patch: " + err.Error())
		}
	}
	var asked corev1.Pod
	if _, _, err := podCodecs().UniversalDeserializer().Decode(body, nil, &asked); err != nil {
		return nil, apierrors.NewBadRequest("read the pod: " + err.Error())
	}
	wanted := pod.DeepCopy()
	wanted.Spec.EphemeralContainers = slices.DeleteFunc(asked.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool {
		return slices.ContainsFunc(pod.Spec.EphemeralContainers, func(have corev1.EphemeralContainer) bool { return have.Name == c.Name })
	})
	kube.Default(wanted)
	without := wanted.DeepCopy()
	without.Spec.EphemeralContainers = nil
	errs := kube.ValidateDebug(wanted, without)
	for i := range wanted.Spec.EphemeralContainers {
		errs = append(errs, permitted(&pod.Spec, &wanted.Spec.EphemeralContainers[i], field.NewPath("spec", "ephemeralContainers").Index(i))...)
	}
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Pod").GroupKind(), pod.Name, errs)
	}
	return wanted.Spec.EphemeralContainers, nil
}

// podCodecs reads pods in every form that clients write.
var podCodecs = sync.OnceValue(func() serializer.CodecFactory { return serializer.NewCodecFactory(kube.Scheme()) })

// permitted says what a container may not have that did not come through Git: what
// would give it the node. The capabilities are those that kubectl's profiles general
// and netadmin add.
func permitted(pod *corev1.PodSpec, c *corev1.EphemeralContainer, at *field.Path) (errs field.ErrorList) {
	s, at := c.SecurityContext, at.Child("securityContext")
	if s == nil {
		return nil
	}
	forbid := func(at *field.Path, why string) { errs = append(errs, field.Forbidden(at, why)) }
	if s.Privileged != nil && *s.Privileged {
		forbid(at.Child("privileged"), "a privileged container has to stand in Git")
	}
	if s.ProcMount != nil && *s.ProcMount != corev1.DefaultProcMount {
		forbid(at.Child("procMount"), "another one than Default has to stand in Git")
	}
	if s.SeccompProfile != nil && s.SeccompProfile.Type == corev1.SeccompProfileTypeUnconfined {
		forbid(at.Child("seccompProfile"), "a container without one has to stand in Git")
	}
	if s.AppArmorProfile != nil && s.AppArmorProfile.Type == corev1.AppArmorProfileTypeUnconfined {
		forbid(at.Child("appArmorProfile"), "a container without one has to stand in Git")
	}
	if s.Capabilities == nil {
		return errs
	}
	for i, capability := range s.Capabilities.Add {
		at := at.Child("capabilities", "add").Index(i)
		switch capability {
		case "SYS_PTRACE":
			if pod.HostPID {
				forbid(at, "the pod sees the processes of its node")
			}
		case "NET_ADMIN", "NET_RAW":
			if pod.HostNetwork {
				forbid(at, "the pod is in the network of its node")
			}
		default:
			forbid(at, fmt.Sprintf("%s has to stand in Git; a debug container may have SYS_PTRACE, NET_ADMIN and NET_RAW", capability))
		}
	}
	return errs
}
