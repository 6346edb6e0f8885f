package scheduler

import (
	"slices"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/scheduler/place"
)

// An evictor makes room for pods that fit nowhere, at the cost of pods of a
// strictly lower priority. What it evicts goes as any other pod does, in its
// time; until then the pod that it goes for waits, and nobody else gets the room.
type evictor struct {
	p       *placer
	going   []api.Removal
	left    int             // how many pods may still be made room for
	running map[string]*pod // that may be evicted; nil until somebody asks
	lowest  int32           // of their priorities
}

// look finds out which pods may be evicted.
func (e *evictor) look() {
	e.running = map[string]*pod{}
	var running []place.Running
	for _, k := range e.p.kept {
		t := k.cast.booked()
		if t == nil || k.lost || e.p.in.node(k.node) == nil {
			continue
		}
		if len(running) == 0 || t.Priority() < e.lowest {
			e.lowest = t.Priority()
		}
		e.running[k.Instance] = k
		r := place.Running{ID: k.Instance, Node: k.node, Template: t, Priority: t.Priority(), Started: k.created}
		if len(e.p.in.guards.spaces[k.Namespace]) > 0 {
			r.Labels = e.p.in.ownLabels(k)
		}
		running = append(running, r)
	}
	if e.p.fleet.SetEvictable(running, e.p.in.budgets()) != nil {
		e.left = 0
	}
}

// makeRoom leaves pods that fit nowhere pending, and has others go for them
// where that helps.
func (e *evictor) makeRoom(group []placement, d place.Demand, reason string) {
	for _, s := range group {
		if e.left > 0 && e.running == nil {
			e.look()
		}
		if e.left <= 0 || len(e.running) == 0 || s.priority <= e.lowest || s.pod.reason == reasonLost && e.p.brake.careful {
			e.p.wait(s, reason)
			continue
		}
		eviction, why := e.p.fleet.Preempt(d)
		if why != "" {
			e.p.wait(s, reason+" "+why)
			continue
		}
		e.left--
		e.p.fleet.Evict(eviction)
		e.p.fleet.Book(d.Template, eviction.Node, 1)
		for _, v := range eviction.Victims {
			e.p.fleet.Book(v.Template, v.Node, 1) // until it is gone it takes its room
			victim := e.running[v.ID]
			delete(e.running, v.ID)
			e.p.evicted = append(e.p.evicted, stop{victim, reasonPreempted})
		}
		s.pod.nominated = eviction.Node
		e.p.wait(s, waitsForVictims)
	}
}

// resume places a pod for which others were told to go, on the node that they
// leave, and keeps the room for it until they are gone. It returns false when
// there is nothing to wait for.
func (e *evictor) resume(s placement, d place.Demand) bool {
	name := s.pod.nominated
	if e.p.fleet.PlaceEach(d, []string{name})[0] == "" {
		e.p.take(s, name)
		return true
	}
	return e.holds(s, d)
}

// holds keeps the room for a pod for which others were told to go, until they are
// gone. It returns false when there is nothing to wait for.
func (e *evictor) holds(s placement, d place.Demand) bool {
	name := s.pod.nominated
	n := e.p.in.node(name)
	waits := n != nil && n.unusable() == "" && slices.ContainsFunc(e.going, func(r api.Removal) bool {
		return r.Assignment.Node == name && r.Reason == reasonPreempted
	})
	if !waits {
		s.pod.nominated = ""
		return false
	}
	e.p.fleet.Book(d.Template, name, 1)
	e.p.wait(s, waitsForVictims)
	return true
}
