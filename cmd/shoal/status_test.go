package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/daemon"
)

// TestPrintStatus: what an operator sees of a fleet that is not well.
func TestPrintStatus(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	node := func(name, address, commit string) api.NodeInfo {
		return api.NodeInfo{Name: name, Units: map[string]api.Commit{"main": api.Commit(commit)}, Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}}
	}
	s := daemon.Status{
		Version: "1", Fleet: "f", Node: "n1", Leader: "n2", Epoch: 1, Term: 7, Entry: 57, Heard: 120 * time.Millisecond, Voters: []string{"n1", "n2", "n3"}, Observed: true,
		Units:  []api.UnitStatus{{Unit: "main", URL: "/srv/fleet.git", Accepted: api.CommitInfo{Commit: "0123456789abcdef", Subject: "three"}, InForce: now.Add(-time.Minute)}},
		Nodes:  []api.NodeInfo{node("n1", "10.0.0.1", "0123456789abcdef"), node("n2", "10.0.0.2", "ffffffffffffffff"), node("n3", "10.0.0.3", "0123456789abcdef")},
		Health: []api.NodeHealth{{Node: "n3", Status: api.NodeLost, Since: now.Add(-5 * time.Second)}},
		Usage:  []api.Usage{{Node: "n1", Used: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("230m"), corev1.ResourceMemory: resource.MustParse("512Mi")}}},
		Pods: []daemon.PodStatus{
			{Namespace: "app", Name: "a", Node: "n1", Phase: "Running", Ready: true},
			{Namespace: "app", Name: "b", Node: "n3", Phase: "Running", Ready: true},
			{Namespace: "app", Name: "job-x", Node: "n1", Phase: "Succeeded"}, // wants nothing any more
		},
	}
	var out strings.Builder
	if err := printStatus(&out, s, now); err != nil {
		t.Fatal(err)
	}
	want := `fleet     f
node      n1               shoal 1
leader    n2               acting, heard 120ms ago
alarm                      most of the nodes that vote (n1, n2, n3) are out of reach: exclusive pods wait and no node can join; if they are gone for good see shoal recover (this node knows entry 57)
follows   /srv/fleet.git
in force  0123456          three (1m0s ago)
alarm     n3               the node is lost since 5s ago
pods      2 of 2 ready

NODE  STATE  ROLE    ADDRESS   CPU   MEMORY  PODS  READY  COMMIT   BEHIND
n1    Alive  voter   10.0.0.1  230m  512Mi   1     1      0123456
n2    Alive  leader  10.0.0.2  -     -       0     0      fffffff  since 1m0s ago
n3    Lost   voter   10.0.0.3  -     -       1     0      0123456
`
	// How wide the columns are does not matter.
	if diff := cmp.Diff(words(want), words(out.String())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// words returns the lines of a text, with one space between words.
func words(text string) []string {
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		out = append(out, strings.Join(strings.Fields(line), " "))
	}
	return out
}
