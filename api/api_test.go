package api

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"
)

func TestPodNames(t *testing.T) {
	long := strings.Repeat("a", 80)
	for _, tt := range []struct {
		pod  Pod
		want string // with * for the five characters of the instance
	}{
		{Pod{Identity: Identity{Kind: "Pod", Owner: "one"}}, "one"},
		{Pod{Identity: Identity{Kind: "StatefulSet", Owner: "db", Slot: "0"}}, "db-0"},
		{Pod{Identity: Identity{Kind: "Deployment", Owner: "web"}, Revision: "7d4b9c6f5x"}, "web-7d4b9c6f5x-*"},
		{Pod{Identity: Identity{Kind: "DaemonSet", Owner: "agent", Slot: "n1"}}, "agent-*"},
		{Pod{Identity: Identity{Kind: "Deployment", Owner: long}, Revision: "r"}, long[:57] + "-*"},
		{Pod{Identity: Identity{Kind: "Job", Owner: "pi", Slot: "p3"}}, "pi-*"},
		{Pod{Identity: Identity{Kind: "Job", Owner: "pi", Slot: "3"}}, "pi-3-*"},
		{Pod{Identity: Identity{Kind: "Job", Owner: long[:63], Slot: "99999"}}, long[:51] + "-99999-*"},
		{Pod{Identity: Identity{Kind: "CronJob", Owner: "nightly", Slot: "29012345-p0"}}, "nightly-29012345-*"},
		{Pod{Identity: Identity{Kind: "CronJob", Owner: "nightly", Slot: "29012345-7"}}, "nightly-29012345-7-*"},
	} {
		tt.pod.Instance = "87d44dd6-04a7-5fa3-90e2-fb27da5cba0c"
		got := tt.pod.Name()
		want := strings.ReplaceAll(tt.want, "*", suffix(tt.pod.Instance))
		if got != want {
			t.Errorf("%s of %s is named %s, want %s", tt.pod.Kind, tt.pod.Owner, got, want)
		}
		if problems := validation.IsDNS1123Label(got); len(problems) > 0 {
			t.Errorf("%s: %v", got, problems)
		}
	}
}

func TestIdentitiesAreOrderedBySlotAsANumber(t *testing.T) {
	var ids []Identity
	for _, slot := range []string{"10", "9", "1", "0"} {
		ids = append(ids, Identity{Namespace: "ns", Kind: "Deployment", Owner: "web", Slot: slot})
	}
	slices.SortFunc(ids, Identity.Compare)
	var got []string
	for _, id := range ids {
		got = append(got, id.String())
	}
	want := "ns/Deployment/web[0] ns/Deployment/web[1] ns/Deployment/web[9] ns/Deployment/web[10]"
	if strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, " "), want)
	}
}

func TestSnapshot(t *testing.T) {
	if (Snapshot{}).Known() {
		t.Error("the zero snapshot is known")
	}
	if !NewSnapshot(nil, nil).Known() {
		t.Error("an empty snapshot that was read is not known")
	}
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching("[a-z]{1,4}"), 0, 30, rapid.ID).Draw(t, "names")
		var objects []Object
		for i, name := range names {
			kind := []string{"ConfigMap", "Secret"}[i%2]
			meta := metav1.ObjectMeta{Namespace: "ns", Name: name}
			value := KubeObject(&corev1.ConfigMap{ObjectMeta: meta})
			if kind == "Secret" {
				value = &corev1.Secret{ObjectMeta: meta}
			}
			objects = append(objects, Object{GVK: schema.GroupVersionKind{Version: "v1", Kind: kind}, Value: value})
		}
		s := NewSnapshot(map[string]Commit{"main": "c"}, slices.Clone(objects))
		for i, o := range objects {
			if got, found := s.Lookup(o.Key()); !found || got.Value != o.Value {
				t.Fatalf("%s is not found", o.Key())
			}
			_, asMap := Get[*corev1.ConfigMap](s, "", o.GVK.Kind, "ns", names[i])
			if asMap != (i%2 == 0) {
				t.Fatalf("%s is a ConfigMap: %v", o.Key(), asMap)
			}
		}
		if _, found := s.Lookup(Key{Kind: "ConfigMap", Namespace: "ns", Name: "NOPE"}); found {
			t.Fatal("found what is not there")
		}
		count, last := 0, ""
		for m, o := range Of[*corev1.ConfigMap](s) {
			if o.Value != KubeObject(m) || m.Name < last {
				t.Fatalf("%s comes after %s", m.Name, last)
			}
			last = m.Name
			count++
		}
		if count != (len(names)+1)/2 || s.Len() != len(names) {
			t.Fatalf("%d ConfigMaps of %d objects, want %d of %d", count, s.Len(), (len(names)+1)/2, len(names))
		}
	})
}

func TestPlacesAndMistakes(t *testing.T) {
	source := Source{File: "apps/web.yaml", Line: 12, Commit: "3f2a9c1d5e"}
	if got, want := source.String(), "apps/web.yaml:12 at 3f2a9c1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	problems := SortInvalid([]Invalid{
		{File: "b.yaml", Line: 2, Field: "spec.replicas", Reason: "must be greater"},
		{File: "a.yaml", Reason: "is not UTF-8"},
		{File: "b.yaml", Line: 2, Field: "spec.replicas", Reason: "must be greater"},
		{File: "b.yaml", Line: 1, Reason: "not served", Warning: true},
	})
	want := "a.yaml: is not UTF-8\nb.yaml:1: warning: not served\nb.yaml:2: spec.replicas: must be greater"
	if got := InvalidError(problems).Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if !Refused(problems) || Refused(problems[1:2]) {
		t.Error("a commit with a warning only is accepted, one with a mistake is not")
	}
}

func TestRemovesFindsInstances(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching("[a-f]{1,3}"), 0, 20, rapid.ID).Draw(t, "instances")
		slices.Sort(names)
		var set AssignmentSet
		for _, name := range names {
			set.Remove = append(set.Remove, Removal{Assignment: Assignment{Pod: Pod{Instance: name}}})
		}
		probe := rapid.StringMatching("[a-f]{1,3}").Draw(t, "probe")
		if got, want := set.Removes(probe), slices.Contains(names, probe); got != want {
			t.Fatalf("Removes(%q) of %v is %v", probe, names, got)
		}
	})
}

func TestUIDsDifferByFleetAndName(t *testing.T) {
	key := Key{Group: "apps", Kind: "Deployment", Namespace: "ns", Name: "web"}
	other, same := key, Key{Group: "apps", Kind: "Deployment", Namespace: "ns", Name: "web"}
	other.Name = "api"
	if UID("f1", key) != UID("f1", same) || UID("f1", key) == UID("f2", key) || UID("f1", key) == UID("f1", other) {
		t.Error("a UID must follow from fleet and name, and from nothing else")
	}
}
