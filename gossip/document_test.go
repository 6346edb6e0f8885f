package gossip

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
)

// drawDocument makes a document of few keys, so that two of them have many in
// common.
func drawDocument(t *rapid.T, label string) Document {
	values := map[string]json.RawMessage{}
	for _, key := range rapid.SliceOfDistinct(rapid.StringMatching("[a-d](/[a-c])?"), rapid.ID).Draw(t, label) {
		values[key] = json.RawMessage(rapid.SampledFrom([]string{"1", `"x"`, "[2]", "null"}).Draw(t, label+" value"))
	}
	return NewDocument(values)
}

// TestDeltas: whatever two documents are, their difference leads from one to the
// other and to nothing else.
func TestDeltas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to, other := drawDocument(t, "from"), drawDocument(t, "to"), drawDocument(t, "other")
		delta := Diff(from, to)
		raw, err := json.Marshal(delta)
		if err != nil {
			t.Fatal(err)
		}
		var sent Delta
		if err := json.Unmarshal(raw, &sent); err != nil {
			t.Fatal(err)
		}
		got, err := from.Patch(sent)
		if err != nil || got.Hash() != to.Hash() || !slices.Equal(got.Keys(), to.Keys()) {
			t.Fatalf("%v leads to %v, want %v: %v", delta, got, to, err)
		}
		if other.Hash() != from.Hash() && sent.Base != (Hash{}) {
			if after, err := other.Patch(sent); err == nil || after.Hash() != other.Hash() {
				t.Fatalf("a change of %v was made to %v", from, other)
			}
		}
		sent.Result[0]++
		if _, err := from.Patch(sent); err == nil {
			t.Fatal("a change that leads elsewhere than it says was taken")
		}
		whole, err := other.Patch(Diff(Document{}, to))
		if err != nil || whole.Hash() != to.Hash() {
			t.Fatalf("the whole leads to %v, want %v: %v", whole, to, err)
		}
	})
}

