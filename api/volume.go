package api

import (
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// volumeKind is the kind of the identities that bind volumes to nodes. No pod is
// of this kind.
const volumeKind = "PersistentVolumeClaim"

// VolumeClaim is the identity under which consensus binds the volume of a
// PersistentVolumeClaim to a node. A claim to it is granted once, with the node
// that has the volume from then on, and is never given to another one.
func VolumeClaim(namespace, name string) Identity {
	return Identity{Namespace: namespace, Kind: volumeKind, Owner: name}
}

// ParseVolumeClaim reads what String returns of the identity of a volume.
func ParseVolumeClaim(identity string) (Identity, bool) {
	namespace, rest, _ := strings.Cut(identity, "/")
	name, ok := strings.CutPrefix(rest, volumeKind+"/")
	return VolumeClaim(namespace, name), ok
}

// VolumeName names a volume within the fleet: the namespace and the name of the
// claim that it was made for, and the claim to it in the ledger. No two have the
// same name, also when the same PersistentVolumeClaim gets another volume later.
func VolumeName(id Identity, c Claim) string {
	return id.Namespace + "/" + id.Owner + "-" + strconv.FormatUint(c.Epoch, 10) + "-" + strconv.FormatUint(c.Index, 10)
}

// Volume is what is remembered of a volume that is bound to a node. It outlives
// the PersistentVolumeClaim in Git.
type Volume struct {
	Claim Claim     `json:"claim"` // as granted
	Node  string    `json:"node"`
	Since time.Time `json:"since"`
	Bytes int64     `json:"bytes"` // that were asked for last
	// Mode is how it may be used: ReadWriteOnce or ReadWriteOncePod.
	Mode corev1.PersistentVolumeAccessMode `json:"mode,omitempty"`
	// Set is the StatefulSet whose template made the claim, "" when the claim
	// is in Git. Discard says that the volume goes with the set.
	Set     string `json:"set,omitempty"`
	Discard bool   `json:"discard,omitempty"`
}

// Equal reports whether two memories of a volume are the same.
func (v Volume) Equal(o Volume) bool {
	return v.Claim == o.Claim && v.Node == o.Node && v.Since.Equal(o.Since) && v.Bytes == o.Bytes && v.Mode == o.Mode && v.Set == o.Set && v.Discard == o.Discard
}

// Discard is a volume whose data nobody wants any more. Its node deletes it once
// the ledger shows that its claim was given up.
type Discard struct {
	Identity string    `json:"identity"` // Identity.String() of the claim
	Claim    Claim     `json:"claim"`
	Node     string    `json:"node"`
	At       time.Time `json:"at"` // when it was decided
}

// Equal reports whether two discards are the same.
func (d Discard) Equal(o Discard) bool {
	return d.Identity == o.Identity && d.Claim == o.Claim && d.Node == o.Node && d.At.Equal(o.At)
}

// Discarded reports whether a volume is to be deleted.
func (f Facts) Discarded(identity string, c Claim) bool {
	return slices.ContainsFunc(f.Discards, func(d Discard) bool { return d.Identity == identity && d.Claim == c })
}
