package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A tracer walks a packet through a rule set as the kernel would, and follows
// every branch that chance or memory may take. It knows the matches that Rules
// writes and fails on any other.
type tracer struct {
	t      *testing.T
	chains map[string][]string
	local  map[netip.Addr]bool // addresses of this machine
}

type packet struct {
	from, to netip.Addr
	port     int
	proto    string
	mark     bool
}

// An outcome is where a packet may end: "10.64.0.5:80", "rejected", or "" when
// no rule redirects it; with "masqueraded" when its source is rewritten.
type outcome struct {
	to     string
	masq   bool
	chance float64
}

func newTracer(t *testing.T, rules RuleSet, local ...string) *tracer {
	tr := &tracer{t: t, chains: map[string][]string{}, local: map[netip.Addr]bool{netip.MustParseAddr("127.0.0.1"): true}}
	for _, c := range append(rules.NAT, rules.Filter...) {
		tr.chains[c.Name] = c.Rules
	}
	for _, l := range local {
		tr.local[netip.MustParseAddr(l)] = true
	}
	return tr
}

// trace sends a packet to "address:port/proto" and returns all outcomes.
func (tr *tracer) trace(from, to string) []outcome {
	target, proto, _ := strings.Cut(to, "/")
	ap := netip.MustParseAddrPort(target)
	p := packet{from: netip.MustParseAddr(from), to: ap.Addr(), port: int(ap.Port()), proto: proto}
	if verdict := tr.filter(p); verdict != "" {
		return []outcome{{to: verdict, chance: 1}}
	}
	var out []outcome
	for _, o := range tr.walk(ChainServices, p, 1) {
		after := p
		after.mark = o.masq
		if o.to != "" {
			moved := netip.MustParseAddrPort(o.to)
			after.to, after.port = moved.Addr(), int(moved.Port())
		}
		o.masq = tr.masqueraded(after)
		out = append(out, o)
	}
	return out
}

func (tr *tracer) filter(p packet) string {
	rules := tr.chains[ChainReject]
	if !tr.local[p.to] {
		rules = append(slices.Clone(tr.chains[ChainForward]), rules...) // what it accepts the other does not refuse
	}
	for _, rule := range rules {
		matches, target, _ := tr.match(rule, p)
		if matches && target == "REJECT" {
			return "rejected"
		}
		if matches && target == "DROP" {
			return "dropped"
		}
	}
	return ""
}

// walk follows the nat chains. In an outcome without a target masq holds the
// mark so far.
func (tr *tracer) walk(chain string, p packet, chance float64) []outcome {
	var out []outcome
	for _, rule := range tr.chains[chain] {
		matches, target, probability := tr.match(rule, p)
		if !matches {
			continue
		}
		switch {
		case strings.HasPrefix(target, "DNAT "):
			out = append(out, outcome{strings.TrimPrefix(target, "DNAT "), p.mark, chance * probability})
			chance *= 1 - probability
			if chance < 1e-6 {
				return out
			}
		case target == "MARK":
			p.mark = true
		default:
			done := false
			for _, o := range tr.walk(target, p, chance) {
				if o.to == "" {
					p.mark = o.masq
					continue
				}
				done = true
				out = append(out, o)
			}
			if done {
				return out
			}
		}
	}
	return append(out, outcome{"", p.mark, chance})
}

func (tr *tracer) masqueraded(p packet) bool {
	for _, chain := range []string{chainHairpin, ChainPostrouting} {
		for _, rule := range tr.chains[chain] {
			matches, target, _ := tr.match(rule, p)
			if matches && target == "RETURN" {
				return false
			}
			if matches && target == "MASQUERADE" {
				return true
			}
		}
	}
	return false
}

// match reads one rule: whether the packet matches, the target, and with what
// probability it is taken. Rules that ask for memory (recent --rcheck) do not
// match: the tracer's clients are new.
func (tr *tracer) match(rule string, p packet) (matches bool, target string, probability float64) {
	words := splitRule(rule)
	matches, probability = true, 1
	not := false
	for i := 0; i < len(words); i++ {
		word := words[i]
		arg := func() string { i++; return words[i] }
		check := func(ok bool) { matches = matches && ok != not; not = false }
		switch word {
		case "!":
			not = true
		case "-s":
			check(netip.MustParsePrefix(arg()).Contains(p.from))
		case "-d":
			check(netip.MustParsePrefix(arg()).Contains(p.to))
		case "-p":
			check(arg() == p.proto)
		case "-o":
			check(arg() == testConfig.Tunnel && behindTunnel.Contains(p.to))
		case "--dport":
			n, _ := strconv.Atoi(arg())
			check(n == p.port)
		case "--dst-type":
			arg()
			check(tr.local[p.to])
		case "--mark":
			arg()
			check(p.mark)
		case "--ctstate":
			check(strings.Contains(arg(), "NEW")) // all traced packets are new
		case "--probability":
			probability, _ = strconv.ParseFloat(arg(), 64)
		case "--rcheck":
			matches = false
		case "-j":
			target = arg()
			if target == "DNAT" {
				i++
				target += " " + arg()
			}
			if target == "REJECT" || target == "MARK" || target == "MASQUERADE" {
				return matches, target, probability
			}
		case "-m", "--mode", "--comment", "--name", "--mask", "--seconds":
			arg()
		case "--set", "--rsource", "--reap":
		default:
			tr.t.Fatalf("the tracer does not know %q in %q", word, rule)
		}
	}
	return matches, target, probability
}

func splitRule(rule string) []string {
	var out []string
	for rest := strings.TrimSpace(rule); rest != ""; {
		if rest[0] == '"' {
			end := strings.Index(rest[1:], `"`) + 2
			out = append(out, rest[:end])
			rest = strings.TrimSpace(rest[end:])
			continue
		}
		word, tail, _ := strings.Cut(rest, " ")
		out = append(out, word)
		rest = strings.TrimSpace(tail)
	}
	return out
}

// String writes outcomes as a reader would say them.
func describe(outcomes []outcome) string {
	var parts []string
	for _, o := range outcomes {
		if o.chance < 1e-3 {
			continue
		}
		text := o.to
		if text == "" {
			text = "as sent"
		}
		if o.masq {
			text += " masqueraded"
		}
		if o.chance < 0.999 {
			text += fmt.Sprintf(" (%.0f%%)", o.chance*100)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}
