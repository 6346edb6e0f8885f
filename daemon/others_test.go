package daemon

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// told returns what a node answers to the question for its events.
func told(t *testing.T, e *events, since time.Time) []*corev1.Event {
	t.Helper()
	question, err := json.Marshal(eventsQuestion{Since: since})
	if err != nil {
		t.Fatal(err)
	}
	c := &control{events: e}
	raw, err := c.answer(t.Context(), "", askEvents, question)
	if err != nil {
		t.Fatal(err)
	}
	var out []*corev1.Event
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestEventsOfOthers: what other nodes told is shown beside the own events, once
// where several say the same, as theirs whatever they claim, and within bounds.
func TestEventsOfOthers(t *testing.T) {
	now := time.Now()
	nothing := func() {}
	event := func(name, message string, at time.Time) api.Event {
		return api.Event{Time: at, Type: "Normal", Reason: "R", Message: message, Source: "runtime", Regards: corev1.ObjectReference{Kind: "Pod", Namespace: "app", Name: name}}
	}
	n1, n2, changes := newEvents("n1", nothing), newEvents("n2", nothing), 0
	n1.record(event("a", "everybody says so", now))
	n2.record(event("a", "everybody says so", now))
	n2.record(event("b", strings.Repeat("x", 5000), now.Add(-time.Minute)))
	n2.record(event("c", "a moment ago", now))
	o := newOthers(func() { changes++ })
	o.add("n2", told(t, n2, o.newest("n2")), now)
	all := o.with(n1.list())
	if len(all) != 3 || all[0].Source.Host != "n1" || changes != 1 {
		t.Fatalf("%d events, %d changes", len(all), changes)
	}
	for _, e := range all[1:] {
		if e.Source.Host != "n2" || e.Kind != "Event" || len(e.Message) > maxMessage {
			t.Errorf("%+v", e)
		}
	}
	// Later only what is new comes.
	n2.record(event("c", "a moment ago", now.Add(2*time.Second)))
	again := told(t, n2, o.newest("n2"))
	if len(again) != 2 {
		t.Errorf("%d events of the last second", len(again))
	}
	o.add("n2", again, now)
	for _, e := range o.with(nil) {
		if e.InvolvedObject.Name == "c" && e.Count != 2 {
			t.Errorf("counted %d times", e.Count)
		}
	}
	o.add("n2", again, now)
	if changes != 2 {
		t.Errorf("%d changes", changes)
	}

	// A node that lies is bounded, and speaks for itself only.
	forged := []*corev1.Event{nil, {}}
	for i := range 5 * maxAnswer {
		e := n1.newEvent(event(fmt.Sprint(i), "forged", now), all[0].LastTimestamp)
		forged = append(forged, e)
	}
	o.add("n3", forged, now)
	if got := len(o.byNode["n3"]); got != maxAnswer {
		t.Errorf("%d events of one answer", got)
	}
	for i := range 2 * maxOthers / maxAnswer {
		var copies []*corev1.Event
		for _, e := range forged[2:] {
			copies = append(copies, e.DeepCopy())
		}
		o.add(fmt.Sprint("m", i), copies, now)
	}
	total := 0
	for node, events := range o.byNode {
		total += len(events)
		for _, e := range events {
			if e.Source.Host != node {
				t.Fatalf("%s speaks for %s", node, e.Source.Host)
			}
		}
	}
	if total > maxOthers {
		t.Errorf("%d events are kept", total)
	}
	o.add("n2", nil, now.Add(2*eventLifetime))
	if got := o.with(nil); len(got) != 0 {
		t.Errorf("%d events of long ago", len(got))
	}
	if _, err := (&control{events: n1}).answer(t.Context(), "", "other", nil); err == nil {
		t.Error("a question that nobody knows was answered")
	}
}
