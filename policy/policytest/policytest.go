// Package policytest holds what whatever routes a machine's traffic must do, as a
// suite of tests, and rules in memory that do it: those of iptables and these
// pass the same suite.
package policytest

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-dev/shoal/policy"
)

// Rules is what the daemon needs of the packet rules of a machine.
type Rules interface {
	Set(ctx context.Context, rules policy.RuleSet) error
	Verify() (intact bool, err error)
}

// Machine is one whose rules are tested.
type Machine struct {
	Open  func() Rules    // as a daemon does that was just started
	Held  func() []string // the rules that are in force, as "CHAIN RULE", sorted
	Flush func()          // what somebody else might do: all rules are gone
}

// Suite tests rules. newMachine is called once for each test.
func Suite(t *testing.T, newMachine func(t *testing.T) Machine) {
	for name, test := range map[string]func(t *testing.T, m Machine){
		"what is set is in force, and nothing else": func(t *testing.T, m Machine) {
			r := m.Open()
			holds(t, m, r, Example(ToA, ToB))
			holds(t, m, r, Example(ToA))
			holds(t, m, r, Example())
		},
		"the next daemon removes what it does not want": func(t *testing.T, m Machine) {
			old := Example(ToA)
			old.NAT = append(old.NAT, policy.Chain{Name: "SHOAL-SVC-TWO", Rules: []string{ToB}})
			holds(t, m, m.Open(), old)
			holds(t, m, m.Open(), Example(ToB))
		},
		"rules that are not known change nothing": func(t *testing.T, m Machine) {
			r := m.Open()
			holds(t, m, r, Example(ToA))
			if err := r.Set(t.Context(), policy.RuleSet{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Lines(Example(ToA)), m.Held()); diff != "" {
				t.Errorf("in force (-want +got):\n%s", diff)
			}
		},
		"a flush is noticed and put right": func(t *testing.T, m Machine) {
			r := m.Open()
			holds(t, m, r, Example(ToA))
			m.Flush()
			if intact, err := r.Verify(); err != nil || intact {
				t.Errorf("after a flush they are intact: %v, %v", intact, err)
			}
			holds(t, m, r, Example(ToA))
		},
	} {
		t.Run(name, func(t *testing.T) { test(t, newMachine(t)) })
	}
}

func holds(t *testing.T, m Machine, r Rules, want policy.RuleSet) {
	t.Helper()
	if err := r.Set(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if intact, err := r.Verify(); err != nil || !intact {
		t.Errorf("what was just set is not intact: %v, %v", intact, err)
	}
	if diff := cmp.Diff(Lines(want), m.Held()); diff != "" {
		t.Errorf("in force (-want +got):\n%s", diff)
	}
}

// Where the Service of Example leads to.
const (
	ToA = "-p tcp -m tcp -j DNAT --to-destination 10.64.0.5:80"
	ToB = "-p tcp -m tcp -j DNAT --to-destination 10.64.0.6:80"
)

// Example is a rule set with one Service.
func Example(service ...string) policy.RuleSet {
	return policy.RuleSet{
		NAT: []policy.Chain{
			{Name: policy.ChainPostrouting, Rules: []string{"-m mark ! --mark 0x4000/0x4000 -j RETURN", "-j MASQUERADE --random-fully"}},
			{Name: policy.ChainServices, Rules: []string{`-d 10.96.0.20/32 -p tcp -m comment --comment "ns/web:80" -m tcp --dport 80 -j SHOAL-SVC-ONE`}},
			{Name: "SHOAL-SVC-ONE", Rules: service},
		},
		Filter: []policy.Chain{{Name: policy.ChainForward, Rules: []string{"-s 10.64.0.0/24 -j ACCEPT"}}, {Name: policy.ChainReject}},
	}
}

// Lines returns the rules of a set as "CHAIN RULE", sorted.
func Lines(set policy.RuleSet) []string {
	lines := []string{}
	for _, chain := range slices.Concat(set.NAT, set.Filter) {
		for _, rule := range chain.Rules {
			lines = append(lines, chain.Name+" "+rule)
		}
	}
	slices.Sort(lines)
	return lines
}

// Memory is rules in memory. The zero value is ready; it may be used
// concurrently.
type Memory struct {
	mu       sync.Mutex
	set, now policy.RuleSet
}

// Set puts rules into force.
func (m *Memory) Set(_ context.Context, set policy.RuleSet) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if set.Known() {
		m.set, m.now = set, set
	}
	return nil
}

// Verify reports whether what was set is in force.
func (m *Memory) Verify() (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Equal(Lines(m.set), Lines(m.now)), nil
}

// Held returns what is in force.
func (m *Memory) Held() policy.RuleSet {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// Flush removes all rules.
func (m *Memory) Flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = policy.RuleSet{}
}
