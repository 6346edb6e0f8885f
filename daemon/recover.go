package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/fleet"
	"github.com/shoal-dev/shoal/gossip/identity"
)

// A RecoveryPlan is what a recovery of the fleet on this node would do.
type RecoveryPlan struct {
	Text  string // for people: what happens, and what may be lost
	Epoch uint64 // in which the fleet goes on

	dir      string
	recovery gossip.Recovery
}

// PlanRecovery plans how the fleet goes on with this node as its only voter,
// without the voters with these names. It needs no daemon, and changes nothing.
func PlanRecovery(cfg Config, lost []string) (RecoveryPlan, error) {
	l, err := fleet.Remembered(cfg.fleetDir())
	if err != nil {
		return RecoveryPlan{}, fmt.Errorf("this node remembers no fleet to recover: %w", err)
	}
	node, err := identity.OpenNode(cfg.identityDir())
	if err != nil {
		return RecoveryPlan{}, err
	}
	r, err := gossip.NewRecovery(l, node.ID, lost, time.Now(), node.Private)
	if err != nil {
		return RecoveryPlan{}, err
	}
	id, err := identity.Read(cfg.identityDir())
	if err != nil {
		return RecoveryPlan{}, err
	}
	_, key := id.Export()
	return RecoveryPlan{Text: explainRecovery(l, r, key != nil), Epoch: r.From + 1, dir: cfg.fleetDir(), recovery: r}, nil
}

// explainRecovery says what a recovery does and what may be lost by it.
func explainRecovery(l gossip.Ledger, r gossip.Recovery, signs bool) string {
	var lost, left []string
	for _, m := range l.Living() {
		switch {
		case slices.Contains(r.Lost, m.ID):
			lost = append(lost, m.Name)
		case m.ID != r.Node:
			left = append(left, m.Name)
		}
	}
	slices.Sort(lost)
	slices.Sort(left)
	self := l.Members[r.Node].Name
	var b strings.Builder
	fmt.Fprintf(&b, "Fleet %s, epoch %d, as far as %s knows it: entry %d of its log.\n\n", l.Fleet.ID, l.Epoch, self, l.Index)
	fmt.Fprintf(&b, "  %-22s %s\n", "gone for good:", strings.Join(lost, ", "))
	fmt.Fprintf(&b, "  %-22s %s\n", "holds the log alone:", self)
	fmt.Fprintf(&b, "  %-22s %s\n\n", "follow by themselves:", or(strings.Join(left, ", "), "nobody"))
	fmt.Fprintf(&b, "The fleet goes on in epoch %d. Machines can join, tokens can be made, and pods that\nmust not run twice are moved again.\n\n", r.From+1)
	fmt.Fprintf(&b, "Lost is what the others agreed on after entry %d: machines that joined or were\nremoved, tokens, claims, addresses of Services. If one of those that are left knows\nof a later entry (shoal status there), recover there instead.\n\n", l.Index)
	b.WriteString("If one of the lost machines still runs, pods that must not run twice may run twice:\nswitch them off. Should they come back later, they are members again and what\ntheir logs say is not believed; shoal remove strikes them off.\n")
	if !signs {
		b.WriteString("\nThis node has no key of the API's authority, because it did not vote: no machine can\njoin and no kubeconfig can be made until a node that has it is back. If one of the\nvoters is left, recover there instead.\n")
	}
	return b.String() + "\n"
}

func or(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// Do signs the recovery and lays it down for the daemon of this node.
func (p RecoveryPlan) Do() error { return fleet.LayRecovery(p.dir, p.recovery) }

// Wait waits until the daemon has taken the recovery up. The error says why it
// refused it.
func (p RecoveryPlan) Wait(ctx context.Context) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		waits, refused := fleet.Recovery(p.dir)
		switch {
		case refused != "":
			return errors.New(refused)
		case !waits:
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("the daemon has not taken the recovery up yet: see shoal status")
		case <-ticker.C:
		}
	}
}
