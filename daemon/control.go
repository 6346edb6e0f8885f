package daemon

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/fleet"
	"github.com/shoal-dev/shoal/internal/loop"
	"github.com/shoal-dev/shoal/policy"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/agent"
	"github.com/shoal-dev/shoal/scheduler"
)

// control is the loop that decides. Its fields below the line belong to the
// goroutine that runs step.
type control struct {
	cfg      Config
	ranges   ranges
	fleet    string
	version  string
	log      *slog.Logger
	machine  Machine
	repo     Repository
	part     *fleet.Fleet // this node's part in its fleet
	agent    *agent.Agent
	events   *events
	others   *others    // events of other nodes
	address  netip.Addr // of this node
	boot     int64      // when this daemon started, in Unix nanoseconds
	metrics  *metrics
	view     atomic.Pointer[view]
	node     atomic.Pointer[api.NodeInfo]
	marks    atomic.Pointer[Marks]
	precise  atomic.Pointer[api.Usage]       // what this node has measured last
	measured measured                        // what the others have
	looking  sync.Mutex                      // held by lookAtNode
	drained  atomic.Pointer[map[string]bool] // removed instances that no rule leads to any more
	publish  func()                          // pokes whoever follows the view
	// nodeChanged is poked when the node's record changed.
	nodeChanged chan struct{}
	lookPoke    chan struct{} // asks for the node's record to be made anew

	checkpoint checkpoint
	decided    decided
	objects    map[string]*corev1.Pod     // by instance, without status
	pinned     map[string]*runtime.Config // by instance, of this node's pods that do not follow the newest
	missing    map[string]string          // by instance: why it has no object
	kept       []api.Commit
	config     configCache
	policies   []api.ImagePolicy
	states     api.PodStates // as last read, with the number of its last change
	units      map[string]api.UnitStatus
	said       map[string]string // last message logged on each subject, under saying
	saying     sync.Mutex
	yielded    time.Time // when another node was last asked to lead, under looking
	conflicts  []policy.Conflict
	told       map[string]bool // conflicts that were told
	hinted     map[api.Commit]bool
	lacking    scheduler.Lacking
	held       map[api.Commit]bool   // commits of others that this node has, too
	recording  atomic.Bool           // addresses are on their way into the ledger
	releasing  atomic.Bool           // claims are on their way out of it
	giving     chan struct{}         // a slot for each part of an image that is given to others
	asides     sync.WaitGroup        // what goes on beside the loop; Run waits for it
	accepted   map[string]api.Commit // as last told of this node
}

// step is one turn of the loop: read everything anew, decide, act. It returns
// when to look again though nothing changed.
func (c *control) step(ctx context.Context) time.Time {
	started := time.Now()
	snapshot := c.repo.Latest()
	states, observed := c.observe()
	if observed && !c.nodeReady() {
		// Just started, most likely: the record is older than the listing.
		c.lookAtNode(ctx)
	}
	now := time.Now()
	c.tellUnits(now)
	if accepted := acceptedOf(c.repo.Status()); !maps.Equal(accepted, c.accepted) {
		c.accepted = accepted
		loop.Poke(c.lookPoke) // the others want to know
	}
	if observed {
		c.report("tell the fleet of this node's pods", c.part.SetStates(states))
	}
	now = time.Now() // what the fleet says must not be newer than now
	company := c.part.View()
	c.hint(company.Board.Nodes)
	c.decided = decided{company.Board.Assigned, company.Facts}
	var wake time.Time
	if company.Leads && (observed || len(company.Board.Nodes) > 1) {
		// A machine that has not said what it holds is left as it is; in a
		// fleet of one nothing is decided then.
		if c.lacking, wake = c.lacking.Behind(c.repo.Status(), c.holds, company.Board, now); wake.IsZero() {
			wake = c.decide(ctx, snapshot, company, now)
		}
	}
	board := company.Board
	board.Assigned = c.decided.Assigned
	c.sync(snapshot, company.Ledger)
	c.publishView(snapshot, board, company, observed, now)
	if c.decided.Assigned.Known() {
		// Kept after it is acted upon: a start must not wait for the disk, and
		// what was started and not kept is adopted after a crash, by its
		// labels. A full disk must not stop the fleet either.
		c.report("keep decisions", c.checkpoint.save(c.decided))
	}
	if end := now.Add(usageShown); looksAtUsage(snapshot) && (wake.IsZero() || end.Before(wake)) {
		wake = end
	}
	c.noteDisk()
	c.notePressure()
	c.metrics.turns.Observe(time.Since(started).Seconds())
	return wake
}

