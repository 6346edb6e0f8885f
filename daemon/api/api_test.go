package api

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gossip/identity"
)

// A fleet is what the server under test shows.
type fleet struct {
	t      *testing.T
	server *Server
	http   *httptest.Server
	id     *identity.Identity

	mu      sync.Mutex
	objects []api.KubeObject
}

// used is what the pods of TestAnswers use.
var used = []api.Usage{{
	Node: "n1", Time: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), Window: 10 * time.Second, Used: resources("700m", "1Gi"),
	Pods:       map[string]corev1.ResourceList{"web-1": resources("250m", "10Mi"), "two": resources("30m", "5Mi"), "new": {corev1.ResourceMemory: quantity.MustParse("1Mi")}},
	Containers: map[string]map[string]corev1.ResourceList{"two": {"c": resources("10m", "2Mi"), "d": resources("20m", "3Mi")}},
}}

func resources(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: quantity.MustParse(cpu), corev1.ResourceMemory: quantity.MustParse(memory)}
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t}
	id, err := identity.Open(t.TempDir(), identity.Fleet{Domain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	f.id = id
	f.server = New(Config{
		Objects: func() []api.KubeObject {
			f.mu.Lock()
			defer f.mu.Unlock()
			return slices.Clone(f.objects)
		},
		Where: func(kind, namespace, name string) (api.Key, api.Source, bool) {
			key := api.Key{Group: "apps", Kind: "Deployment", Namespace: namespace, Name: "web"}
			return key, api.Source{File: "web.yaml", Line: 12, Commit: "3f2a9c1d"}, kind == "Pod" && name == "web-1"
		},
		Repository: func() string { return "https://git.example.com/fleet" },
		Logs: func(context.Context, string, string, corev1.PodLogOptions) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("a line\n")), nil
		},
		Ready: func() error { return nil }, Metrics: http.NotFoundHandler(), Usage: func() []api.Usage { return used }, Version: "test", Now: time.Now,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { f.server.Run(ctx); close(done) }()
	cert, err := id.Server(nil, []net.IP{net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	f.http = httptest.NewUnstartedServer(f.server)
	f.http.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: id.Pool()}
	f.http.EnableHTTP2 = true
	f.http.StartTLS()
	t.Cleanup(func() { f.http.CloseClientConnections(); f.http.Close(); cancel(); <-done })
	return f
}

// show sets what there is.
func (f *fleet) show(objects ...api.KubeObject) {
	f.mu.Lock()
	f.objects = objects
	f.mu.Unlock()
	f.server.Changed()
}

func (f *fleet) config(contentType string) *rest.Config {
	f.t.Helper()
	cert, key, err := f.id.Client("admin", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return &rest.Config{
		Host:            f.http.URL,
		TLSClientConfig: rest.TLSClientConfig{CAData: f.id.CA(), CertData: cert, KeyData: key},
		ContentConfig:   rest.ContentConfig{ContentType: contentType, AcceptContentTypes: contentType},
	}
}

func (f *fleet) get(path, accept string) (int, string) {
	f.t.Helper()
	client, err := rest.HTTPClientFor(f.config(""))
	if err != nil {
		f.t.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodGet, f.http.URL+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	response, err := client.Do(request)
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func testPod(name, phase string, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID(name), Labels: labels},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodPhase(phase)},
	}
}

// TestInformers: client-go's informers, which stream their lists, see what
// comes, changes and goes.
func TestInformers(t *testing.T) {
	for _, contentType := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		t.Run(contentType, func(t *testing.T) {
			f := newFleet(t)
			f.show(testPod("a", "Pending", nil), testPod("b", "Running", nil))
			client, err := kubernetes.NewForConfig(f.config(contentType))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			seen := make(chan string, 100)
			say := func(what string) func(any) {
				return func(o any) { p := o.(*corev1.Pod); seen <- what + " " + p.Name + " " + string(p.Status.Phase) }
			}
			factory := informers.NewSharedInformerFactory(client, 0)
			informer := factory.Core().V1().Pods().Informer()
			if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
				AddFunc: say("add"), DeleteFunc: say("delete"), UpdateFunc: func(_, o any) { say("update")(o) },
			}); err != nil {
				t.Fatal(err)
			}
			factory.Start(ctx.Done())
			if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
				t.Fatal("the informer did not sync")
			}
			f.show(testPod("a", "Running", nil), testPod("c", "Pending", nil))
			want := map[string]bool{
				"add a Pending": true, "add b Running": true, "update a Running": true, "add c Pending": true, "delete b Running": true,
			}
			for len(want) > 0 {
				select {
				case got := <-seen:
					delete(want, got)
				case <-ctx.Done():
					t.Fatalf("the informer did not see %v", want)
				}
			}
			cancel()
			factory.Shutdown()
		})
	}
}

