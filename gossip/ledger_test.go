package gossip

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
)

var ledgerTime = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func memberKey(n int) ed25519.PublicKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0], seed[1] = byte(n), byte(n>>8)
	return ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
}

func tokenHash(n int) string { return fmt.Sprintf("%064x", n) }

func newTestLedger(t testing.TB, cidr string) Ledger {
	t.Helper()
	l, err := NewLedger(Fleet{ID: "f", ClusterCIDR: cidr, ServiceCIDR: "10.96.0.0/12", Domain: "cluster.local"},
		Member{Name: "n0", Key: memberKey(0)}, make([]byte, 32), ledgerTime)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func applied(t testing.TB, l Ledger, c Command) Ledger {
	t.Helper()
	out, err := l.Apply(l.Index+1, c)
	if err != nil {
		t.Fatalf("%+v: %v", c, err)
	}
	return out
}

func refuses(t testing.TB, l Ledger, c Command, want string) {
	t.Helper()
	out, err := l.Apply(l.Index+1, c)
	var refusal *Refusal
	if !errors.As(err, &refusal) || !strings.Contains(err.Error(), want) {
		t.Fatalf("got %v, want a refusal that says %q", err, want)
	}
	if out.Index != l.Index+1 || out.Hash == l.Hash {
		t.Error("a refused command is part of the history")
	}
	out.Index, out.Hash = l.Index, l.Hash
	if diff := cmp.Diff(l, out); diff != "" {
		t.Errorf("a refused command changed the ledger:\n%s", diff)
	}
}

func joined(t testing.TB, l Ledger, n int) Ledger {
	t.Helper()
	l = applied(t, l, Command{Now: ledgerTime, AddToken: &AddToken{Hash: tokenHash(n), Expires: ledgerTime.Add(time.Hour)}})
	return applied(t, l, Command{Now: ledgerTime, AddMember: &AddMember{Name: fmt.Sprintf("n%d", n), Key: memberKey(n), Token: tokenHash(n)}})
}

func TestMembersComeAndGo(t *testing.T) {
	l := newTestLedger(t, "10.64.0.0/22")
	if got := l.Members[MemberID(memberKey(0))].PodCIDR; got != "10.64.0.0/24" {
		t.Errorf("the founder got %s", got)
	}
	refuses(t, l, Command{Now: ledgerTime, AddMember: &AddMember{Name: "n1", Key: memberKey(1), Token: tokenHash(1)}}, "token is not known")
	l = joined(t, l, 1)
	one := l.Members[MemberID(memberKey(1))]
	if one.PodCIDR != "10.64.1.0/24" || one.RaftID != 2 || !one.Joined.Equal(ledgerTime) {
		t.Errorf("got %+v", one)
	}
	again := applied(t, l, Command{Now: ledgerTime, AddMember: &AddMember{Name: "n1", Key: memberKey(1)}})
	if diff := cmp.Diff(l.Members, again.Members); diff != "" {
		t.Errorf("to join twice changed something:\n%s", diff)
	}
	refuses(t, l, Command{Now: ledgerTime, AddMember: &AddMember{Name: "n2", Key: memberKey(2), Token: tokenHash(1)}}, "used already")
	refuses(t, l, Command{Now: ledgerTime, AddMember: &AddMember{Name: "n1", Key: memberKey(2), Token: tokenHash(1)}}, "another key")
	refuses(t, l, Command{Now: ledgerTime, RemoveMember: &RemoveMember{ID: MemberID(memberKey(0))}}, "only voter")

	l = applied(t, l, Command{Now: ledgerTime, Claim: &Claim{Identity: "ns/StatefulSet/db[0]", Node: "n1"}})
	l = applied(t, l, Command{Now: ledgerTime, RemoveMember: &RemoveMember{ID: one.ID}})
	if holder := l.Claims["ns/StatefulSet/db[0]"]; holder.Node != FormerName("n1", one.ID) || !l.Members[one.ID].Removed {
		t.Errorf("the claim of the removed member is held by %+v", holder)
	}
	l = applied(t, l, Command{Now: ledgerTime, AddToken: &AddToken{Hash: tokenHash(9), Expires: ledgerTime.Add(3 * time.Hour)}})
	refuses(t, l, Command{Now: ledgerTime, AddMember: &AddMember{Name: "n1", Key: memberKey(1), Token: tokenHash(9)}}, "cannot come back")
	soon := applied(t, l, Command{Now: ledgerTime, AddMember: &AddMember{Name: "n1", Key: memberKey(3), Token: tokenHash(9)}})
	if got := soon.Members[MemberID(memberKey(3))]; got.PodCIDR != "10.64.2.0/24" || got.RaftID != 3 {
		t.Errorf("the range of a node that was just removed was given away: %+v", got)
	}
	later := applied(t, l, Command{Now: ledgerTime.Add(2 * time.Hour), AddMember: &AddMember{Name: "n1", Key: memberKey(3), Token: tokenHash(9)}})
	if got := later.Members[MemberID(memberKey(3))].PodCIDR; got != "10.64.1.0/24" {
		t.Errorf("got %s, want the lowest free range", got)
	}
}

func TestTheRangeIsFull(t *testing.T) {
	l := newTestLedger(t, "255.255.254.0/23")
	l = joined(t, l, 1)
	l = applied(t, l, Command{Now: ledgerTime, AddToken: &AddToken{Hash: tokenHash(2), Expires: ledgerTime.Add(time.Hour)}})
	refuses(t, l, Command{Now: ledgerTime, AddMember: &AddMember{Name: "n2", Key: memberKey(2), Token: tokenHash(2)}}, "is full")
	refuses(t, l, Command{Now: ledgerTime.Add(2 * time.Hour), AddMember: &AddMember{Name: "n2", Key: memberKey(2), Token: tokenHash(2)}}, "expired")
}

func TestClaimsOnlyGrow(t *testing.T) {
	l := joined(t, newTestLedger(t, "10.64.0.0/16"), 1)
	l = applied(t, l, Command{Now: ledgerTime, Claim: &Claim{Identity: "a", Node: "n0"}})
	first := l.Claims["a"].Claim
	if first != (api.Claim{Epoch: 1, Index: l.Index}) {
		t.Fatalf("got %+v", first)
	}
	refuses(t, l, Command{Now: ledgerTime, Claim: &Claim{Identity: "a", Node: "n1"}}, "claimed by n0")
	refuses(t, l, Command{Now: ledgerTime, Claim: &Claim{Identity: "b", Node: "nobody"}}, "no member")
	moved := applied(t, l, Command{Now: ledgerTime, Claim: &Claim{Identity: "a", Node: "n1", Previous: first}})
	if moved.Claims["a"].Node != "n1" || !first.Less(moved.Claims["a"].Claim) || l.Claims["a"].Node != "n0" {
		t.Errorf("got %+v, and before %+v", moved.Claims["a"], l.Claims["a"])
	}
	kept := applied(t, moved, Command{Now: ledgerTime, ReleaseClaims: &ReleaseClaims{Claims: map[string]api.Claim{"a": first}}})
	if len(kept.Claims) != 1 {
		t.Error("a claim that changed since was dropped")
	}
	recovered, err := moved.Recovered(2, []uint64{2})
	if err != nil {
		t.Fatal(err)
	}
	last := moved.Claims["a"].Claim
	recovered = applied(t, recovered, Command{Now: ledgerTime, Claim: &Claim{Identity: "a", Node: "n1", Previous: last}})
	if got := recovered.Claims["a"].Claim; got.Epoch != 2 || !last.Less(got) {
		t.Errorf("got %+v", got)
	}
}

func TestAddressesHaveOneOwner(t *testing.T) {
	l := newTestLedger(t, "10.64.0.0/16")
	a := api.ServiceAddress{ClusterIP: "10.96.0.5", NodePorts: map[string]int32{"TCP/80": 30080}}
	l = applied(t, l, Command{Now: ledgerTime, SetAddresses: &SetAddresses{Set: map[string]api.ServiceAddress{"ns/a": a}}})
	out, err := l.Apply(l.Index+1, Command{Now: ledgerTime, SetAddresses: &SetAddresses{Set: map[string]api.ServiceAddress{
		"ns/b": {ClusterIP: "10.96.0.5"}, "ns/c": {ClusterIP: "10.96.0.6"},
		"ns/d": {NodePorts: map[string]int32{"TCP/443": 30080}}, "ns/e": {NodePorts: map[string]int32{"UDP/443": 30080}},
	}}})
	want := "refused: Service ns/b cannot have 10.96.0.5: Service ns/a has it; Service ns/d cannot have TCP node port 30080: Service ns/a has it"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if len(out.Addresses) != 3 || len(l.Addresses) != 1 {
		t.Errorf("got %v", out.Addresses)
	}
	moved := applied(t, l, Command{Now: ledgerTime, SetAddresses: &SetAddresses{
		Remove: []string{"ns/a"}, Set: map[string]api.ServiceAddress{"ns/b": a},
	}})
	if len(moved.Addresses) != 1 || moved.Addresses["ns/b"].ClusterIP != "10.96.0.5" {
		t.Errorf("got %v", moved.Addresses)
	}
}

func TestKeysEpochsAndRejoin(t *testing.T) {
	l := joined(t, newTestLedger(t, "10.64.0.0/16"), 1)
	for g := uint64(2); g <= 5; g++ {
		l = applied(t, l, Command{Now: ledgerTime, RotateGossipKey: &RotateGossipKey{Generation: g, Key: bytes.Repeat([]byte{byte(g)}, 32)}})
	}
	if n := len(l.GossipKeys); n != gossipGenerations || l.GossipKeys[n-1].Generation != 5 {
		t.Errorf("got %v", l.GossipKeys)
	}
	refuses(t, l, Command{Now: ledgerTime, RotateGossipKey: &RotateGossipKey{Generation: 5, Key: make([]byte, 32)}}, "generation 6")
	refuses(t, l, Command{Now: ledgerTime}, "exactly one")
	refuses(t, l, Command{Now: ledgerTime, Handover: &Handover{}, Rejoin: &Rejoin{}}, "exactly one")
	id := MemberID(memberKey(1))
	next := applied(t, l, Command{Now: ledgerTime, Rejoin: &Rejoin{ID: id, Old: 2}})
	next = applied(t, next, Command{Now: ledgerTime, Rejoin: &Rejoin{ID: id, Old: 2}})
	if got := next.Members[id].RaftID; got != 3 || l.Members[id].RaftID != 2 {
		t.Errorf("got the raft ID %d", got)
	}
	refuses(t, l, Command{Now: ledgerTime, Rejoin: &Rejoin{ID: MemberID(memberKey(0)), Old: 1}}, "only voter")
}

func drawCommand(t *rapid.T, l Ledger) Command {
	name := func(label string) string { return fmt.Sprintf("n%d", rapid.IntRange(0, 6).Draw(t, label)) }
	n := rapid.IntRange(0, 6).Draw(t, "node")
	id, identity := MemberID(memberKey(n)), rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "identity")
	c := Command{Now: ledgerTime.Add(time.Duration(rapid.IntRange(0, 9000).Draw(t, "now")) * time.Second)}
	switch rapid.IntRange(0, 10).Draw(t, "kind") {
	case 0:
		c.AddToken = &AddToken{Hash: tokenHash(n), Expires: ledgerTime.Add(2 * time.Hour)}
	case 1, 2:
		c.AddMember = &AddMember{Name: name("name"), Key: memberKey(n), Token: tokenHash(rapid.IntRange(0, 6).Draw(t, "token"))}
	case 3:
		c.RemoveMember = &RemoveMember{ID: id}
	case 4:
		c.UpdateMember = &UpdateMember{ID: id, Name: name("name"), Zone: identity}
	case 5:
		c.Rejoin = &Rejoin{ID: id, Old: l.Members[id].RaftID}
	case 6, 7:
		c.Claim = &Claim{Identity: identity, Node: name("name"), Previous: l.Claims[identity].Claim}
	case 8:
		c.ReleaseClaims = &ReleaseClaims{Claims: map[string]api.Claim{identity: l.Claims[identity].Claim}}
	case 9:
		c.Handover = &Handover{ID: id, On: n%2 == 0}
	case 10:
		c.SetAddresses = &SetAddresses{
			Set: map[string]api.ServiceAddress{
				"ns/" + identity: {ClusterIP: fmt.Sprintf("10.96.0.%d", n)}, "ns/z": {ClusterIP: "10.96.0.1"},
			},
			Remove: rapid.SliceOfN(rapid.SampledFrom([]string{"ns/a", "ns/z"}), 0, 1).Draw(t, "remove"),
		}
	}
	return c
}