// acceptedOf returns the commits that are in force and those that are seen.
func acceptedOf(units []api.UnitStatus) map[string]api.Commit {
	out := map[string]api.Commit{}
	for _, u := range units {
		out[u.Unit], out[u.Unit+" tip"] = u.Accepted.Commit, u.Tip.Commit
	}
	return out
}

// observe reads what the machine holds. The record gets a new number when it
// differs from the last one. Before the machine was listed nothing is known.
func (c *control) observe() (api.PodStates, bool) {
	states := c.agent.States()
	states.Seq = c.states.Seq
	if !reflect.DeepEqual(states, c.states) {
		states.Seq = api.Seq{Boot: c.boot, N: states.Seq.N + 1}
		c.states = states
	}
	return states, c.agent.Adopted()
}

// decide schedules, remembers the result, and tells what changed.
func (c *control) decide(ctx context.Context, snapshot api.Snapshot, company fleet.View, now time.Time) time.Time {
	a, board := company.Authority, company.Board
	authority := scheduler.Authority{Leader: c.cfg.Node, Fleet: c.fleet, Epoch: a.Epoch, Term: a.Term, Quorate: a.Quorate}
	d := scheduler.Schedule(snapshot, board, c.decided.Facts, authority, now)
	if len(d.Claims) > 0 && a.Quorate && c.claim(ctx, d.Claims) {
		board.Claims = c.part.Claims()
		d = scheduler.Schedule(snapshot, board, c.decided.Facts, authority, now)
	}
	c.machine.Decided(Turn{Snapshot: snapshot, Board: board, Facts: c.decided.Facts, Authority: authority, Now: now, Decision: d})
	set, facts, wake := d.Set, d.Facts, d.Wake
	if !snapshot.Known() {
		return wake
	}
	facts.Term = a.Term
	var conflicts []policy.Conflict
	facts.Addresses, conflicts = c.allocate(ctx, snapshot, company, facts.Addresses)
	c.tellConflicts(conflicts, now)
	if !maps.EqualFunc(facts.Addresses, c.decided.Facts.Addresses, api.ServiceAddress.Equal) {
		facts.Seq++
	}
	for _, event := range scheduler.Events(c.fleet, c.decided.Assigned, set, c.decided.Facts, facts, now) {
		c.events.record(event)
		c.log.Info(event.Message, "reason", event.Reason, "object", event.Regards.Kind+" "+event.Regards.Namespace+"/"+event.Regards.Name)
	}
	c.release(ctx, d.Release)
	c.decided = decided{Assigned: set, Facts: facts}
	c.report("publish decisions", c.part.Publish(set, facts))
	return wake
}

// tellConflicts says which Services have no address and why, once for each.
func (c *control) tellConflicts(conflicts []policy.Conflict, now time.Time) {
	c.conflicts = conflicts
	told := map[string]bool{}
	for _, conflict := range conflicts {
		told[conflict.String()] = true
		if c.told[conflict.String()] {
			continue
		}
		key := api.Key{Kind: "Service", Namespace: conflict.Namespace, Name: conflict.Name}
		c.events.record(api.Event{
			Time: now, Type: corev1.EventTypeWarning, Reason: "AddressConflict", Message: conflict.Reason, Source: "policy",
			Regards: corev1.ObjectReference{
				APIVersion: "v1", Kind: "Service", Namespace: conflict.Namespace, Name: conflict.Name, UID: api.UID(c.fleet, key),
			},
		})
		c.log.Warn("service has no address", "reason", conflict.String())
	}
	c.told = told
}

