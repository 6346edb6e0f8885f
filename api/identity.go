package api

import (
	"cmp"
	"crypto/sha256"
	"strconv"
	"strings"
)

// Identity says which pod of which workload this is, for as long as the
// workload exists: it outlives every instance and every revision. Claims name
// identities.
type Identity struct {
	Namespace string `json:"namespace"`
	Kind      string `json:"kind"`           // of the object that owns the pod: "Deployment", or "Pod" for a bare pod
	Owner     string `json:"owner"`          // its name
	Slot      string `json:"slot,omitempty"` // ordinal, node name, completion index or cron time (see JobSlot); "" for a bare pod
}

// Workload returns the identity without its slot: the same for all pods of one
// workload.
func (id Identity) Workload() Identity {
	id.Slot = ""
	return id
}

// At returns the identity of one slot of the same workload.
func (id Identity) At(slot string) Identity {
	id.Slot = slot
	return id
}

// String returns namespace/kind/owner[slot], for logs and tests.
func (id Identity) String() string {
	s := id.Namespace + "/" + id.Kind + "/" + id.Owner
	if id.Slot != "" {
		s += "[" + id.Slot + "]"
	}
	return s
}

// Compare orders identities by namespace, kind, owner and slot; slots that are
// numbers are ordered as numbers.
func (id Identity) Compare(other Identity) int {
	return cmp.Or(
		strings.Compare(id.Namespace, other.Namespace),
		strings.Compare(id.Kind, other.Kind),
		strings.Compare(id.Owner, other.Owner),
		cmp.Compare(len(id.Slot), len(other.Slot)),
		strings.Compare(id.Slot, other.Slot),
	)
}

// Pod is one pod that exists or should exist. The three parts answer three
// questions: which slot it fills, which template it was made from, and which
// incarnation it is.
type Pod struct {
	Identity
	Revision string `json:"revision"` // hash of the template as authored, see Object.Revision
	Instance string `json:"instance"` // the pod's UID, a UUID; minted per assignment and never used again
}

// Compare orders pods by identity, then revision, then instance.
func (p Pod) Compare(other Pod) int {
	return cmp.Or(
		p.Identity.Compare(other.Identity),
		strings.Compare(p.Revision, other.Revision),
		strings.Compare(p.Instance, other.Instance),
	)
}

// Name returns the pod's name as Kubernetes would form it: a bare pod and a
// StatefulSet pod have stable names, all others end in five characters drawn
// from their instance, which in an Indexed Job follow the completion index.
func (p Pod) Name() string {
	switch p.Kind {
	case "Pod":
		return p.Owner
	case "StatefulSet":
		return p.Owner + "-" + p.Slot
	case "Deployment":
		return truncate(p.Owner+"-"+p.Revision, 57) + "-" + suffix(p.Instance)
	case "Job", "CronJob":
		index := ""
		if slot, ok := ParseJobSlot(p.Slot); ok && slot.Indexed {
			index = "-" + strconv.Itoa(slot.Index)
		}
		return truncate(p.JobName(), 57-len(index)) + index + "-" + suffix(p.Instance)
	default:
		return truncate(p.Owner, 57) + "-" + suffix(p.Instance)
	}
}

// suffixAlphabet is the alphabet of Kubernetes' generated names: no vowels and
// no digits that look like one, so that no word appears by chance.
// Source: k8s.io/apimachinery/pkg/util/rand.
const suffixAlphabet = "bcdfghjklmnpqrstvwxz2456789"

// suffix returns the five characters that end the name of an instance.
func suffix(instance string) string {
	return SafeHash(instance, 5)
}

// SafeHash returns n characters that depend on nothing but s, from the alphabet
// that Kubernetes uses in generated names. n is at most 32.
func SafeHash(s string, n int) string {
	sum := sha256.Sum256([]byte(s))
	out := make([]byte, n)
	for i := range out {
		out[i] = suffixAlphabet[int(sum[i])%len(suffixAlphabet)]
	}
	return string(out)
}

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.TrimRight(s[:n], "-.")
}
