package members

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/shoal-dev/shoal/gossip/identity"
)

// Limits of a card. memberlist carries 512 bytes with each member.
const (
	maxCard  = 512
	maxPeer  = 255 // a host name of 249 bytes, a colon and a port
	cardKind = 1   // the first byte: the version of the form
)

// card says where a node is found. The zero card is none.
type card struct {
	seq    uint64         // grows with each card of the node
	peer   string         // host:port of its peer streams
	gossip netip.AddrPort // of memberlist
	raw    string         // as it was signed, with the signature
}

// seal makes and signs a card.
func seal(node identity.Node, fleet string, c card) (card, error) {
	if len(c.peer) > maxPeer {
		return card{}, fmt.Errorf("the peer address %.40q... is longer than %d bytes", c.peer, maxPeer)
	}
	at := c.gossip.String()
	raw := binary.BigEndian.AppendUint64([]byte{cardKind}, c.seq)
	raw = append(append(raw, byte(len(c.peer))), c.peer...)
	raw = append(append(raw, byte(len(at))), at...)
	c.raw = string(append(raw, ed25519.Sign(node.Private, signed(fleet, node.ID, raw))...))
	return c, nil
}

// signed is what the signature of a card is over: no other fleet and no other
// use of the key can give it.
func signed(fleet, id string, body []byte) []byte {
	return append([]byte("shoal member card\x00"+fleet+"\x00"+id+"\x00"), body...)
}

// verify reports whether the card is of the node with this key.
func (c card) verify(fleet, id string, key ed25519.PublicKey) bool {
	body, signature := c.raw[:len(c.raw)-ed25519.SignatureSize], c.raw[len(c.raw)-ed25519.SignatureSize:]
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, signed(fleet, id, []byte(body)), []byte(signature))
}

var errCard = errors.New("it is no card of a member")

// readCard reads a card from the network or the disk, without judging its
// signature. There is one form of each card only.
func readCard(raw []byte) (card, error) {
	if len(raw) > maxCard || len(raw) < 11+ed25519.SignatureSize || raw[0] != cardKind {
		return card{}, errCard
	}
	c := card{seq: binary.BigEndian.Uint64(raw[1:9]), raw: string(raw)}
	rest := raw[9 : len(raw)-ed25519.SignatureSize]
	var at string
	var ok bool
	if c.peer, rest, ok = cut(rest); !ok {
		return card{}, errCard
	}
	if at, rest, ok = cut(rest); !ok || len(rest) > 0 {
		return card{}, errCard
	}
	var err error
	if c.gossip, err = netip.ParseAddrPort(at); err != nil || c.gossip.String() != at {
		return card{}, errCard
	}
	if host, _, err := net.SplitHostPort(c.peer); err != nil || host == "" {
		return card{}, errCard
	}
	return c, nil
}

// cut takes a text with its length before it off b.
func cut(b []byte) (text string, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return "", nil, false
	}
	return string(b[1 : 1+b[0]]), b[1+b[0]:], true
}

// maxBundle is the length of the longest list of cards that is read: of some
// 5,000 nodes.
const maxBundle = 4 << 20

// named is a card and the ID of whom it is said to be.
type named struct {
	id   string
	card card
}

// bundle writes cards the way unbundle reads them.
func bundle(cards []named) []byte {
	var out []byte
	for _, c := range cards {
		id, err := hex.DecodeString(c.id)
		if err != nil || len(id) != idSize {
			continue // no node has such an ID
		}
		out = append(out, id...)
		out = binary.BigEndian.AppendUint16(out, uint16(len(c.card.raw))) //nolint:gosec // a card has 512 bytes at most
		out = append(out, c.card.raw...)
	}
	return out
}

// idSize is the length of a node's ID, in bytes.
const idSize = 32

// unbundle reads a list of cards from the network or the disk.
func unbundle(raw []byte) ([]named, error) {
	if len(raw) > maxBundle {
		return nil, fmt.Errorf("read cards of members: %d bytes: %d are the most", len(raw), maxBundle)
	}
	var out []named
	for len(raw) > 0 {
		if len(raw) < idSize+2 {
			return nil, fmt.Errorf("read cards of members: %w", errCard)
		}
		id, size := hex.EncodeToString(raw[:idSize]), int(binary.BigEndian.Uint16(raw[idSize:]))
		raw = raw[idSize+2:]
		if len(raw) < size {
			return nil, fmt.Errorf("read cards of members: %w", errCard)
		}
		c, err := readCard(raw[:size])
		if err != nil {
			return nil, fmt.Errorf("read cards of members: %w", err)
		}
		out, raw = append(out, named{id, c}), raw[size:]
	}
	return out, nil
}