// sync tells the runtime what should run here, and Git which commits that needs.
func (c *control) sync(snapshot api.Snapshot, ledger gossip.Ledger) {
	set := c.decided.Assigned
	if !set.Known() {
		return
	}
	c.keep()
	desired := runtime.Desired{
		Known: true,
		Alone: c.part.Alone(), Claims: c.part.Claims(), Discard: discards(c.decided.Facts, ledger, c.cfg.Node),
		DNS: runtime.DNSConfig{Server: c.cfg.Network.DNS, Domain: c.cfg.Network.Domain, NodeConfig: c.cfg.Network.ResolvConf},
	}
	c.fillConfig(&desired, snapshot)
	if snapshot.Known() {
		c.policies = snapshot.Settings().ImagePolicies
	}
	desired.ImagePolicies = c.policies
	desired.Upcoming = scheduler.Upcoming(snapshot, set, c.cfg.Node)
	live := map[string]bool{}
	add := func(a api.Assignment) {
		live[a.Pod.Instance] = true
		if object := c.object(snapshot, a); object != nil && a.Node == c.cfg.Node {
			desired.Pods = append(desired.Pods, runtime.Pod{Assignment: a, Object: object, Config: c.pinned[a.Pod.Instance]})
		}
	}
	for _, a := range set.Pods {
		add(a)
	}
	drained := *c.drained.Load()
	for _, r := range set.Remove {
		add(r.Assignment)
		if instance := r.Assignment.Pod.Instance; drained[instance] {
			desired.Remove = append(desired.Remove, instance)
		} else {
			desired.Leaving = append(desired.Leaving, instance)
		}
	}
	slices.Sort(desired.Remove)
	slices.Sort(desired.Leaving)
	slices.SortFunc(desired.Pods, func(a, b runtime.Pod) int { return a.Assignment.Pod.Compare(b.Assignment.Pod) })
	maps.DeleteFunc(c.objects, func(instance string, _ *corev1.Pod) bool { return !live[instance] })
	maps.DeleteFunc(c.pinned, func(instance string, _ *runtime.Config) bool { return !live[instance] })
	maps.DeleteFunc(c.missing, func(instance string, _ string) bool { return !live[instance] })
	c.agent.Sync(desired)
}

// object writes out the pod of an assignment, once. A template that cannot be
// found is reported; a pod of it that runs is left alone.
func (c *control) object(snapshot api.Snapshot, a api.Assignment) *corev1.Pod {
	if object, known := c.objects[a.Pod.Instance]; known {
		return object
	}
	object, err := scheduler.PodObject(c.fleet, snapshot, a.Pod, a.Node, a.Created)
	if err != nil {
		if snapshot, err = c.repo.At(a.Commit); err == nil {
			object, err = scheduler.PodObject(c.fleet, snapshot, a.Pod, a.Node, a.Created)
		}
	}
	if err != nil {
		if c.missing[a.Pod.Instance] != err.Error() {
			c.missing[a.Pod.Instance] = err.Error()
			c.events.record(api.Event{
				Time: time.Now(), Type: corev1.EventTypeWarning, Reason: "TemplateMissing", Message: err.Error(),
				Source: "daemon", Regards: scheduler.PodReference(a.Pod),
			})
			c.log.Warn("pod has no template", "pod", a.Pod.Namespace+"/"+a.Pod.Name(), "commit", a.Commit.Short(), "reason", err)
		}
		return nil
	}
	if a.Node == c.cfg.Node {
		object.Status.HostIP = c.address.String()
		object.Status.HostIPs = []corev1.HostIP{{IP: object.Status.HostIP}}
		if config := configOf(snapshot, a.Pod, &object.Spec); config != nil {
			c.pinned[a.Pod.Instance] = config
		}
	}
	c.objects[a.Pod.Instance] = object
	return object
}

// keep pins the commits that hold templates in use or in a history.
func (c *control) keep() {
	commits := map[api.Commit]bool{}
	for _, a := range c.decided.Assigned.Pods {
		commits[a.Commit] = true
	}
	for _, r := range c.decided.Assigned.Remove {
		commits[r.Assignment.Commit] = true
	}
	for _, rollout := range c.decided.Facts.Rollouts {
		for _, revision := range rollout.History {
			commits[revision.Commit] = true
		}
	}
	for _, cron := range c.decided.Facts.CronJobs {
		for _, run := range cron.Runs {
			commits[run.Commit] = true
		}
	}
	delete(commits, "")
	kept := slices.Sorted(maps.Keys(commits))
	if slices.Equal(kept, c.kept) {
		return
	}
	err := c.repo.Keep(kept)
	c.report("pin commits", err)
	if err == nil {
		c.kept = kept
	}
}