// Whatever is commanded: the same commands make the same ledger, on the disk
// and back too, what was handed out stays as it was, and nothing is given twice.
func TestLedgerProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, err := NewLedger(Fleet{ID: "f", ClusterCIDR: "10.64.0.0/21"}, Member{Name: "n0", Key: memberKey(0)}, nil, ledgerTime)
		if err != nil {
			t.Fatal(err)
		}
		raftIDs := map[uint64]string{1: MemberID(memberKey(0))}
		for i := range rapid.IntRange(1, 40).Draw(t, "commands") {
			c := drawCommand(t, l)
			before, _ := l.Encode()
			raw, err := c.Encode()
			if err != nil {
				t.Fatal(err)
			}
			read, err := DecodeCommand(raw)
			if err != nil {
				t.Fatal(err)
			}
			next, err := l.Apply(uint64(i+1), c)
			again, errAgain := l.Apply(uint64(i+1), read)
			if diff := cmp.Diff(next, again); diff != "" || fmt.Sprint(err) != fmt.Sprint(errAgain) {
				t.Fatalf("%s applied twice: %v, %v\n%s", raw, err, errAgain, diff)
			}
			if after, _ := l.Encode(); !bytes.Equal(before, after) {
				t.Fatalf("%s changed the ledger it was applied to:\n%s\n%s", raw, before, after)
			}
			encoded, _ := next.Encode()
			back, err := DecodeLedger(encoded)
			if err != nil {
				t.Fatal(err)
			}
			if reencoded, _ := back.Encode(); !bytes.Equal(encoded, reencoded) {
				t.Fatalf("encoded twice:\n%s\n%s", encoded, reencoded)
			}
			checkStep(t, l, next, raftIDs)
			l = back
		}
	})
}

