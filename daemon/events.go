package daemon

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-dev/shoal/api"
)

// Events are kept for an hour, as in Kubernetes, and never more than maxEvents
// of them.
const (
	eventLifetime = time.Hour
	maxEvents     = 2000
)

// events remembers what happened lately. Its methods may be called
// concurrently.
type events struct {
	node    string
	changed func()

	mu   sync.Mutex
	byID map[eventID]*corev1.Event
}

type eventID struct{ kind, namespace, name, uid, typ, reason, message string }

func newEvents(node string, changed func()) *events {
	return &events{node: node, changed: changed, byID: map[eventID]*corev1.Event{}}
}

// record adds an event, or counts one more of the same.
func (e *events) record(event api.Event) {
	e.mu.Lock()
	r := event.Regards
	id := eventID{r.Kind, r.Namespace, r.Name, string(r.UID), event.Type, event.Reason, event.Message}
	stamp := metav1.NewTime(event.Time)
	if known, found := e.byID[id]; found {
		next := *known
		next.Count++
		next.LastTimestamp = stamp
		e.byID[id] = &next
	} else {
		e.forget(event.Time)
		e.byID[id] = e.newEvent(event, stamp)
	}
	e.mu.Unlock()
	e.changed()
}

func (e *events) newEvent(event api.Event, stamp metav1.Time) *corev1.Event {
	regards := event.Regards
	namespace := cmp.Or(regards.Namespace, metav1.NamespaceDefault)
	uid := uuid.NewString()
	return &corev1.Event{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{
			Name: regards.Name + "." + strings.ReplaceAll(uid, "-", "")[:16], Namespace: namespace,
			UID: types.UID(uid), CreationTimestamp: stamp,
		},
		InvolvedObject: regards, Reason: event.Reason, Message: event.Message, Type: event.Type, Count: 1,
		Source:         corev1.EventSource{Component: event.Source, Host: e.node},
		FirstTimestamp: stamp, LastTimestamp: stamp, ReportingController: "shoal/" + event.Source, ReportingInstance: e.node,
	}
}

// forget drops events that are too old, and the oldest when there are too many.
func (e *events) forget(now time.Time) {
	for id, event := range e.byID {
		if now.Sub(event.LastTimestamp.Time) > eventLifetime {
			delete(e.byID, id)
		}
	}
	for len(e.byID) >= maxEvents {
		var oldest eventID
		var at time.Time
		for id, event := range e.byID {
			if at.IsZero() || event.LastTimestamp.Time.Before(at) {
				oldest, at = id, event.LastTimestamp.Time
			}
		}
		delete(e.byID, oldest)
	}
}

// list returns the events, oldest first.
func (e *events) list() []*corev1.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]*corev1.Event, 0, len(e.byID))
	for _, event := range e.byID {
		out = append(out, event)
	}
	slices.SortFunc(out, func(a, b *corev1.Event) int {
		return cmp.Or(a.LastTimestamp.Time.Compare(b.LastTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	return out
}
