package api

import (
	"fmt"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/kube"
	"github.com/shoal-dev/shoal/internal/kube/table"
)

func (s *Server) serveGet(w http.ResponseWriter, r *http.Request, q request) {
	f, err := negotiateFor(r, q.kind)
	if err != nil {
		s.fail(w, r, apierrors.NewGenericServerResponse(http.StatusNotAcceptable, "get", q.kind.Resource().GroupResource(), q.name, err.Error(), 0, false))
		return
	}
	s.gather(r.Context(), q.kind.Kind)
	s.update()
	e, found := s.store.get(q.kind.GroupKind(), q.namespace, q.name)
	if !found {
		s.fail(w, r, apierrors.NewNotFound(q.kind.Resource().GroupResource(), q.name))
		return
	}
	object, err := shape(f, q.kind, []entry{e}, e.version, false, include(r))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.write(w, r, f, http.StatusOK, object)
}

func (s *Server) serveList(w http.ResponseWriter, r *http.Request, q request) {
	f, err := negotiateFor(r, q.kind)
	if err != nil {
		s.fail(w, r, apierrors.NewGenericServerResponse(http.StatusNotAcceptable, "list", q.kind.Resource().GroupResource(), "", err.Error(), 0, false))
		return
	}
	match, err := matcher(r, q)
	if err != nil {
		s.fail(w, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	s.gather(r.Context(), q.kind.Kind)
	s.update()
	entries, version := s.store.list(q.kind.GroupKind(), match)
	object, err := shape(f, q.kind, entries, version, true, include(r))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.write(w, r, f, http.StatusOK, object)
}

func include(r *http.Request) metav1.IncludeObjectPolicy {
	return metav1.IncludeObjectPolicy(r.URL.Query().Get("includeObject"))
}

// shape turns objects into what the client asked for: a table, metadata only,
// or the objects themselves, as a list or a single one.
func shape(f format, kind kube.Kind, entries []entry, version uint64, list bool, include metav1.IncludeObjectPolicy) (runtime.Object, error) {
	objects := make([]runtime.Object, len(entries))
	for i, e := range entries {
		objects[i] = e.object
	}
	if f.table {
		if include == "" {
			include = metav1.IncludeMetadata
		}
		t, err := table.Of(kind.GroupVersionKind, objects, include)
		if err != nil {
			return nil, err
		}
		t.ResourceVersion = format64(version)
		return t, nil
	}
	for i, e := range entries {
		object, ok := e.object.DeepCopyObject().(api.KubeObject)
		if !ok {
			return nil, fmt.Errorf("copy %s: not an object", kind.Kind)
		}
		object.SetResourceVersion(format64(e.version))
		objects[i] = object
		if f.partial {
			partial := meta.AsPartialObjectMetadata(object)
			partial.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata"))
			objects[i] = partial
		}
	}
	if !list {
		return objects[0], nil
	}
	return asList(f, kind, objects, version)
}

func asList(f format, kind kube.Kind, objects []runtime.Object, version uint64) (runtime.Object, error) {
	gvk := kind.GroupVersionKind
	gvk.Kind += "List"
	if f.partial {
		gvk = metav1.SchemeGroupVersion.WithKind("PartialObjectMetadataList")
		list := &metav1.PartialObjectMetadataList{}
		for _, o := range objects {
			if partial, ok := o.(*metav1.PartialObjectMetadata); ok {
				list.Items = append(list.Items, *partial)
			}
		}
		list.SetGroupVersionKind(gvk)
		list.ResourceVersion = format64(version)
		return list, nil
	}
	list, err := kube.Scheme().New(gvk)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind.Kind, err)
	}
	if err := meta.SetList(list, objects); err != nil {
		return nil, fmt.Errorf("list %s: %w", kind.Kind, err)
	}
	list.GetObjectKind().SetGroupVersionKind(gvk)
	accessor, err := meta.ListAccessor(list)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind.Kind, err)
	}
	accessor.SetResourceVersion(format64(version))
	return list, nil
}

func format64(version uint64) string { return strconv.FormatUint(version, 10) }