// TestSetsAndFacts survive being taken apart.
func TestSetsAndFacts(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pod := api.Pod{Identity: api.Identity{Namespace: "ns", Kind: "Deployment", Owner: "web", Slot: "1"}, Revision: "r", Instance: "i/1"}
	set := api.AssignmentSet{
		Epoch: 1, Term: 7, Quorate: true, Leader: "n1", BasedOn: map[string]api.Seq{"n1": {Boot: 5, N: 6}, "n/2": {}},
		Pods:    []api.Assignment{{Pod: pod, Node: "n1", Created: at, Reason: "because"}},
		Remove:  []api.Removal{{Assignment: api.Assignment{Pod: api.Pod{Instance: "j"}, Node: "n2", Created: at}, At: at, Reason: "surplus"}},
		Pending: []api.Unplaced{{Pod: api.Pod{Instance: "k"}, Created: at, Reason: "full"}},
	}
	d, err := EncodeSet(Document{}, set)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSet(d)
	if diff := cmp.Diff(set, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if again, _ := EncodeSet(d, got); again.Hash() != d.Hash() {
		t.Error("encoding it again gives something else")
	}
	facts := api.Facts{
		Term: 7, Seq: 9, Minted: 3, Created: map[string]time.Time{"apps/Deployment/ns/web": at},
		Rollouts:  map[string]api.Rollout{"ns/Deployment/web": {Revision: "r", Started: at, Progressed: at, History: []api.Revision{{Revision: "r", Number: 1, Since: at}}}},
		Addresses: map[string]api.ServiceAddress{"ns/web": {ClusterIP: "10.96.0.9", NodePorts: map[string]int32{"TCP/80": 30000}}},
	}
	d, err = EncodeFacts(Document{}, facts)
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeFacts(d)
	if diff := cmp.Diff(facts, back); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func testKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(append([]byte{n}, make([]byte, ed25519.SeedSize-1)...))
}

// update makes a signed record of a node as it is sent.
func update(t testing.TB, node string, n uint64, pods ...string) Update {
	t.Helper()
	record, err := NewRecord(Record{}, "f", node, States, api.Seq{Boot: 1, N: n}, states(pods...), testKey(node[0]))
	if err != nil {
		t.Fatal(err)
	}
	return Update{record.Header, Diff(Document{}, record.Body)}
}

func testRecords() *Records {
	return NewRecords("f", func(node string) (ed25519.PublicKey, bool) {
		return testKey(node[0]).Public().(ed25519.PublicKey), node != "stranger"
	})
}

// TestMerge: records end up the same whatever order they come in, and however
// often.
func TestMerge(t *testing.T) {
	var all []Update
	for _, node := range []string{"a", "b", "c"} {
		for n := range uint64(3) {
			all = append(all, update(t, node, n+1, strings.Repeat("p", int(n)+1)))
		}
	}
	want := testRecords()
	for _, u := range all {
		if _, err := want.Apply(u); err != nil {
			t.Fatal(err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		got := testRecords()
		order := rapid.Permutation(append(slices.Clone(all), rapid.SliceOf(rapid.SampledFrom(all)).Draw(t, "again")...)).Draw(t, "order")
		for _, u := range order {
			if _, err := got.Apply(u); err != nil {
				t.Fatal(err)
			}
		}
		if got.Hash(true) != want.Hash(true) {
			t.Fatalf("got %v, want %v", got.Digest(), want.Digest())
		}
		if updates, lacking := got.Newer(want.Digest()); len(updates) > 0 || lacking {
			t.Fatalf("equal records differ: %v, %v", updates, lacking)
		}
	})
}

// TestNobodySpeaksForOthers: a record counts only when its node has signed it,
// for this fleet, with this content.
func TestNobodySpeaksForOthers(t *testing.T) {
	good := update(t, "a", 2, "p")
	for name, spoil := range map[string]func(u *Update){
		"another node's name":  func(u *Update) { u.Node = "b" },
		"a higher number":      func(u *Update) { u.Seq.N = 9 },
		"another kind":         func(u *Update) { u.Kind = Info },
		"other content":        func(u *Update) { u.Delta = update(t, "a", 2, "q").Delta },
		"no signature":         func(u *Update) { u.Sig = nil },
		"another fleet":        func(u *Update) { u.Header = u.Header.Sign("g", testKey('a')) },
		"a node not in roster": func(u *Update) { u.Node = "stranger"; u.Header = u.Header.Sign("f", testKey('s')) },
	} {
		records := testRecords()
		bad := good
		spoil(&bad)
		if fresh, err := records.Apply(bad); err == nil || fresh || errors.Is(err, errBase) {
			t.Errorf("%s: taken in: %v", name, err)
		}
	}
	if fresh, err := testRecords().Apply(good); err != nil || !fresh {
		t.Errorf("the good one: %v, %v", fresh, err)
	}
}

// TestForgedMessages: what does not come from a member, or not from whom it says,
// changes nothing.
func TestForgedMessages(t *testing.T) {
	w := newNetwork(t, 3, 1)
	w.raft(0, 1)
	w.follow(2*time.Second, 0)
	n2 := w.nodes[2]
	relay, err := wrap("f", Message{From: "id000", To: "id002", Grant: &Grant{Authority: Authority{Leader: "id000", Quorate: true, Epoch: 9, Term: 9}}}, testKey('x'))
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]Message{
		"a stranger":                {From: "id999", To: "id002", Ping: &Ping{}},
		"for another node":          {From: "id000", To: "id001", Ping: &Ping{}},
		"this node's own key":       {From: "id002", To: "id002", Ping: &Ping{}},
		"a grant in another's name": {From: "id001", To: "id002", Grant: &Grant{Authority: Authority{Leader: "id000", Quorate: true, Epoch: 9, Term: 9}}},
		"a relayed message, forged": {From: "id001", To: "id002", Relay: relay},
		"a digest of too many nodes": {From: "id001", To: "id002", Digest: &Compare{Digest: func() Digest {
			d := Digest{}
			for i := range 100 {
				d[strings.Repeat("x", i)] = nil
			}
			return d
		}()}},
	} {
		if err := n2.Step(w.now, m); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if a, _ := n2.Authority(); a.Epoch != 1 {
		t.Errorf("n2 follows %v", a)
	}
	n2.SetRoster([]Peer{{ID: "id001", Name: "n1", Key: w.nodes[1].peer.Key, Removed: true}, w.nodes[0].peer})
	if err := n2.Step(w.now, Message{From: "id001", To: "id002", Renewal: &Renewal{}}); err == nil {
		t.Error("a node that was removed is listened to")
	}
}

// FuzzMessages: no message makes a node panic.
func FuzzMessages(f *testing.F) {
	w := newNetwork(f, 3, 1)
	w.raft(0, 1)
	w.run(time.Second)
	w.delay = time.Hour // from here on everything is still on its way
	w.run(5 * time.Second)
	for _, p := range w.transit {
		f.Add(p.raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m Message
		if Decode(raw, &m) != nil {
			return
		}
		w := newNetwork(t, 3, 1)
		w.raft(0, 1)
		m.From, m.To = "id001", "id000"
		_ = w.nodes[0].Step(w.now, m) // an error is fine
		w.nodes[0].Ready()
		w.nodes[0].Board()
		m.From, m.To = "id000", "id002"
		_ = w.nodes[2].Step(w.now, m)
		w.nodes[2].Ready()
		w.nodes[2].Board()
		w.nodes[2].Facts()
	})
}
