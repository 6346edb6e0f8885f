package fleet

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-dev/shoal/gossip"
)

// Files of a recovery. A person lays the one down; the other holds the reason why
// it was not used.
const (
	recoveryFile = "recovery"
	refusedFile  = "recovery.refused"
)

// How long a recovery waits: until it would have been heard that there is a
// quorum after all, and that whoever is named lost has fallen silent.
const (
	recoverAfter  = gossip.OrphanAfter + 2*gossip.AnswerWithin
	silentFor     = 5 * time.Second
	recoverWithin = 20 * time.Second
)

// Remembered returns the ledger that a node remembers, also while its daemon does
// not run. dir is that of Config.
func Remembered(dir string) (gossip.Ledger, error) {
	return keeper{filepath.Join(dir, "ledger")}.load()
}

// LayRecovery lays a recovery down for the daemon of this node, which takes it up
// when it runs.
func LayRecovery(dir string, r gossip.Recovery) error {
	raw, err := r.Encode()
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, refusedFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget an earlier recovery: %w", err)
	}
	if err := writeFile(filepath.Join(dir, recoveryFile), raw); err != nil {
		return fmt.Errorf("lay the recovery down: %w", err)
	}
	return nil
}

// Recovery tells what has come of the recovery that was laid down: whether it
// still waits, and why it was refused, "" when it was not.
func Recovery(dir string) (waits bool, refused string) {
	if _, err := os.Stat(filepath.Join(dir, recoveryFile)); err == nil {
		return true, ""
	}
	raw, err := os.ReadFile(filepath.Join(dir, refusedFile))
	if err != nil {
		return false, ""
	}
	return false, strings.TrimSpace(string(raw))
}

// recover takes up a recovery that was laid down.
func (f *Fleet) recover(ctx context.Context) {
	raw, err := os.ReadFile(filepath.Join(f.cfg.Dir, recoveryFile))
	if errors.Is(err, os.ErrNotExist) {
		f.laid = time.Time{}
		return
	}
	if f.laid.IsZero() {
		f.laid = time.Now()
	}
	f.mu.Lock()
	l := f.ledger
	f.mu.Unlock()
	r, wait, err := gossip.Recovery{}, false, err
	if err == nil {
		r, err = gossip.DecodeRecovery(raw)
	}
	if err == nil && used(l, r) {
		f.forgetRecovery("") // the daemon was stopped after it had done it
		return
	}
	if err == nil {
		err = r.Check(l)
	}
	if err == nil && r.Node != f.cfg.Node.ID {
		err = fmt.Errorf("recover the fleet: the recovery names %s as the node that goes on: lay it down there", l.Members[r.Node].Name)
	}
	if err == nil {
		wait, err = f.doubtful(l, r)
	}
	switch {
	case err != nil:
		f.cfg.Say(err.Error())
		f.forgetRecovery(err.Error())
	case !wait && ctx.Err() == nil:
		f.goOn(l, r)
	}
}

// used reports whether a ledger goes on by this very recovery.
func used(l gossip.Ledger, r gossip.Recovery) bool {
	for _, old := range l.Recoveries {
		if old.Node == r.Node && old.From == r.From && string(old.Sig) == string(r.Sig) {
			return true
		}
	}
	return false
}

// doubtful reports whether it is too early to go on without those that are named
// lost; the error says that they are not.
func (f *Fleet) doubtful(l gossip.Ledger, r gossip.Recovery) (wait bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a, age := f.core.Authority(); a.Quorate && (f.core.Leads() || age < gossip.OrphanAfter) {
		return false, fmt.Errorf("recover the fleet: it has a leader with a quorum, %s: there is nothing to recover", l.Members[a.Leader].Name)
	}
	for _, id := range r.Lost {
		ago, ever := f.core.Heard(id)
		switch {
		case !ever || ago >= silentFor:
		case time.Since(f.laid) < recoverWithin:
			wait = true
		default:
			return false, fmt.Errorf("recover the fleet: %s is named lost and was heard of %s ago: switch it off for good, or start a quorum",
				l.Members[id].Name, ago.Round(100*time.Millisecond))
		}
	}
	return wait || time.Since(f.opened) < recoverAfter, nil
}

// goOn makes this node the only voter of the next epoch. When that fails it is
// tried again: the recovery is still there.
func (f *Fleet) goOn(l gossip.Ledger, r gossip.Recovery) {
	next, err := l.Recover(r)
	if err == nil {
		f.mu.Lock()
		a, _ := f.core.Authority()
		f.mu.Unlock()
		term := max(a.Term, f.log.State().Term) + 1
		err = f.log.recover(next, l.Members[r.Node].RaftID, term)
	}
	if err == nil {
		err = f.keeper.write(next)
	}
	if err != nil {
		f.guard.say(f.cfg.Say, f.cfg.Node.ID, fmt.Errorf("recover the fleet: %w", err))
		return
	}
	f.forgetRecovery("")
	f.cfg.Say(fmt.Sprintf("the fleet goes on in epoch %d: this node holds its log", next.Epoch))
	f.follow()
}

// forgetRecovery puts the recovery away, with the reason when it was refused.
func (f *Fleet) forgetRecovery(why string) {
	if why != "" {
		if err := writeFile(filepath.Join(f.cfg.Dir, refusedFile), []byte(why+"\n")); err != nil {
			f.cfg.Say(fmt.Sprintf("write down why the recovery was refused: %v", err))
		}
	}
	if err := os.Remove(filepath.Join(f.cfg.Dir, recoveryFile)); err != nil {
		f.cfg.Say(fmt.Sprintf("put the recovery away: %v", err))
	}
	f.laid = time.Time{}
}

// resurrected returns the ledger with which the only voter of a fleet goes on
// after its log was lost: nobody else knows more than it does.
func resurrected(l gossip.Ledger, self string, key ed25519.PrivateKey) (gossip.Ledger, error) {
	r, err := gossip.NewRecovery(l, self, nil, time.Now(), key)
	if err != nil {
		return gossip.Ledger{}, err
	}
	return l.Recover(r)
}
