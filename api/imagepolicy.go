package api

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// An ImagePolicy says that images must be signed, and by whom. Of an image that
// several policies cover each asks for a signature.
type ImagePolicy struct {
	// Images are patterns of repositories in full, without tag and digest, as in
	// "registry.example.com/shop/*": * stands for any part of one step of the path,
	// ** for any number of steps.
	Images []string `json:"images"`
	// Keys are public keys in PEM, ECDSA P-256 or Ed25519, as cosign writes them. One
	// of them must have signed.
	Keys []string `json:"keys"`
}

// DeepCopy returns a copy that shares nothing with p.
func (p ImagePolicy) DeepCopy() ImagePolicy {
	return ImagePolicy{Images: slices.Clone(p.Images), Keys: slices.Clone(p.Keys)}
}

// Covers reports whether the policy regards a repository, "docker.io/library/redis".
func (p ImagePolicy) Covers(repository string) bool {
	return slices.ContainsFunc(p.Images, func(pattern string) bool { return matchPath(pattern, repository) })
}

// matchPath matches a path with * and **, in time that is bounded by the product of
// both lengths.
func matchPath(pattern, path string) bool {
	// reached[i]: the pattern so far matches the first i bytes of the path.
	reached := make([]bool, len(path)+1)
	reached[0] = true
	for pattern != "" {
		next := make([]bool, len(path)+1)
		switch {
		case strings.HasPrefix(pattern, "*"):
			deep := strings.HasPrefix(pattern, "**")
			for i := range reached {
				next[i] = reached[i] || i > 0 && next[i-1] && (deep || path[i-1] != '/')
			}
			pattern = strings.TrimPrefix(pattern[1:], "*")
		default:
			for i := range path {
				next[i+1] = reached[i] && path[i] == pattern[0]
			}
			pattern = pattern[1:]
		}
		reached = next
	}
	return reached[len(path)]
}

// CheckImagePattern says what is wrong with a pattern of an ImagePolicy: one that
// could never match would protect nothing.
func CheckImagePattern(pattern string) error {
	host, rest, found := strings.Cut(pattern, "/")
	switch {
	case pattern == "**":
		return nil
	case strings.ContainsAny(pattern, "@ \t\n"):
		return errors.New("names a repository, without tag and digest")
	case !found || rest == "" || host != "localhost" && !strings.ContainsAny(host, ".:*"):
		return errors.New(`must begin with the registry, as in docker.io/library/*`)
	case strings.Contains(rest, ":"):
		return errors.New("names a repository, without tag and digest")
	}
	return nil
}

// ParseImageKey reads one public key in PEM: *ecdsa.PublicKey on P-256 or
// ed25519.PublicKey.
func ParseImageKey(text string) (crypto.PublicKey, error) {
	block, rest := pem.Decode([]byte(text))
	switch {
	case block == nil || block.Type != "PUBLIC KEY":
		return nil, errors.New("is no public key in PEM")
	case strings.TrimSpace(string(rest)) != "":
		return nil, errors.New("is more than one public key in PEM: write one in each item")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("is no public key: %w", err)
	}
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return key, nil
		}
	case ed25519.PublicKey:
		return key, nil
	}
	return nil, errors.New("is neither an ECDSA key on P-256 nor an Ed25519 key")
}
