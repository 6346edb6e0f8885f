package daemon

import (
	"testing"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// TestMeasured: what others have measured is used for a while, and then forgotten.
func TestMeasured(t *testing.T) {
	var m measured
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	m.add(api.Usage{Node: "n2", Window: time.Second}, now)
	if u, recent := m.recent("n2", now.Add(preciseAge)); !recent || u.Window != time.Second {
		t.Errorf("got %v %v of a node that has just told", u, recent)
	}
	if _, recent := m.recent("n2", now.Add(preciseAge+1)); recent {
		t.Error("an old measurement is recent")
	}
	m.add(api.Usage{Node: "n3"}, now.Add(2*preciseAge))
	if len(m.byNode) != 1 {
		t.Errorf("%d nodes are remembered, want 1", len(m.byNode))
	}
}
