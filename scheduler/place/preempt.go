package place

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Running is a booked pod that may be evicted.
type Running struct {
	ID       string // unique in the fleet
	Node     string
	Template *Template
	Priority int32
	Started  time.Time
	Labels   map[string]string // beside those of the template; budgets read them
}

// A Budget is how many pods a PodDisruptionBudget lets go now.
type Budget struct {
	Namespace string
	Selector  *metav1.LabelSelector // nil selects no pod, an empty one all of the namespace
	Allowed   int32
}

// An Eviction makes room for one pod on a node.
type Eviction struct {
	Node       string
	Victims    []Running // the most important first; none when there is room already
	Violations int       // of them, how many no budget lets go
}

type budget struct {
	namespace string
	selector  labels.Selector
	allowed   int32
}

// SetEvictable says which of the booked pods may be evicted, and within which
// budgets. It replaces what was said before. A later Release of one of them must
// be followed by another call, unless Evict releases it. An error names the pod
// that is not booked, or the budget that cannot be read.
func (f *Fleet) SetEvictable(running []Running, budgets []Budget) error {
	list := make([]budget, len(budgets))
	for k, b := range budgets {
		selector, err := metav1.LabelSelectorAsSelector(b.Selector)
		if err != nil {
			return fmt.Errorf("read the selector of budget %d in namespace %s: %w", k, b.Namespace, err)
		}
		list[k] = budget{b.Namespace, selector, b.Allowed}
	}
	byNode := make([][]candidate, len(f.nodes))
	listed := map[groupNode]int32{}
	kept := map[*group][]int32{}
	for _, r := range running {
		i, known := f.index[r.Node]
		if !known || r.Template == nil {
			return fmt.Errorf("list evictable pods: %s is not booked on %q", r.ID, r.Node)
		}
		g := f.group(r.Template)
		at := groupNode{g, i}
		listed[at]++
		if s := f.nodes[i].slot(g); s < 0 || g.slots[s].count < listed[at] {
			return fmt.Errorf("list evictable pods: %s is not booked on %q", r.ID, r.Node)
		}
		if len(r.Labels) > 0 {
			byNode[i] = append(byNode[i], candidate{r, g, budgetsOf(list, r.Template, labels.Merge(r.Template.labels, r.Labels))})
			continue
		}
		if _, known := kept[g]; !known {
			kept[g] = budgetsOf(list, r.Template, r.Template.labels)
		}
		byNode[i] = append(byNode[i], candidate{r, g, kept[g]})
	}
	for i := range byNode {
		slices.SortFunc(byNode[i], moreImportant)
	}
	f.evictable, f.budgets = byNode, list
	return nil
}

// A candidate is a pod that may be evicted, with what it counts in.
type candidate struct {
	Running
	group   *group
	budgets []int32
}

type groupNode struct {
	group *group
	node  int32
}

func budgetsOf(list []budget, t *Template, own labels.Set) []int32 {
	var out []int32
	for k := range list {
		if list[k].namespace == t.mold.Namespace && list[k].selector.Matches(own) {
			out = append(out, int32(k))
		}
	}
	return out
}

// moreImportant orders pods by priority, then the longest running first.
func moreImportant(a, b candidate) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), a.Started.Compare(b.Started), strings.Compare(a.ID, b.ID))
}

// Preempt finds the node on which one pod fits when pods of strictly lower
// priority go, and the fewest of them that must: those that a budget keeps are
// spared first, then the most important. Of several nodes it prefers the one
// with the fewest violated budgets, then that whose most important victim is the
// least important, then the lowest sum of priorities, the fewest victims, and
// the one whose most important victims started last. It changes nothing. The
// reason says why there is no such node; "" when there is one.
// Source: Kubernetes, "Pod Priority and Preemption", and kube-scheduler's
// DefaultPreemption.
func (f *Fleet) Preempt(d Demand) (Eviction, string) {
	if reason := f.refuse(d); reason != "" {
		return Eviction{}, reason
	}
	if d.Template.mold.Nodes.Patient {
		return Eviction{}, neverPreempts
	}
	p := preemption{run: f.start(d), used: make([]int32, len(f.budgets))}
	p.stakes = make([]*stake, len(f.groups))
	defer f.spend(p.run)
	var best *plan
	count := map[string]int{}
	for i := range int32(len(f.nodes)) {
		if p.spent() {
			count[notLookedAt] += len(f.nodes) - int(i)
			break
		}
		found, reasons := p.try(i, best)
		if found != nil && (best == nil || found.compare(best) < 0) {
			best = found
		}
		for _, reason := range reasons {
			count[reason]++
		}
	}
	if best == nil {
		return Eviction{}, "preemption: " + tally(len(f.nodes), count)
	}
	e := Eviction{Node: f.nodes[best.node].object.Name, Violations: best.violations}
	for _, v := range best.victims {
		e.Victims = append(e.Victims, v.Running)
	}
	return e, ""
}

