package walk

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"dunnage/spec"
)

// Rules of policy routing end the packet to the replica, or the replica's answer,
// by all that they select by; those that a table has forestalled end nothing.
func TestPolicyRouting(t *testing.T) {
	both := "10.208.16.10:80 10.208.16.11:80"
	rule := func(r PolicyRule) PolicyRule {
		if r.Suppress == 0 {
			r.Suppress = -1
		}
		if r.Priority == 0 {
			r.Priority = 10
		}
		return r
	}
	black := func(r PolicyRule) PolicyRule { r.Ends = "blackhole"; return rule(r) }
	prefix := netip.MustParsePrefix
	cases := []struct {
		name string
		from string
		mark bool // by a rule of others
		rule PolicyRule
		want string
		dies string
	}{
		{name: "to a replica", rule: black(PolicyRule{To: prefix("10.208.16.11/32")}), want: "partly 10.208.16.10:80", dies: "ip rule: pref 10 to 10.208.16.11/32 blackhole"},
		{name: "to the address that was translated", rule: black(PolicyRule{To: prefix("198.51.100.7/32")}), want: "arrives " + both},
		{name: "refused", rule: rule(PolicyRule{To: prefix("10.208.0.0/12"), Ends: "prohibit"}), want: "refused", dies: "ip rule: pref 10 to 10.208.0.0/12 prohibit"},
		{name: "from a client", from: "203.0.113.9", rule: black(PolicyRule{From: prefix("203.0.113.0/24")}), want: "dropped", dies: "ip rule: pref 10 from 203.0.113.0/24 blackhole"},
		{name: "from another one", from: "203.0.114.9", rule: black(PolicyRule{From: prefix("203.0.113.0/24")}), want: "arrives " + both},
		{name: "from one of the world", rule: black(PolicyRule{From: prefix("203.0.113.0/24")}), want: "maybe " + both, dies: "ip rule: pref 10 from 203.0.113.0/24 blackhole"},
		{name: "by its link", rule: black(PolicyRule{In: "eth0"}), want: "dropped", dies: "ip rule: pref 10 iif eth0 blackhole"},
		{name: "by another link", rule: black(PolicyRule{In: "eth1"}), want: "arrives " + both},
		{name: "but by another link", rule: black(PolicyRule{In: "eth1", Not: true}), want: "dropped", dies: "ip rule: not pref 10 iif eth1 blackhole"},
		{name: "out of a link", rule: black(PolicyRule{Out: "eth0"}), want: "arrives " + both},
		{name: "marked", mark: true, rule: black(PolicyRule{Mark: 1, Mask: 0xff}), want: "dropped", dies: "ip rule: pref 10 fwmark 0x1/0xff blackhole"},
		{name: "not marked", rule: black(PolicyRule{Mark: 1, Mask: 0xff}), want: "arrives " + both},
		{name: "the target port", rule: black(PolicyRule{Protocol: 6, ToPorts: [2]uint16{80, 81}}), want: "dropped", dies: "ip rule: pref 10 ipproto 6 dport 80-81 blackhole"},
		{name: "the port that was published", rule: black(PolicyRule{Protocol: 6, ToPorts: [2]uint16{8080, 8080}}), want: "arrives " + both},
		{name: "another protocol", rule: black(PolicyRule{Protocol: 17}), want: "arrives " + both},
		{name: "what isn't known", rule: black(PolicyRule{To: prefix("10.208.0.0/12"), Unknown: true}), want: "maybe " + both, dies: "ip rule: pref 10 to"},
		{name: "the answer, by its source", rule: black(PolicyRule{From: prefix("10.208.16.10/32")}), want: "partly 10.208.16.11:80", dies: "the answer: ip rule: pref 10 from 10.208.16.10/32 blackhole"},
		{name: "the answer, by its link", rule: black(PolicyRule{In: "dunaaaaaaaaaaaa"}), want: "partly 10.208.16.11:80", dies: "the answer: ip rule: pref 10 iif dunaaaaaaaaaaaa blackhole"},
		{name: "the answer, by the server's port", rule: black(PolicyRule{Protocol: 6, FromPorts: [2]uint16{80, 80}}), want: "dropped", dies: "the answer: ip rule: pref 10 ipproto 6 sport 80-80 blackhole"},
		{name: "the answer, by the client", from: "203.0.113.9", rule: black(PolicyRule{To: prefix("203.0.113.0/24")}), want: "dropped", dies: "the answer: ip rule"},
		{name: "the answer to some client", rule: black(PolicyRule{To: prefix("203.0.113.0/24")}), want: "maybe " + both, dies: "the answer: ip rule"},
		{name: "a table that is dead for it", rule: rule(PolicyRule{In: "eth0", Table: 100}), want: "dropped", dies: "ip rule: pref 10 iif eth0 lookup 100, whose route for it is blackhole"},
		{name: "and isn't passed over", rule: rule(PolicyRule{In: "eth0", Table: 100, Suppress: 8}), want: "dropped", dies: "suppress_prefixlength 8, whose route"},
		{name: "a jump over what would end it", rule: rule(PolicyRule{In: "eth0", Goto: 32766}), want: "arrives " + both},
		{name: "after main", rule: black(PolicyRule{Priority: 32767}), want: "arrives " + both},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := host("eth0")
			f.Packet = spec.Packet{Protocol: spec.TCP, To: netip.MustParseAddrPort("198.51.100.7:8080")}
			if c.from != "" {
				f.Packet.Source = netip.MustParseAddr(c.from)
			}
			f.Policy = []PolicyRule{{Table: 255, Suppress: -1}, c.rule, {Priority: 32766, Table: 254, Suppress: -1}}
			if c.rule.Goto != 0 {
				f.Policy = append(f.Policy, black(PolicyRule{Priority: 20, In: "eth0"}))
			}
			slices.SortStableFunc(f.Policy, func(a, b PolicyRule) int { return a.Priority - b.Priority })
			f.Table = func(table int, a netip.Addr) (TableRoute, bool) {
				switch table {
				case 255:
					return TableRoute{Route: Route{Local: true}, Bits: 32}, a.IsValid() && f.Local(a)
				case 100:
					return TableRoute{Ends: "blackhole", Bits: 8}, true
				}
				if !a.IsValid() {
					return TableRoute{Route: Route{Link: "eth0"}}, true
				}
				return TableRoute{Route: f.Route(a)}, true
			}
			var other string
			if c.mark {
				other = "*mangle\n-A PREROUTING -i eth0 -j MARK --set-xmark 0x1/0xffffffff\nCOMMIT\n"
			}
			got := Follow([]Ruleset{Iptables("iptables-nft", together(false, other, ours(t)))}, f)
			if s := summary(got); s != c.want || !strings.Contains(got.Dies, c.dies) || c.dies == "" && got.Dies != "" {
				t.Errorf("%s, want %s: %s, want %s\n%s", s, c.want, got.Dies, c.dies, steps(got))
			}
			if i := slices.IndexFunc(got.Steps, func(s spec.TraceStep) bool { return s.Ends }); i >= 0 && (got.Steps[i].Owner != spec.OwnerOther || got.Steps[i].Where != "ip rule") {
				t.Errorf("whose is it?\n%s", steps(got))
			}
		})
	}
}

