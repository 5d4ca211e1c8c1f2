package rules

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"dunnage/spec"
)

// packet is the first packet of a connection.
type packet struct {
	in, out   string // interfaces; "" = none
	src, dst  netip.Addr
	proto     spec.Protocol
	port      uint16
	origDst   netip.Addr // before DNAT; valid = it was translated
	fromLocal bool       // src is one of the host's addresses
	toLocal   bool
}

// outcome maps "verdict argument" to its probability.
type outcome map[string]float64

// walk follows the packet through a chain of the text, as the kernel would,
// and splits it where a rule matches by chance. An unknown match or target, or
// a jump to a chain that doesn't exist, ends the test: the tracer must
// understand every rule that is rendered.
func walk(t tb, table Table, chain string, p packet) outcome {
	t.Helper()
	got := outcome{}
	if rest := follow(t, table, chain, p, 1, got, 0); rest > 0 {
		got["RETURN"] += rest
	}
	return got
}

// follow returns the share that comes back from the chain.
func follow(t tb, table Table, chain string, p packet, share float64, got outcome, depth int) float64 {
	t.Helper()
	if chain == UserChain {
		return share
	}
	c, ok := table.Chain(chain)
	if !ok {
		t.Fatalf("jump to chain %s, which doesn't exist", chain)
	}
	if depth > 16 {
		t.Fatalf("chains nest too deep at %s", chain)
	}
	for _, rule := range c.Rules {
		hit, verdict := match(t, rule, p)
		hit *= share
		share -= hit
		if hit == 0 {
			continue
		}
		name, _, _ := strings.Cut(verdict, " ")
		switch {
		case name == "RETURN":
			return share + hit
		case strings.HasPrefix(name, Prefix):
			share += follow(t, table, name, p, hit, got, depth+1)
		default:
			got[verdict] += hit
		}
	}
	return share
}

// match returns the probability that the rule takes the packet and its target.
func match(t tb, rule string, p packet) (float64, string) {
	t.Helper()
	args := Args(rule)
	hit, negate := 1.0, false
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "!" {
			negate = true
			continue
		}
		if arg == "-j" {
			return hit, strings.Join(args[i+1:], " ")
		}
		if arg == "--invert" { // of rpfilter: the packets here have true sources
			hit = 0
			continue
		}
		i++
		if ok, known := p.test(arg, args[i]); known {
			if ok == negate {
				hit = 0
			}
		} else if arg == "--probability" {
			hit *= number(t, args[i])
		} else if arg != "-m" && arg != "--comment" && arg != "--mode" {
			t.Fatalf("rule %q: the tracer doesn't know %s", rule, arg)
		}
		negate = false
	}
	t.Fatalf("rule %q has no target", rule)
	return 0, ""
}

func number(t tb, s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatalf("probability: %v", err)
	}
	return f
}

// test evaluates one match.
func (p packet) test(name, value string) (ok, known bool) {
	switch name {
	case "-s":
		return matchAddr(value, p.src), true
	case "-d":
		return netip.MustParsePrefix(value).Contains(p.dst), true
	case "-i":
		return matchLink(p.in, value), true
	case "-o":
		return matchLink(p.out, value), true
	case "-p":
		return string(p.proto) == value, true
	case "--dport":
		return p.inRange(value), true
	case "--src-type":
		return p.fromLocal, true
	case "--dst-type":
		return p.toLocal, true
	case "--ctstate":
		return value == "DNAT" && p.origDst.IsValid(), true // every packet here is a new one
	case "--ctorigdst":
		if !strings.Contains(value, "/") {
			return p.origDst.String() == value, true
		}
		return netip.MustParsePrefix(value).Contains(p.origDst), true
	}
	return false, false
}

// matchAddr knows ADDR/BITS and ADDR/MASK.
func matchAddr(value string, a netip.Addr) bool {
	if p, err := netip.ParsePrefix(value); err == nil {
		return p.Contains(a)
	}
	want, mask, _ := strings.Cut(value, "/")
	w, m, have := netip.MustParseAddr(want).AsSlice(), netip.MustParseAddr(mask).AsSlice(), a.AsSlice()
	for i := range have {
		if have[i]&m[i] != w[i] {
			return false
		}
	}
	return len(have) == len(w)
}

func matchLink(name, pattern string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "+"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return name == pattern
}

func (p packet) inRange(ports string) bool {
	low, high, ok := strings.Cut(ports, ":")
	if !ok {
		high = low
	}
	var a, b int
	_, err := fmt.Sscan(low+" "+high, &a, &b)
	return err == nil && int(p.port) >= a && int(p.port) <= b
}