// publishView makes the new view and pokes those who follow it.
func (c *control) publishView(snapshot api.Snapshot, board api.Board, company fleet.View, observed bool, now time.Time) {
	v := &view{
		company: company,
		fleet:   c.fleet, snapshot: snapshot, board: board, facts: c.decided.Facts,
		units: c.repo.Status(), observed: observed, now: now, conflicts: c.conflicts,
	}
	if info := c.node.Load(); info != nil {
		v.node = *info
	}
	states := map[string]*api.PodState{}
	for _, record := range board.Pods {
		for i := range record.Pods {
			states[record.Pods[i].Pod.Instance] = &record.Pods[i]
		}
	}
	replaced := map[api.Identity]bool{}
	for _, a := range board.Assigned.Pods {
		if a.Ended == "" && !board.HealthOf(a.Node).Gone() {
			replaced[a.Pod.Identity] = true
		}
	}
	for _, a := range board.Assigned.Pods {
		p := c.podView(a, states, false)
		if health := board.HealthOf(a.Node); health.Gone() && a.Ended == "" {
			p.lose(health, replaced[a.Pod.Identity])
		}
		v.pods = append(v.pods, p)
	}
	for _, r := range board.Assigned.Remove {
		if states[r.Assignment.Pod.Instance] != nil {
			v.pods = append(v.pods, c.podView(r.Assignment, states, true))
		}
	}
	for _, u := range board.Assigned.Pending {
		v.pods = append(v.pods, c.pendingView(snapshot, u))
	}
	slices.SortFunc(v.pods, func(a, b podView) int {
		return strings.Compare(a.pod.Namespace+"/"+a.pod.Name()+"/"+a.pod.Instance, b.pod.Namespace+"/"+b.pod.Name()+"/"+b.pod.Instance)
	})
	v.published = time.Now()
	c.view.Store(v)
	c.publish()
}

func (c *control) podView(a api.Assignment, states map[string]*api.PodState, removed bool) podView {
	p := podView{pod: a.Pod, node: a.Node, state: states[a.Pod.Instance], removed: removed}
	object, known := c.objects[a.Pod.Instance]
	if !known {
		return p
	}
	p.object = object
	shown := *object
	p.object = &shown
	if status, known := c.agent.Status(a.Pod.Instance); known && a.Node == c.cfg.Node {
		shown.Status = status
		shown.Spec.EphemeralContainers = c.agent.Debugged(a.Pod.Instance)
	} else if p.state != nil {
		shown.Status = remoteStatus(object, p.state, c.addressOf(a.Node))
		shown.Spec.EphemeralContainers, shown.Status.EphemeralContainerStatuses = runtime.DebugContainers(*p.state)
	}
	if removed {
		at := deletionTime(shown.Spec.TerminationGracePeriodSeconds, c.removedAt(a.Pod.Instance))
		shown.DeletionTimestamp = &at
		shown.DeletionGracePeriodSeconds = shown.Spec.TerminationGracePeriodSeconds
	}
	return p
}

func (c *control) removedAt(instance string) time.Time {
	for _, r := range c.decided.Assigned.Remove {
		if r.Assignment.Pod.Instance == instance {
			return r.At
		}
	}
	return time.Now()
}

// pendingView shows a pod that waits for a node.
func (c *control) pendingView(snapshot api.Snapshot, u api.Unplaced) podView {
	p := podView{pod: u.Pod}
	object, err := scheduler.PodObject(c.fleet, snapshot, u.Pod, "", u.Created)
	if err != nil {
		return p
	}
	object.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: u.Reason,
		LastTransitionTime: object.CreationTimestamp,
	}}}
	p.object = object
	return p
}

// report logs an error once for as long as it stays the same, and its end.
func (c *control) report(what string, err error) {
	message := ""
	if err != nil {
		message = err.Error()
	}
	c.once(what, message, func() {
		if err != nil {
			c.log.Error(what, "reason", err)
			return
		}
		c.log.Info(what + ": works again")
	})
}

// once calls say when the message on a subject differs from the last one.
func (c *control) once(subject, message string, say func()) {
	c.saying.Lock()
	known := c.said[subject] == message
	c.said[subject] = message
	c.saying.Unlock()
	if !known {
		say()
	}
}