// The filter of the client's link drops what would be answered by another one, if
// it is strict, or by none.
func TestReverseFilter(t *testing.T) {
	const both = "10.208.16.10:80 10.208.16.11:80"
	client := netip.MustParsePrefix("203.0.113.0/24")
	for _, c := range []struct {
		name   string
		rule   PolicyRule
		filter ReverseFilter
		from   string
		want   string
		dies   string
	}{
		{"off", PolicyRule{To: client, Ends: "blackhole"}, FilterOff, "203.0.113.9", "dropped", "the answer: ip rule: pref 10 to 203.0.113.0/24 blackhole"},
		{"a rule ends it", PolicyRule{To: client, Ends: "blackhole"}, FilterLoose, "203.0.113.9", "dropped", "ip rule: pref 10 to 203.0.113.0/24 blackhole, so that the reverse path filter (net.ipv4.conf.eth0.rp_filter) drops it"},
		{"asked as the host would", PolicyRule{To: client, In: "lo", Ends: "blackhole"}, FilterStrict, "203.0.113.9", "arrives " + both, ""},
		{"for another client", PolicyRule{To: client, Ends: "blackhole"}, FilterStrict, "203.0.114.9", "arrives " + both, ""},
		{"for some client", PolicyRule{To: client, Ends: "blackhole"}, FilterStrict, "", "maybe " + both, "ip rule: pref 10 to 203.0.113.0/24 blackhole, so that"},
		{"another link, strict", PolicyRule{To: client, Table: 100, Suppress: -1}, FilterStrict, "203.0.113.9", "dropped", "ip rule: pref 10 to 203.0.113.0/24 lookup 100, so that the reverse path filter"},
		{"another link, loose", PolicyRule{To: client, Table: 100, Suppress: -1}, FilterLoose, "203.0.113.9", "arrives " + both, ""},
	} {
		f := host("eth0")
		c.rule.Priority = 10
		f.Policy = []PolicyRule{{Table: 255, Suppress: -1}, c.rule, {Priority: 32766, Table: 254, Suppress: -1}}
		f.Table = func(table int, a netip.Addr) (TableRoute, bool) {
			switch {
			case table == 100:
				return TableRoute{Route: Route{Link: "wg0"}}, true
			case !a.IsValid():
				return TableRoute{Route: Route{Link: "eth0"}}, table == 254
			}
			r := f.Route(a)
			return TableRoute{Route: r}, r.Local == (table == 255)
		}
		f.Filter = func(string) ReverseFilter { return c.filter }
		f.Packet = spec.Packet{Protocol: spec.TCP, To: netip.MustParseAddrPort("198.51.100.7:8080")}
		if c.from != "" {
			f.Packet.Source = netip.MustParseAddr(c.from)
		}
		got := Follow([]Ruleset{Iptables("iptables-nft", together(false, ours(t)))}, f)
		if s := summary(got); s != c.want || !strings.HasPrefix(got.Dies, c.dies) || c.dies == "" && got.Dies != "" {
			t.Errorf("%s: %s %q, want %s %q\n%s", c.name, s, got.Dies, c.want, c.dies, steps(got))
		}
	}
}

