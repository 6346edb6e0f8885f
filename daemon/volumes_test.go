package daemon

import (
	"testing"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gossip"
)

// A volume is deleted only when the leader names it and the ledger of this node
// proves that its claim was given up.
func TestDiscards(t *testing.T) {
	const name = "ns/PersistentVolumeClaim/data"
	old, other := api.Claim{Epoch: 1, Index: 7}, api.Claim{Epoch: 1, Index: 9}
	held := func(c api.Claim) map[string]api.ClaimHolder {
		return map[string]api.ClaimHolder{name: {Claim: c, Node: "n1"}}
	}
	named := api.Facts{Discards: []api.Discard{{Identity: name, Claim: old, Node: "n1"}}}
	for _, c := range []struct {
		name   string
		facts  api.Facts
		ledger gossip.Ledger
		node   string
		want   bool
	}{
		{"given up", named, gossip.Ledger{Epoch: 1, Index: 20}, "n1", true},
		{"given up and granted anew", named, gossip.Ledger{Epoch: 1, Index: 20, Claims: held(other)}, "n1", true},
		{"still in force", named, gossip.Ledger{Epoch: 1, Index: 20, Claims: held(old)}, "n1", false},
		{"a ledger from before the claim", named, gossip.Ledger{Epoch: 1, Index: 6}, "n1", false},
		{"no ledger", named, gossip.Ledger{}, "n1", false},
		{"a ledger that was recovered", named, gossip.Ledger{Epoch: 2, Index: 20}, "n1", false},
		{"on another node", named, gossip.Ledger{Epoch: 1, Index: 20}, "n2", false},
		{"named by nobody", api.Facts{}, gossip.Ledger{Epoch: 1, Index: 20}, "n1", false},
		{"no volume", api.Facts{Discards: []api.Discard{{Identity: "ns/StatefulSet/db[0]", Claim: old, Node: "n1"}}}, gossip.Ledger{Epoch: 1, Index: 20}, "n1", false},
	} {
		got := discards(c.facts, c.ledger, c.node)
		if len(got) > 1 || (len(got) == 1) != c.want || c.want && got[0] != "ns/data-1-7" {
			t.Errorf("%s: %q are deleted", c.name, got)
		}
	}
}
