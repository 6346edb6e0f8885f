package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// What nodes use is told in steps, which is enough to decide by. A client that
// wants to see it gets what was measured: from this node, and from the others, which
// are asked for it.
const (
	askUsage     = "usage"
	preciseAfter = 2 * time.Second // nobody is asked more often
	// preciseAge is how old a measurement may be to be better than what was told.
	preciseAge = time.Minute
	mostUsage  = 1 << 20 // bytes of an answer
)

// measured is what other nodes have measured. Its methods may be called
// concurrently.
type measured struct {
	gathering sync.Mutex // held by whoever asks
	asked     time.Time

	mu     sync.Mutex
	byNode map[string]measurement
}

type measurement struct {
	usage api.Usage
	at    time.Time // by this node's clock
}

// answerUsage tells another node what this one has measured last.
func (c *control) answerUsage() ([]byte, error) {
	u := c.precise.Load()
	if u == nil {
		return nil, errors.New("nothing was measured yet")
	}
	return json.Marshal(u)
}

// gatherUsage asks the other nodes for what they have measured.
func (c *control) gatherUsage(ctx context.Context) {
	m := &c.measured
	m.gathering.Lock()
	defer m.gathering.Unlock()
	if time.Since(m.asked) < preciseAfter {
		return
	}
	c.askAll(ctx, askUsage, func(string) any { return struct{}{} }, func(node string, raw []byte) {
		var u api.Usage
		if len(raw) > mostUsage || json.Unmarshal(raw, &u) != nil {
			return // what it told before is shown
		}
		u.Node = node // whatever it says
		m.add(u, time.Now())
	})
	m.asked = time.Now()
}

func (m *measured) add(u api.Usage, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byNode == nil {
		m.byNode = map[string]measurement{}
	}
	m.byNode[u.Node] = measurement{u, now}
	for node, old := range m.byNode {
		if now.Sub(old.at) > preciseAge {
			delete(m.byNode, node)
		}
	}
}

// recent returns what a node has measured, if that is not too old.
func (m *measured) recent(node string, now time.Time) (api.Usage, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, known := m.byNode[node]
	return u.usage, known && now.Sub(u.at) <= preciseAge
}

// usageShown is what nodes and pods use: as measured, where that is known, and else
// as it was told. Nodes that are gone use nothing that anybody knows of.
func (c *control) usageShown() []api.Usage {
	v := c.view.Load()
	if v == nil {
		return nil
	}
	told := map[string]api.Usage{}
	for _, u := range v.board.Usage {
		told[u.Node] = u
	}
	out := make([]api.Usage, 0, len(v.board.Nodes))
	for _, n := range v.board.Nodes {
		if v.board.HealthOf(n.Name).Gone() {
			continue
		}
		u := told[n.Name]
		if own := c.precise.Load(); n.Name == c.cfg.Node && own != nil {
			u = *own
		} else if known, recent := c.measured.recent(n.Name, time.Now()); recent {
			u = known
		}
		if _, measured := u.Used[corev1.ResourceCPU]; measured {
			out = append(out, u)
		}
	}
	return out
}
