package scheduler

import (
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
)

// randomVolumes draws what a spec says of StatefulSets and of volumes.
func randomVolumes(t *rapid.T, out map[string]string) {
	maybe := func(option string, values ...string) {
		if value := rapid.SampledFrom(append(values, "")).Draw(t, option); value != "" {
			out[option] = value
		}
	}
	maybe("order", "Parallel")
	maybe("partition", "1", "2")
	maybe("start", "2")
	maybe("claims", "data", "data+log")
	maybe("whenScaled", "Delete")
	maybe("whenDeleted", "Delete")
	maybe("access", "ReadWriteOncePod")
	if rapid.IntRange(0, 3).Draw(t, "mounts") == 0 {
		out["pvc"] = rapid.SampledFrom([]string{"a", "a", "b", "a+b", "data-a-0"}).Draw(t, "pvc")
	}
}

// checkVolumes: a pod is where its volumes are, and one that needs a volume is
// nowhere before the volume is.
func (m *model) checkVolumes(t *rapid.T, a api.Assignment, mold api.Mold) {
	for _, v := range mold.Volumes {
		id := v.Of(a.Pod.Identity).String()
		holder, bound := m.claims[id]
		if !bound || holder.Node != a.Node {
			t.Fatalf("%s is on %s, its volume %s on %q:\n%s", a.Pod, a.Node, id, holder.Node, m.describe())
		}
	}
}

// A volume gets a node once, under one claim, for as long as any pod uses it; and
// what is given up is used by nobody.
func TestVolumesStayWhereTheyAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFleet(t)
		former := map[string]api.ClaimHolder{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				f.randomFault(t)
			case 1:
				s := randomSpec(t)
				s.kind = rapid.SampledFrom([]string{"StatefulSet", "StatefulSet", "Deployment", "PersistentVolumeClaim"}).Draw(t, "what")
				if rapid.IntRange(0, 3).Draw(t, "goes") == 0 {
					delete(f.objects, s.kind+"/"+s.name)
				} else {
					f.commitSpec(s)
				}
			default:
				f.work(t)
			}
			used := map[string]bool{}
			for instance, s := range f.states {
				for _, v := range f.set.Molds[s.Pod.MoldKey()].Volumes {
					used[v.Of(s.Pod.Identity).String()] = f.where[instance] != ""
				}
			}
			f.schedule()
			for id, was := range former {
				is, there := f.claims[id]
				if (is.Claim != was.Claim || is.Node != was.Node) && (there && is.Claim == was.Claim || used[id]) {
					t.Fatalf("%s was %+v and is %+v, %v:\n%s", id, was, is, there, f.describe())
				}
			}
			for _, d := range f.facts.Discards {
				if _, ok := api.ParseVolumeClaim(d.Identity); !ok || used[d.Identity] && f.claims[d.Identity].Claim == d.Claim {
					t.Fatalf("%+v is to be deleted, used: %v:\n%s", d, used, f.describe())
				}
			}
			former = maps.Clone(f.claims)
			maps.DeleteFunc(former, func(id string, _ api.ClaimHolder) bool { _, ok := api.ParseVolumeClaim(id); return !ok })
			f.check(t)
		}
	})
}

// In order, a pod starts only when all before it are available, and never is more
// than one pod of a StatefulSet that rolls on its way.
func TestOrderHasNoGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel()
		m.addNode("n1", 64, 110, "")
		m.addNode("n2", 64, 110, "")
		s := spec{kind: "StatefulSet", name: "a", revision: "r1", replicas: 3, history: 2, more: map[string]string{}}
		randomVolumes(t, s.more)
		delete(s.more, "order")
		delete(s.more, "pvc")
		s.minReady = int32(rapid.SampledFrom([]int{0, 5}).Draw(t, "minReady"))
		m.commitSpec(s)
		for range rapid.IntRange(5, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0, 1:
				m.obey()
			case 2, 3:
				m.ready("a", rapid.SampledFrom([]string{"r1", "r2", ""}).Draw(t, "whose"), rapid.IntRange(0, 3).Draw(t, "ready") > 0)
			case 4:
				m.now = m.now.Add(4 * time.Second)
			case 5:
				s.revision = rapid.SampledFrom([]string{"r1", "r2", "bad1"}).Draw(t, "revision")
				s.replicas = int32(rapid.IntRange(0, 5).Draw(t, "replicas"))
				m.commitSpec(s)
			case 6:
				m.endPods("a", strconv.Itoa(rapid.IntRange(0, 3).Draw(t, "which")), 1, "")
			}
			m.checkOrder(t, int(s.replicas), seconds(s.minReady))
		}
	})
}

// checkOrder decides once and looks at what that decision starts and stops.
func (m *model) checkOrder(t *rapid.T, want int, minReady time.Duration) {
	before := m.set
	known, available := map[string]bool{}, map[int]bool{}
	first := 0
	if value, given := m.objects["StatefulSet/a"]; given {
		first = firstOrdinal(setOf(value))
	}
	note := func(p api.Pod) { known[p.Instance] = true }
	for _, a := range before.Pods {
		note(a.Pod)
	}
	for _, u := range before.Pending {
		note(u.Pod)
	}
	for instance, state := range m.states {
		p := &pod{Pod: state.Pod, state: &state}
		if ok, _ := p.available(minReady, m.now); ok && !before.Removes(instance) && !p.ended() {
			n, _ := strconv.Atoi(state.Pod.Slot)
			available[n] = true
		}
	}
	m.schedule()
	m.check(t)
	started := append(slices.Clone(m.set.Pending), make([]api.Unplaced, 0, len(m.set.Pods))...)
	for _, a := range m.set.Pods {
		started = append(started, api.Unplaced{Pod: a.Pod})
	}
	for _, u := range started {
		if known[u.Pod.Instance] {
			continue
		}
		n, _ := strconv.Atoi(u.Pod.Slot)
		for before := first; before < n; before++ {
			if !available[before] {
				t.Fatalf("%s starts though %d is not available:\n%s", u.Pod.Identity, before, m.describe())
			}
		}
		if n < first || n >= first+want {
			t.Fatalf("%s is not wanted:\n%s", u.Pod.Identity, m.describe())
		}
	}
	stopped := 0
	for _, r := range m.set.Remove {
		if n, _ := strconv.Atoi(r.Assignment.Pod.Slot); !before.Removes(r.Assignment.Pod.Instance) && r.Reason != reasonEnded && available[n] {
			stopped++
		}
	}
	if stopped > 1 {
		t.Fatalf("%d available pods go at once:\n%s", stopped, m.describe())
	}
}
