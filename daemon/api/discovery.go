package api

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/version"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/kube"
	"github.com/shoal-dev/shoal/internal/kube/openapi"
)

// kubernetesVersion is the version of Kubernetes whose objects this API speaks.
const kubernetesVersion = "1.37.2"

func resource(group, version, plural string) (kube.Kind, bool) {
	return kube.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: plural})
}

func (s *Server) serveVersion(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(kubernetesVersion, ".")
	s.writeJSON(w, r, version.Info{
		Major: parts[0], Minor: parts[1], GitVersion: "v" + kubernetesVersion + "+shoal." + s.cfg.Version,
		GoVersion: goruntime.Version(), Compiler: goruntime.Compiler, Platform: goruntime.GOOS + "/" + goruntime.GOARCH,
	})
}

func (s *Server) serveAPIVersions(w http.ResponseWriter, r *http.Request) {
	s.writeJSON(w, r, metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
}

// groups lists the API groups but the core one, in order.
func groups() []metav1.APIGroup {
	var out []metav1.APIGroup
	add := func(gv schema.GroupVersion) {
		v := metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version}
		out = append(out, metav1.APIGroup{
			TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"},
			Name:     gv.Group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v,
		})
	}
	for _, k := range kube.Kinds() {
		if k.Group != "" && !slices.ContainsFunc(out, func(g metav1.APIGroup) bool { return g.Name == k.Group }) {
			add(k.GroupVersion())
		}
	}
	add(metricsGroup)
	return out
}

func (s *Server) serveGroups(w http.ResponseWriter, r *http.Request) {
	s.writeJSON(w, r, metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: groups()})
}

func (s *Server) serveGroup(w http.ResponseWriter, r *http.Request) {
	for _, g := range groups() {
		if g.Name == r.PathValue("group") {
			s.writeJSON(w, r, g)
			return
		}
	}
	s.fail(w, r, notFoundPath(r))
}

func (s *Server) serveResources(w http.ResponseWriter, r *http.Request) {
	gv := schema.GroupVersion{Group: r.PathValue("group"), Version: r.PathValue("version")}
	if gv.Group == "" {
		gv.Version = "v1"
	}
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String()}
	for _, k := range kube.Kinds() {
		if k.GroupVersion() != gv {
			continue
		}
		list.APIResources = append(list.APIResources, metav1.APIResource{
			Name: k.Plural, SingularName: k.Singular, Namespaced: k.Namespaced, Kind: k.Kind,
			Verbs: metav1.Verbs{"get", "list", "watch"}, ShortNames: k.ShortNames, Categories: k.Categories,
		})
		if k.Kind == "Pod" {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: "pods/log", Namespaced: true, Kind: "Pod", Verbs: metav1.Verbs{"get"}})
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: "pods/" + debugging, Namespaced: true, Kind: "Pod", Verbs: metav1.Verbs{"get", "patch", "update"}})
			for _, c := range connections {
				list.APIResources = append(list.APIResources, metav1.APIResource{Name: "pods/" + c.subresource, Namespaced: true, Kind: c.kind, Verbs: metav1.Verbs{"create", "get"}})
			}
		}
	}
	if len(list.APIResources) == 0 {
		s.fail(w, r, notFoundPath(r))
		return
	}
	s.writeJSON(w, r, list)
}

func (s *Server) writeJSON(w http.ResponseWriter, _ *http.Request, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		http.Error(w, "encode answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // a client that is gone needs no answer
}

// documents keeps the OpenAPI documents that were asked for, compressed.
type documents struct {
	mu   sync.Mutex
	made map[schema.GroupVersion][]byte
}

func (d *documents) get(gv schema.GroupVersion) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if packed, known := d.made[gv]; known {
		return packed, nil
	}
	raw, err := openapi.Document(gv)
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(raw); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	if d.made == nil {
		d.made = map[schema.GroupVersion][]byte{}
	}
	d.made[gv] = packed.Bytes()
	return packed.Bytes(), nil
}

// openAPIPath is where the document of a group version is.
func openAPIPath(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api/" + gv.Version
	}
	return "apis/" + gv.String()
}

func (s *Server) serveOpenAPIIndex(w http.ResponseWriter, r *http.Request) {
	paths := map[string]any{}
	for _, gv := range openapi.Versions() {
		paths[openAPIPath(gv)] = map[string]string{
			"serverRelativeURL": "/openapi/v3/" + openAPIPath(gv) + "?hash=" + api.SafeHash(kubernetesVersion+s.cfg.Version, 16),
		}
	}
	s.writeJSON(w, r, map[string]any{"paths": paths})
}

func (s *Server) serveOpenAPI(w http.ResponseWriter, r *http.Request) {
	for _, gv := range openapi.Versions() {
		if openAPIPath(gv) != r.PathValue("path") {
			continue
		}
		packed, err := s.openapi.get(gv)
		if err != nil {
			s.fail(w, r, fmt.Errorf("describe %s: %w", gv, err))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(packed) // a client that is gone needs no answer
			return
		}
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			s.fail(w, r, err)
			return
		}
		_, _ = io.Copy(w, z) // a client that is gone needs no answer
		return
	}
	s.fail(w, r, notFoundPath(r))
}

// serveAccessReview answers "may I?": reading yes, connecting to containers yes,
// everything else no. It stores nothing.
func (s *Server) serveAccessReview(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		s.fail(w, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	var review authorizationv1.SelfSubjectAccessReview
	if _, _, err := reviewCodecs().UniversalDeserializer().Decode(body, nil, &review); err != nil {
		s.fail(w, r, apierrors.NewBadRequest("read the review: "+err.Error()))
		return
	}
	verb, connects := "", false
	if a := review.Spec.ResourceAttributes; a != nil {
		verb = a.Verb
		into := a.Group == "" && a.Resource == "pods"
		connects = into && (verb == "create" && connected(a.Subresource) || a.Subresource == debugging && (verb == "patch" || verb == "update"))
	} else if a := review.Spec.NonResourceAttributes; a != nil {
		verb = a.Verb
	}
	review.Status = authorizationv1.SubjectAccessReviewStatus{
		Allowed: connects || slices.Contains([]string{"get", "list", "watch"}, verb),
	}
	if !review.Status.Allowed {
		review.Status.Reason = "the API is read-only: changes are commits"
	}
	review.Kind, review.APIVersion = "SelfSubjectAccessReview", "authorization.k8s.io/v1"
	f, err := negotiate(r)
	if err != nil {
		f = jsonFormat()
	}
	s.write(w, r, f, http.StatusCreated, &review)
}

// reviewCodecs reads access reviews, which are no kind that is served.
var reviewCodecs = sync.OnceValue(func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	if err := authorizationv1.AddToScheme(scheme); err != nil {
		panic("access reviews cannot be registered: " + err.Error()) // a programming error that every test would meet
	}
	return serializer.NewCodecFactory(scheme)
})
