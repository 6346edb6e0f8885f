package scheduler

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
)

// A fleet is a model whose nodes come and go, with checks of what must hold
// whatever happens.
type fleet struct {
	*model
	former api.AssignmentSet
}

func newFleet(t *rapid.T) *fleet {
	f := &fleet{model: newModel()}
	for i := range rapid.IntRange(1, 5).Draw(t, "nodes") {
		f.addNode(fmt.Sprintf("n%d", i+1), int64(rapid.IntRange(1, 8).Draw(t, "cpu")), int64(rapid.IntRange(2, 30).Draw(t, "pods")), "")
	}
	return f
}

func (f *fleet) randomNode(t *rapid.T) string {
	return rapid.SampledFrom(slices.Sorted(maps.Keys(f.nodes))).Draw(t, "node")
}

// randomFault changes what is known of the fleet, not what should run.
func (f *fleet) randomFault(t *rapid.T) {
	name := f.randomNode(t)
	switch rapid.IntRange(0, 12).Draw(t, "fault") {
	case 0, 1, 2:
		f.judge(name, api.NodeLost)
	case 3, 4, 5:
		f.judge(name, api.NodeAlive)
	case 6:
		f.judge(name, api.NodeSuspect)
	case 7:
		h := f.health[name]
		h.Node, h.Unstable = name, rapid.Bool().Draw(t, "unstable")
		f.health[name] = h
	case 8:
		f.silent[name] = rapid.Bool().Draw(t, "silent")
	case 9:
		f.acting = rapid.Bool().Draw(t, "acting")
	case 10:
		f.slow = rapid.Bool().Draw(t, "slow")
	case 11:
		f.checked = f.now
	case 12:
		f.release()
	}
	f.now = f.now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
}

// work draws something that is no fault: commits, obedience, readiness.
func (f *fleet) work(t *rapid.T) {
	switch rapid.IntRange(0, 9).Draw(t, "work") {
	case 9:
		f.randomSettings(t)
	case 8:
		f.randomAutoscaler(t)
	case 0:
		s := randomSpec(t)
		s.exclusive, s.priority = rapid.Bool().Draw(t, "exclusive"), int32(rapid.IntRange(0, 2).Draw(t, "priority"))
		if rapid.IntRange(0, 5).Draw(t, "bound") == 0 {
			s.hostname = f.randomNode(t)
		}
		f.commitSpec(s)
	case 1, 2, 3:
		f.obey()
	case 4, 5:
		f.ready(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "owner"), "", true)
	case 6:
		n := f.nodes[f.randomNode(t)]
		n.Draining = rapid.Bool().Draw(t, "draining")
		f.nodes[n.Name] = n
	case 7:
		for instance, s := range f.states {
			if s.Pod.Owner == "b" && !f.away(f.where[instance]) {
				s.Phase, s.Ready = corev1.PodFailed, false
				f.states[instance] = s
			}
		}
	}
}

// randomFaults draws a fleet in the middle of trouble.
func randomFaults(t *rapid.T) *fleet {
	f := newFleet(t)
	for range rapid.IntRange(1, 25).Draw(t, "steps") {
		if rapid.IntRange(0, 2).Draw(t, "kind") == 0 {
			f.randomFault(t)
		} else {
			f.work(t)
		}
		f.schedule()
		f.checkPlaces(t)
		f.checkClaims(t)
	}
	return f
}

// checkPlaces: what fits fits, and nothing new goes where nothing may go.
func (f *fleet) checkPlaces(t *rapid.T) {
	before := map[string]bool{}
	for _, a := range f.former.Pods {
		before[a.Pod.Instance] = true
	}
	for _, record := range f.board().Pods { // adopted pods are not new
		for _, s := range record.Pods {
			before[s.Pod.Instance] = true
		}
	}
	f.check(t)
	for _, a := range f.set.Pods {
		h := f.health[a.Node]
		if before[a.Pod.Instance] {
			continue
		}
		if h.Gone() || h.Status == api.NodeSuspect || f.silent[a.Node] {
			t.Fatalf("%s is new on %s, which is %+v, silent %v:\n%s", a.Pod.Identity, a.Node, h, f.silent[a.Node], f.describe())
		}
		if (h.Unstable || f.nodes[a.Node].Draining) && a.Pod.Kind != "DaemonSet" {
			t.Fatalf("%s is new on %s, which is %+v:\n%s", a.Pod.Identity, a.Node, h, f.describe())
		}
	}
	f.former = f.set
}

