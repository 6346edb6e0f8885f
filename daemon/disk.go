package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/loop"
)

// A node whose state folder takes nothing more runs on what it has: its part in
// the consensus is on blocks that it was given before. But it cannot store a
// commit, and what it starts would have no files. So it says so, gets nothing
// new, and lets somebody else lead.
const (
	leastSpace  = 4 << 20 // bytes; with less the disk counts as full
	leastFiles  = 64
	fullRefresh = time.Second // how often the node looks at itself then
	yieldEvery  = 5 * time.Second
	yieldWithin = time.Second
)

// Space is what is left of a disk for a daemon, which is root: what is kept in
// reserve is its to use.
type Space struct {
	Bytes int64
	Files int64 // -1 where the file system does not count them
}

// diskSpace reads what is left of the disk of a folder.
func diskSpace(dir string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Space{}, fmt.Errorf("read how full the disk of %s is: %w", dir, err)
	}
	s := Space{Bytes: int64(st.Bfree) * st.Bsize, Files: -1}
	if st.Files > 0 {
		s.Files = int64(st.Ffree)
	}
	return s, nil
}

// short says how little is left, "" when there is enough.
func (s Space) short() string {
	switch {
	case s.Bytes < leastSpace:
		return fmt.Sprintf("%d KiB are left", s.Bytes>>10)
	case s.Files >= 0 && s.Files < leastFiles:
		return fmt.Sprintf("%d files are left", s.Files)
	}
	return ""
}

// noSpace says how little is left on the disk of the state folder, "" when there
// is enough. A disk that cannot be looked at says so elsewhere.
func (c *control) noSpace() string {
	s, err := c.machine.Space(c.cfg.State)
	if err != nil {
		return ""
	}
	return s.short()
}

// diskFull is the reason of the condition DiskPressure of such a node.
const diskFull = "NodeDiskFull"

// diskTaint keeps pods away that need not be here. Source: Kubernetes, "Taint
// Nodes by Condition".
var diskTaint = corev1.Taint{Key: corev1.TaintNodeDiskPressure, Effect: corev1.TaintEffectNoSchedule}

// lookAtDisk fills in whether the disk is full.
func (c *control) lookAtDisk(info *api.NodeInfo) {
	left := c.noSpace()
	if left == "" {
		return
	}
	if !slices.Contains(info.Taints, diskTaint) {
		info.Taints = append(info.Taints, diskTaint)
	}
	for i := range info.Conditions {
		if cond := &info.Conditions[i]; cond.Type == corev1.NodeDiskPressure {
			// What is left changes all the time and is not worth a record.
			cond.Status, cond.Reason, cond.Message = corev1.ConditionTrue, diskFull, "the disk of "+c.cfg.State+" is full"
		}
	}
}

// hasFullDisk reports whether a node has said so.
func hasFullDisk(info api.NodeInfo) bool {
	return slices.ContainsFunc(info.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeDiskPressure && c.Status == corev1.ConditionTrue && c.Reason == diskFull
	})
}

// notePressure looks at the node anew when it runs short of something that its
// record does not say, or has enough again.
func (c *control) notePressure() {
	info := c.node.Load()
	if info == nil {
		return
	}
	short := c.agent.Pressures()
	for _, cond := range info.Conditions {
		if cond.Type == corev1.NodeReady || cond.Type == corev1.NodeDiskPressure && cond.Reason == diskFull {
			continue
		}
		if (cond.Status == corev1.ConditionTrue) != slices.Contains(short, cond.Type) {
			loop.Poke(c.lookPoke)
		}
	}
}

// noteDisk looks at the node anew when its disk is not what its record says.
func (c *control) noteDisk() {
	if info := c.node.Load(); info != nil && hasFullDisk(*info) != (c.noSpace() != "") {
		loop.Poke(c.lookPoke)
	}
}

// yield lets another node lead while the disk is full: one that votes, is heard
// of and has space. c.looking is held.
func (c *control) yield(ctx context.Context, now time.Time) {
	company := c.part.View()
	if !company.Leads || !company.Authority.Quorate || now.Sub(c.yielded) < yieldEvery {
		return
	}
	voters := c.part.Voters()
	for _, n := range company.Board.Nodes {
		if n.Name == c.cfg.Node || !slices.Contains(voters, n.Name) || hasFullDisk(n) || company.Board.HealthOf(n.Name).Status != api.NodeAlive {
			continue
		}
		c.yielded = now
		attempt, cancel := context.WithTimeout(ctx, yieldWithin)
		defer cancel()
		c.report("let another node lead, because the disk is full", c.part.Yield(attempt, n.Name))
		return
	}
}

// diskAlarm says that the disk is full, "" when it is not.
func (c *control) diskAlarm() string {
	if left := c.noSpace(); left != "" {
		return "the disk of the state folder is full (" + c.cfg.State + ": " + left + "): commits cannot be stored, and nothing new is started here"
	}
	return ""
}