// Evict releases the victims of an eviction, and charges the budgets for them.
// What they made room for must be booked by the caller.
func (f *Fleet) Evict(e Eviction) {
	i, known := f.index[e.Node]
	if !known || f.evictable == nil {
		return
	}
	for _, v := range e.Victims {
		at := slices.IndexFunc(f.evictable[i], func(c candidate) bool { return c.ID == v.ID })
		if at < 0 {
			continue
		}
		gone := f.evictable[i][at]
		f.evictable[i] = slices.Delete(f.evictable[i], at, at+1)
		f.book(gone.group, i, -1)
		for _, b := range gone.budgets {
			f.budgets[b].allowed--
		}
	}
}

// A preemption is the search for a node. While it tries one, it takes the
// victims from the fleet, and gives them back.
type preemption struct {
	*run
	stakes []*stake // by group
	used   []int32  // by budget
}

// A plan is the victims on one node.
type plan struct {
	node       int32
	victims    []candidate
	violations int
	highest    int64
	sum        int64
	started    time.Time // of the first of the most important
}

func (p *plan) compare(other *plan) int {
	return cmp.Or(
		cmp.Compare(p.violations, other.violations),
		cmp.Compare(p.highest, other.highest),
		cmp.Compare(p.sum, other.sum),
		cmp.Compare(len(p.victims), len(other.victims)),
		other.started.Compare(p.started),
	)
}

// try returns the victims on a node, or why there are none that would help;
// neither when they cannot be better than the best so far.
func (p *preemption) try(i int32, best *plan) (*plan, []string) {
	p.steps++
	if p.still(i) != fits {
		return nil, []string{notHelpful}
	}
	switch o := p.moving(i); {
	case o == fits:
		return p.weigh(i, nil, 0), nil
	case !o.helped():
		return nil, []string{notHelpful}
	}
	lower := p.lower(i)
	if len(lower) == 0 {
		return nil, []string{noVictims}
	}
	if best != nil && best.violations == 0 && best.highest < int64(lower[len(lower)-1].Priority) {
		return nil, nil
	}
	p.steps += 4 * int64(len(lower))
	for _, v := range lower {
		p.shift(v, i, -1)
	}
	if p.moving(i) != fits {
		reasons := p.refusals(i)
		for _, v := range lower {
			p.shift(v, i, 1)
		}
		return nil, reasons
	}
	kept, free := p.violating(lower)
	victims, violations := p.spare(i, kept), 0
	violations = len(victims)
	victims = append(victims, p.spare(i, free)...)
	slices.SortFunc(victims, moreImportant)
	for _, v := range victims {
		p.shift(v, i, 1)
	}
	return p.weigh(i, victims, violations), nil
}

// lower lists the pods on a node that are strictly less important.
func (p *preemption) lower(i int32) []candidate {
	if p.f.evictable == nil {
		return nil
	}
	all := p.f.evictable[i]
	from, _ := slices.BinarySearchFunc(all, p.t.mold.Priority, func(c candidate, than int32) int {
		if c.Priority < than {
			return 1
		}
		return -1
	})
	return all[from:]
}

// shift takes a pod from its node, or gives it back.
func (p *preemption) shift(v candidate, i, count int32) {
	s := p.stakes[v.group.id]
	if s == nil {
		made := p.stakeOf(v.group.t)
		s = &made
		p.stakes[v.group.id] = s
	}
	p.f.occupy(v.group, i, count)
	p.rules.add(s, i, count, nil)
}

// violating tells pods that a budget would keep, if all went, from the others.
func (p *preemption) violating(pods []candidate) (kept, free []candidate) {
	for _, v := range pods {
		violates := false
		for _, b := range v.budgets {
			p.used[b]++
			violates = violates || p.used[b] > p.f.budgets[b].allowed
		}
		if violates {
			kept = append(kept, v)
		} else {
			free = append(free, v)
		}
	}
	for _, v := range pods {
		for _, b := range v.budgets {
			p.used[b] = 0
		}
	}
	return kept, free
}

// spare gives back each pod that there is room for beside the new one, and
// returns the others.
func (p *preemption) spare(i int32, pods []candidate) []candidate {
	var victims []candidate
	for _, v := range pods {
		p.shift(v, i, 1)
		if p.moving(i) != fits {
			p.shift(v, i, -1)
			victims = append(victims, v)
		}
	}
	return victims
}

func (p *preemption) weigh(i int32, victims []candidate, violations int) *plan {
	w := &plan{node: i, victims: victims, violations: violations, highest: math.MinInt64}
	for _, v := range victims {
		priority := int64(v.Priority)
		w.sum += priority - math.MinInt32 // above zero, so that every victim counts
		if priority > w.highest {
			w.highest, w.started = priority, v.Started
		}
		if priority == w.highest && v.Started.Before(w.started) {
			w.started = v.Started
		}
	}
	return w
}