// checkClaims: of one identity at most one instance runs under one claim, and
// an exclusive one never without.
func (f *fleet) checkClaims(t *rapid.T) {
	type grant struct {
		id    api.Identity
		claim api.Claim
	}
	seen := map[grant]string{}
	for _, a := range f.set.Pods {
		if a.Claim == (api.Claim{}) || a.Ended != "" {
			continue
		}
		g := grant{a.Pod.Identity, a.Claim}
		if other, taken := seen[g]; taken && other != a.Pod.Instance {
			t.Fatalf("two instances of %s under claim %+v:\n%s", a.Pod.Identity, a.Claim, f.describe())
		}
		seen[g] = a.Pod.Instance
	}
	// In truth: also on nodes that are lost, where the fencer ends what it must
	// before the claim is released.
	running := map[api.Identity]int{}
	for _, s := range f.states {
		if s.Claim != (api.Claim{}) && !over(s) {
			running[s.Pod.Identity]++
		}
	}
	for id, n := range running {
		if n > 1 {
			t.Fatalf("%d instances of %s run:\n%s", n, id, f.describe())
		}
	}
}

// withoutFaults is the board as if every node were alive and well.
func withoutFaults(b api.Board) api.Board {
	b.Health = nil
	return b
}

// A loss stops nothing: every instance that a decision tells to stop while
// nodes are lost, on nodes that are lost, is told so because of Git.
func TestNothingIsStoppedBecauseItIsLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := randomFaults(t)
		for range rapid.IntRange(1, 4).Draw(t, "losses") {
			f.judge(f.randomNode(t), api.NodeLost)
		}
		before := f.set
		d := f.decide()
		for _, r := range d.Set.Remove {
			if before.Removes(r.Assignment.Pod.Instance) || !f.away(r.Assignment.Node) {
				continue
			}
			if r.Reason != reasonGone {
				t.Fatalf("%s on %s, which is lost, is told to stop: %s\n%s", r.Assignment.Pod.Identity, r.Assignment.Node, r.Reason, f.describe())
			}
		}
		// Nor is anything that was assigned there forgotten.
		after := map[string]bool{}
		for _, a := range d.Set.Pods {
			after[a.Pod.Instance] = true
		}
		for _, a := range before.Pods {
			if f.away(a.Node) && !after[a.Pod.Instance] && !d.Set.Removes(a.Pod.Instance) {
				t.Fatalf("%s on %s, which is lost, is forgotten:\n%s", a.Pod.Identity, a.Node, f.describe())
			}
		}
	})
}

// The loss of a node stops nothing on the others either, but for what would
// have been stopped anyway, and for what makes room for more important pods.
func TestALossStopsNothingElsewhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := randomFaults(t)
		f.judge(f.randomNode(t), api.NodeLost)
		board := f.board()
		lossy := Schedule(f.snapshot(), board, f.facts, f.authority(), f.now).Set
		whole := Schedule(f.snapshot(), withoutFaults(board), f.facts, f.authority(), f.now).Set
		for _, r := range lossy.Remove {
			id := r.Assignment.Pod.Identity
			if object, found := f.objects[id.Kind+"/"+id.Owner]; found && failsWhenDisrupted(object) {
				continue // its author wants it to end with the loss of one pod
			}
			if r.Reason == reasonPreempted {
				continue // for a more important pod that was lost
			}
			if !whole.Removes(r.Assignment.Pod.Instance) {
				t.Fatalf("because of a loss, %s on %s is told to stop: %s\n%s", r.Assignment.Pod.Identity, r.Assignment.Node, r.Reason, f.describe())
			}
		}
	})
}

