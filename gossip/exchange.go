package gossip

import "fmt"

// An exchange makes two nodes know the same, without any leader: A sends the
// hash of what it has; B, when it has something else, sends its digest; A sends
// what B lacks, and its own digest when it lacks something itself; B answers
// that one. With one exchange a second everything reaches n nodes in about
// log2(n) seconds.

// compare begins an exchange with the next peer in turn.
func (c *Core) compare() {
	c.compared = c.now
	others := c.others()
	if len(others) == 0 {
		return
	}
	c.turn++
	// The steps are coprime to most numbers of peers and differ between nodes,
	// so that not all of them talk to the same one.
	at := (uint64(c.turn)*2654435761 + c.salt) % uint64(len(others))
	c.send(Message{To: others[at].ID, Digest: &Compare{Hash: c.records.Hash(true)}})
}

// answer goes on with an exchange.
func (c *Core) answer(from string, m *Compare) error {
	if m.Digest == nil {
		if m.Hash != c.records.Hash(true) {
			c.send(Message{To: from, Digest: &Compare{Digest: c.records.Digest()}})
		}
		return nil
	}
	if len(m.Digest) > 2*len(c.roster)+16 {
		return fmt.Errorf("a digest of %d nodes: the roster has %d", len(m.Digest), len(c.roster))
	}
	updates, lacking := c.records.Newer(m.Digest)
	if len(updates) > 0 {
		c.send(Message{To: from, Updates: &Updates{updates}})
	}
	if lacking && !m.Final {
		c.send(Message{To: from, Digest: &Compare{Digest: c.records.Digest(), Final: true}})
	}
	return nil
}
