package gossip

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-dev/shoal/api"
)

func memberPrivate(n int) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0], seed[1] = byte(n), byte(n>>8)
	return ed25519.NewKeyFromSeed(seed)
}

// fiveWithThree is a fleet of n0 to n4, of which n0 to n2 vote.
func fiveWithThree(t testing.TB) Ledger {
	t.Helper()
	l := newTestLedger(t, "10.64.0.0/16")
	for n := 1; n < 5; n++ {
		l = joined(t, l, n)
	}
	return l.Follow(l.Index+1, nil, []uint64{1, 2, 3})
}

func recovery(t testing.TB, l Ledger, by int, lost ...string) Recovery {
	t.Helper()
	r, err := NewRecovery(l, MemberID(memberKey(by)), lost, ledgerTime, memberPrivate(by))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRecovery: a fleet that has lost two of three voters goes on in the next
// epoch, with the signer as the only voter; the others see by what right.
func TestRecovery(t *testing.T) {
	for _, by := range []int{2, 4} { // a voter, and a node that did not vote
		l := applied(t, fiveWithThree(t), Command{Now: ledgerTime, Claim: &Claim{Identity: "a", Node: "n1"}})
		lost := []string{"n1", "n0"}
		if by == 4 {
			lost = append(lost, "n2")
		}
		r := recovery(t, l, by, lost...)
		raw, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		read, err := DecodeRecovery(raw)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, read); diff != "" {
			t.Error(diff)
		}
		next, err := l.Recover(read)
		if err != nil {
			t.Fatal(err)
		}
		if next.Epoch != 2 || len(next.VoterIDs) != 1 || !next.Votes(uint64(by+1)) || len(next.Living()) != 5 || next.Index != l.Index+1 {
			t.Errorf("epoch %d, voters %v, %d members", next.Epoch, next.VoterIDs, len(next.Living()))
		}
		old := next.Claims["a"].Claim
		next = applied(t, next, Command{Now: ledgerTime, Claim: &Claim{Identity: "a", Node: "n3", Previous: old}})
		if got := next.Claims["a"].Claim; !old.Less(got) || !(api.Claim{Epoch: 1, Index: 1000}).Less(got) {
			t.Errorf("the claim %+v follows on %+v", got, old)
		}
		if err := next.Succeeds(l); err != nil {
			t.Error(err)
		}
		back := roundTrip(t, next)
		if err := back.Succeeds(l); err != nil {
			t.Error(err)
		}
		again, err := next.Recover(recovery(t, next, by))
		if err != nil {
			t.Fatal(err)
		}
		if again.Epoch != 3 || again.Succeeds(l) != nil || again.Succeeds(next) != nil || l.Succeeds(again) != nil {
			t.Errorf("epoch %d: %v, %v", again.Epoch, again.Succeeds(l), again.Succeeds(next))
		}
	}
}

func roundTrip(t testing.TB, l Ledger) Ledger {
	t.Helper()
	raw, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeLedger(raw)
	if err != nil {
		t.Fatal(err)
	}
	return back
}

