package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// runBalance runs the commands that concern moves to nodes with more room.
func (m *model) runBalance(command string, args []string) (string, bool, error) {
	if command != "live" {
		return "", false, nil
	}
	d, err := time.ParseDuration(args[0])
	return m.live(d), true, err
}

// live lets time pass in which pods do what they are told to and get ready within
// a second, and returns what was decided and when.
func (m *model) live(d time.Duration) string {
	var out strings.Builder
	begin := m.now
	for end := m.now.Add(d); m.now.Before(end); {
		before := m.set
		wake := m.schedule()
		out.WriteString(m.changes(before, m.now.Sub(begin)))
		states := maps.Clone(m.states)
		m.obey()
		for _, s := range m.states {
			if !strings.HasPrefix(s.Pod.Revision, "bad") && !s.Ready {
				m.ready(s.Pod.Owner, s.Pod.Revision, true)
			}
		}
		next := m.now.Add(time.Second)
		if maps.EqualFunc(states, m.states, func(a, b api.PodState) bool { return a.Ready == b.Ready && a.Phase == b.Phase }) {
			next = end // nothing happens until the leader looks again
			if !wake.IsZero() && wake.Before(end) && wake.After(m.now) {
				next = wake
			}
		}
		m.now = next
	}
	return out.String()
}

// changes says what a decision changed: pods with nodes, and pods told to go.
func (m *model) changes(before api.AssignmentSet, at time.Duration) string {
	var lines []string
	known := map[string]bool{}
	for _, a := range before.Pods {
		known[a.Pod.Instance] = true
	}
	for _, a := range m.set.Pods {
		if !known[a.Pod.Instance] {
			lines = append(lines, fmt.Sprintf("%6s %s starts on %s: %s", at, a.Pod.Identity, a.Node, a.Reason))
		}
	}
	for _, r := range m.set.Remove {
		if !before.Removes(r.Assignment.Pod.Instance) {
			lines = append(lines, fmt.Sprintf("%6s %s stops on %s: %s", at, r.Assignment.Pod.Identity, r.Assignment.Node, r.Reason))
		}
	}
	slices.Sort(lines)
	return strings.Join(append(lines, ""), "\n")
}
