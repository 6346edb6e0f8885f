package scheduler

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// discardSeen is how long a discard is remembered at least: longer than a node
// takes to say which volumes it has.
const discardSeen = time.Minute

// keepVolumes brings the memory of volumes up to date, and gives up those that
// nobody wants any more. A volume stays with its node whatever becomes of the
// claim in Git (reclaim policy Retain), unless a StatefulSet says that its volumes
// go with its pods or with itself, or its node is not in the fleet any more.
// A leader without a quorum changes nothing.
func (in *input) keepVolumes(d *Decision) {
	if !in.authority.Quorate {
		return
	}
	volumes, spent := map[string]api.Volume{}, map[string]api.Claim{}
	for name, holder := range in.board.Claims {
		id, ok := api.ParseVolumeClaim(name)
		if !ok {
			continue
		}
		claim, found := in.wanted(id)
		volumes[name] = in.volume(name, holder, claim, found)
		if in.spent(volumes[name], holder, claim, found, id.Namespace) {
			spent[name] = holder.Claim
		}
	}
	for name, v := range in.facts.Volumes {
		// What the ledger has forgotten and nobody gave up is missed.
		id, _ := api.ParseVolumeClaim(name)
		claim, found := in.wanted(id)
		if _, there := volumes[name]; !there && found && !claim.beyond && !in.facts.Discarded(name, v.Claim) {
			volumes[name] = v
		}
	}
	in.spare(spent, d)
	for name := range spent {
		if in.board.Claims[name].Former() { // or it would be missed
			delete(volumes, name)
		}
	}
	d.Facts.Discards = in.discards(spent)
	d.Facts.Volumes = nil
	if len(volumes) > 0 {
		d.Facts.Volumes = volumes
	}
	if len(spent) > 0 {
		if d.Release == nil {
			d.Release = map[string]api.Claim{}
		}
		maps.Copy(d.Release, spent)
	}
}

// volume is what is to be remembered of a volume.
func (in *input) volume(name string, holder api.ClaimHolder, claim wantedClaim, found bool) api.Volume {
	v, known := in.facts.Volumes[name]
	if !known || v.Claim != holder.Claim {
		v = api.Volume{Claim: holder.Claim, Since: in.now}
	}
	v.Node = holder.Node
	if found {
		v.Bytes, v.Mode = claim.bytes(), claim.mode()
	}
	if found && !claim.beyond { // what a set has never used is not its own
		v.Set = ""
		if claim.set != nil {
			v.Set = claim.set.id.Owner
		}
	}
	if found && claim.set != nil && claim.set.id.Owner == v.Set {
		_, v.Discard = claim.retention()
	}
	return v
}

// spent reports whether a volume is nobody's any more, as far as Git says.
func (in *input) spent(v api.Volume, holder api.ClaimHolder, claim wantedClaim, found bool, namespace string) bool {
	if found && !claim.beyond {
		return false
	}
	if holder.Former() {
		return true
	}
	n := in.node(holder.Node)
	if n == nil || n.unusable() != "" { // who knows what still runs there
		return false
	}
	if found {
		goes, _ := claim.retention()
		return goes && v.Set == claim.set.id.Owner
	}
	return v.Set != "" && v.Discard && !in.owners[api.Identity{Namespace: namespace, Kind: "StatefulSet", Owner: v.Set}]
}

// spare takes out volumes that a pod uses, may use or waits for.
func (in *input) spare(spent map[string]api.Claim, d *Decision) {
	if len(spent) == 0 {
		return
	}
	use := func(p api.Pod) {
		c := in.castKnown(p)
		for _, id := range c.claims(p.Identity) {
			delete(spent, id.String())
		}
		if c.mold == nil { // nobody knows what it uses
			maps.DeleteFunc(spent, func(name string, _ api.Claim) bool { return strings.HasPrefix(name, p.Namespace+"/") })
		}
	}
	for i := range d.Set.Pods {
		if d.Set.Pods[i].Ended == "" {
			use(d.Set.Pods[i].Pod)
		}
	}
	for i := range d.Set.Pending {
		use(d.Set.Pending[i].Pod)
	}
	for i := range d.Set.Remove {
		use(d.Set.Remove[i].Assignment.Pod)
	}
	for _, r := range d.Claims {
		delete(spent, r.Identity.String())
	}
}

// discards lists the volumes whose data is to be deleted: those that are given up
// now, and those that were and that their nodes may still have. What was meant to
// be given up and is wanted again before the ledger knew of it is not.
func (in *input) discards(spent map[string]api.Claim) []api.Discard {
	var out []api.Discard
	for _, d := range in.facts.Discards {
		switch n := in.node(d.Node); {
		case in.board.Claims[d.Identity].Claim == d.Claim:
			if spent[d.Identity] != d.Claim {
				continue
			}
		case n == nil && in.forgotten(d.Node):
			continue
		case n != nil && n.unusable() == "" && in.now.Sub(d.At) >= discardSeen && !n.has(d):
			continue
		}
		out = append(out, d)
	}
	for _, name := range slices.Sorted(maps.Keys(spent)) {
		known := slices.ContainsFunc(out, func(d api.Discard) bool { return d.Identity == name && d.Claim == spent[name] })
		if holder := in.board.Claims[name]; !known && !holder.Former() {
			out = append(out, api.Discard{Identity: name, Claim: holder.Claim, Node: holder.Node, At: in.now})
		}
	}
	slices.SortStableFunc(out, func(a, b api.Discard) int { return strings.Compare(a.Identity, b.Identity) })
	return out
}

// has reports whether the node says that it has a volume.
func (n *node) has(d api.Discard) bool {
	id, _ := api.ParseVolumeClaim(d.Identity)
	_, found := slices.BinarySearch(n.info.Volumes, api.VolumeName(id, d.Claim))
	return found
}
