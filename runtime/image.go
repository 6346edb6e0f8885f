package runtime

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ImageInfo is an image that a machine holds.
type ImageInfo struct {
	Names      []string  // "docker.io/library/redis:7", sorted
	ID         string    // "docker.io/library/redis@sha256:..."
	Size       int64     // bytes, compressed
	Created    time.Time // when this machine got it, or got it anew under one of its names
	User       string
	StopSignal string
}

// Credential opens a registry.
type Credential struct {
	Host     string // "registry.example.com", "docker.io"
	Username string
	Password string
}

// Pull says which image to fetch, and how.
type Pull struct {
	Ref         string // as in the pod's spec
	Credentials []Credential
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
