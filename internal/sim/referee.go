package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/daemon"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/runtimetest"
)

// referee watches what must always hold:
//
//   - of one exclusive identity never two run at once;
//   - the claims that a node knows of only grow, and none is given to two nodes;
//   - a volume is never given to a second node;
//   - a node runs only templates of commits that it has accepted;
//   - nothing is ended while nothing has happened that would be a reason;
//   - nothing is started from an older template than others had put into force long
//     before, where nothing is cut off;
//   - a rollout keeps what maxUnavailable asks for, where nothing else happens;
//   - nobody decides for ever without anything changing;
//   - no traffic goes to a machine that has been dead, or to a pod that has ended,
//     for longer than routed, or acting where there is no quorum.
//
// What must hold in the end, whole and converged, is asked of the fleet.
type referee struct {
	fleet *Fleet

	mu      sync.Mutex
	accused [][]byte
	running map[string]api.Assignment       // containers of exclusive pods, by node and ID
	granted map[string]string               // to whom, by identity and claim
	homes   map[string]string               // which node has each volume
	claims  map[*life]map[string]api.Claim  // as each daemon last knew them
	faults  int                             // that may move pods, and are there now
	calm    time.Time                       // since when nothing but commits has happened
	quiet   time.Time                       // since when nothing has happened that moves pods
	quorum  time.Time                       // when there was none last
	routes  map[string]map[string]time.Time // by node: since when traffic goes to an address that is dead
}

// routed is for how long traffic may go to what is dead. Whoever notices is a
// leader, or has to become one first.
const (
	routed = 3 * time.Second
	acting = 10 * time.Second
)

// settled is how long after the last fault or commit pods may still be moved.
const settled = 2 * time.Minute

func newReferee(f *Fleet) *referee {
	return &referee{
		fleet: f, running: map[string]api.Assignment{}, granted: map[string]string{}, homes: map[string]string{}, claims: map[*life]map[string]api.Claim{},
		quiet: time.Now(), calm: time.Now(), routes: map[string]map[string]time.Time{},
	}
}

// slow is how long a commit may take to be in force everywhere: polls and hints.
const slow = 15 * time.Second

// outdated reports whether a node that lives has long had a commit in force that
// changed or removed the template of a pod.
func (f *Fleet) outdated(p api.Pod) bool {
	for _, n := range f.nodes {
		c, since := n.mirror.force()
		if n.down || time.Since(since) <= slow || c.info.Commit != f.git.newest().info.Commit {
			continue
		}
		object, found := workload(c.snapshot, p.Identity)
		if !found || object.Revision != p.Revision && !mayBeBack(c.snapshot, object, since) {
			return true
		}
	}
	return false
}

// mayBeBack reports whether a workload can have been rolled back, a commit having
// been in force since then.
func mayBeBack(snapshot api.Snapshot, object api.Object, since time.Time) bool {
	d, ok := object.Value.(*appsv1.Deployment)
	return ok && snapshot.Settings().OnFailedRollout == api.FailedRolloutBack &&
		time.Since(since) >= time.Duration(*d.Spec.ProgressDeadlineSeconds)*time.Second
}

// accuse notes that something is wrong. The test goes on, and fails.
func (r *referee) accuse(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	r.fleet.note("!! %s", text)
	if len(r.accused) < 20 {
		r.accused = append(r.accused, fmt.Appendf(nil, "%8.3f %s", time.Since(r.fleet.begin).Seconds(), text))
	}
}

func (r *referee) verdict() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accused
}

// disturb says that something has happened that may move pods.
func (r *referee) disturb() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quiet, r.calm = time.Now(), time.Now()
}

// committed says that there is a new commit, which may move pods, too.
func (r *referee) committed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quiet = time.Now()
}

// fault says that something has begun, or ended, that may move pods for as long
// as it lasts.
func (r *referee) fault(begins bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quiet, r.calm = time.Now(), time.Now()
	if begins {
		r.faults++
	} else {
		r.faults--
	}
}

func (r *referee) isQuiet() bool {
	return r.faults == 0 && time.Since(r.quiet) > settled
}

