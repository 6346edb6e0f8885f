package gossip

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoal-dev/shoal/api"
)

// Kind is one of the records that each node keeps of itself.
type Kind string

// The kinds of records.
const (
	Info   Kind = "info"   // api.NodeInfo: changes rarely
	States Kind = "states" // api.PodStates: changes with its pods
	Usage  Kind = "usage"  // api.Usage: every ten seconds
)

var kinds = []Kind{Info, States, Usage}

// A Header names one version of one record. It is signed by the node that it is
// about, so that it may come from anybody.
type Header struct {
	Node string  `json:"node"` // its ID, see Member
	Kind Kind    `json:"kind"`
	Seq  api.Seq `json:"seq"`
	Hash Hash    `json:"hash"` // of the Document
	Sig  []byte  `json:"sig"`  // over signed(fleet)
}

// signed returns what a record's signature is over. It names the fleet: a
// record of one fleet says nothing in another.
func (h Header) signed(fleet string) []byte {
	return fmt.Appendf(nil, "shoal record 1\n%s\n%s\n%s\n%d\n%d\n%x\n", fleet, h.Node, h.Kind, h.Seq.Boot, h.Seq.N, h.Hash)
}

// Sign signs the header with its node's key.
func (h Header) Sign(fleet string, key ed25519.PrivateKey) Header {
	h.Sig = ed25519.Sign(key, h.signed(fleet))
	return h
}

// Verify reports whether the node with this key signed the header.
func (h Header) Verify(fleet string, key ed25519.PublicKey) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, h.signed(fleet), h.Sig)
}

// A Record is one version of what a node says of itself.
type Record struct {
	Header
	Body Document
}

// An Update carries a record, or the change of one, to another node.
type Update struct {
	Header
	Delta Delta `json:"delta"`
}

// key names a record, whatever its version.
type key struct {
	node string
	kind Kind
}

func (h Header) key() key { return key{h.Node, h.Kind} }

// A Digest tells which versions somebody has.
type Digest map[string]map[Kind]Version

// A Version is how far one record is known.
type Version struct {
	Seq  api.Seq `json:"seq"`
	Hash Hash    `json:"hash"`
}

// errBase is returned when an Update is a change of something else than what is
// known: the whole record must be asked for.
var errBase = errors.New("the change is of another version")

// Records are what a node knows of all nodes, itself included. The zero value
// is not ready: use NewRecords. It is not safe for concurrent use.
//
// Merging is commutative, associative and idempotent: whatever way records
// come in, the newest of each is kept.
type Records struct {
	fleet string
	key   func(node string) (ed25519.PublicKey, bool)
	all   map[key]Record
	sums  map[bool]Hash // cached hashes of the digest, with and without usage

	planted Planted
}

// NewRecords returns an empty store. keyOf tells the key of a node that may
// write records; what others write is refused.
func NewRecords(fleet string, keyOf func(node string) (ed25519.PublicKey, bool)) *Records {
	return &Records{fleet: fleet, key: keyOf, all: map[key]Record{}, sums: map[bool]Hash{}}
}

// Get returns a record; its Body is not Known when there is none.
func (r *Records) Get(node string, kind Kind) Record { return r.all[key{node, kind}] }

// Put stores a record that this node wrote itself.
func (r *Records) Put(record Record) {
	r.all[record.key()] = record
	clear(r.sums)
}

// Hash identifies what is known; without usage, which changes all the time and
// takes its time to spread.
func (r *Records) Hash(usage bool) Hash {
	if sum, cached := r.sums[usage]; cached {
		return sum
	}
	h := sha256.New()
	for _, k := range r.keys() {
		if k.kind == Usage && !usage {
			continue
		}
		v := r.all[k]
		fmt.Fprintf(h, "%s %s %d %d ", k.node, k.kind, v.Seq.Boot, v.Seq.N) // a hash.Hash never fails
		h.Write(v.Hash[:])
	}
	r.sums[usage] = Hash(h.Sum(nil))
	return r.sums[usage]
}

