package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/coreos/go-iptables/iptables"

	"github.com/shoal-dev/shoal/policy"
)

// lockWait is how many seconds to wait for the lock that all iptables commands
// of a machine share.
const lockWait = 10

// An Applier holds the rules of this network namespace in the state that it was
// last given. Its methods may be called concurrently.
type Applier struct {
	ipt *iptables.IPTables

	mu      sync.Mutex
	applied map[string]map[string][]string // by table and chain; nil: nothing is known of the kernel's state
}

// New returns an Applier for the network namespace of this process. It needs
// root rights and iptables on the PATH.
func New() (*Applier, error) {
	ipt, err := iptables.New(iptables.IPFamily(iptables.ProtocolIPv4), iptables.Timeout(lockWait))
	if err != nil {
		return nil, fmt.Errorf("find iptables (install the package iptables): %w", err)
	}
	if _, err := exec.LookPath("iptables-restore"); err != nil {
		return nil, fmt.Errorf("find iptables-restore (install the package iptables): %w", err)
	}
	return &Applier{ipt: ipt}, nil
}

// Set brings the machine to the given rules. Each table changes in one
// transaction. The zero RuleSet changes nothing. After an error the state of
// the kernel counts as unknown, and the next call writes everything anew.
func (a *Applier) Set(ctx context.Context, rules policy.RuleSet) error {
	if !rules.Known() {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	want := map[string]map[string][]string{"nat": byName(rules.NAT), "filter": byName(rules.Filter)}
	first := a.applied == nil
	if first {
		have, err := a.list()
		if err != nil {
			return err
		}
		a.applied = have
	}
	for _, table := range []string{"nat", "filter"} {
		input := restoreInput(table, a.applied[table], want[table])
		if len(input) == 0 {
			continue
		}
		if err := restore(ctx, input); err != nil {
			a.applied = nil
			return fmt.Errorf("apply rules to table %s: %w", table, err)
		}
	}
	a.applied = want
	if first {
		return a.hook()
	}
	return nil
}

// Verify looks whether somebody else removed what Set made, as a firewall that
// is reloaded does, and reports whether everything is in place. When it is not,
// the next Set writes all rules anew.
func (a *Applier) Verify() (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.applied == nil {
		return false, nil
	}
	intact, err := a.intact()
	if err != nil || !intact {
		a.applied = nil
	}
	return intact, err
}

func (a *Applier) intact() (bool, error) {
	have, err := a.list()
	if err != nil {
		return false, err
	}
	for table, chains := range a.applied {
		for name := range chains {
			if _, there := have[table][name]; !there {
				return false, nil
			}
		}
	}
	for _, hook := range policy.Hooks {
		there, err := a.ipt.Exists(hook.Table, hook.From, "-j", hook.To)
		if err != nil || !there {
			return false, err
		}
	}
	// The rule in front of everything stands for the content of all chains: a
	// flush of a table takes it along.
	rules, err := a.ipt.List("nat", policy.ChainPostrouting)
	return err == nil && len(rules) > 1, err
}

// list returns the names of our chains in the kernel, without their rules.
func (a *Applier) list() (map[string]map[string][]string, error) {
	out := map[string]map[string][]string{}
	for _, table := range []string{"nat", "filter"} {
		names, err := a.ipt.ListChains(table)
		if err != nil {
			return nil, fmt.Errorf("list chains of table %s: %w", table, err)
		}
		out[table] = map[string][]string{}
		for _, name := range names {
			if strings.HasPrefix(name, policy.ChainPrefix) {
				out[table][name] = nil
			}
		}
	}
	return out, nil
}

// hook makes the jumps from the built-in chains, in front of what is there.
func (a *Applier) hook() error {
	for _, hook := range policy.Hooks {
		there, err := a.ipt.Exists(hook.Table, hook.From, "-j", hook.To)
		if err == nil && !there {
			err = a.ipt.Insert(hook.Table, hook.From, 1, "-j", hook.To)
		}
		if err != nil {
			a.applied = nil
			return fmt.Errorf("jump from %s to %s: %w", hook.From, hook.To, err)
		}
	}
	return nil
}

// routeLocalnet lets packets to 127.0.0.0/8 leave the loopback interface, so
// that NodePorts answer on localhost; package runtime/network turns it on.
const routeLocalnet = "/proc/sys/net/ipv4/conf/all/route_localnet"

// CleanUp removes every jump and chain of Shoal from the network namespace of
// this process. It needs no Applier and no memory of what was applied; it
// leaves everything else alone and may be called when there is nothing to do.
func CleanUp(ctx context.Context) error {
	a, err := New()
	if err != nil {
		return err
	}
	// Off before the rule goes that guards it.
	errs := []error{os.WriteFile(routeLocalnet, []byte("0"), 0o644)}
	for _, hook := range policy.Hooks {
		if there, err := a.ipt.Exists(hook.Table, hook.From, "-j", hook.To); err == nil && there {
			errs = append(errs, a.ipt.Delete(hook.Table, hook.From, "-j", hook.To))
		}
	}
	have, err := a.list()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, table := range []string{"nat", "filter"} {
		if input := restoreInput(table, have[table], nil); len(input) > 0 {
			errs = append(errs, restore(ctx, input))
		}
	}
	return errors.Join(errs...)
}

func byName(chains []policy.Chain) map[string][]string {
	out := make(map[string][]string, len(chains))
	for _, c := range chains {
		// Never nil, which stands for rules that are not known.
		out[c.Name] = append([]string{}, c.Rules...)
	}
	return out
}

// restoreInput writes what iptables-restore --noflush must read to turn one set
// of chains into another: changed chains are emptied and written again, chains
// that are no longer wanted are removed once nothing refers to them. A chain
// whose rules are nil in have is of unknown content. Nothing to do gives nil.
func restoreInput(table string, have, want map[string][]string) []byte {
	var declare, rules, drop bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(want)) {
		old, there := have[name]
		if there && old != nil && slices.Equal(old, want[name]) {
			continue
		}
		fmt.Fprintf(&declare, ":%s - [0:0]\n", name)
		for _, rule := range want[name] {
			fmt.Fprintf(&rules, "-A %s %s\n", name, rule)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if _, wanted := want[name]; !wanted {
			fmt.Fprintf(&declare, ":%s - [0:0]\n", name)
			fmt.Fprintf(&drop, "-X %s\n", name)
		}
	}
	if declare.Len() == 0 {
		return nil
	}
	return slices.Concat([]byte("*"+table+"\n"), declare.Bytes(), rules.Bytes(), drop.Bytes(), []byte("COMMIT\n"))
}

func restore(ctx context.Context, input []byte) error {
	cmd := exec.CommandContext(ctx, "iptables-restore", "--noflush", "-w", fmt.Sprint(lockWait))
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("iptables-restore: %w: %s%s", err, bytes.TrimSpace(stderr.Bytes()), badLine(stderr.String(), input))
	}
	return nil
}

// badLine quotes the line of the input that iptables-restore complained about.
func badLine(complaint string, input []byte) string {
	var line int
	i := strings.Index(complaint, "line")
	if i < 0 {
		return ""
	}
	if _, err := fmt.Sscanf(complaint[i:], "line %d", &line); err != nil {
		if _, err := fmt.Sscanf(complaint[i:], "line: %d", &line); err != nil {
			return ""
		}
	}
	lines := bytes.Split(input, []byte("\n"))
	if line < 1 || line > len(lines) {
		return ""
	}
	return fmt.Sprintf(" (%s)", lines[line-1])
}
