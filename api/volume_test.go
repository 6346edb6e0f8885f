package api

import (
	"testing"

	"pgregory.net/rapid"
)

func TestVolumeNamesTellVolumesApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) (Identity, Claim) {
			namespace := rapid.SampledFrom([]string{"a", "b"}).Draw(t, label+" namespace")
			name := rapid.StringMatching(`a(-[12]){0,3}`).Draw(t, label+" name")
			number := func(what string) uint64 { return rapid.Uint64Range(1, 2).Draw(t, label+what) }
			return VolumeClaim(namespace, name), Claim{Epoch: number(" epoch"), Index: number(" index")}
		}
		idA, claimA := draw("one")
		idB, claimB := draw("other")
		same := idA == idB && claimA == claimB
		if got := VolumeName(idA, claimA) == VolumeName(idB, claimB); got != same {
			t.Fatalf("%s and %s: the same name is %v", VolumeName(idA, claimA), VolumeName(idB, claimB), got)
		}
		if back, ok := ParseVolumeClaim(idA.String()); !ok || back != idA {
			t.Fatalf("%s was read as %+v", idA, back)
		}
	})
	for _, other := range []string{"", "a", "a/StatefulSet/db[0]", "a/PersistentVolumeClaimant/x"} {
		if id, ok := ParseVolumeClaim(other); ok {
			t.Errorf("%q was read as %+v", other, id)
		}
	}
}

func TestEachPodHasItsOwnVolume(t *testing.T) {
	pod := Identity{Namespace: "ns", Kind: "StatefulSet", Owner: "db", Slot: "2"}
	if got, want := (MoldVolume{Claim: "data", Each: true}).Of(pod).String(), "ns/PersistentVolumeClaim/data-db-2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := (MoldVolume{Claim: "data"}).Of(pod).String(), "ns/PersistentVolumeClaim/data"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFormerHolders(t *testing.T) {
	if !(ClaimHolder{Node: "n1 (removed, 0123456789ab)"}).Former() || (ClaimHolder{Node: "n1.example.com"}).Former() {
		t.Error("a node that was removed is told by its name")
	}
}
