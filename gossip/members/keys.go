package members

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

// keyRest is how long a new gossip key is only understood before it is used:
// until then the others have it too. A ledger reaches every node that is reached
// at all within a second or two.
const keyRest = 20 * time.Second

// ring follows the keys of the ledger. It belongs to one goroutine.
type ring struct {
	*memberlist.Keyring
	since map[string]time.Time // when a key was first seen
}

var errNoKey = errors.New("the fleet has no gossip key")

// newRing uses the newest of the keys at once: they are not new to the fleet.
func newRing(keys [][]byte) (*ring, error) {
	if len(keys) == 0 {
		return nil, errNoKey
	}
	r := &ring{since: map[string]time.Time{}}
	for _, key := range keys {
		r.since[string(key)] = time.Time{}
	}
	var err error
	r.Keyring, err = memberlist.NewKeyring(keys, keys[len(keys)-1])
	return r, err
}

// follow makes the keys those that are understood, and uses the newest that is
// old enough.
func (r *ring) follow(keys [][]byte, now time.Time) error {
	if len(keys) == 0 {
		return errNoKey
	}
	use := -1
	for i, key := range keys {
		if _, seen := r.since[string(key)]; !seen {
			r.since[string(key)] = now
			if err := r.AddKey(key); err != nil {
				return err
			}
		}
		if now.Sub(r.since[string(key)]) >= keyRest {
			use = i
		}
	}
	if use < 0 { // none of the old ones is left
		use = len(keys) - 1
	}
	if !bytes.Equal(r.GetPrimaryKey(), keys[use]) {
		if err := r.UseKey(keys[use]); err != nil {
			return err
		}
	}
	for _, old := range r.GetKeys() {
		if slices.ContainsFunc(keys, func(key []byte) bool { return bytes.Equal(key, old) }) {
			continue
		}
		if err := r.RemoveKey(old); err != nil {
			return err
		}
		delete(r.since, string(old))
	}
	return nil
}