// failsWhenDisrupted reports whether an object is a Job, or makes Jobs, that have
// a rule for the loss of a pod.
func failsWhenDisrupted(object api.Object) bool {
	template := batchv1.JobSpec{}
	switch value := object.Value.(type) {
	case *batchv1.Job:
		template = value.Spec
	case *batchv1.CronJob:
		template = value.Spec.JobTemplate.Spec
	}
	return template.PodFailurePolicy != nil && slices.ContainsFunc(template.PodFailurePolicy.Rules, func(r batchv1.PodFailurePolicyRule) bool {
		return len(r.OnPodConditions) > 0 && r.Action != batchv1.PodFailurePolicyActionIgnore
	})
}

func TestAFleetInTroubleDecidesTheSameTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := randomFaults(t)
		board := f.board()
		d := Schedule(f.snapshot(), board, f.facts, f.authority(), f.now)
		board.Assigned = d.Set
		again := Schedule(f.snapshot(), board, d.Facts, f.authority(), f.now)
		again.Facts.Seq, d.Facts.Seq = 0, 0
		if diff := differ(d, again); diff != "" {
			t.Fatal(diff)
		}
		board.Assigned.Pods = slices.Clone(board.Assigned.Pods) // a set at rest is the same list
		slices.Reverse(board.Nodes)
		slices.Reverse(board.Pods)
		slices.Reverse(board.Health)
		slices.Reverse(board.Assigned.Pods)
		slices.Reverse(board.Assigned.Pending)
		mixed := Schedule(f.snapshot(), board, d.Facts, f.authority(), f.now)
		mixed.Facts.Seq = 0
		if diff := differ(again, mixed); diff != "" {
			t.Fatal(diff)
		}
	})
}

func differ(a, b Decision) string {
	one, _ := json.MarshalIndent(a, "", " ") // these always marshal
	two, _ := json.MarshalIndent(b, "", " ")
	if string(one) == string(two) {
		return ""
	}
	return fmt.Sprintf("the first\n%s\nthe second\n%s", one, two)
}

// Once all nodes are back the fleet comes to rest, with one pod in each slot.
func TestAFleetComesToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := randomFaults(t)
		f.release()
		f.acting, f.slow = false, false
		for name, n := range f.nodes {
			f.judge(name, api.NodeAlive)
			delete(f.silent, name)
			n.Draining = false
			f.nodes[name] = n
		}
		f.schedule()
		f.obey()
		f.now = f.now.Add(time.Minute)
		for range 3 {
			if err := f.settle(80); err != nil {
				t.Fatal(err)
			}
			f.now = f.now.Add(time.Minute)
		}
		slots := map[string]bool{}
		for _, a := range f.set.Pods {
			s, object := a.Pod.Identity.String()+a.Pod.Revision, f.objects[a.Pod.Kind+"/"+a.Pod.Owner]
			if a.Ended != "" {
				continue
			}
			moves := f.facts.Balance.Move.Pod.Identity == a.Pod.Identity
			if slots[s] && !moves && object.Revision == a.Pod.Revision && a.Pod.Revision[:1] != "b" {
				t.Fatalf("slot %s is filled twice:\n%s", s, f.describe())
			}
			slots[s] = true
		}
	})
}

