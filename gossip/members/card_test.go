package members

import (
	"crypto/ed25519"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func made(t testing.TB, n int, seq uint64, host string) named {
	t.Helper()
	node := identityOf(n)
	c, err := seal(node, "fleet", card{seq: seq, peer: host + ":7947", gossip: netip.MustParseAddrPort(host + ":7946")})
	if err != nil {
		t.Fatal(err)
	}
	return named{node.ID, c}
}

func tableOf(n int) *table {
	return newTable(identityOf(n), "fleet", func(id string) (ed25519.PublicKey, error) {
		for i := range 4 {
			if o := identityOf(i + 1); o.ID == id {
				return o.Public, nil
			}
		}
		return nil, errors.New("no member")
	})
}

// TestNewestCardWins, whoever tells it and in whatever order.
func TestNewestCardWins(t *testing.T) {
	tab := tableOf(1)
	old, young := made(t, 2, 5, "10.0.0.2"), made(t, 2, 6, "10.0.1.2")
	for _, step := range []struct {
		name string
		card named
		news bool
		err  error
	}{
		{"the first", old, true, nil},
		{"the same again", old, false, nil},
		{"a newer one", young, true, nil},
		{"an older one, replayed", old, false, errOld},
		{"the same number twice", made(t, 2, 6, "10.9.9.9"), false, errTwice},
		{"of another node", named{young.id, made(t, 3, 7, "10.9.9.9").card}, false, errForge},
		{"nothing", named{young.id, card{}}, false, errCard},
	} {
		news, err := tab.offer(step.card.id, []byte(step.card.card.raw))
		if news != step.news || !errors.Is(err, step.err) {
			t.Errorf("%s: got %v, %v, want %v, %v", step.name, news, err, step.news, step.err)
		}
	}
	if c, _ := tab.card(young.id); c.peer != "10.0.1.2:7947" {
		t.Errorf("got %s", c.peer)
	}
	foreign, err := seal(identityOf(2), "other fleet", card{seq: 9, peer: "10.9.9.9:1", gossip: netip.MustParseAddrPort("10.9.9.9:1")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tab.offer(young.id, []byte(foreign.raw)); !errors.Is(err, errForge) {
		t.Errorf("a card for another fleet: %v", err)
	}
	if _, err := tab.offer(identityOf(9).ID, []byte(made(t, 9, 1, "10.0.0.9").card.raw)); err == nil {
		t.Error("a stranger's card is taken")
	}
}

// TestOwnCardOutgrows what others remember of a node that lost its files.
func TestOwnCardOutgrows(t *testing.T) {
	tab := tableOf(1)
	at := card{peer: "10.0.0.1:7947", gossip: netip.MustParseAddrPort("10.0.0.1:7946")}
	if err := tab.own(at, 10); err != nil {
		t.Fatal(err)
	}
	before := made(t, 1, 1000, "10.0.5.5")
	if _, err := tab.offer(before.id, []byte(before.card.raw)); err != nil || !tab.outdone() {
		t.Fatalf("it was not noticed: %v", err)
	}
	if err := tab.own(at, 0); err != nil || tab.outdone() {
		t.Fatal(err)
	}
	if c, _ := tab.card(before.id); c.seq != 1001 || c.peer != at.peer {
		t.Errorf("got %d at %s", c.seq, c.peer)
	}
}

// TestFile: a bit that is flipped anywhere is noticed.
func TestFile(t *testing.T) {
	f := file{filepath.Join(t.TempDir(), "members")}
	if cards, err := f.load(); err != nil || cards != nil {
		t.Errorf("no file: %v, %v", cards, err)
	}
	want := []named{made(t, 2, 1, "10.0.0.2"), made(t, 3, 4, "10.0.0.3")}
	if err := f.save(want); err != nil {
		t.Fatal(err)
	}
	if got, err := f.load(); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	good, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if err := os.WriteFile(f.path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.load(); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Fatalf("byte %d: %v", i, err)
		}
		if err := os.WriteFile(f.path, good[:i], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.load(); err == nil {
			t.Fatalf("%d bytes are taken", i)
		}
	}
}

// FuzzCard: no bytes make a panic, a card has one form only, and what others say
// is never taken without a signature.
func FuzzCard(f *testing.F) {
	f.Add([]byte(made(f, 2, 5, "10.0.0.2").card.raw))
	f.Add([]byte{cardKind})
	f.Add(slices.Repeat([]byte{1}, maxCard))
	right := made(f, 2, 5, "10.0.0.2")
	f.Fuzz(func(t *testing.T, raw []byte) {
		tab := tableOf(1)
		if news, err := tab.offer(right.id, raw); news && (err != nil || string(raw) != right.card.raw) {
			t.Errorf("%x is taken", raw)
		}
		c, err := readCard(raw)
		if err != nil {
			return
		}
		again, err := seal(identityOf(2), "fleet", c)
		if err != nil {
			t.Fatalf("%x: %v", raw, err)
		}
		if n := len(raw) - ed25519.SignatureSize; string(raw[:n]) != again.raw[:n] {
			t.Errorf("%x is written as %x", raw[:n], again.raw[:n])
		}
	})
}

// FuzzBundle: likewise for lists.
func FuzzBundle(f *testing.F) {
	f.Add(bundle([]named{made(f, 2, 5, "10.0.0.2"), made(f, 3, 5, "10.0.0.3")}))
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		cards, err := unbundle(raw)
		if err == nil && string(bundle(cards)) != string(raw) {
			t.Errorf("%x is read as %x", raw, bundle(cards))
		}
	})
}
