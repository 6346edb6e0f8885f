package api

import (
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// TestDebug adds containers as kubectl debug does, and tries what would give away
// the node.
func TestDebug(t *testing.T) {
	f, m := connect(t)
	hosts := testPod("hosts", "Running", nil)
	hosts.Spec.HostPID, hosts.Spec.HostNetwork = true, true
	f.show(testPod("web-1", "Running", nil), testPod("absent", "Running", nil), testPod("done", "Succeeded", nil), hosts)
	client, err := kubernetes.NewForConfig(f.config(""))
	if err != nil {
		t.Fatal(err)
	}
	pods := client.CoreV1().Pods("ns")
	patch := func(pod, container string) (*corev1.Pod, error) {
		body := `{"spec":{"ephemeralContainers":[` + container + `]}}`
		return pods.Patch(t.Context(), pod, types.StrategicMergePatchType, []byte(body), metav1.PatchOptions{}, "ephemeralcontainers")
	}
	got, err := patch("web-1", `{"name":"look","image":"busybox","stdin":true,"tty":true,"targetContainerName":"c","securityContext":{"capabilities":{"add":["SYS_PTRACE"]}}}`)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Spec.EphemeralContainers) != 1 || len(m.added) != 1 || m.added[0].Name != "look" || !m.added[0].TTY || m.added[0].TerminationMessagePath == "" {
		t.Errorf("added %+v, shown %+v", m.added, got.Spec.EphemeralContainers)
	}
	if to := m.last.Load(); *to != (Target{Instance: "web-1", Pod: "ns/web-1", User: "admin"}) {
		t.Errorf("asked for %+v", to)
	}
	for _, tt := range []struct{ name, pod, container, want string }{
		{"a pod that is not there", "nobody", `{"name":"a","image":"b"}`, `pods "nobody" not found`},
		{"a pod that has ended", "done", `{"name":"a","image":"b"}`, "completed pod"},
		{"a node out of reach", "absent", `{"name":"a","image":"b"}`, "out of reach"},
		{"no image", "web-1", `{"name":"a"}`, "spec.ephemeralContainers[0].image: Required value"},
		{"the name of a container", "web-1", `{"name":"c","image":"b"}`, "Duplicate value"},
		{"a target that is not there", "web-1", `{"name":"a","image":"b","targetContainerName":"d"}`, "targetContainerName: Not found"},
		{"a port", "web-1", `{"name":"a","image":"b","ports":[{"containerPort":80}]}`, "ports: Forbidden"},
		{"privileged", "web-1", `{"name":"a","image":"b","securityContext":{"privileged":true}}`, "has to stand in Git"},
		{"a capability", "web-1", `{"name":"a","image":"b","securityContext":{"capabilities":{"add":["SYS_ADMIN"]}}}`, "SYS_ADMIN has to stand in Git"},
		{"without a filter", "web-1", `{"name":"a","image":"b","securityContext":{"seccompProfile":{"type":"Unconfined"}}}`, "has to stand in Git"},
		{"processes of the node", "hosts", `{"name":"a","image":"b","securityContext":{"capabilities":{"add":["SYS_PTRACE"]}}}`, "sees the processes of its node"},
		{"network of the node", "hosts", `{"name":"a","image":"b","securityContext":{"capabilities":{"add":["NET_ADMIN"]}}}`, "in the network of its node"},
		{"no patch", "web-1", `]`, "apply the patch"},
	} {
		if _, err := patch(tt.pod, tt.container); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if len(m.added) != 1 {
		t.Errorf("what was refused was added: %+v", m.added)
	}
	// Another kind of patch, and one that changes something else.
	_, err = pods.Patch(t.Context(), "web-1", types.JSONPatchType, []byte(`[]`), metav1.PatchOptions{}, "ephemeralcontainers")
	if !apierrors.IsBadRequest(err) {
		t.Errorf("a JSON patch: got %v", err)
	}
	_, err = pods.Patch(t.Context(), "web-1", types.StrategicMergePatchType, []byte(`{"spec":{"nodeName":"x"}}`), metav1.PatchOptions{})
	if status, ok := err.(apierrors.APIStatus); !ok || status.Status().Code != http.StatusMethodNotAllowed {
		t.Errorf("a patch of the pod itself: got %v", err)
	}
	// As older clients do it: the whole pod.
	got.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "more", Image: "busybox"}}}
	if _, err := pods.UpdateEphemeralContainers(t.Context(), "web-1", got, metav1.UpdateOptions{}); err != nil || len(m.added) != 2 || m.added[1].Name != "more" {
		t.Errorf("got %v, added %+v", err, m.added)
	}
}