func checkStep(t *rapid.T, old, next Ledger, raftIDs map[uint64]string) {
	cidrs, names, former := map[string]bool{}, map[string]bool{}, map[string]string{}
	for id, m := range next.Members {
		if owner, given := raftIDs[m.RaftID]; given && owner != id {
			t.Fatalf("the raft ID %d was given twice", m.RaftID)
		}
		raftIDs[m.RaftID] = id
		if m.Removed {
			former[FormerName(m.Name, id)] = m.Name
			continue
		}
		if old.Members[id].Removed {
			t.Fatalf("%s came back", m.Name)
		}
		if cidrs[m.PodCIDR] || names[m.Name] {
			t.Fatalf("%s or %s was given twice", m.PodCIDR, m.Name)
		}
		cidrs[m.PodCIDR], names[m.Name] = true, true
	}
	for identity, holder := range next.Claims {
		before := old.Claims[identity]
		removed := before.Claim == holder.Claim && former[holder.Node] == before.Node // its holder was
		if before != holder && !before.Claim.Less(holder.Claim) && !removed {
			t.Fatalf("the claim of %s went from %v to %v", identity, before, holder)
		}
		if !names[holder.Node] && former[holder.Node] == "" {
			t.Fatalf("%s is claimed by %s, which is no member", identity, holder.Node)
		}
	}
	owners := map[string]string{}
	for service, a := range next.Addresses {
		for _, part := range parts(a) {
			if other, taken := owners[part]; taken {
				t.Fatalf("%s is of %s and %s", part, service, other)
			}
			owners[part] = service
		}
	}
}

