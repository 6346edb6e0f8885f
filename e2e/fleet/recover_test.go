//go:build e2e

package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRecover: two of three voters are gone for good, with the exclusive pod. The
// third goes on by a signed recovery within 15 s, and the pod runs there within
// 40 s of that; tokens can be made. When the two come back, together, they are
// members again within 60 s, all three vote, and the pod has never run twice.
func TestRecover(t *testing.T) {
	w, s, where := exclusive(t)
	holder, pod := where()
	left := w.nodes[0]
	if left == holder {
		left = w.nodes[1]
	}
	var gone []*node
	var names []string
	for _, n := range w.nodes {
		if n != left {
			gone, names = append(gone, n), append(names, n.name)
		}
	}
	lost := strings.Join(names, ",")

	refused := func(what, want string, command ...string) {
		t.Helper()
		if out, err := left.shoal(command...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q\n%s", what, err, want, out)
		}
	}
	refused("while there is a quorum", "it has a leader with a quorum", "recover", "--lost", lost, "--yes")
	refused("with one lost", "with them there is a quorum", "recover", "--lost", names[0], "--yes")
	refused("without a yes", "nothing was done", "recover", "--lost", lost)

	for _, n := range gone {
		n.die()
	}
	begin := uptime(t)
	w.eventually(15*time.Second, "the one that is left acts", func() (bool, string) {
		s, err := left.status()
		return err == nil && s.Leader == left.name && !s.Quorate, fmt.Sprint(s.Leader, err)
	})
	refused("a token of an acting leader", "no leader with a quorum", "token", "create")

	// A recovery of which a bit was flipped is refused.
	file := filepath.Join(left.state, "fleet", "recovery")
	if err := os.WriteFile(file, []byte(`{"fleet":"x","node":"y","from":1,"index":1,"lost":[],"made":"2026-01-01T00:00:00Z","sig":""}`), 0o600); err != nil {
		t.Fatal(err)
	}
	w.eventually(5*time.Second, "a forged recovery is refused", func() (bool, string) {
		s, err := left.status()
		return strings.Contains(strings.Join(s.Alarms, "\n"), "the last recovery was refused"), fmt.Sprint(s.Alarms, err)
	})

	out := left.must("recover", "--lost", lost, "--yes")
	t.Logf("recovered %.1f s after the loss:\n%s", uptime(t)-begin, out)
	w.eventually(15*time.Second, "it leads with a quorum", func() (bool, string) {
		s, err := left.status()
		return err == nil && s.Quorate && s.Leader == left.name && s.Epoch == 2, fmt.Sprintf("%+v %v", s.Alarms, err)
	})
	left.must("token", "create")
	_, first := s.moved(w, pod, begin, 40*time.Second)
	t.Logf("the exclusive pod runs again %.1f s after the loss", first)

	for _, n := range gone {
		n.cable("sw0")
		n.launch()
	}
	took := w.eventually(60*time.Second, "all three vote in the new epoch", func() (bool, string) {
		last := ""
		for _, n := range w.nodes {
			s, err := n.status()
			last += fmt.Sprintf("%s: leader %s quorate %v epoch %d voters %v alarms %v %v\n", n.name, s.Leader, s.Quorate, s.Epoch, s.Voters, s.Alarms, err)
			if err != nil || !s.Quorate || s.Epoch != 2 || len(s.Voters) != 3 || len(s.Alarms) > 0 {
				return false, last
			}
		}
		return true, last
	})
	t.Logf("one fleet again after %s", took)
	w.settled(30 * time.Second)
	where()
	s.check()
}
