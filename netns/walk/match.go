package walk

import (
	"net/netip"
	"strconv"
	"strings"

	"dunnage/netns/rules"
	"dunnage/spec"
)

func unknown(*packet) answer { return maybe }

// match is the test of one option of a rule; nil = the option selects nothing.
// What isn't known here may match.
func match(module, option string, values []string) test {
	value := ""
	if len(values) > 0 {
		value = values[0]
	}
	switch option {
	case "-s":
		return func(p *packet) answer { return p.isIn(value, p.src) }
	case "-d":
		return func(p *packet) answer { return p.isIn(value, p.dst) }
	case "-i":
		return func(p *packet) answer { return p.cameBy(value) }
	case "-o":
		return func(p *packet) answer { return is(onLink(p.out, value, "+")) }
	case "-p":
		return func(p *packet) answer { return is(p.speaks(value)) }
	case "--dport", "--dports":
		return func(p *packet) answer { return p.toPorts(value) }
	case "--sport", "--sports":
		return func(p *packet) answer { return p.fromPorts(value) }
	case "--tcp-flags":
		if len(values) == 2 {
			return func(p *packet) answer { return is(p.flags(values[0]) == values[1]) }
		}
	case "--src-type":
		return func(p *packet) answer { return p.addressType(p.src, values) }
	case "--dst-type":
		return func(p *packet) answer { return p.addressType(p.dst, values) }
	case "--ctstate", "--state":
		return func(p *packet) answer { return p.inState(strings.Split(value, ",")) }
	case "--ctdir":
		return func(p *packet) answer { return is((value == "REPLY") == p.reply) }
	case "--ctorigsrc":
		return func(p *packet) answer { return p.isIn(value, p.client()) }
	case "--ctorigdst":
		return func(p *packet) answer { return inPrefix(value, p.facts.Packet.To.Addr()) }
	case "--ctorigdstport":
		return func(p *packet) answer { return inPorts(value, p.facts.Packet.To.Port()) }
	case "--ctproto":
		return func(p *packet) answer { return is(p.speaks(value)) }
	case "--mark":
		if module == "mark" {
			return func(p *packet) answer { return p.hasMark(value) }
		}
	case "--src-range":
		return func(p *packet) answer { return between(value, p.src) }
	case "--dst-range":
		return func(p *packet) answer { return between(value, p.dst) }
	case "--physdev-is-bridged":
		return func(*packet) answer { return no }
	case "--comment", "--mode", "--loose", "--validmark", "--accept-local": // say nothing of the packet
		return nil
	}
	return unknown
}

// client is the address of who connects.
func (p *packet) client() netip.Addr { return p.facts.Packet.Source }

// in tests an address against ADDR/BITS or ADDR/MASK. One that isn't known is that
// of some client of the world.
func (p *packet) isIn(value string, a netip.Addr) answer {
	if a.IsValid() {
		return inPrefix(value, a)
	}
	prefix, err := netip.ParsePrefix(value)
	if one, notPrefix := netip.ParseAddr(value); notPrefix == nil {
		prefix, err = netip.PrefixFrom(one, one.BitLen()), nil
	}
	switch {
	case err != nil:
		return maybe
	case prefix.Bits() == 0:
		return yes
	case prefix.Addr().IsLoopback(), prefix.IsSingleIP() && p.facts.Local(prefix.Addr()):
		return no
	}
	for _, strange := range p.facts.Strange {
		if strange.Overlaps(prefix) && strange.Bits() <= prefix.Bits() {
			return no
		}
	}
	if p.facts.elsewhere(prefix) {
		return no
	}
	return maybe
}

// elsewhere reports whether the addresses are behind another link than the one by
// which clients of the world come: a bridge of containers, say.
func (f *Facts) elsewhere(p netip.Prefix) bool {
	if f.In == "" {
		return false
	}
	link := f.Route(p.Masked().Addr()).Link
	return link != "" && link != f.In && link == f.Route(last(p)).Link
}

// last is the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func inPrefix(value string, a netip.Addr) answer {
	if p, err := netip.ParsePrefix(value); err == nil {
		return is(p.Contains(a))
	}
	want, mask, masked := strings.Cut(value, "/")
	w, err := netip.ParseAddr(want)
	if err != nil {
		return maybe
	}
	if !masked {
		return is(w == a)
	}
	m, err := netip.ParseAddr(mask)
	if err != nil || m.BitLen() != a.BitLen() || w.BitLen() != a.BitLen() {
		return no
	}
	wanted, bits, have := w.AsSlice(), m.AsSlice(), a.AsSlice()
	for i := range have {
		if have[i]&bits[i] != wanted[i]&bits[i] {
			return no
		}
	}
	return yes
}