// Of an exclusive identity two instances never run at once, however late nodes
// and consensus are, and whoever is lost and returns.
func TestExclusivePodsNeverRunTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := &fleet{model: newModel()}
		for _, name := range []string{"n1", "n2", "n3"} {
			f.addNode(name, 8, 20, "")
		}
		f.slow = true
		s := spec{
			kind: rapid.SampledFrom([]string{"Deployment", "ReplicaSet", "Pod", "StatefulSet"}).Draw(t, "kind"), name: "a", revision: "r1",
			recreate: rapid.Bool().Draw(t, "recreate"), surge: "1", unavailable: "0", replicas: 2, exclusive: true, history: 2,
			more: map[string]string{},
		}
		randomVolumes(t, s.more)
		f.commitSpec(s)
		var asked []ClaimRequest
		for range rapid.IntRange(10, 60).Draw(t, "steps") {
			switch name := f.randomNode(t); rapid.IntRange(0, 12).Draw(t, "step") {
			case 0, 1, 2, 3:
				f.obeyOn(name)
			case 4:
				f.judge(name, api.NodeLost)
			case 5, 6:
				f.judge(name, api.NodeAlive)
			case 7:
				f.release()
			case 8:
				s.revision = rapid.SampledFrom([]string{"r1", "r2"}).Draw(t, "revision")
				s.replicas = int32(rapid.IntRange(0, 3).Draw(t, "replicas"))
				f.commitSpec(s)
			case 9:
				n := f.nodes[name]
				n.Draining = !n.Draining
				f.nodes[name] = n
			case 10:
				f.acting = !f.acting
			case 11:
				delete(f.objects, s.kind+"/a")
			case 12:
				f.ready("a", "", true)
			}
			f.grant(asked)
			d := f.decide()
			asked, f.set, f.facts = d.Claims, d.Set, d.Facts
			f.now = f.now.Add(time.Second)
			f.check(t)
			f.checkClaims(t)
		}
	})
}

// obeyOn lets one node start and stop what was decided for it.
func (f *fleet) obeyOn(name string) {
	all := f.set
	f.set.Pods = slices.DeleteFunc(slices.Clone(all.Pods), func(a api.Assignment) bool { return a.Node != name })
	f.set.Remove = slices.DeleteFunc(slices.Clone(all.Remove), func(r api.Removal) bool { return r.Assignment.Node != name })
	f.obey()
	f.set = all
}

// grant gives the claims that were asked for, but for those that changed hands
// meanwhile.
func (f *fleet) grant(asked []ClaimRequest) {
	f.claims = Grant(f.claims, slices.DeleteFunc(slices.Clone(asked), func(r ClaimRequest) bool {
		return f.claims[r.Identity.String()].Claim != r.Expect
	}))
}

// The storm brake holds whatever is lost.
func TestTheBrakeHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFleet(t)
		for i := range 6 {
			f.addNode(fmt.Sprintf("m%d", i), 64, 200, "")
		}
		f.commitSpec(spec{kind: "Deployment", name: "a", revision: "r1", replicas: int32(rapid.IntRange(10, 120).Draw(t, "replicas")), history: 2})
		if err := f.settle(50); err != nil {
			t.Fatal(err)
		}
		type burst struct {
			at   time.Time
			pods int
		}
		var bursts []burst
		known := map[string]bool{}
		for range rapid.IntRange(5, 20).Draw(t, "steps") {
			f.judge(f.randomNode(t), rapid.SampledFrom([]api.NodeStatus{api.NodeLost, api.NodeLost, api.NodeAlive}).Draw(t, "status"))
			f.checked = f.now
			f.now = f.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "seconds")) * time.Second)
			f.schedule()
			f.obey()
			n, perNode, identities := 0, map[string]int{}, map[api.Identity]bool{}
			for _, a := range f.set.Pods {
				identities[a.Pod.Identity] = true
				if f.away(a.Node) {
					perNode[a.Node]++
				}
				if a.Reason == reasonLost && !known[a.Pod.Instance] {
					known[a.Pod.Instance] = true
					n++
				}
			}
			bursts = append(bursts, burst{f.now, n})
			sum := 0
			for _, b := range bursts {
				if f.now.Sub(b.at) < brakeWindow {
					sum += b.pods
				}
			}
			most := 0
			for _, pods := range perNode {
				most = max(most, pods)
			}
			if limit := max(10, len(identities)/5, most); n > 0 && sum > limit {
				t.Fatalf("%d replacements within 30 s, the limit is %d", sum, limit)
			}
		}
	})
}
