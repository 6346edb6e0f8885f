package runtime_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
)

// TestPullStory: a pod that waits for its image says how far it is, here and in
// the digest that other nodes get.
func TestPullStory(t *testing.T) {
	object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "web:1"}}}}
	pod := runtime.Pod{Assignment: api.Assignment{Pod: api.Pod{Instance: "i"}}, Object: object}
	desired := runtime.Desired{Known: true, Pods: []runtime.Pod{pod}}
	for _, test := range []struct {
		image runtime.Image
		want  string
	}{
		{runtime.Image{}, ""},
		{runtime.Image{State: runtime.ImagePulling}, ""},
		{runtime.Image{State: runtime.ImagePulling, Ref: "web:1"}, ""},
		{runtime.Image{State: runtime.ImagePulling, Ref: "web:1", Queued: true}, `Pulling image "web:1": waiting until other images have been pulled`},
		{runtime.Image{State: runtime.ImagePulling, Ref: "web:1", Progress: runtime.Progress{Done: 3 << 20, Total: 10 << 20}}, `Pulling image "web:1": 3.0 MiB of 10.0 MiB`},
	} {
		observed := runtime.ObservedPod{Instance: "i", Images: map[string]runtime.Image{"app": test.image}}
		status := runtime.Status(desired, observed, corev1.PodStatus{}, time.Unix(1, 0))
		if got := status.ContainerStatuses[0].State.Waiting; got.Reason != runtime.WaitingCreating || got.Message != test.want {
			t.Errorf("%+v: got %+v, want %q", test.image, got, test.want)
		}
		digest := runtime.State(desired, observed, status)
		if _, shown := runtime.Containers(&object.Spec, digest); shown[0].State.Waiting.Message != test.want {
			t.Errorf("%+v on other nodes: got %+v, want %q", test.image, shown[0].State.Waiting, test.want)
		}
	}
}

// TestCredentialsKey: the same credentials have the same key whatever their order,
// and others have another one.
func TestCredentialsKey(t *testing.T) {
	a, b := runtime.Credential{Host: "r", Username: "u", Password: "p"}, runtime.Credential{Host: "r", Username: "v", Password: "p"}
	key := runtime.CredentialsKey([]runtime.Credential{a, b})
	if runtime.CredentialsKey(nil) != "" || key != runtime.CredentialsKey([]runtime.Credential{b, a, a}) ||
		key == runtime.CredentialsKey([]runtime.Credential{a}) || key == "" {
		t.Errorf("got %q", key)
	}
}

// TestMayUse: KEP-2535's rules.
func TestMayUse(t *testing.T) {
	ann := runtime.Credential{Host: "r", Username: "ann", Password: "1", Secret: "shop/regcred"}
	turned := ann
	turned.Password = "2"
	elsewhere := ann
	elsewhere.Secret = "other/regcred"
	bob := runtime.Credential{Host: "r", Username: "bob", Password: "1", Secret: "shop/bob"}
	private := runtime.Grant(nil, []runtime.Credential{ann})
	both := runtime.Grant(private, []runtime.Credential{bob})
	for _, test := range []struct {
		name        string
		access      []string
		credentials []runtime.Credential
		want        bool
	}{
		{"what came from an archive is for all", nil, nil, true},
		{"what the registry gives to everybody is for all", runtime.Grant(nil, nil), nil, true},
		{"a pod without credentials gets nothing private", private, nil, false},
		{"nor one with others", private, []runtime.Credential{bob}, false},
		{"the same credentials will do", private, []runtime.Credential{bob, ann}, true},
		{"also from another Secret", private, []runtime.Credential{elsewhere}, true},
		{"and the same Secret with a new password", private, []runtime.Credential{turned}, true},
		{"which a Secret of the same name elsewhere is not", private, []runtime.Credential{{Host: "r", Username: "ann", Password: "2", Secret: "other/regcred"}}, false},
		{"two credentials have opened it: the first", both, []runtime.Credential{ann}, true},
		{"the second", both, []runtime.Credential{bob}, true},
		{"what has become public is for all", runtime.Grant(private, nil), nil, true},
	} {
		if got := runtime.MayUse(test.access, test.credentials); got != test.want {
			t.Errorf("%s: got %t", test.name, got)
		}
	}
	for i := range 100 {
		both = runtime.Grant(both, []runtime.Credential{{Host: "r", Username: "u", Password: strconv.Itoa(i), Secret: "ns/" + strconv.Itoa(i)}})
	}
	if len(strings.Join(both, ",")) > 3000 || runtime.MayUse(both, nil) {
		t.Errorf("after 100 more it is %d bytes", len(strings.Join(both, ",")))
	}
	if strings.Contains(strings.Join(private, ","), "ann") {
		t.Errorf("the credential shows: %q", private)
	}
}

// TestResolveByPeers: without the registry a name means what was fetched last, of
// what the pod may have.
func TestResolveByPeers(t *testing.T) {
	at := func(hour int) time.Time { return time.Date(2026, 11, 23, hour, 0, 0, 0, time.UTC) }
	c := runtime.Credential{Host: "r", Username: "u", Password: "p"}
	all := []runtime.PeerImage{
		{Peer: "n1", Digest: "old", Created: at(1)},
		{Peer: "n3", Digest: "new", Created: at(2)},
		{Peer: "n2", Digest: "new", Created: at(2)},
		{Peer: "n4", Digest: "private", Created: at(3), Access: runtime.Grant(nil, []runtime.Credential{c})},
	}
	for _, test := range []struct {
		images      []runtime.PeerImage
		credentials []runtime.Credential
		want        string
	}{
		{nil, nil, ""}, {all, nil, "n2"}, {all, []runtime.Credential{c}, "n4"}, {all[:1], nil, "n1"}, {all[3:], nil, ""},
	} {
		got, found := runtime.Resolve(test.images, test.credentials)
		if got.Peer != test.want || found != (test.want != "") {
			t.Errorf("of %d with %d credentials: got %+v", len(test.images), len(test.credentials), got)
		}
	}
}