func between(value string, a netip.Addr) answer {
	low, high, _ := strings.Cut(value, "-")
	l, err := netip.ParseAddr(low)
	h, err2 := netip.ParseAddr(high)
	if err != nil || err2 != nil || !a.IsValid() {
		return maybe
	}
	return is(l.Compare(a) <= 0 && a.Compare(h) <= 0)
}

func (p *packet) cameBy(pattern string) answer {
	if p.in != "" || p.hook == Output || p.hook == Postrouting {
		return is(onLink(p.in, pattern, "+"))
	}
	if pattern == "lo" || strings.HasPrefix(pattern, rules.LinkPrefix) { // no client of the world comes by these
		return no
	}
	return maybe
}

// onLink tests a name, or the beginning of one where wildcard ends the pattern.
func onLink(name, pattern, wildcard string) bool {
	if prefix, ok := strings.CutSuffix(pattern, wildcard); ok {
		return strings.HasPrefix(name, prefix)
	}
	return name == pattern
}

// speaks tests a protocol by its name or number.
func (p *packet) speaks(value string) bool {
	switch value {
	case "all", "0":
		return true
	case "6":
		return p.facts.Packet.Protocol == spec.TCP
	case "17":
		return p.facts.Packet.Protocol == spec.UDP
	}
	return value == string(p.facts.Packet.Protocol)
}

func (p *packet) toPorts(value string) answer {
	if p.reply {
		// The client's next packets have the server's port, and aren't followed.
		if p.later && max(inPorts(value, p.sport), inPorts(value, p.facts.Packet.To.Port())) != no {
			return maybe
		}
		return clientPorts(value)
	}
	return inPorts(value, p.port)
}

func (p *packet) fromPorts(value string) answer {
	if p.reply {
		return inPorts(value, p.sport)
	}
	return clientPorts(value)
}

// fewPorts are so few of a client's that a rule about them is about servers: it
// takes less than one connection in a hundred.
const fewPorts = 300

// clientPorts tests the port of a client, of which is known that it is a free one:
// from 32768 on with Linux, from 49152 on with others (RFC 6335).
func clientPorts(value string) answer {
	const firstFree = 32768
	count := 0
	for _, part := range strings.Split(value, ",") {
		low, high, has := strings.Cut(part, ":")
		if !has {
			high = low
		}
		l, err := strconv.ParseUint(low, 10, 16)
		h, err2 := strconv.ParseUint(high, 10, 16)
		if err != nil || err2 != nil {
			return maybe
		}
		count += max(0, int(h)-max(int(l), firstFree)+1)
	}
	return is(count > fewPorts).unsure()
}

// unsure makes a yes a maybe.
func (a answer) unsure() answer { return min(a, maybe) }

// inPorts tests "80", "8000:8100" and lists of them.
func inPorts(value string, port uint16) answer {
	if port == 0 {
		return maybe
	}
	for _, part := range strings.Split(value, ",") {
		low, high, has := strings.Cut(part, ":")
		if !has {
			high = low
		}
		l, err := strconv.ParseUint(low, 10, 16)
		h, err2 := strconv.ParseUint(high, 10, 16)
		if err != nil || err2 != nil {
			return maybe
		}
		if uint64(port) >= l && uint64(port) <= h {
			return yes
		}
	}
	return no
}

// flags are those of the mask that the packet has: the first of a connection has
// SYN alone, its answer SYN and ACK.
func (p *packet) flags(mask string) string {
	var has []string
	for _, f := range strings.Split(strings.Replace(mask, "ALL", "SYN,ACK", 1), ",") {
		if f == "SYN" || f == "ACK" && p.reply {
			has = append(has, f)
		}
	}
	if len(has) == 0 {
		return "NONE"
	}
	return strings.Join(has, ",")
}

// addressType is addrtype's answer about the packet's source or destination.
func (p *packet) addressType(a netip.Addr, types []string) answer {
	if len(types) != 1 {
		return maybe
	}
	local := a.IsValid() && p.facts.Local(a)
	switch types[0] {
	case "LOCAL":
		return is(local)
	case "UNICAST":
		return is(!local)
	}
	return no
}

// inState tests conntrack's states.
func (p *packet) inState(states []string) answer {
	for _, s := range states {
		switch {
		case s == "UNTRACKED" && p.untracked:
			return yes
		case p.untracked:
		case s == "NEW" && !p.reply, s == "ESTABLISHED" && p.reply, s == "DNAT" && p.translated, s == "SNAT" && p.masked:
			return yes
		}
	}
	return no
}

func (p *packet) hasMark(value string) answer {
	if p.marked {
		return maybe
	}
	want, mask := number(value)
	return is(p.mark&mask == want)
}
