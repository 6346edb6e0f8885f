package runtime

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// ImageInfo is an image that a machine holds.
type ImageInfo struct {
	Names   []string  // "docker.io/library/redis:7", sorted
	ID      string    // "docker.io/library/redis@sha256:..."
	Size    int64     // bytes, compressed
	Created time.Time // when this machine got it, or got it anew under one of its names
	// Access says what opened the registry that the image came from, see MayUse;
	// empty for one that came from an archive.
	Access     []string
	Signatures []Signature // that satisfied a policy when it was fetched
	User       string
	StopSignal string
}

// Credential opens a registry.
type Credential struct {
	Host     string // "registry.example.com", "docker.io"
	Username string
	Password string
	Secret   string // where it was found: namespace/name; "" elsewhere
}

// accessAll is in the access of images that their registry gives to everybody.
const accessAll = "all"

// marks are what a credential leaves in the access of an image: what it is, as a
// hash, and where it was found.
func (c Credential) marks() []string {
	sum := sha256.Sum256([]byte(c.Host + "\x00" + c.Username + "\x00" + c.Password))
	out := []string{"key:" + hex.EncodeToString(sum[:12])}
	if c.Secret != "" {
		out = append(out, "secret:"+c.Secret)
	}
	return out
}

// maxAccess is how many marks an image keeps, the newest.
const maxAccess = 24

// Grant returns the access of an image that its registry has just given to whoever
// has some credentials, used ones only: none means that it gives it to everybody.
func Grant(access []string, used []Credential) []string {
	add := []string{accessAll}
	if len(used) > 0 {
		add = nil
		for _, c := range used {
			add = append(add, c.marks()...)
		}
	}
	out := slices.DeleteFunc(slices.Clone(access), func(mark string) bool { return slices.Contains(add, mark) })
	out = append(out, add...)
	return out[max(0, len(out)-maxAccess):]
}

// MayUse reports whether a pod with some credentials may have an image without
// asking the registry: one that the registry gives to everybody, one that it gave
// for a credential that the pod has, too, or for one of the same Secret, and one that
// came from an archive. Source: KEP-2535, "Ensure Secret Pulled Images".
func MayUse(access []string, credentials []Credential) bool {
	if len(access) == 0 || slices.Contains(access, accessAll) {
		return true
	}
	return slices.ContainsFunc(credentials, func(c Credential) bool {
		return slices.ContainsFunc(c.marks(), func(mark string) bool { return slices.Contains(access, mark) })
	})
}

// A PeerImage is an image that another machine has.
type PeerImage struct {
	Peer      string    `json:"-"`
	Name      string    `json:"name"`
	Digest    string    `json:"digest"` // of what the name leads to
	MediaType string    `json:"mediaType"`
	Size      int64     `json:"size"`    // of what the name leads to, in bytes; not of the image
	Created   time.Time `json:"created"` // when the machine got it
	Access    []string  `json:"access,omitempty"`
	// Signatures are those that satisfied a policy when the image was fetched.
	Signatures []Signature `json:"signatures,omitempty"`
}

// Resolve chooses what a name means when its registry cannot be asked, from what
// other machines have under it: the one that was got last of those that a pod with
// some credentials may have, ties by digest and peer.
func Resolve(images []PeerImage, credentials []Credential) (PeerImage, bool) {
	may := slices.DeleteFunc(slices.Clone(images), func(i PeerImage) bool { return !MayUse(i.Access, credentials) })
	if len(may) == 0 {
		return PeerImage{}, false
	}
	return slices.MaxFunc(may, func(a, b PeerImage) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(b.Digest, a.Digest), strings.Compare(b.Peer, a.Peer))
	}), true
}

// Pulled is an image that was fetched, and how.
type Pulled struct {
	ImageInfo
	Peers []string // machines that gave some of it, sorted
	// ResolvedBy is the machine that said what the name means, because the registry
	// could not be asked, for the reason in Away; "" for the registry.
	ResolvedBy string
	Away       string
}

// Pull says which image to fetch, and how.
type Pull struct {
	Ref         string // as in the pod's spec
	Credentials []Credential
	// Policies are those that regard the image: it is fetched only when it is signed
	// as each of them asks. The error wraps ErrSignature otherwise.
	Policies []api.ImagePolicy
	// Progress is told now and then how far the pull is, from another goroutine,
	// and no more once the pull has returned. nil: nobody wants to know.
	Progress func(Progress)
}

// Progress is how far a pull is, in bytes as they come from the registry. Total
// is 0 while it is not known.
type Progress struct{ Done, Total int64 }

// String returns the progress for people, "" while nothing is known.
func (p Progress) String() string {
	if p.Total == 0 {
		return ""
	}
	return fmt.Sprintf("%s of %s", mebibytes(p.Done), mebibytes(p.Total))
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// CredentialsKey tells sets of credentials apart, without giving them away. It is
// "" for none.
func CredentialsKey(credentials []Credential) string {
	if len(credentials) == 0 {
		return ""
	}
	var each []string
	for _, c := range credentials {
		each = append(each, c.Host+"\x00"+c.Username+"\x00"+c.Password)
	}
	slices.Sort(each)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(each), "\x01")))
	return hex.EncodeToString(sum[:8])
}
