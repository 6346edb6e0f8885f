package scheduler

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/scheduler/place"
)

// castKey names one revision of a workload.
type castKey struct {
	workload api.Identity
	revision string
}

// A cast is what the pods of one revision of a workload mean to others. It is
// known from the workload in Git, or from the mold that was kept of it; working
// it out is put off until somebody asks.
type cast struct {
	w        *workload // nil when the workload is not in Git
	revision string
	mold     *api.Mold // nil when none was kept
	// whole places pods, and shadow stands for those that have nodes: it is the
	// same for all of them, whatever becomes known later.
	whole, shadow *place.Template
	err           error
}

// castOf returns the cast of a revision of a workload that is in Git.
func (in *input) castOf(w *workload, revision string) *cast {
	c := in.castKnown(api.Pod{Identity: w.id, Revision: revision})
	c.w = w
	return c
}

// castKnown returns the cast of a pod's revision, as far as it is known.
func (in *input) castKnown(p api.Pod) *cast {
	key := castKey{p.Workload(), p.Revision}
	if c, known := in.casts[key]; known {
		return c
	}
	c := &cast{revision: p.Revision}
	if m, kept := in.board.Assigned.Molds[p.MoldKey()]; kept {
		c.mold = &m
	}
	in.casts[key] = c
	return c
}

// ready returns the template for pods that are to be placed. A revision that is
// not in Git any more, and of which nothing was kept, is taken for the one in Git.
func (c *cast) ready() (*place.Template, error) {
	if c.whole != nil || c.err != nil || c.w == nil {
		return c.whole, c.err
	}
	if c.mold != nil && c.revision != c.w.revision {
		c.whole, c.err = place.Cast(*c.mold)
		return c.whole, c.err
	}
	if c.whole, c.err = place.Compile(c.w.id, podLabels(c.w, c.revision), &c.w.template.Spec); c.err == nil && c.mold == nil {
		m := c.whole.Mold()
		m.Volumes = c.w.volumes()
		c.mold = &m
	}
	return c.whole, c.err
}

// booked returns the template of pods that have a node, nil when nothing is known
// of them.
func (c *cast) booked() *place.Template {
	if c.shadow != nil {
		return c.shadow
	}
	if c.mold == nil {
		_, _ = c.ready() // its error is said where such a pod is placed
	}
	if c.mold != nil {
		c.shadow, _ = place.Cast(*c.mold) // it was made of one that could be read
	}
	return c.shadow
}

// podLabels are the labels that all pods of a revision have.
func podLabels(w *workload, revision string) map[string]string {
	key, value := "", revision
	switch w.id.Kind {
	case "Deployment":
		key = appsv1.DefaultDeploymentUniqueLabelKey
	case "DaemonSet":
		key = appsv1.ControllerRevisionHashLabelKey
	case "StatefulSet":
		key, value = appsv1.ControllerRevisionHashLabelKey, controllerRevision(w.id.Owner, revision)
	default:
		return w.template.Labels
	}
	out := maps.Clone(w.template.Labels)
	if out == nil {
		out = map[string]string{}
	}
	out[key] = value
	return out
}

// rulesOf returns what a revision of a workload says of nodes; where nothing was
// kept of it, what the one in Git says.
func (in *input) rulesOf(w *workload, revision string) api.NodeRules {
	if revision != w.revision {
		if m := in.castOf(w, revision).mold; m != nil {
			return m.Nodes
		}
	}
	return place.RulesOf(&w.template.Spec)
}

// molds returns what is to be remembered of every revision in use, and of those
// that may be again.
func (in *input) molds(set *api.AssignmentSet) map[string]api.Mold {
	out := map[string]api.Mold{}
	var last *api.Pod
	see := func(p *api.Pod, booked bool) {
		if last != nil && last.Revision == p.Revision && last.Owner == p.Owner && last.Kind == p.Kind && last.Namespace == p.Namespace {
			return
		}
		last = p
		c := in.castKnown(*p)
		if c.mold == nil && booked {
			c.booked()
		}
		if c.mold != nil {
			out[p.MoldKey()] = *c.mold
		}
	}
	for i := range set.Pods {
		see(&set.Pods[i].Pod, true)
	}
	for i := range set.Remove {
		see(&set.Remove[i].Assignment.Pod, true)
	}
	for i := range set.Pending {
		see(&set.Pending[i].Pod, false)
	}
	for i := range in.fallback {
		see(&in.fallback[i], false)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// namespaces are the labels of all namespaces that are declared.
func namespaces(snapshot api.Snapshot) map[string]map[string]string {
	out := map[string]map[string]string{}
	for namespace := range api.Of[*corev1.Namespace](snapshot) {
		out[namespace.Name] = namespace.Labels
	}
	return out
}