// Apply takes in what another node sends. It reports whether something was new.
// A record that is not signed by the node it is about is an error, and so is a
// change of a version that is not known (errBase).
func (r *Records) Apply(u Update) (bool, error) {
	old, known := r.all[u.key()]
	if known && !old.Seq.Less(u.Seq) && (r.planted != PlantedOlderRecord || old.Seq == u.Seq) {
		return false, nil
	}
	public, allowed := r.key(u.Node)
	if !allowed {
		return false, fmt.Errorf("a record of node %s: it is not in the roster", u.Node)
	}
	if !u.Verify(r.fleet, public) && r.planted != PlantedUnsignedRecord {
		return false, fmt.Errorf("a record of node %s: the signature is not its own", u.Node)
	}
	body, err := old.Body.Patch(u.Delta)
	if err != nil {
		return false, fmt.Errorf("%s of node %s: %w: %w", u.Kind, u.Node, errBase, err)
	}
	if body.Hash() != u.Hash {
		return false, fmt.Errorf("%s of node %s: the content is not what was signed", u.Kind, u.Node)
	}
	r.Put(Record{u.Header, body})
	return true, nil
}

// Forget drops the records of nodes that keep does not want.
func (r *Records) Forget(keep func(node string) bool) {
	for k := range r.all {
		if !keep(k.node) {
			delete(r.all, k)
			clear(r.sums)
		}
	}
}

// Digest tells what is known.
func (r *Records) Digest() Digest {
	out := Digest{}
	for k, record := range r.all {
		if out[k.node] == nil {
			out[k.node] = map[Kind]Version{}
		}
		out[k.node][k.kind] = Version{record.Seq, record.Hash}
	}
	return out
}

// keys returns the keys of all records, sorted.
func (r *Records) keys() []key {
	return slices.SortedFunc(maps.Keys(r.all), func(a, b key) int {
		return cmp.Or(strings.Compare(a.node, b.node), strings.Compare(string(a.kind), string(b.kind)))
	})
}

// Newer returns what somebody with this digest lacks, as whole records, and
// whether they know something that r does not.
func (r *Records) Newer(d Digest) (updates []Update, lacking bool) {
	for _, k := range r.keys() {
		record := r.all[k]
		theirs, known := d[k.node][k.kind]
		if !known || theirs.Seq.Less(record.Seq) {
			updates = append(updates, Update{record.Header, Diff(Document{}, record.Body)})
		}
	}
	for node, versions := range d {
		for kind, theirs := range versions {
			if ours, known := r.all[key{node, kind}]; !known || ours.Seq.Less(theirs.Seq) {
				lacking = true
			}
		}
	}
	return updates, lacking
}

// NewRecord makes the next version of a record from what a node says of itself.
// It returns the old one when nothing changed.
func NewRecord(old Record, fleet, node string, kind Kind, seq api.Seq, value any, private ed25519.PrivateKey) (Record, error) {
	var body Document
	var err error
	switch v := value.(type) {
	case api.PodStates:
		body, err = encodeStates(old.Body, v)
	case api.NodeInfo:
		v.Seq = api.Seq{} // it is in the header
		body, err = encode(old.Body, v)
	default:
		body, err = encode(old.Body, value)
	}
	if err != nil {
		return old, err
	}
	if old.Body.Known() && old.Seq.Boot == seq.Boot && body.Hash() == old.Hash {
		return old, nil
	}
	header := Header{Node: node, Kind: kind, Seq: seq, Hash: body.Hash()}
	return Record{header.Sign(fleet, private), body}, nil
}

// Value decodes a record into an api.NodeInfo, api.PodStates or api.Usage.
func (r Record) Value(into any) error {
	var err error
	switch v := into.(type) {
	case *api.PodStates:
		*v, err = decodeStates(r.Body)
		v.Seq = r.Seq
	case *api.NodeInfo:
		err = r.Body.decode(v)
		v.Seq = r.Seq
	default:
		err = r.Body.decode(into)
	}
	if err != nil {
		return fmt.Errorf("%s of node %s: %w", r.Kind, r.Node, err)
	}
	return nil
}

// Size returns the length of an update's content, in bytes.
func (u Update) Size() int {
	n := 0
	for key, value := range u.Delta.Set {
		n += len(key) + len(value)
	}
	return n
}
