package api

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/kube"
)

// A format is how a client wants its answer.
type format struct {
	runtime.SerializerInfo
	table   bool
	partial bool // PartialObjectMetadata
}

// negotiateFor is negotiate for objects of a kind: those of this program's own have
// no protobuf form.
func negotiateFor(r *http.Request, kind kube.Kind) (format, error) {
	if kind.Group == api.FleetKind.Group {
		return negotiate(r, runtime.ContentTypeProtobuf)
	}
	return negotiate(r)
}

// negotiate chooses the first of the formats that the client accepts that can
// be had, without some. No Accept header means JSON.
func negotiate(r *http.Request, without ...string) (format, error) {
	accept := r.Header.Get("Accept")
	if accept == "" {
		accept = "application/json"
	}
	for clause := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(strings.TrimSpace(clause))
		if err != nil {
			continue
		}
		if media == "*/*" || media == "application/*" {
			media = runtime.ContentTypeJSON
		}
		as := params["as"]
		if as != "" && (params["g"] != metav1.GroupName || params["v"] != "v1" && params["v"] != "v1beta1") {
			continue
		}
		var f format
		switch as {
		case "":
		case "Table":
			f.table = true
		case "PartialObjectMetadata", "PartialObjectMetadataList":
			f.partial = true
		default:
			continue
		}
		if f.table && media != runtime.ContentTypeJSON || slices.Contains(without, media) {
			continue
		}
		info, found := runtime.SerializerInfoForMediaType(kube.Codecs().SupportedMediaTypes(), media)
		if found {
			f.SerializerInfo = info
			return f, nil
		}
	}
	return format{}, fmt.Errorf("none of %q can be served: ask for application/json", accept)
}

// jsonFormat is the format of answers that come in no other.
func jsonFormat() format {
	info, _ := runtime.SerializerInfoForMediaType(kube.Codecs().SupportedMediaTypes(), runtime.ContentTypeJSON)
	return format{SerializerInfo: info}
}

// write answers with one object.
func (s *Server) write(w http.ResponseWriter, r *http.Request, f format, code int, object runtime.Object) {
	var body bytes.Buffer
	if err := f.Serializer.Encode(object, &body); err != nil {
		http.Error(w, "encode answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", f.MediaType)
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body.Bytes()) // a client that is gone needs no answer
	}
}

// fail answers with an error, as a Status that kubectl prints.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var known apierrors.APIStatus
	status := metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError, Message: err.Error()}
	if errors.As(err, &known) {
		status = known.Status()
	}
	status.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Status"})
	f, nerr := negotiate(r)
	if nerr != nil || f.table || f.partial {
		f = jsonFormat()
	}
	s.write(w, r, f, int(status.Code), &status)
}

func notFoundPath(r *http.Request) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Message: "the server could not find the requested resource: " + r.URL.Path,
	}}
}
