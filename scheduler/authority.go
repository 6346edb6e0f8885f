package scheduler

import (
	"strings"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// Authority is what the leader that decides may do. One without a quorum
// decides everything but what concerns exclusive pods: those stay as they are.
type Authority struct {
	Leader  string
	Epoch   uint64
	Term    uint64
	Quorate bool
}

// A Decision is what Schedule returns.
type Decision struct {
	Set   api.AssignmentSet
	Facts api.Facts
	// Claims are to be asked of consensus, sorted by identity. The pods that
	// need them are pending until the board shows them granted.
	Claims []ClaimRequest
	// Wake is when to decide again though nothing changed; zero: no need.
	Wake time.Time
}

// A ClaimRequest asks for the right to run an exclusive identity on a node. It
// is to be refused when the identity's claim is no longer Expect.
type ClaimRequest struct {
	Identity api.Identity
	Node     string
	Expect   api.Claim // the zero claim when there was none
}

// exclusiveAnnotation on a workload or on its template makes its pods
// exclusive: two of one identity never run at the same time.
const exclusiveAnnotation = "fleet.shoal.dev/exclusive"

func (w *workload) annotated() bool {
	for _, annotations := range []map[string]string{w.object.Value.GetAnnotations(), w.template.Annotations} {
		if strings.EqualFold(annotations[exclusiveAnnotation], "true") {
			return true
		}
	}
	return false
}

// stamp fills in whose decision a set is.
func (a Authority) stamp(set *api.AssignmentSet) {
	set.Leader, set.Epoch, set.Term, set.Quorate = a.Leader, a.Epoch, a.Term, a.Quorate
}

// Grant returns the claims that there are once all requests are granted, as
// consensus does in a fleet of one. The claims that came in are not changed.
func Grant(claims map[string]api.ClaimHolder, requests []ClaimRequest) map[string]api.ClaimHolder {
	out := make(map[string]api.ClaimHolder, len(claims)+len(requests))
	last := api.Claim{Epoch: 1}
	for id, holder := range claims {
		out[id] = holder
		if last.Less(holder.Claim) {
			last = holder.Claim
		}
	}
	for _, r := range requests {
		last.Index++
		out[r.Identity.String()] = api.ClaimHolder{Claim: last, Node: r.Node}
	}
	return out
}
