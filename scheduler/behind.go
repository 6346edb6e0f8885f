package scheduler

import (
	"time"

	"github.com/shoal-dev/shoal/api"
)

// catchUp is how long a leader waits for a commit that another node has and that
// it lacks.
const catchUp = 5 * time.Second

// Lacking are the commits that other nodes have in force and the leader lacks,
// with the time at which it learned of each. It is the leader's own memory: the
// next one lacks others.
type Lacking map[api.Commit]time.Time

// Behind returns until when a leader waits with its decisions, because a living
// node has a commit in force that it does not know: it is most likely newer, and
// what it changed must not be taken back. The zero time says that there is no
// need. own are the units as the leader has them, and has says whether it holds a
// commit. The memory that is returned is to be given to the next call.
func (l Lacking) Behind(own []api.UnitStatus, has func(api.Commit) bool, board api.Board, now time.Time) (next Lacking, until time.Time) {
	next = Lacking{}
	health := healthByName(board)
	for _, unit := range own {
		for i := range board.Nodes {
			n := &board.Nodes[i]
			commit := n.Units[unit.Unit]
			if commit == "" || commit == unit.Accepted.Commit || health[n.Name].Status != api.NodeAlive && health[n.Name].Status != "" {
				continue
			}
			// One that it refused is not lacking; one that it has seen and
			// not judged yet may come into force at any moment.
			judging := commit == unit.Tip.Commit && !api.Refused(unit.Problems)
			if !judging && has(commit) {
				continue
			}
			since, known := l[commit]
			if !known {
				since = now
			}
			next[commit] = since
			if end := since.Add(catchUp); now.Before(end) && end.After(until) {
				until = end
			}
		}
	}
	return next, until
}
