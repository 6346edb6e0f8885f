package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
)

// Events of other nodes are asked for when a client wants events: a node keeps
// its own only, and what it tells is bounded.
const (
	askEvents    = "events"
	gatherWithin = 800 * time.Millisecond
	gatherAfter  = time.Second // nobody is asked more often
	maxAnswer    = 200         // events in one answer, the newest
	maxOthers    = 2000        // events of all other nodes that are kept
	maxMessage   = 1 << 10     // bytes of an event's message
)

// eventsQuestion asks for the events that happened, or happened again, since a
// time of the node that is asked.
type eventsQuestion struct {
	Since time.Time `json:"since,omitzero"`
}

// answer answers a question of another node.
func (c *control) answer(_ context.Context, _, kind string, question []byte) ([]byte, error) {
	switch kind {
	case askEvents:
		return c.answerEvents(question)
	case askUsage:
		return c.answerUsage()
	}
	return nil, errors.New("this daemon does not know the question: it may be older than the one that asks")
}

// answerEvents tells another node of events.
func (c *control) answerEvents(question []byte) ([]byte, error) {
	var q eventsQuestion
	if err := json.Unmarshal(question, &q); err != nil {
		return nil, fmt.Errorf("read the question: %w", err)
	}
	all := slices.DeleteFunc(c.events.list(), func(e *corev1.Event) bool { return e.LastTimestamp.Time.Before(q.Since) })
	return json.Marshal(all[max(0, len(all)-maxAnswer):])
}

// others are the events that other nodes told of. Its methods may be called
// concurrently.
type others struct {
	changed func()

	gathering sync.Mutex // held by whoever asks
	asked     time.Time

	mu     sync.Mutex
	byNode map[string]map[string]*corev1.Event // by namespace and name
}

func newOthers(changed func()) *others {
	return &others{changed: changed, byNode: map[string]map[string]*corev1.Event{}}
}

// gather asks the other nodes for what a client wants of a kind, where that is known
// to each node alone.
func (c *control) gather(ctx context.Context, kind string) {
	switch kind {
	case "Event":
		c.gatherEvents(ctx)
	case "NodeMetrics", "PodMetrics":
		c.gatherUsage(ctx)
	}
}

func (c *control) gatherEvents(ctx context.Context) {
	o := c.others
	o.gathering.Lock()
	defer o.gathering.Unlock()
	if time.Since(o.asked) < gatherAfter {
		return
	}
	c.askAll(ctx, askEvents, func(node string) any { return eventsQuestion{Since: o.newest(node)} }, func(node string, raw []byte) {
		var events []*corev1.Event
		if json.Unmarshal(raw, &events) == nil {
			o.add(node, events, time.Now())
		}
	})
	o.asked = time.Now()
}

// askAll asks all other nodes that are there a question each, at the same time, and
// hands their answers on. One that does not answer in time is left out.
func (c *control) askAll(ctx context.Context, kind string, question func(node string) any, take func(node string, answer []byte)) {
	v := c.view.Load()
	if v == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, gatherWithin)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(32)
	for _, n := range v.board.Nodes {
		if n.Name == c.cfg.Node || v.board.HealthOf(n.Name).Gone() {
			continue
		}
		g.Go(func() error {
			raw, err := json.Marshal(question(n.Name))
			if err != nil {
				return nil //nolint:nilerr // a question always marshals
			}
			if raw, err = c.part.Ask(ctx, n.Name, kind, raw); err == nil {
				take(n.Name, raw)
			}
			return nil
		})
	}
	_ = g.Wait() // none of them fails
}

// newest returns the time of the last event that a node told of, by its clock.
func (o *others) newest(node string) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	var at time.Time
	for _, e := range o.byNode[node] {
		if e.LastTimestamp.After(at) {
			at = e.LastTimestamp.Time
		}
	}
	return at
}

// add takes in what a node told. Whatever it says, the events are its own.
func (o *others) add(node string, events []*corev1.Event, now time.Time) {
	news := false
	o.mu.Lock()
	if o.byNode[node] == nil {
		o.byNode[node] = map[string]*corev1.Event{}
	}
	for _, e := range events[max(0, len(events)-maxAnswer):] {
		if e == nil || e.Name == "" || e.Namespace == "" {
			continue
		}
		key := e.Namespace + "/" + e.Name
		if known := o.byNode[node][key]; known != nil && known.Count == e.Count && known.LastTimestamp.Equal(&e.LastTimestamp) {
			continue
		}
		e.APIVersion, e.Kind = "v1", "Event"
		e.Source.Host, e.ReportingInstance = node, node
		e.Message = e.Message[:min(len(e.Message), maxMessage)]
		o.byNode[node][key] = e
		news = true
	}
	o.forget(now)
	o.mu.Unlock()
	if news {
		o.changed()
	}
}

// forget drops events that are too old, and of the others the oldest when there
// are too many. o.mu is held.
func (o *others) forget(now time.Time) {
	type place struct {
		node, key string
		at        time.Time
	}
	var all []place
	for node, events := range o.byNode {
		for key, e := range events {
			if now.Sub(e.LastTimestamp.Time) > eventLifetime {
				delete(events, key)
				continue
			}
			all = append(all, place{node, key, e.LastTimestamp.Time})
		}
	}
	if len(all) <= maxOthers {
		return
	}
	slices.SortFunc(all, func(a, b place) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(a.key, b.key)) })
	for _, p := range all[:len(all)-maxOthers] {
		delete(o.byNode[p.node], p.key)
	}
}

// with returns a node's own events and those of the others. What several say, as
// that they follow a commit, is there once: as the own one, or that of the first
// node by name.
func (o *others) with(own []*corev1.Event) []*corev1.Event {
	said := map[eventID]bool{}
	out := slices.Clone(own)
	for _, e := range own {
		said[idOf(e)] = true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, node := range slices.Sorted(maps.Keys(o.byNode)) {
		for _, key := range slices.Sorted(maps.Keys(o.byNode[node])) {
			e := o.byNode[node][key]
			if id := idOf(e); !said[id] {
				said[id] = true
				out = append(out, e)
			}
		}
	}
	return out
}

// idOf returns what makes two events the same.
func idOf(e *corev1.Event) eventID {
	r := e.InvolvedObject
	return eventID{r.Kind, r.Namespace, r.Name, string(r.UID), e.Type, e.Reason, e.Message}
}
