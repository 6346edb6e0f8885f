package daemon

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// maxTold bounds how many mistakes of one commit become log lines and events;
// the status holds them all.
const maxTold = 20

// tellUnits says in log and events what changed about the repository: a commit
// that came into force, one that was refused and why, a repository that does
// not answer.
func (c *control) tellUnits(now time.Time) {
	if c.units == nil {
		c.units = map[string]api.UnitStatus{}
	}
	for _, u := range c.repo.Status() {
		was := c.units[u.Unit]
		c.units[u.Unit] = u
		c.tellUnit(was, u, now)
	}
}

func (c *control) tellUnit(was, is api.UnitStatus, now time.Time) {
	regards := corev1.ObjectReference{APIVersion: "fleet.shoal.dev/v1alpha1", Kind: "Unit", Namespace: "default", Name: is.Unit}
	event := func(kind, reason, format string, args ...any) {
		c.events.record(api.Event{
			Time: now, Type: kind, Reason: reason, Message: fmt.Sprintf(format, args...), Source: "gitsync", Regards: regards,
		})
	}
	if is.Accepted.Commit != was.Accepted.Commit && is.Accepted.Commit != "" {
		event(corev1.EventTypeNormal, "CommitAccepted", "%s %s is in force", is.Accepted.Commit.Short(), is.Accepted.Subject)
		c.log.Info("commit is in force", "commit", is.Accepted.Commit.Short(), "subject", is.Accepted.Subject, "author", is.Accepted.Author)
	}
	if is.Tip.Commit != was.Tip.Commit || len(is.Problems) != len(was.Problems) {
		c.tellProblems(is, event)
	}
	if is.Error != was.Error {
		if is.Error != "" {
			event(corev1.EventTypeWarning, "RepositoryFailed", "%s", is.Error)
			c.log.Warn("repository does not answer", "reason", is.Error)
		} else {
			event(corev1.EventTypeNormal, "RepositoryReachable", "the repository answers again")
			c.log.Info("repository answers again")
		}
	}
}

func (c *control) tellProblems(u api.UnitStatus, event func(kind, reason, format string, args ...any)) {
	mistakes, _ := countProblems(u.Problems)
	if mistakes > 0 {
		running := "nothing runs yet"
		if u.Accepted.Commit != "" {
			running = u.Accepted.Commit.Short() + " stays in force"
		}
		c.log.Error("commit is refused", "commit", u.Tip.Commit.Short(), "problems", mistakes, "reason", running)
		event(corev1.EventTypeWarning, "CommitRefused", "%s has %d problems, %s", u.Tip.Commit.Short(), mistakes, running)
	}
	for i, p := range u.Problems {
		if i == maxTold {
			c.log.Warn("there is more", "problems", len(u.Problems)-i, "reason", "see shoal status")
			break
		}
		if p.Warning {
			c.log.Warn(p.Error(), "commit", u.Tip.Commit.Short())
			event(corev1.EventTypeWarning, "NotActedUpon", "%s", p.Error())
			continue
		}
		c.log.Error(p.Error(), "commit", u.Tip.Commit.Short())
		event(corev1.EventTypeWarning, "Invalid", "%s", p.Error())
	}
}

// holds reports whether this node has a commit. What it has it keeps for long
// enough, and the repository is not asked at every turn.
func (c *control) holds(commit api.Commit) bool {
	if len(c.held) > 1000 {
		clear(c.held)
	}
	if !c.held[commit] && c.repo.Has(commit) {
		c.held[commit] = true
	}
	return c.held[commit]
}
