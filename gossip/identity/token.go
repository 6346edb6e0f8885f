package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// tokenPrefix says what a token is, and which version.
const tokenPrefix = "shoal1."

// Token lets one node join a fleet. It also lets the node make sure that it
// talks to that fleet: only the nodes it names may answer.
type Token struct {
	Fleet   string    `json:"fleet"`   // the fleet's ID
	CA      string    `json:"ca"`      // Fingerprint of the API's authority
	Nodes   []string  `json:"nodes"`   // IDs of the nodes that may answer, sorted
	Secret  []byte    `json:"secret"`  // 32 bytes
	Expires time.Time `json:"expires"` // by the fleet's clock
}

// NewToken makes a token with a fresh secret.
func NewToken(fleet, ca string, nodes []string, expires time.Time) Token {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // crypto/rand documents that it never fails
	nodes = slices.Clone(nodes)
	slices.Sort(nodes)
	return Token{Fleet: fleet, CA: ca, Nodes: nodes, Secret: secret, Expires: expires.UTC().Round(0)}
}

// String returns the token as it is handed to a person.
func (t Token) String() string {
	raw, _ := json.Marshal(t) // strings, bytes and a time always marshal
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(raw)
}

// Hash returns what the fleet remembers of the token: its secret's SHA-256, in
// hexadecimal.
func (t Token) Hash() string {
	sum := sha256.Sum256(t.Secret)
	return hex.EncodeToString(sum[:])
}

// ParseToken is the reverse of String.
func ParseToken(text string) (Token, error) {
	var t Token
	body, found := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !found || len(body) > 16<<10 {
		return t, errors.New(`this is no join token: one begins with "` + tokenPrefix + `" and is printed by "shoal token create"`)
	}
	raw, err := base64.RawURLEncoding.DecodeString(body)
	if err == nil {
		err = json.Unmarshal(raw, &t)
	}
	if err != nil {
		return Token{}, fmt.Errorf("the join token is damaged, copy it again: %w", err)
	}
	if t.Fleet == "" || t.CA == "" || len(t.Secret) != 32 || len(t.Nodes) == 0 {
		return Token{}, errors.New("the join token is damaged, copy it again: a part is missing")
	}
	return t, nil
}

// FingerprintOf returns the SHA-256 of the certificate in a PEM text, in
// hexadecimal; "" when there is none.
func FingerprintOf(text []byte) string {
	block, _ := pem.Decode(text)
	if block == nil {
		return ""
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:])
}

// Fingerprint returns the SHA-256 of the API authority's certificate, in
// hexadecimal.
func (id *Identity) Fingerprint() string {
	sum := sha256.Sum256(id.ca.Raw)
	return hex.EncodeToString(sum[:])
}
