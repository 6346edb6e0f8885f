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
	Fleet   string // its number, which the UIDs of objects are made of; "" when it is not known
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
	// Release are the claims of identities that never run again, by
	// Identity.String(): consensus need not remember them.
	Release map[string]api.Claim
	// Wake is when to decide again though nothing changed; zero: no need.
	Wake time.Time
	// settles is Wake without what begins or ends of itself at a time.
	settles time.Time
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

// begins reports whether this is the first decision of a reign. Nobody may have
// decided for long before it, as when all machines were off.
func (in *input) begins() bool {
	was := &in.board.Assigned
	return was.Leader != in.authority.Leader || was.Epoch != in.authority.Epoch || was.Term != in.authority.Term
}

// stamp fills in whose decision a set is.
func (a Authority) stamp(set *api.AssignmentSet) {
	set.Leader, set.Epoch, set.Term, set.Quorate = a.Leader, a.Epoch, a.Term, a.Quorate
}

// spentClaims returns the claims of runs of CronJobs that are no more: each run
// has identities of its own, and no other run has them again. What a node still
// has of one, or may have, keeps the claim.
func spentClaims(d *Decision, in *input) map[string]api.Claim {
	if !in.authority.Quorate || len(in.board.Claims) == 0 {
		return nil
	}
	var out map[string]api.Claim
	for name, holder := range in.board.Claims {
		owner, slot, _ := strings.Cut(strings.TrimSuffix(name, "]"), "[")
		run, ok := api.ParseJobSlot(slot)
		if !ok || run.Minute == 0 || !strings.Contains(owner, "/CronJob/") {
			continue
		}
		if _, known := d.Facts.CronJobs[owner].Run(run.Minute); known {
			continue
		}
		if out == nil {
			out = map[string]api.Claim{}
		}
		out[name] = holder.Claim
	}
	if len(out) == 0 {
		return nil
	}
	for _, a := range d.Set.Pods {
		delete(out, a.Pod.Identity.String())
	}
	for _, u := range d.Set.Pending {
		delete(out, u.Pod.Identity.String())
	}
	for _, r := range d.Set.Remove {
		delete(out, r.Assignment.Pod.Identity.String())
	}
	for _, r := range d.Claims {
		delete(out, r.Identity.String())
	}
	if len(out) == 0 {
		return nil
	}
	return out
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
