package gossip

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// A Document is a value that nodes send each other in parts: what changed since
// the version that the other one has. It is immutable.
type Document struct {
	parts map[string]part
	hash  Hash
}

type part struct {
	value []byte
	hash  Hash
}

// A Hash identifies what a Document says, whatever way it came to be.
type Hash [sha256.Size]byte

// String returns the first part of the hash, for people.
func (h Hash) String() string { return hex.EncodeToString(h[:6]) }

// MarshalText encodes the hash as hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h[:])), nil }

// UnmarshalText is the reverse of MarshalText.
func (h *Hash) UnmarshalText(text []byte) error {
	if hex.DecodedLen(len(text)) != len(h) {
		return fmt.Errorf("a hash has %d digits, not %d", hex.EncodedLen(len(h)), len(text))
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// A Delta is what changed from one Document to another.
type Delta struct {
	// Base is the hash of the Document that it changes; the zero Hash stands
	// for none, and the Delta then holds everything.
	Base   Hash                       `json:"base"`
	Result Hash                       `json:"result"` // of the Document that it makes
	Set    map[string]json.RawMessage `json:"set,omitempty"`
	Drop   []string                   `json:"drop,omitempty"` // sorted
}

// NewDocument makes a document of its parts. Each value must be JSON.
func NewDocument(values map[string]json.RawMessage) Document {
	d := Document{parts: make(map[string]part, len(values))}
	for key, value := range values {
		d.parts[key] = part{value, sha256.Sum256(value)}
	}
	d.hash = d.sum()
	return d
}

func (d Document) sum() Hash {
	h := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(d.parts)) {
		p := d.parts[key]
		fmt.Fprintf(h, "%d:%s", len(key), key) // a hash.Hash never fails
		h.Write(p.hash[:])
	}
	return Hash(h.Sum(nil))
}

// Known reports whether the document was ever made: the zero Document is none.
func (d Document) Known() bool { return d.parts != nil }

// Hash returns what identifies the document's content.
func (d Document) Hash() Hash { return d.hash }

// Len returns the number of parts.
func (d Document) Len() int { return len(d.parts) }

// Part returns the value of one part. It must not be changed.
func (d Document) Part(key string) (json.RawMessage, bool) {
	p, found := d.parts[key]
	return p.value, found
}

// Keys returns the keys of all parts, sorted.
func (d Document) Keys() []string { return slices.Sorted(maps.Keys(d.parts)) }

// With returns the document with other values, keeping the parts that are the
// same.
func (d Document) With(values map[string]json.RawMessage) Document {
	out := Document{parts: make(map[string]part, len(values))}
	same := len(values) == len(d.parts)
	for key, value := range values {
		if old, found := d.parts[key]; found && bytes.Equal(old.value, value) {
			out.parts[key] = old
			continue
		}
		same = false
		out.parts[key] = part{value, sha256.Sum256(value)}
	}
	if same && d.Known() {
		return d
	}
	out.hash = out.sum()
	return out
}

// Diff returns what leads from one document to another. From the zero Document
// it leads to all of it.
func Diff(from, to Document) Delta {
	out := Delta{Base: from.hash, Result: to.hash, Set: map[string]json.RawMessage{}}
	for key, p := range to.parts {
		if old, found := from.parts[key]; !found || old.hash != p.hash {
			out.Set[key] = p.value
		}
	}
	for key := range from.parts {
		if _, stays := to.parts[key]; !stays {
			out.Drop = append(out.Drop, key)
		}
	}
	slices.Sort(out.Drop)
	return out
}

// Patch applies a Delta. A Delta that was made for another document, or that
// does not lead to what it says it does, is an error, and d stays as it is.
func (d Document) Patch(delta Delta) (Document, error) {
	base := d
	if delta.Base == (Hash{}) {
		base = Document{}
	}
	if base.hash != delta.Base {
		return d, fmt.Errorf("a change of %v does not fit %v", delta.Base, d.hash)
	}
	out := Document{parts: make(map[string]part, len(base.parts)+len(delta.Set))}
	maps.Copy(out.parts, base.parts)
	for key, value := range delta.Set {
		out.parts[key] = part{value, sha256.Sum256(value)}
	}
	for _, key := range delta.Drop {
		delete(out.parts, key)
	}
	if out.hash = out.sum(); out.hash != delta.Result {
		return d, fmt.Errorf("a change leads to %v and claims to lead to %v", out.hash, delta.Result)
	}
	return out, nil
}
