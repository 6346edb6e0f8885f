package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// Deviations says where the fleet does not run what is in Git, because it has
// failed: one sentence for each Deployment that was rolled back, in order.
func Deviations(facts api.Facts) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(facts.Rollouts)) {
		if r := facts.Rollouts[name]; r.Back {
			out = append(out, fmt.Sprintf("%s is rolled back: %s; the next commit that changes its pod template rolls it out again", deploymentKey(name), backTo(r)))
		}
	}
	return out
}

// backTo says which rollout failed, and what runs instead.
func backTo(r api.Rollout) string {
	return fmt.Sprintf("%s made no progress within progressDeadlineSeconds, and the pods are those of %s", describe(r, r.Revision), describe(r, r.Current))
}

// describe names a revision as kubectl rollout history does, with its commit.
func describe(r api.Rollout, revision string) string {
	for _, h := range r.History {
		if h.Revision == revision {
			return fmt.Sprintf("revision %d (commit %s)", h.Number, h.Commit.Short())
		}
	}
	return "revision " + revision
}

func deploymentKey(identity string) api.Key {
	namespace, rest, _ := strings.Cut(identity, "/")
	kind, name, _ := strings.Cut(rest, "/")
	return api.Key{Group: groupOf(kind), Kind: kind, Namespace: namespace, Name: name}
}

// rolloutEvents tells of rollouts that missed their deadline, of those that were
// rolled back, and of those that go on.
func rolloutEvents(fleet string, before, after api.Facts, now time.Time) []api.Event {
	var out []api.Event
	for _, name := range slices.Sorted(maps.Keys(after.Rollouts)) {
		was, is := before.Rollouts[name], after.Rollouts[name]
		add := func(kind, reason, message string) {
			out = append(out, api.Event{Time: now, Type: kind, Reason: reason, Message: message, Source: "scheduler", Regards: referenceTo(fleet, deploymentKey(name))})
		}
		if is.Failed && (!was.Failed || was.Revision != is.Revision) {
			add(corev1.EventTypeWarning, "ProgressDeadlineExceeded", describe(is, is.Revision)+" made no progress within progressDeadlineSeconds")
		}
		switch {
		case is.Back && !was.Back:
			add(corev1.EventTypeWarning, "DeploymentRollback", "Rolled back: "+backTo(is))
		case was.Back && !is.Back:
			add(corev1.EventTypeNormal, "DeploymentRollbackEnded", "Rolling out "+describe(is, is.Revision))
		}
	}
	return out
}