// TestRecoveryIsRefused where it must be, with a reason.
func TestRecoveryIsRefused(t *testing.T) {
	l := fiveWithThree(t)
	good := recovery(t, l, 2, "n0", "n1")
	past, err := l.Recover(good)
	if err != nil {
		t.Fatal(err)
	}
	removed := applied(t, l, Command{Now: ledgerTime, RemoveMember: &RemoveMember{ID: good.Node}})
	other := l
	other.Fleet.ID = "g"
	stranger := good
	stranger.Node = MemberID(memberKey(9))
	changed := good
	changed.Lost = append([]string{}, good.Lost[0], MemberID(memberKey(4)))
	for _, c := range []struct {
		name string
		l    Ledger
		r    Recovery
		want string
	}{
		{"replayed", past, good, "used already"},
		{"of the future", l, recovery(t, past, 2), "of which this node has not heard"},
		{"of another fleet", other, good, "the recovery is of the fleet"},
		{"signed by a removed node", removed, good, "n2, which was removed"},
		{"signed by a stranger", l, stranger, "which is no member"},
		{"changed", l, changed, "signature is not that of n2"},
	} {
		if _, err := c.l.Recover(c.r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	for _, c := range []struct {
		name string
		by   int
		lost []string
		want string
	}{
		{"a quorum is left", 2, []string{"n0"}, "n1, n2 are 2 of 3 voters"},
		{"nobody is lost", 2, nil, "nothing to recover"},
		{"a lost node that does not vote", 2, []string{"n0", "n1", "n4"}, "n4 does not vote"},
		{"the signer itself", 2, []string{"n1", "n2"}, "cannot go on and be lost"},
		{"an unknown name", 2, []string{"n0", "n7"}, `"n7"`},
	} {
		if _, err := NewRecovery(l, MemberID(memberKey(c.by)), c.lost, ledgerTime, memberPrivate(c.by)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

// TestRecoveredLedgerNeedsItsRight: nobody takes a later epoch from a ledger that
// does not show who began it.
func TestRecoveredLedgerNeedsItsRight(t *testing.T) {
	l := fiveWithThree(t)
	next, err := l.Recover(recovery(t, l, 2, "n0", "n1"))
	if err != nil {
		t.Fatal(err)
	}
	bare := next
	bare.Recoveries = nil
	forged := next
	forged.Recoveries = []Recovery{{Fleet: "f", Node: MemberID(memberKey(3)), From: 1, Lost: next.Recoveries[0].Lost, Sig: next.Recoveries[0].Sig}}
	gone := applied(t, l, Command{Now: ledgerTime, RemoveMember: &RemoveMember{ID: MemberID(memberKey(2))}})
	for name, err := range map[string]error{"none": bare.Succeeds(l), "forged": forged.Succeeds(l), "by a removed node": next.Succeeds(gone)} {
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := next.Succeeds(Ledger{}); err != nil {
		t.Errorf("who knows nothing: %v", err)
	}
}

// TestRecoveryBits: a recovery of which any bit was flipped says the same, or is
// refused.
func TestRecoveryBits(t *testing.T) {
	l := fiveWithThree(t)
	good := recovery(t, l, 2, "n0", "n1")
	raw, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 * len(raw) {
		flipped := append([]byte{}, raw...)
		flipped[i/8] ^= 1 << (i % 8)
		r, err := DecodeRecovery(flipped)
		if err == nil && r.Check(l) == nil && !cmp.Equal(r, good) {
			t.Fatalf("taken:\n%s", flipped)
		}
	}
}

func FuzzDecodeRecovery(f *testing.F) {
	l := fiveWithThree(f)
	raw, err := recovery(f, l, 2, "n0", "n1").Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"fleet":"f","lost":[""]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := DecodeRecovery(raw); err == nil {
			_, _ = l.Recover(r) // no panic
			_, _ = r.Encode()
		}
	})
}

// TestNewEpochIsFollowed: a leader of a later epoch is followed by those of the
// older one, their leader included, and hands out its ledger though it has fewer
// entries.
func TestNewEpochIsFollowed(t *testing.T) {
	w := newNetwork(t, 5, 1)
	w.raft(0, 7)
	w.follow(2*time.Second, 0)
	for _, s := range w.nodes {
		s.SetLedger(1, 90, []byte("old"))
	}
	w.run(2 * time.Second)
	w.cut = split([]int{0, 1}, []int{2, 3, 4})
	w.run(6 * time.Second)
	next := Authority{Leader: w.nodes[2].peer.ID, Quorate: true, Epoch: 2, Term: 1}
	w.nodes[2].SetRaft(w.now, next)
	w.nodes[2].SetLedger(2, 80, []byte("new"))
	w.follow(2*time.Second, 2, 2, 3, 4)
	w.cut = split([]int{0, 1, 2, 3, 4})
	w.follow(3*time.Second, 2)
	w.until(2*time.Second, "all were sent the ledger", func() bool {
		for _, s := range w.nodes {
			if s.index != 2 && string(s.fresh) != "new" {
				return false
			}
		}
		return true
	})
	// The consensus of the old epoch still believes in itself.
	w.raft(0, 8)
	w.nodes[2].SetRaft(w.now, next)
	w.run(time.Second)
	w.follow(time.Second, 2)
	if w.nodes[0].Leads() {
		t.Error("the leader of the old epoch leads again")
	}
}
