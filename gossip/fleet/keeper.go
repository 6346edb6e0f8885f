package fleet

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/shoal-dev/shoal/gossip"
)

// errDamaged is returned for a copy that is not what was written.
var errDamaged = errors.New("the copy of the ledger is damaged")

// keeper keeps the newest ledger in a file, so that a node without a part in the
// consensus knows its fleet when it starts alone. What is damaged is dropped:
// peers and the log have it too.
type keeper struct{ path string }

func (k keeper) load() (gossip.Ledger, error) {
	raw, err := os.ReadFile(k.path)
	if err != nil {
		return gossip.Ledger{}, fmt.Errorf("read the ledger: %w", err)
	}
	if len(raw) < sha256.Size {
		return gossip.Ledger{}, errDamaged
	}
	body := raw[sha256.Size:]
	if sha256.Sum256(body) != [sha256.Size]byte(raw) {
		return gossip.Ledger{}, errDamaged
	}
	return gossip.DecodeLedger(body)
}

func (k keeper) save(l gossip.Ledger) {
	if have, err := k.load(); err == nil && have.Index == l.Index && have.Epoch == l.Epoch {
		return
	}
	_ = k.write(l) // the next turn tries again; the log and the peers have it too
}

func (k keeper) write(l gossip.Ledger) error {
	body, err := l.Encode()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if err := writeFile(k.path, append(sum[:], body...)); err != nil {
		return fmt.Errorf("keep the ledger: %w", err)
	}
	return nil
}

// writeFile replaces a file as a whole, or leaves it as it was.
func writeFile(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // it is gone when the rename worked
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	return err
}

// guard keeps one node from filling the log, and one address from guessing.
type guard struct {
	mu    sync.Mutex
	said  map[string]time.Time
	tries map[string][]time.Time
}

// say tells of a bad message, once a minute for each node.
func (g *guard) say(say func(string), from string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.said[from]) < time.Minute {
		return
	}
	if g.said == nil || len(g.said) > 1000 {
		g.said = map[string]time.Time{}
	}
	g.said[from] = time.Now()
	go say(fmt.Sprintf("node %.12s: %v", from, err))
}

// joinTries is how often one address may try to join in a minute.
const joinTries = 5

// admit reports whether an address may try once more.
func (g *guard) admit(address string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tries == nil || len(g.tries) > 10000 {
		g.tries = map[string][]time.Time{}
	}
	recent := g.tries[address][:0:0]
	for _, t := range g.tries[address] {
		if now.Sub(t) < time.Minute {
			recent = append(recent, t)
		}
	}
	if len(recent) >= joinTries {
		return false
	}
	g.tries[address] = append(recent, now)
	return true
}
