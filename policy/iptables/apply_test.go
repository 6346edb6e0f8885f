package iptables

import (
	"context"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shoal-dev/shoal/policy"
	"github.com/shoal-dev/shoal/policy/policytest"
)

// inNetns moves the test into a network namespace of its own, which goes with
// the test's thread. Processes started from here live in it too.
func inNetns(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("make a network namespace (needs root): %v", err)
	}
}

var counters = regexp.MustCompile(`\[\d+:\d+\]`)

// save returns the rules of both tables, without comments and counters.
func save(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, table := range []string{"nat", "filter"} {
		raw, err := exec.Command("iptables-save", "-t", table).CombinedOutput()
		if err != nil {
			t.Fatalf("iptables-save: %v: %s", err, raw)
		}
		for line := range strings.SplitSeq(string(raw), "\n") {
			if !strings.HasPrefix(line, "#") {
				out.WriteString(counters.ReplaceAllString(line, "[0:0]") + "\n")
			}
		}
	}
	return out.String()
}

// foreign makes rules that are not ours.
func foreign(t *testing.T) {
	t.Helper()
	for _, rule := range []string{
		"-t nat -N OTHERS", "-t nat -A OTHERS -d 10.96.0.5/32 -p tcp -j RETURN", "-t nat -A PREROUTING -j OTHERS",
		"-A INPUT -s 203.0.113.0/24 -j DROP", "-P FORWARD DROP", "-N SHOALING", "-A SHOALING -j RETURN",
	} {
		if out, err := exec.Command("iptables", strings.Fields(rule)...).CombinedOutput(); err != nil {
			t.Fatalf("iptables %s: %v: %s", rule, err, out)
		}
	}
}

var rules = policytest.Example

const (
	toA = policytest.ToA
	toB = policytest.ToB
)

func TestSuite(t *testing.T) {
	policytest.Suite(t, func(t *testing.T) policytest.Machine {
		inNetns(t)
		return policytest.Machine{
			Open: func() policytest.Rules { return newApplier(t) },
			Held: func() []string {
				lines := []string{}
				for line := range strings.SplitSeq(save(t), "\n") {
					if rule, ours := strings.CutPrefix(line, "-A "+policy.ChainPrefix); ours {
						lines = append(lines, policy.ChainPrefix+rule)
					}
				}
				slices.Sort(lines)
				return lines
			},
			Flush: func() {
				for _, table := range []string{"nat", "filter"} {
					if out, err := exec.Command("iptables", "-t", table, "-F").CombinedOutput(); err != nil {
						t.Fatalf("%v: %s", err, out)
					}
				}
			},
		}
	})
}

func newApplier(t *testing.T) *Applier {
	t.Helper()
	a, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func set(t *testing.T, a *Applier, r policy.RuleSet) {
	t.Helper()
	if err := a.Set(context.Background(), r); err != nil {
		t.Fatal(err)
	}
}

func TestSetAndCleanUpLeaveForeignRulesAlone(t *testing.T) {
	inNetns(t)
	foreign(t)
	before := save(t)
	a := newApplier(t)
	set(t, a, rules(toA))
	after := save(t)
	for _, want := range []string{
		"-A PREROUTING -j SHOAL-SERVICES", "-A POSTROUTING -j SHOAL-POSTROUTING", "-A FORWARD -j SHOAL-FORWARD",
		"-A SHOAL-SVC-ONE " + strings.ReplaceAll(toA, "-p tcp -m tcp ", "-p tcp -m tcp "), "-A SHOAL-FORWARD -s 10.64.0.0/24 -j ACCEPT",
	} {
		if !strings.Contains(after, want+"\n") {
			t.Errorf("no rule %q in\n%s", want, after)
		}
	}
	for line := range strings.SplitSeq(before, "\n") {
		if !strings.Contains(after, line) {
			t.Errorf("the foreign line %q is gone", line)
		}
	}
	if err := CleanUp(context.Background()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, save(t)); diff != "" {
		t.Errorf("rules after clean-up (-before +after):\n%s", diff)
	}
	if err := CleanUp(context.Background()); err != nil {
		t.Errorf("a second clean-up: %v", err)
	}
}

func TestSetChangesOnlyWhatChanged(t *testing.T) {
	inNetns(t)
	a := newApplier(t)
	set(t, a, rules(toA))
	set(t, a, rules(toA, toB))
	fresh := save(t)
	input := restoreInput("nat", byName(rules(toA).NAT), byName(rules(toA, toB).NAT))
	want := "*nat\n:SHOAL-SVC-ONE - [0:0]\n-A SHOAL-SVC-ONE " + toA + "\n-A SHOAL-SVC-ONE " + toB + "\nCOMMIT\n"
	if string(input) != want {
		t.Errorf("iptables-restore is fed\n%s\nwant\n%s", input, want)
	}
	if again := restoreInput("filter", byName(rules(toA).Filter), byName(rules(toA).Filter)); again != nil {
		t.Errorf("nothing changed, and iptables-restore is fed\n%s", again)
	}
	// The same state reached by a daemon that knows nothing of the former one.
	set(t, newApplier(t), rules(toA, toB))
	if diff := cmp.Diff(fresh, save(t)); diff != "" {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
}

func TestVerifyNoticesAFlush(t *testing.T) {
	tests := []struct{ name, command string }{
		{"a table is flushed", "-t nat -F"},
		{"a jump is gone", "-D FORWARD -j SHOAL-FORWARD"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inNetns(t)
			a := newApplier(t)
			set(t, a, rules(toA))
			want := save(t)
			if intact, err := a.Verify(); err != nil || !intact {
				t.Fatalf("Verify of what was just applied: %v, %v", intact, err)
			}
			if out, err := exec.Command("iptables", strings.Fields(tt.command)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if intact, err := a.Verify(); err != nil || intact {
				t.Fatalf("Verify after iptables %s: %v, %v", tt.command, intact, err)
			}
			set(t, a, rules(toA))
			if diff := cmp.Diff(sorted(want), sorted(save(t))); diff != "" {
				t.Errorf("rules after the repair (-want +got):\n%s", diff)
			}
		})
	}
}

func sorted(s string) map[string]bool {
	out := map[string]bool{}
	for line := range strings.SplitSeq(s, "\n") {
		out[line] = true
	}
	return out
}

func TestABadRuleIsNamed(t *testing.T) {
	inNetns(t)
	err := newApplier(t).Set(context.Background(), rules("-p tcp -j NOWHERE"))
	if err == nil || !strings.Contains(err.Error(), "table nat") || !strings.Contains(err.Error(), "NOWHERE") {
		t.Errorf("got error %v, want one that names the table and the rule", err)
	}
}
