package walk

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"dunnage/spec"
)

func native4(t *testing.T) Ruleset {
	t.Helper()
	list, err := os.ReadFile("testdata/firewalld.json")
	if err != nil {
		t.Fatal(err)
	}
	listing, err := os.ReadFile("testdata/firewalld.listing")
	if err != nil {
		t.Fatal(err)
	}
	set, err := NFT(list, string(listing), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// A native table behind our rules is asked as well, and its drop is final.
func TestNativeTables(t *testing.T) {
	cases := []struct{ name, from, to, want, dies string }{
		{"refused after we have accepted", "192.0.3.1", "198.51.100.7:8080", "refused", "filter_FWD_public, rule 3: reject with icmpx admin-prohibited # handle 11"},
		{"in a set", "192.0.2.4", "198.51.100.7:8080", "dropped", "filter_FWD_public, rule 1: ip saddr @blocked drop # handle 8"},
		{"some client may be in it", "", "198.51.100.7:8080", "refused", ""},
		{"a native translation comes before ours", "192.0.3.1", "198.51.100.7:2222", "refused", "handle 11"},
		{"what was translated to another port", "192.0.3.1", "198.51.100.7:85", "arrives 10.208.16.10:85", ""},
		{"docker's link, with a limit", "192.0.3.1", "172.17.0.2:80", "maybe 172.17.0.2:80", "handle 20"},
	}
	v4 := strings.Replace(ours(t), "*nat\n", "*nat\n-A PREROUTING -p tcp -m tcp --dport 85 -j DNAT --to-destination 10.208.16.10:85\n", 1)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := host("eth0")
			f.Packet = spec.Packet{Protocol: spec.TCP, To: netip.MustParseAddrPort(c.to)}
			if c.from != "" {
				f.Packet.Source = netip.MustParseAddr(c.from)
			}
			got := Follow([]Ruleset{Iptables("iptables-nft", together(false, v4)), native4(t)}, f)
			if s := summary(got); s != c.want || !strings.Contains(got.Dies, c.dies) {
				t.Errorf("%s, want %s: %s\n%s", s, c.want, got.Dies, steps(got))
			}
			if i := slices.IndexFunc(got.Steps, func(s spec.TraceStep) bool { return s.Ends }); i >= 0 && got.Steps[i].Owner != spec.OwnerFirewalld {
				t.Errorf("whose is it?\n%s", steps(got))
			}
		})
	}
}

// What iptables-save shows isn't shown again, but for the tables that it can't read.
func TestTablesOfBothTools(t *testing.T) {
	const list = `{"nftables": [{"metainfo": {}},
		{"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
		{"chain": {"family": "ip6", "table": "own", "name": "f", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
		{"chain": {"family": "netdev", "table": "early", "name": "in", "type": "filter", "hook": "ingress", "dev": "eth0", "prio": 0, "policy": "accept"}},
		{"chain": {"family": "netdev", "table": "late", "name": "out", "type": "filter", "hook": "egress", "dev": ["eth0", "eth1"], "prio": 0, "policy": "accept"}}]}`
	for _, c := range []struct {
		v6      bool
		foreign []string
		want    int
	}{{false, nil, 0}, {true, nil, 1}, {false, Foreign("# Table `filter' is incompatible, use 'nft' tool.\n"), 1}} {
		set, err := NFT([]byte(list), "", c.v6, c.foreign)
		if err != nil || len(set.bases) != c.want {
			t.Errorf("%+v: %d chains, %v", c, len(set.bases), err)
		}
	}
	if _, err := NFT([]byte("no JSON"), "", false, nil); err == nil {
		t.Error("what isn't JSON is read")
	}
}

// A chain at the link by which packets come in, or answers do, may drop them; one
// that drops nothing, or is elsewhere, doesn't matter.
func TestChainsOfLinks(t *testing.T) {
	const (
		both = "10.208.16.10:80 10.208.16.11:80"
		drop = `{"rule": {"family": "netdev", "table": "early", "chain": "in", "handle": 2, "expr": [{"drop": null}]}}`
	)
	out := strings.Replace(drop, "early", "late", 1)
	for _, c := range []struct{ name, dev, policy, rule, in, want, dies string }{
		{"going out, of one replica", ` "dunaaaaaaaaaaaa"`, "accept", out, "eth0", "maybe " + both, "nft netdev late in: hook egress on dunaaaaaaaaaaaa, which comes behind all other rules"},
		{"going out, of the answers", ` "eth0"`, "drop", "{}", "eth0", "maybe " + both, "the answer: nft netdev late in: hook egress on eth0"},
		{"going out by another link", ` "eth1"`, "drop", "{}", "eth0", "arrives " + both, ""},
		{"a rule", ` "eth0"`, "accept", drop, "eth0", "maybe " + both, "nft netdev early in: hook ingress on eth0, which comes before all other rules"},
		{"a policy", `s = { "eth0", "eth1" }`, "drop", "{}", "eth0", "maybe " + both, "hook ingress on eth0, eth1"},
		{"the link isn't known", ` "eth0"`, "accept", drop, "", "maybe " + both, "hook ingress on eth0"},
		{"another link", ` "eth1"`, "drop", drop, "eth0", "arrives " + both, ""},
		{"it drops nothing", ` "eth0"`, "accept", `{"rule": {"family": "netdev", "table": "early", "chain": "in", "handle": 2, "expr": [{"accept": null}]}}`, "eth0", "arrives " + both, ""},
		{"another table drops", ` "eth0"`, "accept", strings.Replace(drop, "early", "other", 1), "eth0", "arrives " + both, ""},
		{"the answer", ` "dunaaaaaaaaaaaa"`, "accept", drop, "eth0", "maybe " + both, "the answer: nft netdev early in"},
	} {
		table, hook := "early", "ingress"
		if strings.HasPrefix(c.name, "going out") {
			table, hook = "late", "egress"
		}
		list := `{"nftables": [{"chain": {"family": "netdev", "table": "` + table + `", "name": "in", "type": "filter", "hook": "` + hook + `", "prio": 0, "policy": "` + c.policy + `"}}, ` + c.rule + `]}`
		listing := "table netdev " + table + " { # handle 1\n\tchain in { # handle 1\n\t\ttype filter hook " + hook + " device" + c.dev + " priority filter; policy " + c.policy + ";\n\t}\n}\n"
		set, err := NFT([]byte(list), listing, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		f := host(c.in)
		f.Packet = spec.Packet{Protocol: spec.TCP, To: netip.MustParseAddrPort("198.51.100.7:8080")}
		got := Follow([]Ruleset{Iptables("iptables-nft", together(false, ours(t))), set}, f)
		if s := summary(got); s != c.want || !strings.Contains(got.Dies, c.dies) || c.dies == "" && got.Dies != "" {
			t.Errorf("%s: %s, want %s: %s\n%s", c.name, s, c.want, got.Dies, steps(got))
		}
	}
}