// saw is told of every container that starts or ends. It is called with the
// engine's lock held.
func (r *referee) saw(n *node, c runtimetest.Change) {
	a := c.Held.Assignment
	key := n.name + " " + c.Held.ID
	if c.Held.State != runtime.ContainerRunning {
		r.fleet.note("%s: %s of %s ends with %d", n.name, c.Held.Name, a.Pod.Identity, c.Held.ExitCode)
		r.mu.Lock()
		delete(r.running, key)
		quiet := r.isQuiet()
		r.mu.Unlock()
		if quiet && r.fleet.git.newest().snapshot.Settings().Rebalance != api.RebalanceGentle { // then pods move by themselves
			r.accuse("%s: a container of %s is ended, though nothing happened for %s", n.name, a.Pod.Identity, settled)
		}
		return
	}
	r.fleet.note("%s: %s of %s runs", n.name, c.Held.Name, a.Pod.Identity)
	if !n.mirror.holds(a.Pod) {
		r.accuse("%s runs a pod of %s of commit %s from a template that no commit holds which it has accepted", n.name, a.Pod.Identity, a.Commit)
	}
	r.mu.Lock()
	together := r.faults == 0 && time.Since(r.calm) > slow
	r.mu.Unlock()
	if together && r.fleet.outdated(a.Pod) {
		r.accuse("%s starts a pod of %s from a template that was replaced more than %s ago", n.name, a.Pod.Identity, slow)
	}
	if !r.fleet.git.exclusive(a) {
		return
	}
	r.mu.Lock()
	var others []string
	for other, b := range r.running {
		if b.Pod.Identity == a.Pod.Identity && (b.Pod.Instance != a.Pod.Instance || !strings.HasPrefix(other, n.name+" ")) {
			others = append(others, other)
		}
	}
	r.running[key] = a
	r.mu.Unlock()
	if len(others) > 0 {
		r.accuse("%s runs twice: %s and %v", a.Pod.Identity, key, others)
	}
}

// tireless is how many decisions of one node at one instant are too many.
const tireless = 300

// decided is told of every decision.
func (r *referee) decided(n *node, life *life, t daemon.Turn) {
	if life.turn(t.Now) == tireless {
		r.accuse("%s decides %d times without any time passing", n.name, tireless)
		time.Sleep(time.Second) // or it would do so for ever
	}
	r.mu.Lock()
	known := r.claims[life]
	if known == nil {
		known = map[string]api.Claim{}
		r.claims[life] = known
	}
	var wrong []string
	for identity, h := range t.Board.Claims {
		if h.Claim.Less(known[identity]) {
			wrong = append(wrong, fmt.Sprintf("%s: the claim of %s goes back from %v to %v", n.name, identity, known[identity], h.Claim))
		}
		known[identity] = h.Claim
		key := fmt.Sprint(identity, h.Claim)
		holder, _, _ := strings.Cut(h.Node, " (removed") // see gossip.FormerName
		if other, was := r.granted[key]; was && other != holder {
			wrong = append(wrong, fmt.Sprintf("%s: claim %v of %s is granted to %s and to %s", n.name, h.Claim, identity, other, holder))
		}
		r.granted[key] = holder
		if _, volume := api.ParseVolumeClaim(identity); volume {
			if other, was := r.homes[identity]; was && other != holder {
				wrong = append(wrong, fmt.Sprintf("%s: the volume %s was given to %s, and is to %s", n.name, identity, other, holder))
			}
			r.homes[identity] = holder
		}
	}
	r.mu.Unlock()
	for _, w := range wrong {
		r.accuse("%s", w)
	}
}

// look looks at what no event tells of.
func (r *referee) look() {
	now := time.Now()
	r.lookAtRollouts()
	alive := r.addresses()
	limit := time.Duration(0) // not known yet
	for _, n := range r.fleet.nodes {
		if n.life == nil || n.apart || n.removed || !n.stalled.IsZero() {
			delete(r.routes, n.name)
			continue
		}
		since := map[string]time.Time{}
		for _, address := range targets(n.rules.Held()) {
			if !strings.HasPrefix(address, "10.64.") || alive[address] {
				continue
			}
			if limit == 0 {
				if limit = routed; !r.fleet.quorate() {
					limit, r.quorum = acting, now
				}
			}
			began, known := r.routes[n.name][address]
			if !known || began.Before(n.joined) {
				began = now
			}
			switch {
			case limit == routed && began.Before(r.quorum):
				began = r.quorum // now there is somebody again who decides
			case limit == acting && began.Before(r.calm):
				began = r.calm // every fault may end another one's authority
			}
			since[address] = began
			if waited := now.Sub(began); waited > limit && waited <= limit+glance {
				r.accuse("%s has sent traffic to %s for %s, where nothing runs", n.name, address, waited)
			}
		}
		r.routes[n.name] = since
	}
}

// lookAtRollouts sees whether rollouts keep enough pods, in fleets in which
// nothing else happens.
func (r *referee) lookAtRollouts() {
	r.mu.Lock()
	calm := r.faults == 0 && time.Since(r.calm) > settled
	r.mu.Unlock()
	if !calm {
		return
	}
	count := map[api.Identity]int{}
	for _, n := range r.fleet.nodes {
		for _, c := range n.containers() {
			count[c.Assignment.Pod.Workload()]++
		}
	}
	newest, before := r.fleet.git.lastTwo()
	for id, least := range available(newest.snapshot) {
		if was, known := available(before.snapshot)[id]; known && count[id] < min(least, was) {
			r.accuse("%d pods of %s run during a rollout, fewer than %d", count[id], id, min(least, was))
		}
	}
}