// TestWatchThroughASelector: an object that starts to match is added, one that
// ceases to is deleted.
func TestWatchThroughASelector(t *testing.T) {
	f := newFleet(t)
	f.show(testPod("a", "Running", map[string]string{"app": "x"}))
	client, err := kubernetes.NewForConfig(f.config("application/json"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	list, err := client.CoreV1().Pods("ns").List(ctx, metav1.ListOptions{LabelSelector: "app=x"})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("list: %v, %v", list, err)
	}
	w, err := client.CoreV1().Pods("ns").Watch(ctx, metav1.ListOptions{LabelSelector: "app=x", ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	next := func(want string) {
		t.Helper()
		select {
		case e := <-w.ResultChan():
			p, ok := e.Object.(*corev1.Pod)
			if got := fmt.Sprint(e.Type, " ", p.GetName()); !ok || got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		case <-ctx.Done():
			t.Fatalf("nothing came, want %s", want)
		}
	}
	f.show(testPod("a", "Running", map[string]string{"app": "y"}), testPod("b", "Running", nil))
	next("DELETED a")
	f.show(testPod("a", "Running", map[string]string{"app": "y"}), testPod("b", "Running", map[string]string{"app": "x"}))
	next("ADDED b")
	f.show(testPod("b", "Failed", map[string]string{"app": "x"}))
	next("MODIFIED b")
	f.show()
	next("DELETED b")
}

// TestReplacedUnderItsName: while a pod ends whose name another one has taken,
// the new one is shown, and watchers see one object under that name.
func TestReplacedUnderItsName(t *testing.T) {
	ending, fresh := testPod("a", "Running", nil), testPod("a", "Pending", nil)
	ending.UID, fresh.UID = "old", "new"
	ending.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	for _, objects := range [][]api.KubeObject{{ending, fresh}, {fresh, ending}} {
		f := newFleet(t)
		before := f.server.store.version
		f.show(append(objects, testPod("b", "Running", nil))...)
		_, body := f.get("/api/v1/pods", "application/json")
		var list corev1.PodList
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != 2 || list.Items[0].UID != "new" || f.server.store.version != before+2 {
			t.Errorf("got %d pods, the first with UID %s, after %d changes, want 2 of either", len(list.Items), list.Items[0].UID, f.server.store.version-before)
		}
	}
}

func TestVersionsThatThisProcessDidNotHandOut(t *testing.T) {
	f := newFleet(t)
	f.show(testPod("a", "Running", nil))
	_, body := f.get("/api/v1/pods", "application/json")
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]int{"1": http.StatusGone, "99999999999999999999": http.StatusBadRequest, "9999999999999999": http.StatusGone, "x": http.StatusBadRequest} {
		if code, body := f.get("/api/v1/pods?watch=true&resourceVersion="+version, "application/json"); code != want {
			t.Errorf("a watch from version %s answers %d, want %d: %s", version, code, want, body)
		}
	}
	// One that it did hand out works, and ends when it was told to.
	if code, body := f.get("/api/v1/pods?watch=true&timeoutSeconds=1&resourceVersion="+list.ResourceVersion, "application/json"); code != http.StatusOK || body != "" {
		t.Errorf("a watch from the present answers %d %q", code, body)
	}
	// History is bounded: a watch from before it must list again.
	for i := range maxHistory + 10 {
		f.server.store.set([]api.KubeObject{testPod("a", fmt.Sprint(i), nil)})
	}
	if code, _ := f.get("/api/v1/pods?watch=true&resourceVersion="+list.ResourceVersion, "application/json"); code != http.StatusGone {
		t.Errorf("a watch from a forgotten version answers %d, want 410", code)
	}
}

func TestAnswers(t *testing.T) {
	f := newFleet(t)
	two := testPod("two", "Running", nil)
	two.Spec.Containers = append(two.Spec.Containers, corev1.Container{Name: "d"})
	settings := &api.Fleet{ObjectMeta: metav1.ObjectMeta{Name: "home"}}
	settings.SetGroupVersionKind(api.FleetKind)
	machine := &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	f.show(testPod("web-1", "Running", map[string]string{"app": "web"}), two, settings, machine, testPod("new", "Running", nil))
	const asTable = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
	tests := []struct {
		name, path, accept string
		code               int
		want               string
	}{
		{"a list", "/api/v1/pods", "application/json", 200, `"kind":"PodList"`},
		{"a list of one namespace that is empty", "/api/v1/namespaces/other/pods", "application/json", 200, `"items":[]`},
		{"a table", "/api/v1/pods", asTable, 200, `"kind":"Table"`},
		{"an empty table has its columns", "/api/v1/namespaces/other/pods", asTable, 200, `"name":"Restarts"`},
		{"metadata only", "/api/v1/pods", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", 200, `"kind":"PartialObjectMetadataList"`},
		{"one object", "/api/v1/namespaces/ns/pods/web-1", "application/json", 200, `"name":"web-1"`},
		{"YAML", "/api/v1/namespaces/ns/pods/web-1", "application/yaml", 200, "kind: Pod"},
		{"no such object", "/api/v1/namespaces/ns/pods/nope", "application/json", 404, `pods \"nope\" not found`},
		{"no such resource", "/api/v1/unicorns", "application/json", 404, "could not find"},
		{"no such group", "/apis/example.com/v1/pods", "application/json", 404, "could not find"},
		{"no such subresource", "/api/v1/namespaces/ns/pods/web-1/proxy", "application/json", 404, "could not find"},
		{"a command without a connection", "/api/v1/namespaces/ns/pods/web-1/exec?command=ls&stdout=1", "application/json", 400, "Upgrade request required"},
		{"a field selector", "/api/v1/pods?fieldSelector=status.phase%3DFailed", "application/json", 200, `"items":[]`},
		{"a field that cannot be selected", "/api/v1/pods?fieldSelector=spec.x%3D1", "application/json", 400, "not supported"},
		{"a bad label selector", "/api/v1/pods?labelSelector=%21%21", "application/json", 400, "labelSelector"},
		{"an unknown format", "/api/v1/pods", "image/png", 406, "ask for application/json"},
		{"a log", "/api/v1/namespaces/ns/pods/web-1/log", "*/*", 200, "a line"},
		{"a log of one of two containers", "/api/v1/namespaces/ns/pods/two/log", "*/*", 400, "choose one of: [c d]"},
		{"a log with bad options", "/api/v1/namespaces/ns/pods/web-1/log?tailLines=-1", "*/*", 400, "tailLines"},
		{"settings of the fleet", "/apis/fleet.shoal.dev/v1alpha1/fleets", "application/json", 200, `"kind":"FleetList"`},
		{"settings, which have no protobuf form", "/apis/fleet.shoal.dev/v1alpha1/fleets/home", "application/vnd.kubernetes.protobuf,application/yaml", 200, "kind: Fleet"},
		{"settings in protobuf alone", "/apis/fleet.shoal.dev/v1alpha1/fleets", "application/vnd.kubernetes.protobuf", 406, "ask for application/json"},
		{"what nodes use", "/apis/metrics.k8s.io/v1beta1/nodes", "application/json", 200, `"timestamp":"2026-01-01T12:00:00Z","window":"10s","usage":{"cpu":"700m","memory":"1Gi"}`},
		{"what a node uses", "/apis/metrics.k8s.io/v1beta1/nodes/n1", "application/json", 200, `{"kind":"NodeMetrics"`},
		{"what pods use", "/apis/metrics.k8s.io/v1beta1/pods?labelSelector=app%3Dweb", "application/json", 200, `"containers":[{"name":"c","usage":{"cpu":"250m","memory":"10Mi"}}]}]}`},
		{"what containers use", "/apis/metrics.k8s.io/v1beta1/namespaces/ns/pods/two", "application/json", 200, `"containers":[{"name":"c","usage":{"cpu":"10m","memory":"2Mi"}},{"name":"d","usage":{"cpu":"20m","memory":"3Mi"}}]`},
		{"what a pod uses that was not measured twice", "/apis/metrics.k8s.io/v1beta1/namespaces/ns/pods/new", "application/json", 404, `pods.metrics.k8s.io \"new\" not found`},
		{"what pods of another namespace use", "/apis/metrics.k8s.io/v1beta1/namespaces/other/pods", "application/json", 200, `"items":[]`},
		{"what a Deployment uses", "/apis/metrics.k8s.io/v1beta1/namespaces/ns/deployments", "application/json", 404, "could not find"},
		{"discovery of usage", "/apis/metrics.k8s.io/v1beta1", "application/json", 200, `"kind":"PodMetrics"`},
		{"discovery", "/apis/apps/v1", "application/json", 200, `"name":"deployments"`},
		{"discovery of what can be connected to", "/api/v1", "application/json", 200, `"name":"pods/exec"`},
		{"groups", "/apis", "application/json", 200, `"name":"apps"`},
		{"OpenAPI", "/openapi/v3/api/v1", "application/json", 200, "io.k8s.api.core.v1.Pod"},
		{"an unknown path", "/x", "application/json", 404, "could not find"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, body := f.get(tt.path, tt.accept)
			if code != tt.code || !strings.Contains(body, tt.want) {
				t.Errorf("GET %s: %d\n%s\nwant %d and %q", tt.path, code, body[:min(len(body), 2000)], tt.code, tt.want)
			}
		})
	}
}

func TestWritesNameThePlaceInGit(t *testing.T) {
	f := newFleet(t)
	client, err := rest.HTTPClientFor(f.config(""))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ method, path, want string }{
		{http.MethodDelete, "/api/v1/namespaces/ns/pods/web-1", "Pod ns/web-1 belongs to Deployment ns/web, which is web.yaml:12 at 3f2a9c1; change it there"},
		{http.MethodPut, "/api/v1/namespaces/ns/configmaps/x", "ConfigMap ns/x is not in Git; this API is read-only: commit the change to https://git.example.com/fleet"},
		{http.MethodPost, "/apis/apps/v1/namespaces/ns/deployments", "this API is read-only: commit the change to https://git.example.com/fleet"},
		{http.MethodPatch, "/apis/apps/v1/namespaces/ns/deployments/web/scale", "read-only"},
		{http.MethodPut, "/api/v1/namespaces/ns/pods/web-1/exec", "change it there"},
		{http.MethodPost, "/api/v1/namespaces/ns/pods/web-1/eviction", "change it there"},
	}
	for _, tt := range tests {
		request, err := http.NewRequest(tt.method, f.http.URL+tt.path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusMethodNotAllowed || !strings.Contains(string(body), tt.want) {
			t.Errorf("%s %s: %s %s, want 405 and %q", tt.method, tt.path, response.Status, body, tt.want)
		}
	}
}

func TestNoCertificateNoAnswer(t *testing.T) {
	f := newFleet(t)
	client := f.http.Client()
	for path, want := range map[string]int{"/api/v1/pods": 401, "/metrics": 401, "/version": 401, "/healthz": 200, "/livez": 200, "/readyz": 200} {
		response, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}).Get(f.http.URL + path) //nolint:gosec // the test's own server
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("GET %s: %s, want %d", path, response.Status, want)
		}
	}
	client.CloseIdleConnections()
}