func TestDecodingIsStrict(t *testing.T) {
	good, err := newTestLedger(t, "10.64.0.0/16").Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string]string{
		"unknown field":   strings.Replace(string(good), `"epoch"`, `"future"`, 1),
		"something after": string(good) + "{}",
		"another key":     strings.Replace(string(good), `"id":"`+MemberID(memberKey(0)), `"id":"`+MemberID(memberKey(1)), 1),
		"raft ID":         strings.Replace(string(good), `"nextRaftID":2`, `"nextRaftID":1`, 1),
		"voters":          strings.Replace(string(good), `"voterIDs":[1]`, `"voterIDs":[2,1]`, 1),
		"too long":        strings.Repeat(" ", MaxLedger) + string(good),
		"empty":           "",
	} {
		if _, err := DecodeLedger([]byte(raw)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, raw := range []string{"{}", `{"now":"2026-01-01T00:00:00Z"}`, `{"now":"2026-01-01T00:00:00Z","claim":{"who":1}}`, "null"} {
		if _, err := DecodeCommand([]byte(raw)); err == nil {
			t.Errorf("%s: accepted", raw)
		}
	}
}

func FuzzDecodeLedger(f *testing.F) {
	l := newTestLedger(f, "10.64.0.0/16")
	l = joined(f, l, 1)
	l = applied(f, l, Command{Now: ledgerTime, Claim: &Claim{Identity: "a", Node: "n1"}})
	raw, err := l.Encode()
	if err != nil {
		f.Fatal(err)
	}
	command, err := json.Marshal(Command{Now: ledgerTime, Claim: &Claim{Identity: "a", Node: "n0"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, command)
	f.Add([]byte("{}"), []byte(`{"now":"2026-01-01T00:00:00Z","handover":{"id":"x","on":true}}`))
	f.Fuzz(func(t *testing.T, raw, command []byte) {
		l, err := DecodeLedger(raw)
		if err != nil {
			return
		}
		c, err := DecodeCommand(command)
		if err != nil {
			return
		}
		next, _ := l.Apply(l.Index+1, c)
		again, _ := l.Apply(l.Index+1, c)
		if next.Hash != again.Hash || next.Index != l.Index+1 {
			t.Fatal("applied twice, the results differ")
		}
		WantedVoters(next, nil, ledgerTime)
	})
}

func TestLivingIsSorted(t *testing.T) {
	l := newTestLedger(t, "10.64.0.0/16")
	for n := 1; n < 20; n++ {
		l = joined(t, l, n)
	}
	living := l.Living()
	if len(living) != 20 || !slices.IsSortedFunc(living, func(a, b Member) int { return strings.Compare(a.ID, b.ID) }) {
		t.Error("not all, or not sorted")
	}
}
