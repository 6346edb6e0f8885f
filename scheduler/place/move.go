package place

import "slices"

// Move finds a node for a pod that runs and could as well run elsewhere: the first
// of some that it may have, both while it still runs where it is and once it does
// not, and on which nothing is worse that is worth points to somebody's author.
// Unless zones is false, the pods of its workload are not less even over zones
// afterwards. The pod is booked on that node, too; "" when there is none. A pod that
// others must be together with does not move.
func (f *Fleet) Move(d Demand, from string, to []string, zones bool) string {
	i, known := f.index[from]
	if !known || f.refuse(d) != "" || f.needed(d.Template) {
		return ""
	}
	with := f.start(d)
	defer f.spend(with)
	var found []int32
	for _, name := range to {
		with.steps++
		if j, known := f.index[name]; known && j != i && with.still(j) == fits && with.moving(j) == fits {
			found = append(found, j)
		}
	}
	if len(found) == 0 || f.Count(d.Template, from) == 0 {
		return ""
	}
	f.Release(d.Template, from, 1)
	defer f.Book(d.Template, from, 1)
	without := f.start(d)
	defer f.spend(without)
	found = slices.DeleteFunc(found, func(j int32) bool { return without.moving(j) != fits })
	if len(found) == 0 {
		return ""
	}
	k := without.rank()
	if k.crowd != nil {
		k.scoreSpread()
	}
	for _, j := range found {
		if k.likes(j, i, zones) {
			f.book(k.g, j, 1)
			return f.nodes[j].object.Name
		}
	}
	return ""
}

// likes reports whether a node is no worse for the pod than another one, in what
// authors give points for; how full the nodes are does not matter.
func (k *ranking) likes(j, than int32, zones bool) bool {
	if zones && k.spreads && k.queue.sink[k.queue.lane[j]] > k.queue.sink[k.queue.lane[than]] {
		return false
	}
	if k.still(than) != fits { // it would not be placed there any more
		return true
	}
	points := func(i int32) int64 {
		n := taintWeight*k.clean(i) + nodeWeight*k.suits(i) + podWeight*k.draws(i)
		if k.crowd != nil {
			n += spreadWeight * k.evenness(i)
		}
		return n
	}
	return points(j) >= points(than)
}

// needed reports whether pods of other templates must be together with those of a
// template.
func (f *Fleet) needed(t *Template) bool {
	needed := false
	f.selecting(t, func(by groupTerm) {
		for n := range by.group.t.together {
			needed = needed || by.term == &by.group.t.together[n] && by.group.t != t
		}
	})
	return needed
}
