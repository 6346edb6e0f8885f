package api

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/kube"
)

// bookmarkEvery is how often an idle watch that asks for bookmarks gets one;
// Kubernetes sends them about once a minute.
const bookmarkEvery = time.Minute

// gatherEvery is how often an open watch brings in what other nodes know.
const gatherEvery = 2 * time.Second

// writeTimeout is how long a client may take to read what it is sent before its
// watch is dropped: a slow reader must not hold memory.
const writeTimeout = 30 * time.Second

// A watcher is one watch under way.
type watcher struct {
	server  *Server
	w       http.ResponseWriter
	control *http.ResponseController
	format  format
	request request
	match   func(api.KubeObject) bool
	include metav1.IncludeObjectPolicy
	frames  func([]byte) error
}

func (s *Server) serveWatch(w http.ResponseWriter, r *http.Request, q request) {
	f, err := negotiateFor(r, q.kind)
	if err == nil && f.StreamSerializer == nil {
		err = fmt.Errorf("%s cannot be streamed", f.MediaType)
	}
	if err != nil {
		s.fail(w, r, apierrors.NewGenericServerResponse(http.StatusNotAcceptable, "watch", q.kind.Resource().GroupResource(), "", err.Error(), 0, false))
		return
	}
	match, err := matcher(r, q)
	if err != nil {
		s.fail(w, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	s.watchers.Add(1)
	defer s.watchers.Add(-1)
	s.gather(r.Context(), q.kind.Kind)
	s.update()

	query := r.URL.Query()
	ctx := r.Context()
	if seconds, err := strconv.Atoi(query.Get("timeoutSeconds")); err == nil && seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
		defer cancel()
	}
	wt := &watcher{server: s, w: w, control: http.NewResponseController(w), format: f, request: q, match: match, include: include(r)}
	framer := f.StreamSerializer.Framer.NewFrameWriter(w)
	wt.frames = func(b []byte) error {
		_ = wt.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every writer has deadlines
		if _, err := framer.Write(b); err != nil {
			return err
		}
		return wt.control.Flush()
	}
	version := query.Get("resourceVersion")
	from, err := wt.begin(version, query.Get("sendInitialEvents") == "true")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	contentType := f.MediaType
	if contentType != runtime.ContentTypeJSON {
		contentType += ";stream=watch"
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(http.StatusOK)
	_ = wt.control.Flush()
	wt.run(ctx, from, query.Get("allowWatchBookmarks") == "true")
}

// A start says where a watch begins: with the objects that exist, or after a
// version.
type start struct {
	initial  []entry
	version  uint64
	bookmark bool // the end of the initial objects is to be marked
}

// begin works out where to start. No version, or zero, means "with what there
// is". Source: Kubernetes API Concepts, "Efficient detection of changes" and
// "Streaming lists".
func (wt *watcher) begin(version string, sendInitial bool) (start, error) {
	kind := wt.request.kind.GroupKind()
	if sendInitial || version == "" || version == "0" {
		entries, at := wt.server.store.list(kind, wt.match)
		return start{initial: entries, version: at, bookmark: sendInitial}, nil
	}
	from, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return start{}, apierrors.NewBadRequest(fmt.Sprintf("resourceVersion: %q is no version", version))
	}
	if _, _, _, ok := wt.server.store.since(kind, from); !ok {
		return start{}, apierrors.NewResourceExpired("this node did not hand out resourceVersion " + version + ", or forgot it: list again")
	}
	return start{version: from}, nil
}

func (wt *watcher) run(ctx context.Context, from start, bookmarks bool) {
	for _, e := range from.initial {
		if wt.send(watch.Added, e.object, e.version) != nil {
			return
		}
	}
	if from.bookmark && wt.bookmark(from.version, true) != nil {
		return
	}
	ticker := time.NewTicker(bookmarkEvery)
	defer ticker.Stop()
	gather := time.NewTicker(gatherEvery)
	defer gather.Stop()
	version := from.version
	for {
		changes, upTo, news, ok := wt.server.store.since(wt.request.kind.GroupKind(), version)
		if !ok {
			_ = wt.sendError(apierrors.NewResourceExpired("the watch fell too far behind: list again"))
			return
		}
		for _, c := range changes {
			if wt.sendChange(c) != nil {
				return
			}
		}
		version = upTo
		select {
		case <-ctx.Done():
			return
		case <-news:
		case <-gather.C:
			wt.server.gather(ctx, wt.request.kind.Kind)
		case <-ticker.C:
			if bookmarks && wt.bookmark(version, false) != nil {
				return
			}
		}
	}
}

// sendChange sends a change as it looks through the watch's selectors: an
// object that starts to match is added, one that ceases to is deleted.
func (wt *watcher) sendChange(c change) error {
	before := c.before != nil && wt.match(c.before)
	after := c.event != watch.Deleted && wt.match(c.object)
	switch {
	case !before && !after:
		return nil
	case !before:
		return wt.send(watch.Added, c.object, c.version)
	case !after:
		return wt.send(watch.Deleted, c.before, c.version)
	}
	return wt.send(watch.Modified, c.object, c.version)
}

func (wt *watcher) send(event watch.EventType, object api.KubeObject, version uint64) error {
	shaped, err := shape(wt.format, wt.request.kind, []entry{{object, version}}, version, false, wt.include)
	if err != nil {
		return err
	}
	return wt.frame(event, shaped)
}

// bookmark tells how far the watch has come, and at the end of a streamed list
// that it is complete.
func (wt *watcher) bookmark(version uint64, endOfList bool) error {
	object, err := kube.Scheme().New(wt.request.kind.GroupVersionKind)
	if err != nil {
		return err
	}
	marked, ok := object.(api.KubeObject)
	if !ok {
		return fmt.Errorf("bookmark %s: not an object", wt.request.kind.Kind)
	}
	marked.GetObjectKind().SetGroupVersionKind(wt.request.kind.GroupVersionKind)
	marked.SetResourceVersion(format64(version))
	if endOfList {
		marked.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	if wt.format.table || wt.format.partial {
		shaped, err := shape(wt.format, wt.request.kind, []entry{{marked, version}}, version, false, metav1.IncludeMetadata)
		if err != nil {
			return err
		}
		return wt.frame(watch.Bookmark, shaped)
	}
	return wt.frame(watch.Bookmark, marked)
}

func (wt *watcher) sendError(err *apierrors.StatusError) error {
	status := err.Status()
	status.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Status"})
	return wt.frame(watch.Error, &status)
}

// frame writes one event: the object in the client's format inside a WatchEvent
// in the client's format.
func (wt *watcher) frame(event watch.EventType, object runtime.Object) error {
	var inner, outer bytes.Buffer
	if err := wt.format.Serializer.Encode(object, &inner); err != nil {
		return err
	}
	frame := &metav1.WatchEvent{Type: string(event), Object: runtime.RawExtension{Raw: bytes.TrimSpace(inner.Bytes())}}
	if wt.format.MediaType != runtime.ContentTypeJSON {
		frame.Object.Raw = inner.Bytes()
	}
	if err := wt.format.StreamSerializer.Serializer.Encode(frame, &outer); err != nil {
		return err
	}
	return wt.frames(outer.Bytes())
}