// Routes that end the way back to the client end the connection, to replicas and to
// the host itself.
func TestRouteBack(t *testing.T) {
	const both = "10.208.16.10:80 10.208.16.11:80"
	for _, c := range []struct {
		name, from, to, lost string
		want, dies           string
	}{
		{"dead", "203.0.113.9", "8080", "", "dropped", "the answer: route to 203.0.113.9: its route says blackhole"},
		{"another client", "203.0.114.9", "8080", "203.0.113.0/24: its route says blackhole", "arrives " + both, ""},
		{"of the host's service", "203.0.113.9", "22", "", "dropped", "the answer: route to 203.0.113.9: its route says blackhole"},
		{"of some clients", "", "8080", "203.0.113.0/24: its route says blackhole", "maybe " + both, "the answer: route to 203.0.113.0/24: its route says blackhole"},
		{"from the host", "host", "8080", "203.0.113.0/24: its route says blackhole", "arrives " + both, ""},
	} {
		f := host("eth0")
		asked := f.Route
		f.Route = func(a netip.Addr) Route {
			if netip.MustParsePrefix("203.0.113.0/24").Contains(a) {
				return Route{Dead: "its route says blackhole"}
			}
			return asked(a)
		}
		f.Lost = c.lost
		f.Packet = spec.Packet{Protocol: spec.TCP, To: netip.MustParseAddrPort("198.51.100.7:" + c.to)}
		switch c.from {
		case "":
		case "host":
			f.In, f.Packet.From, f.Packet.Source = "", spec.FromHost, f.Packet.To.Addr()
		default:
			f.Packet.Source = netip.MustParseAddr(c.from)
		}
		got := Follow([]Ruleset{Iptables("iptables-nft", together(false, ours(t)))}, f)
		if s := summary(got); s != c.want || got.Dies != c.dies {
			t.Errorf("%s: %s %q, want %s %q\n%s", c.name, s, got.Dies, c.want, c.dies, steps(got))
		}
	}
}

// A rule for what the host itself sends ends none of the packets from outside. But
// the reverse path filter asks as the host would, and drops the answers.
func TestPolicyOfTheHostAlone(t *testing.T) {
	f := host("eth0")
	f.Packet = spec.Packet{Protocol: spec.TCP, To: netip.MustParseAddrPort("198.51.100.7:8080")}
	asked := f.Route
	f.Policy = []PolicyRule{{Priority: 10, In: "lo", To: netip.MustParsePrefix("10.208.0.0/12"), Ends: "unreachable"}, {Priority: 20, Table: 254, Suppress: -1}}
	f.Table = func(_ int, a netip.Addr) (TableRoute, bool) {
		if !a.IsValid() {
			return TableRoute{}, false
		}
		return TableRoute{Route: asked(a)}, true
	}
	f.Route = func(a netip.Addr) Route {
		if r := asked(a); r.Local || r.Link == "eth0" {
			return r
		}
		return Route{Dead: "the host has no route to it"}
	}
	sets := []Ruleset{Iptables("iptables-nft", together(false, ours(t)))}
	if got := Follow(sets, f); summary(got) != "dropped" || got.Dies != "the answer: ip rule: pref 10 to 10.208.0.0/12 iif lo unreachable, so that the reverse path filter (iptables-nft raw DUNNAGE-RAW, rule 3) drops it" {
		t.Errorf("%s: %s\n%s", summary(got), got.Dies, steps(got))
	}
	if got := Follow(nil, f); summary(got) != "arrives 198.51.100.7:8080" {
		t.Errorf("%s: %s\n%s", summary(got), got.Dies, steps(got))
	}
	f.Policy[0].Protocol = 17 // the filter asks for no protocol
	if got := Follow(sets, f); summary(got) != "arrives 10.208.16.10:80 10.208.16.11:80" {
		t.Errorf("%s: %s\n%s", summary(got), got.Dies, steps(got))
	}
	f.Policy[0].Protocol = 0
	f.In, f.Packet.From, f.Packet.Source = "", spec.FromHost, f.Packet.To.Addr()
	if got := Follow(sets, f); summary(got) != "refused" || got.Dies != "ip rule: pref 10 to 10.208.0.0/12 iif lo unreachable" {
		t.Errorf("%s: %s\n%s", summary(got), got.Dies, steps(got))
	}
}
