package walk

import (
	"net/netip"
	"strings"
	"testing"

	"dunnage/spec"
)

// The first policy of IPsec that takes a packet decides, and where it isn't known
// whether one does, the next is asked too.
func TestIPsec(t *testing.T) {
	const both = "10.208.16.10:80 10.208.16.11:80"
	prefix := netip.MustParsePrefix
	all := prefix("0.0.0.0/0")
	block := func(from string) IPsecPolicy {
		return IPsecPolicy{Way: IPsecForward, From: prefix(from), To: all, Block: true}
	}
	pass := IPsecPolicy{Way: IPsecForward, From: all, To: all}
	marked := block("0.0.0.0/0")
	marked.More = " mark 0x1 mask 0xff"
	for _, c := range []struct {
		name, from string
		policies   []IPsecPolicy
		want, dies string
		unseen     bool
	}{
		{"its client", "203.0.113.9", []IPsecPolicy{block("203.0.113.0/24")}, "dropped", "ip xfrm policy: dir fwd src 203.0.113.0/24 dst 0.0.0.0/0, which blocks", false},
		{"another one", "203.0.114.9", []IPsecPolicy{block("203.0.113.0/24")}, "arrives " + both, "", false},
		{"some client", "", []IPsecPolicy{block("203.0.113.0/24")}, "maybe " + both, "ip xfrm policy: dir fwd src 203.0.113.0/24", false},
		{"one that lets it pass", "", []IPsecPolicy{pass, block("0.0.0.0/0")}, "arrives " + both, "", false},
		{"one that may let it pass", "", []IPsecPolicy{{Way: IPsecForward, From: prefix("203.0.113.0/24"), To: all}, {Way: IPsecForward, From: all, To: prefix("198.51.100.7/32"), Block: true}}, "maybe " + both, "dst 198.51.100.7/32", false},
		{"by what isn't known", "", []IPsecPolicy{marked}, "maybe " + both, "dir fwd src 0.0.0.0/0 dst 0.0.0.0/0 mark 0x1 mask 0xff", false},
		{"one that asks for IPsec", "203.0.113.9", []IPsecPolicy{{Way: IPsecForward, From: all, To: all, Seals: true}, block("0.0.0.0/0")}, "arrives " + both, "", true},
		{"of another way", "", []IPsecPolicy{{Way: IPsecIn, From: all, To: all, Block: true}}, "arrives " + both, "", false},
		{"the default", "", []IPsecPolicy{{Way: IPsecOut, Block: true, Default: true}}, "dropped", "the default, out block", false},
		{"the answer", "", []IPsecPolicy{{Way: IPsecOut, From: prefix("10.208.16.11/32"), To: all, Block: true}}, "partly 10.208.16.10:80", "the answer: ip xfrm policy: dir out", false},
	} {
		f := host("eth0")
		f.Packet, f.IPsec = spec.Packet{Protocol: spec.TCP, To: netip.MustParseAddrPort("198.51.100.7:8080")}, c.policies
		if c.from != "" {
			f.Packet.Source = netip.MustParseAddr(c.from)
		}
		got := Follow([]Ruleset{Iptables("iptables-nft", together(true, ours(t)))}, f)
		if s := summary(got); s != c.want || !strings.Contains(got.Dies, c.dies) || len(got.Unseen) > 0 != c.unseen {
			t.Errorf("%s: %s %q, unseen %q, want %s %q\n%s", c.name, s, got.Dies, got.Unseen, c.want, c.dies, steps(got))
		}
	}
}
