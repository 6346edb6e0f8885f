package agent

import (
	"fmt"
	"runtime/debug"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime/probe"
)

// regards returns the object that events about the pod regard, or about one of
// its containers.
func (w *worker) regards(container string) corev1.ObjectReference {
	namespace, name := w.names()
	ref := corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: namespace, Name: name, UID: types.UID(w.instance),
	}
	if container != "" {
		ref.FieldPath = "spec.containers{" + container + "}"
	}
	return ref
}

// event tells people what happened to the pod.
func (w *worker) event(kind, reason, container, message string) {
	w.a.record(w.regards(container), kind, reason, message)
}

// tell is like event for warnings, but says the same thing only once in a row.
func (w *worker) tell(reason, container, message string) {
	key := reason + "/" + container
	if w.told[key] == message {
		return
	}
	w.told[key] = message
	w.event(corev1.EventTypeWarning, reason, container, message)
}

func (a *Agent) record(regards corev1.ObjectReference, kind, reason, message string) {
	a.cfg.Record(api.Event{
		Time: time.Now(), Type: kind, Reason: reason, Message: message, Source: "runtime", Regards: regards,
	})
}

// nodeEvent tells of something that regards the whole machine.
func (a *Agent) nodeEvent(reason, message string) {
	a.record(a.node(),
		corev1.EventTypeWarning, reason, message)
}

// unhealthy is called for every probe that fails.
func (a *Agent) unhealthy(t probe.Target, kind probe.Kind, message string) {
	a.mu.Lock()
	r := a.reports[t.Instance]
	a.mu.Unlock()
	if !r.known {
		return
	}
	a.record(corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: r.pod.Object.Namespace, Name: r.pod.Object.Name,
		UID: types.UID(t.Instance), FieldPath: "spec.containers{" + t.Container.Name + "}",
	}, corev1.EventTypeWarning, "Unhealthy", string(kind)+" probe failed: "+message)
}

// guard runs f; a panic in it becomes an event instead of the daemon's end.
func (a *Agent) guard(regards corev1.ObjectReference, f func()) {
	defer func() {
		if p := recover(); p != nil {
			a.record(regards, corev1.EventTypeWarning, "InternalError", fmt.Sprintf("%v at %s", p, firstFrame(debug.Stack())))
		}
	}()
	f()
}

// background runs f beside the worker until it ends by itself or with ctx.
func (a *Agent) background(regards corev1.ObjectReference, f func()) {
	a.wg.Go(func() { a.guard(regards, f) })
}
