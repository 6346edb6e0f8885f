package daemon

import (
	"slices"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gossip"
)

// discards names the volumes of a node that it is to delete: those that a leader
// has given up, and of which this node's own ledger proves that a quorum has, too.
// A ledger that is older than the claim, or of another epoch, proves nothing: it
// may just not know the claim.
func discards(facts api.Facts, ledger gossip.Ledger, node string) []string {
	var out []string
	for _, d := range facts.Discards {
		id, ok := api.ParseVolumeClaim(d.Identity)
		proven := ledger.Epoch == d.Claim.Epoch && ledger.Index > d.Claim.Index && ledger.Claims[d.Identity].Claim != d.Claim
		if ok && proven && d.Node == node {
			out = append(out, api.VolumeName(id, d.Claim))
		}
	}
	slices.Sort(out)
	return out
}
