package fleet

import (
	"strings"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/gossip"
)

// recovers lays a recovery down at a house.
func (h *house) recovers(lost ...string) {
	h.t.Helper()
	l, err := Remembered(h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := gossip.NewRecovery(l, h.node.ID, lost, time.Now(), h.node.Private)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := LayRecovery(h.dir, r); err != nil {
		h.t.Fatal(err)
	}
}

// allVote waits until all of three vote with logs of one epoch.
func allVote(t *testing.T, epoch uint64, all ...*house) {
	t.Helper()
	agree(t, 15*time.Second, all...)
	defer func() {
		for _, h := range all {
			if t.Failed() {
				t.Logf("%s: %+v; alarms %q; raft ID %d; voters %v", h.name, h.log.State(), h.Alarms(), h.Self().RaftID, h.View().Ledger.VoterIDs)
			}
		}
	}()
	eventually(t, 40*time.Second, "all vote in the same epoch", func() bool {
		for _, h := range all {
			if s := h.log.State(); !s.Voter || len(s.Voters) != len(all) || s.Epoch != epoch || h.View().Ledger.Epoch != epoch {
				return false
			}
		}
		return true
	})
}

// TestRecovery: of three voters two are gone for good. The third goes on alone
// in a new epoch; when the two come back, together, with the quorum of the old
// one, they are members again and their logs are not believed.
func TestRecovery(t *testing.T) {
	a := found(t)
	b, c := a.join("n2"), a.join("n3")
	allVote(t, 1, a, b, c)
	eventually(t, 5*time.Second, "the ledger is kept", func() bool {
		l, err := Remembered(c.dir)
		return err == nil && len(l.VoterIDs) == 3
	})

	// While there is a quorum it is refused, whatever is said.
	c.recovers("n1", "n2")
	eventually(t, 5*time.Second, "it is refused", func() bool {
		waits, refused := Recovery(c.dir)
		return !waits && strings.Contains(refused, "it has a leader with a quorum")
	})
	if got := strings.Join(c.Alarms(), "; "); !strings.Contains(got, "the last recovery was refused") {
		t.Errorf("alarms: %q", got)
	}

	a.stop()
	b.stop()
	gone := time.Now()
	eventually(t, 10*time.Second, "n3 acts", func() bool { v := c.View(); return v.Leads && !v.Authority.Quorate })
	c.recovers("n1", "n2")
	eventually(t, 15*time.Second, "n3 leads with a quorum", func() bool { v := c.View(); return v.Leads && v.Authority.Quorate && v.Ledger.Epoch == 2 })
	t.Logf("recovered %s after the loss", time.Since(gone).Round(100*time.Millisecond))
	eventually(t, time.Second, "the recovery is put away", func() bool { waits, refused := Recovery(c.dir); return !waits && refused == "" })
	if _, err := c.NewToken(t.Context(), c.id.Fingerprint(), time.Hour, ""); err != nil {
		t.Errorf("a token in the new epoch: %v", err)
	}

	// A restart goes on in it.
	c.stop()
	c.start()
	if v := c.View(); !v.Leads || !v.Authority.Quorate || v.Ledger.Epoch != 2 {
		t.Errorf("after a restart: leads %v, epoch %d", v.Leads, v.Ledger.Epoch)
	}

	a.start()
	b.start()
	allVote(t, 2, a, b, c)
	for _, h := range []*house{a, b} {
		if got := h.Alarms(); len(got) > 0 {
			t.Errorf("alarms of %s: %q", h.name, got)
		}
	}
}

// TestRecoveryByStranger: a node that did not vote goes on for a fleet whose only
// voter is gone, though its daemon was stopped when it was told to.
func TestRecoveryByStranger(t *testing.T) {
	a := found(t)
	b := a.join("n2")
	agree(t, 10*time.Second, a, b)
	eventually(t, 5*time.Second, "the ledger is kept", func() bool { l, err := Remembered(b.dir); return err == nil && len(l.Living()) == 2 })
	a.stop()
	b.stop()
	b.recovers("n1")
	b.start()
	eventually(t, 20*time.Second, "n2 leads with a quorum", func() bool { v := b.View(); return v.Leads && v.Authority.Quorate && v.Ledger.Epoch == 2 })
	a.start()
	agree(t, 15*time.Second, b, a)
	eventually(t, 20*time.Second, "n1 has a new log", func() bool { return a.log.Absent() == nil && a.View().Ledger.Epoch == 2 && a.Self().RaftID > 2 })
	if !b.View().Leads {
		t.Error("n2 leads no more")
	}
}
