package members

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/shoal-dev/shoal/gossip/identity"
)

// table holds the newest card of every node, and who is there. Its methods may be
// called concurrently; they call nothing but judge, and that without the lock.
type table struct {
	node  identity.Node
	fleet string
	// judge returns the key of a member of the fleet, or why it is none.
	judge func(id string) (ed25519.PublicKey, error)

	mu    sync.Mutex
	cards map[string]card
	// there are those that memberlist takes to be alive, with the card that it
	// carries for them.
	there map[string]string
	// heard is the number of a card of this node that is newer than its own,
	// or as new and another one.
	heard uint64
	dirty bool // the cards are not on disk
}

func newTable(node identity.Node, fleet string, judge func(string) (ed25519.PublicKey, error)) *table {
	return &table{node: node, fleet: fleet, judge: judge, cards: map[string]card{}, there: map[string]string{}}
}

var (
	errOld   = errors.New("a newer card of the node is known")
	errTwice = errors.New("the node has signed two cards with one number: its state folder was copied")
	errForge = errors.New("the node's key has not signed what is said of it")
)

// offer takes in a card that is said to be of a node. It reports whether it is
// news. An error is one of the above, or why the node is no member.
func (t *table) offer(id string, raw []byte) (news bool, err error) {
	key, err := t.judge(id)
	if err != nil {
		return false, err
	}
	t.mu.Lock()
	known, found := t.cards[id]
	t.mu.Unlock()
	if found && known.raw == string(raw) {
		return false, nil // verified before
	}
	c, err := readCard(raw)
	if err != nil {
		return false, err
	}
	if !c.verify(t.fleet, id, key) {
		return false, errForge
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if id == t.node.ID {
		if c.seq >= t.cards[id].seq && c.raw != t.cards[id].raw {
			t.heard = max(t.heard, c.seq)
		}
		return false, nil
	}
	known, found = t.cards[id]
	switch {
	case !found || c.seq > known.seq:
		t.cards[id], t.dirty = c, true
		return true, nil
	case c.seq < known.seq:
		return false, errOld
	case c.raw != known.raw:
		return false, errTwice
	}
	return false, nil
}

// own makes a new card of this node, numbered at least as asked for and higher
// than all before.
func (t *table) own(c card, least uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.seq = max(least, t.cards[t.node.ID].seq+1, t.heard+1)
	made, err := seal(t.node, t.fleet, c)
	if err != nil {
		return fmt.Errorf("make the card of this node: %w", err)
	}
	t.cards[t.node.ID], t.heard, t.dirty = made, 0, true
	return nil
}

// outdone reports that others know a card of this node that is newer than its
// own.
func (t *table) outdone() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.heard != 0
}

// card returns the newest card of a node, whoever it is.
func (t *table) card(id string) (card, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, found := t.cards[id]
	return c, found
}

// arrive and depart follow what memberlist takes to be alive.
func (t *table) arrive(id string, meta []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.there[id] = string(meta)
}

func (t *table) depart(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.there, id)
}

func (t *table) nobody() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.there)
}

func (t *table) isThere(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, there := t.there[id]
	return there
}

// alive returns the members that are there, sorted.
func (t *table) alive() []string {
	t.mu.Lock()
	var out []string
	for id := range t.there {
		out = append(out, id)
	}
	t.mu.Unlock()
	out = slices.DeleteFunc(out, func(id string) bool {
		_, err := t.judge(id)
		return err != nil
	})
	slices.Sort(out)
	return out
}

// size returns how many nodes are there, members or not.
func (t *table) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.there)
}

// loose returns the cards that memberlist does not carry by itself, sorted: of
// those that are not there, or are there by an older card.
func (t *table) loose() []named {
	t.mu.Lock()
	var out []named
	for id, c := range t.cards {
		if meta, there := t.there[id]; !there || meta != c.raw {
			out = append(out, named{id, c})
		}
	}
	t.mu.Unlock()
	return t.members(out)
}

// take returns all cards of members when they are not on disk, sorted.
func (t *table) take() ([]named, bool) {
	t.mu.Lock()
	var out []named
	for id, c := range t.cards {
		out = append(out, named{id, c})
	}
	dirty := t.dirty
	t.dirty = false
	t.mu.Unlock()
	if !dirty {
		return nil, false
	}
	return t.members(out), true
}

// spoil says that what take returned did not get to the disk.
func (t *table) spoil() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dirty = true
}

// members leaves out whoever is no member, and sorts the others.
func (t *table) members(cards []named) []named {
	cards = slices.DeleteFunc(cards, func(c named) bool {
		_, err := t.judge(c.id)
		return err != nil
	})
	slices.SortFunc(cards, func(a, b named) int { return strings.Compare(a.id, b.id) })
	return cards
}

// restore takes in what was on disk. Cards of those that are no members any more
// are dropped, as is what is not signed.
func (t *table) restore(cards []named) {
	for _, c := range cards {
		if c.id != t.node.ID {
			_, _ = t.offer(c.id, []byte(c.card.raw)) // a bad one is as good as none
			continue
		}
		if c.card.verify(t.fleet, c.id, t.node.Public) {
			t.mu.Lock()
			t.cards[c.id] = c.card
			t.mu.Unlock()
		}
	}
}
