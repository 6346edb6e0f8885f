package runtime

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/shoal-dev/shoal/api"
)

// A Signature is one of an image, as cosign makes it: the payload says which image
// is meant, and the signature is over the payload's bytes.
// Source: sigstore/cosign, specs/SIGNATURE_SPEC.md.
type Signature struct {
	Payload   []byte `json:"payload"`
	Signature []byte `json:"signature"`
}

// ErrSignature says that an image lacks a signature that a policy asks for.
var ErrSignature = errors.New("signature validation failed")

// Repository returns the repository of a full image name.
func Repository(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return name
}

// PoliciesFor returns those that regard an image, by its full name.
func PoliciesFor(policies []api.ImagePolicy, name string) []api.ImagePolicy {
	var out []api.ImagePolicy
	for _, p := range policies {
		if p.Covers(Repository(name)) {
			out = append(out, p)
		}
	}
	return out
}

// VerifySignatures returns the signatures by which an image satisfies every one of
// some policies, by the digest that its name leads to. The error wraps ErrSignature
// when one is not satisfied.
func VerifySignatures(policies []api.ImagePolicy, digest string, signatures []Signature) ([]Signature, error) {
	var out []Signature
	for _, p := range policies {
		found := false
		for _, s := range signatures {
			if s.names(digest) && s.by(p.Keys) {
				out, found = append(out, s), true
				break
			}
		}
		if !found {
			return nil, fmt.Errorf("%w: no key of the policy for %s has signed %s (signatures found: %d)",
				ErrSignature, strings.Join(p.Images, ", "), digest, len(signatures))
		}
	}
	return out, nil
}

// names reports whether the payload is about the image of a digest.
func (s Signature) names(digest string) bool {
	var payload struct {
		Critical struct {
			Type  string `json:"type"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
		} `json:"critical"`
	}
	return json.Unmarshal(s.Payload, &payload) == nil && digest != "" &&
		payload.Critical.Type == "cosign container image signature" && payload.Critical.Image.Digest == digest
}

// by reports whether one of some keys made the signature.
func (s Signature) by(keys []string) bool {
	for _, text := range keys {
		key, err := api.ParseImageKey(text)
		if err != nil {
			continue // the commit was checked: this cannot be
		}
		switch key := key.(type) {
		case *ecdsa.PublicKey:
			sum := sha256.Sum256(s.Payload)
			if ecdsa.VerifyASN1(key, sum[:], s.Signature) {
				return true
			}
		case ed25519.PublicKey:
			if ed25519.Verify(key, s.Payload, s.Signature) {
				return true
			}
		}
	}
	return false
}