// available returns how many pods of each Deployment must run, by its
// maxUnavailable.
func available(s api.Snapshot) map[api.Identity]int {
	out := map[api.Identity]int{}
	for d := range api.Of[*appsv1.Deployment](s) {
		if rolling := d.Spec.Strategy.RollingUpdate; rolling != nil {
			id := api.Identity{Namespace: d.Namespace, Kind: "Deployment", Owner: d.Name}
			unavailable, _ := intstr.GetScaledValueFromIntOrPercent(rolling.MaxUnavailable, int(*d.Spec.Replicas), false) // it is valid
			out[id] = int(*d.Spec.Replicas) - unavailable
		}
	}
	return out
}

// quorate reports whether there is a leader with a quorum.
func (f *Fleet) quorate() bool {
	for _, n := range f.living() {
		if s, err := n.status(); err == nil && s.Leader == n.name && s.Quorate && !n.apart && n.stalled.IsZero() {
			return true
		}
	}
	return false
}

// addresses returns those at which a pod runs.
func (r *referee) addresses() map[string]bool {
	out := map[string]bool{}
	for _, n := range r.fleet.nodes {
		running := map[string]bool{}
		for _, c := range n.containers() {
			running[c.Assignment.Pod.Instance] = true
		}
		sandboxes, _ := n.network.List()
		for _, s := range sandboxes {
			for _, ip := range s.IPs {
				out[ip] = running[s.Instance]
			}
		}
	}
	return out
}

// containers returns those that run, sorted.
func (n *node) containers() (out []runtime.Held) {
	all, _ := n.engine.List(context.Background()) // it is not down
	for _, c := range all {
		if c.State == runtime.ContainerRunning {
			out = append(out, c)
		}
	}
	return out
}

// status asks the node's daemon.
func (n *node) status() (daemon.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return n.client().Status(ctx)
}

// living are the nodes whose daemons run.
func (f *Fleet) living() []*node {
	return slices.DeleteFunc(slices.Clone(f.nodes), func(n *node) bool { return n.life == nil || n.removed })
}

// whole reports why the nodes are not one fleet: all that run follow one leader
// with a quorum, and take each other to be well.
func (f *Fleet) whole() error {
	leader := ""
	living := f.living()
	for _, n := range living {
		s, err := n.status()
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", n.name, err)
		case s.Leader == "" || !s.Quorate:
			return fmt.Errorf("%s follows no leader with a quorum, but %q (voters %v, term %d, alarms %q)", n.name, s.Leader, s.Voters, s.Term, s.Alarms)
		case s.Heard > 2*time.Second:
			return fmt.Errorf("%s has not heard of %s for %s", n.name, s.Leader, s.Heard)
		case leader != "" && s.Leader != leader:
			return fmt.Errorf("%s follows %s, another one follows %s", n.name, s.Leader, leader)
		case len(s.Nodes) < len(living):
			return fmt.Errorf("%s knows of %d nodes", n.name, len(s.Nodes))
		}
		leader = s.Leader
		for _, h := range s.Health {
			if other := f.node(h.Node); other != nil && other.life != nil && !other.removed && h.Status != api.NodeAlive {
				return fmt.Errorf("%s takes %s to be %s", n.name, h.Node, h.Status)
			}
		}
	}
	if len(living) == 0 {
		return errors.New("no daemon runs")
	}
	return nil
}

// converged reports why what runs is not what the newest commit says.
func (f *Fleet) converged() error {
	newest := f.git.newest()
	want := map[api.Identity]int{}
	revision := map[api.Identity]string{}
	for o := range newest.snapshot.Objects() {
		id := api.Identity{Namespace: o.Value.GetNamespace(), Kind: o.GVK.Kind, Owner: o.Value.GetName()}
		switch v := o.Value.(type) {
		case *appsv1.Deployment:
			want[id] = int(*v.Spec.Replicas)
		case *appsv1.DaemonSet:
			want[id] = len(f.living())
		case *corev1.Pod:
			want[id] = 1
		default:
			continue
		}
		revision[id] = o.Revision
	}
	have := map[api.Identity]map[string]bool{}
	for _, n := range f.nodes {
		for _, c := range n.containers() {
			id := c.Assignment.Pod.Workload()
			if id.Kind == "StatefulSet" {
				continue // its pods wait for nodes that may never come back
			}
			if have[id] == nil {
				have[id] = map[string]bool{}
			}
			have[id][c.Assignment.Pod.Instance] = true
			if r, wanted := revision[id]; wanted && c.Assignment.Pod.Revision != r {
				return fmt.Errorf("%s runs a pod of %s of an older revision", n.name, id)
			}
		}
	}
	for id, count := range want {
		if len(have[id]) != count {
			return fmt.Errorf("%d pods of %s run, not %d", len(have[id]), id, count)
		}
	}
	for id := range have {
		if want[id] == 0 {
			return fmt.Errorf("%d pods of %s run, which no commit wants", len(have[id]), id)
		}
	}
	return nil
}
