package evict

import (
	"cmp"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Reading is how much of something is left, of how much.
type Reading struct{ Available, Capacity int64 }

// Use is what something uses of what can run short. What is not known is 0.
type Use struct {
	Memory    int64 // bytes that cannot be dropped at once
	Disk      int64 // bytes on the node's disk: logs and volumes, and layers if there is no other disk
	Layers    int64 // bytes that containers have written into their own file systems
	Inodes    int64 // on the node's disk
	Processes int64
}

// Container is what a container uses and has requested.
type Container struct {
	Name            string
	Memory, Request int64 // bytes of memory
	Disk, Claim     int64 // bytes of disk, and of ephemeral-storage requested
}

// Pod is a pod that runs on the machine.
type Pod struct {
	Instance string
	Priority int32
	// Critical pods are never evicted. See Critical.
	Critical   bool
	Grace      time.Duration // that it asks for
	Used       Use
	Memory     int64 // bytes requested
	Disk       int64 // bytes of ephemeral-storage requested
	Containers []Container
	// Ending is since when it is being ended; zero while it is not.
	Ending time.Time
}

// Input is what a decision is made from.
type Input struct {
	// Readings of what could be measured; nothing is decided by what could not.
	Readings map[Signal]Reading
	Pods     []Pod
	// OneDisk says that the node's disk is that of the images, too: then only the
	// thresholds of the node's disk count.
	OneDisk bool
	// Reclaimed says that all was freed that no pod needs, and measured again.
	Reclaimed bool
	Past      Past
	Now       time.Time
}

// Past is what is remembered from one decision to the next.
type Past struct {
	Since map[Threshold]time.Time                // when what is below a threshold fell below it
	Seen  map[corev1.NodeConditionType]time.Time // when a condition last had a cause
}

// Decision says how the machine is and what to do about it.
type Decision struct {
	// Conditions that hold, sorted.
	Conditions []corev1.NodeConditionType
	// Reclaim says that what no pod needs should be freed first, then measured and
	// decided again: dead containers, images that nobody uses.
	Reclaim bool
	Victim  *Victim
	// Due are what the machine has run short of for longer than the grace periods,
	// most urgent first: what pods use of these should be known.
	Due  []Signal
	Past Past
}

// Victim is a pod that has to go.
type Victim struct {
	Instance string
	Signal   Signal
	Message  string
	Grace    time.Duration // 0: at once
}

// endingTime is for how long the end of one pod is waited for before the next one
// is chosen, as in kubelet.
const endingTime = 30 * time.Second

// Decide says which conditions hold and which pod has to go, one at most.
func Decide(p Policy, in Input) Decision {
	thresholds := p.within(in.OneDisk)
	met := met(thresholds, in)
	d := Decision{Past: Past{Since: map[Threshold]time.Time{}, Seen: maps.Clone(in.Past.Seen)}}
	if d.Past.Seen == nil {
		d.Past.Seen = map[corev1.NodeConditionType]time.Time{}
	}
	var due []Threshold
	for _, t := range met {
		since, known := in.Past.Since[t]
		if !known || since.After(in.Now) { // the clock went back
			since = in.Now
		}
		d.Past.Since[t] = since
		// "Conditions are independent of grace periods."
		d.Past.Seen[conditions[t.Signal]] = in.Now
		if in.Now.Sub(since) >= t.Grace {
			due = append(due, t)
			d.Due = append(d.Due, t.Signal)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(d.Past.Seen)) {
		age := in.Now.Sub(d.Past.Seen[kind])
		caused := slices.ContainsFunc(met, func(t Threshold) bool { return conditions[t.Signal] == kind })
		if caused || age >= 0 && age < p.Transition {
			d.Conditions = append(d.Conditions, kind)
		} else {
			delete(d.Past.Seen, kind)
		}
	}
	if len(due) == 0 || slices.ContainsFunc(in.Pods, func(pod Pod) bool { return pod.ending(in.Now) }) {
		return d
	}
	if d.Reclaim = !in.Reclaimed && slices.ContainsFunc(due, func(t Threshold) bool { return OnDisk(t.Signal) }); d.Reclaim && OnDisk(due[0].Signal) {
		return d
	}
	d.Victim = p.choose(due, in)
	return d
}

func (p Pod) ending(now time.Time) bool {
	return !p.Ending.IsZero() && now.Sub(p.Ending) < endingTime && !p.Ending.After(now)
}

// conditions are what nodes have when they run short of something.
// Source: Kubernetes, "Node-pressure Eviction: Node conditions".
var conditions = map[Signal]corev1.NodeConditionType{
	Memory: corev1.NodeMemoryPressure, Allocatable: corev1.NodeMemoryPressure,
	NodeFS: corev1.NodeDiskPressure, NodeInodes: corev1.NodeDiskPressure, ImageFS: corev1.NodeDiskPressure, ImageInodes: corev1.NodeDiskPressure,
	PIDs: corev1.NodePIDPressure,
}

// OnDisk reports whether a signal is of bytes or inodes on a disk.
func OnDisk(s Signal) bool { return conditions[s] == corev1.NodeDiskPressure }

// met are the thresholds below which something is. One that was met is met until
// there is as much more as has to be reclaimed.
func met(thresholds []Threshold, in Input) []Threshold {
	var out []Threshold
	for _, t := range thresholds {
		reading, known := in.Readings[t.Signal]
		if !known {
			continue
		}
		least := t.Least.Of(reading.Capacity)
		if _, was := in.Past.Since[t]; was {
			least += t.Reclaim.Of(reading.Capacity)
		}
		if reading.Available < least {
			out = append(out, t)
		}
	}
	return out
}

// choose returns the first pod in the order of what runs short most urgently. One
// that uses nothing of it stays: its end would help nobody.
func (p Policy) choose(due []Threshold, in Input) *Victim {
	t := due[0]
	pods := slices.DeleteFunc(slices.Clone(in.Pods), func(pod Pod) bool {
		used, _ := demand(t.Signal, pod)
		return pod.Critical || !pod.Ending.IsZero() || used <= 0
	})
	if len(pods) == 0 {
		return nil
	}
	victim := slices.MinFunc(pods, order(t.Signal))
	grace := time.Duration(0)
	if t.Grace > 0 {
		grace = min(victim.Grace, p.MaxPodGrace)
	}
	return &Victim{Instance: victim.Instance, Signal: t.Signal, Message: message(victim, t, in), Grace: grace}
}

// order sorts pods by who goes first. "Whether the usage exceeds requests, then
// priority, then usage relative to requests"; where nothing can be requested, by
// priority and then by usage.
func order(s Signal) func(a, b Pod) int {
	return func(a, b Pod) int {
		used, requested := demand(s, a)
		otherUsed, otherRequested := demand(s, b)
		var exceeds int
		if requests(s) {
			exceeds = -compareBool(used > requested, otherUsed > otherRequested)
		}
		return cmp.Or(exceeds,
			cmp.Compare(a.Priority, b.Priority),
			cmp.Compare(otherUsed-otherRequested, used-requested),
			cmp.Compare(a.Instance, b.Instance))
	}
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// requests reports whether pods can request of what runs short.
func requests(s Signal) bool { return s != NodeInodes && s != ImageInodes && s != PIDs }

// demand is what a pod uses and has requested of what runs short.
func demand(s Signal, p Pod) (used, requested int64) {
	switch s {
	case Memory, Allocatable:
		return p.Used.Memory, p.Memory
	case NodeFS:
		return p.Used.Disk, p.Disk
	case ImageFS:
		return p.Used.Layers, p.Disk
	case NodeInodes, ImageInodes:
		return p.Used.Inodes, 0
	case PIDs:
		return p.Used.Processes, 0
	}
	return 0, 0
}

// Tight reports whether so little is left that it should be looked at often: four
// times a threshold, or less than a tenth of the memory.
func (p Policy) Tight(readings map[Signal]Reading, oneDisk bool) bool {
	return slices.ContainsFunc(p.within(oneDisk), func(t Threshold) bool {
		r, known := readings[t.Signal]
		return known && !OnDisk(t.Signal) && r.Available < max(4*t.Least.Of(r.Capacity), 0) && r.Available < r.Capacity/2 ||
			known && t.Signal == Memory && r.Available < r.Capacity/10
	})
}

// within are the thresholds with those of Allocatable, and without those of the
// disk of images where that is the node's own.
func (p Policy) within(oneDisk bool) []Threshold {
	out := make([]Threshold, 0, len(p.Thresholds)+1)
	for _, t := range p.Thresholds {
		if oneDisk && (t.Signal == ImageFS || t.Signal == ImageInodes) {
			continue
		}
		out = append(out, t)
		if t.Signal == Memory && t.Grace == 0 {
			t.Signal = Allocatable
			out = append(out, t)
		}
	}
	slices.SortStableFunc(out, func(a, b Threshold) int { return cmp.Compare(urgency(a.Signal), urgency(b.Signal)) })
	return out
}

// urgency puts memory first: it is what ends a machine soonest.
func urgency(s Signal) int {
	if s == Allocatable {
		return 0
	}
	return 2 * slices.Index(signals, s)
}
