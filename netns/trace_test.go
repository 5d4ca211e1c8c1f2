package netns

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

func (w *world) trace(p spec.Packet) spec.Trace {
	w.Helper()
	all, err := w.net.Trace(w.ctx, []spec.Packet{p})
	if err != nil {
		w.Fatal(err)
	}
	return all[0]
}

// meets tries what is said of the client's connections: they succeed, or not.
func (w *world) meets(said spec.Fate, to netip.AddrPort, when string) {
	w.Helper()
	w.meetsFrom(w.Client, said, to, when)
}

func (w *world) meetsFrom(from *testenv.NS, said spec.Fate, to netip.AddrPort, when string) {
	w.Helper()
	patience := 300 * time.Millisecond
	if said == spec.FateArrives { // then only a wrong word lasts that long, however busy the machine
		patience = 10 * time.Second
	}
	conn, err := from.Dial("tcp", to.String(), patience)
	if err == nil {
		conn.Close()
	}
	if (err == nil) != (said == spec.FateArrives) {
		w.Errorf("%s, to %s: %v, but it is said: %s", when, to, err, said)
	}
}

func told(t spec.Trace) string {
	var b strings.Builder
	for _, s := range t.Steps {
		fmt.Fprintf(&b, "%s %d | %s | %s | %s maybe=%v\n", s.Where, s.Number, s.Rule, s.Owner, s.What, s.Maybe)
	}
	return b.String()
}

func TestTraceNFT(t *testing.T)    { testenv.Host(t, func() { testTrace(t, NFT) }) }
func TestTraceLegacy(t *testing.T) { testenv.Host(t, func() { testTrace(t, Legacy) }) }

// Each thing that can stop a packet is named, with its counter, in both backends.
func testTrace(t *testing.T, backend Backend) {
	w := newWorld(t, backend)
	one := network(1, false)
	a, b := w.start("a", member(one, 10)), w.start("b", member(one, 11))
	routing := spec.Routing{
		Networks: []spec.NetworkAddressing{one},
		Services: []spec.ServiceRoute{{Project: "web", Service: "app", Network: one.ID, Addr: addr4(1, 2), Addr6: addr6(1, 2), Backends: []spec.Backend{a.backend(0)}}},
		Published: append(published(8080, 80, a.backend(0), b.backend(0)),
			spec.PublishedRoute{Project: "web", Service: "db", Port: 9090, Target: 80, Protocol: spec.TCP, Absent: spec.Hold}),
	}
	w.apply(routing)
	name := "iptables-" + string(backend)
	run := func(args ...string) { testenv.Run(t, name, args...) }
	outside := spec.Packet{Protocol: spec.TCP, To: netip.AddrPortFrom(w.HostAddr, 8080)}
	at := func(port uint16) spec.Packet {
		return spec.Packet{Protocol: spec.TCP, To: netip.AddrPortFrom(w.HostAddr, port)}
	}
	want := func(what string, p spec.Packet, fate spec.Fate, dies string, reach ...string) spec.Trace {
		t.Helper()
		got := w.trace(p)
		var to []string
		for _, r := range got.Reach {
			to = append(to, r.To.String())
		}
		if got.Fate != fate || !strings.Contains(got.Dies, dies) || !slices.Equal(to, reach) {
			t.Errorf("%s: %s %q %v, want %s %q %v\n%s", what, got.Fate, got.Dies, to, fate, dies, reach, told(got))
		}
		return got
	}
	both := []string{netip.AddrPortFrom(addr4(1, 10), 80).String(), netip.AddrPortFrom(addr4(1, 11), 80).String()}
	got := want("from outside", outside, spec.FateArrives, "", both...)
	if got.In != "lan0" || !strings.HasPrefix(got.Reach[0].Link, "dun") || got.Reach[0].Chance != 0.5 {
		t.Errorf("%+v", got)
	}
	want("IPv6", spec.Packet{Protocol: spec.UDP, To: netip.AddrPortFrom(w.HostAddr6, 8080)}, spec.FateArrives, "",
		netip.AddrPortFrom(addr6(1, 10), 80).String(), netip.AddrPortFrom(addr6(1, 11), 80).String())
	want("from the host", spec.Packet{Protocol: spec.TCP, From: spec.FromHost, To: netip.MustParseAddrPort("127.0.0.1:8080")}, spec.FateArrives, "", both...)
	want("from a replica", spec.Packet{Protocol: spec.TCP, Source: addr4(1, 11), To: netip.AddrPortFrom(addr4(1, 2), 80)}, spec.FateArrives, "", both[0])
	want("a service address from the LAN", spec.Packet{Protocol: spec.TCP, To: netip.AddrPortFrom(addr4(1, 2), 80)}, spec.FateDropped, "DUNNAGE-TO")
	want("held", at(9090), spec.FateHeld, "DUNNAGE-INPUT, rule 1")
	want("not published", at(7070), spec.FateArrives, "", netip.AddrPortFrom(w.HostAddr, 7070).String())

	run("-I", "FORWARD", "-s", "198.51.100.0/24", "-p", "tcp", "--dport", "80", "-m", "comment", "--comment", "no guests", "-j", "DROP")
	want("a foreign DROP for others", spec.Packet{Protocol: spec.TCP, Source: w.ClientAddr, To: outside.To}, spec.FateArrives, "", both...)
	guest := spec.Packet{Protocol: spec.TCP, Source: w.AttackerAddr, To: netip.AddrPortFrom(w.AttackerHostAddr, 8080)}
	if _, err := w.Attacker.Dial("tcp", guest.To.String(), 300*time.Millisecond); err == nil {
		t.Error("the rule doesn't drop")
	}
	got = want("a foreign DROP", guest, spec.FateDropped, name+" filter FORWARD, rule 1: -s 198.51.100.0/24 -p tcp -m tcp --dport 80")
	i := slices.IndexFunc(got.Steps, func(s spec.TraceStep) bool { return s.Ends })
	if s := got.Steps[i]; s.Packets == 0 || s.Owner != spec.OwnerOther || !strings.Contains(s.Rule, `"no guests"`) {
		t.Errorf("%+v", s)
	}
	run("-D", "FORWARD", "1")

	other := "iptables-legacy"
	if backend == Legacy {
		other = "iptables-nft"
	}
	testenv.Run(t, other, "-P", "FORWARD", "DROP")
	want("the other backend's policy", outside, spec.FateDropped, other+" filter FORWARD: policy DROP")
	testenv.Run(t, other, "-P", "FORWARD", "ACCEPT")

	testenv.Run(t, other, "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "8080", "-j", "REDIRECT", "--to-ports", "3128")
	diverted := append(slices.Clone(both), netip.AddrPortFrom(w.HostAddr, 3128).String())
	slices.Sort(diverted)
	want("the other backend's redirection", outside, spec.FateArrives, "", diverted...)
	testenv.Run(t, other, "-t", "nat", "-F", "PREROUTING")
	for _, target := range [][]string{{"NOTRACK"}, {"CT", "--notrack"}} {
		run(append([]string{"-t", "raw", "-I", "PREROUTING", "-p", "tcp", "--dport", "8080", "-j"}, target...)...)
		want("not tracked", outside, spec.FateArrives, "", outside.To.String())
		run("-t", "raw", "-D", "PREROUTING", "1")
	}

	testenv.Run(t, "nft", "add", "table", "inet", "strict")
	testenv.Run(t, "nft", "add", "chain", "inet", "strict", "way", "{ type filter hook forward priority 5; policy drop; }")
	want("a native table", outside, spec.FateDropped, "nft inet strict way: policy DROP")
	testenv.Run(t, "nft", "delete", "table", "inet", "strict")

	testenv.Run(t, "nft", "add", "table", "netdev", "early")
	testenv.Run(t, "nft", "add", "chain", "netdev", "early", "in", "{ type filter hook ingress device lan0 priority 0; }")
	want("a chain at the link that drops nothing", outside, spec.FateArrives, "", both...)
	testenv.Run(t, "nft", "add", "rule", "netdev", "early", "in", "tcp", "dport", "8080", "drop")
	want("a chain at the link", outside, spec.FateMaybe, "nft netdev early in: hook ingress on lan0", both...)
	want("a chain at another link", guest, spec.FateArrives, "", both...)
	if _, err := w.Client.Dial("tcp", outside.To.String(), 300*time.Millisecond); err == nil {
		t.Error("the chain doesn't drop")
	}
	testenv.Run(t, "nft", "delete", "table", "netdev", "early")

	testenv.Run(t, "sysctl", "-w", "net.ipv4.ip_forward=0")
	want("forwarding is off", outside, spec.FateDropped, "net.ipv4.ip_forward is 0")
	testenv.Run(t, "sysctl", "-w", "net.ipv4.ip_forward=1")
	testenv.Run(t, "sysctl", "-w", "net.ipv4.conf.lan0.forwarding=0")
	want("a link that doesn't forward", outside, spec.FateDropped, "the host forwards nothing that comes by lan0: net.ipv4.conf.lan0.forwarding is 0")
	testenv.Run(t, "sysctl", "-w", "net.ipv4.conf.lan0.forwarding=1")
	testenv.Run(t, "ip", "route", "del", addr4(1, 11).String())
	want("a route is gone", outside, spec.FatePartly, "nobody has this address", both[0])
	if got := w.trace(outside); len(got.Unseen) > 0 {
		t.Errorf("unseen: %q", got.Unseen)
	}
	w.attach("b", member(one, 11))

	c, err := w.Client.Dial("tcp", outside.To.String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if f := w.trace(outside).Flows; len(f) == 0 || f[0].Count != 1 || f[0].Answers != addr4(1, 10) && f[0].Answers != addr4(1, 11) {
		t.Errorf("flows: %+v", f)
	}

	testenv.Run(t, "nft", "add", "table", "netdev", "late")
	testenv.Run(t, "nft", "add", "chain", "netdev", "late", "out", "{ type filter hook egress device lan0 priority 0; policy drop; }")
	want("a chain behind all others", outside, spec.FateMaybe, "the answer: nft netdev late out: hook egress on lan0", both...)
	want("a chain behind all others, at another link", guest, spec.FateArrives, "", both...)
	if _, err := w.Client.Dial("tcp", outside.To.String(), 300*time.Millisecond); err == nil {
		t.Error("the chain at egress doesn't drop")
	}
	testenv.Run(t, "nft", "delete", "table", "netdev", "late")
}

// What is said of a time to live that others set is what the kernel does with it.
func TestTraceTimeToLive(t *testing.T) { testenv.Host(t, func() { testTraceTimeToLive(t) }) }

func testTraceTimeToLive(t *testing.T) {
	w := newPublished(t)
	const chain = "inet other way { type filter hook prerouting priority mangle; }"
	for _, c := range []struct {
		rule string // of iptables' mangle, or of nft
		v6   bool
		fate spec.Fate
	}{
		{"PREROUTING -i lan0 -j TTL --ttl-set 1", false, spec.FateRefused},
		{"PREROUTING -i lan0 -j TTL --ttl-set 2", false, spec.FateArrives},
		{"PREROUTING -i lan0 -j TTL --ttl-dec 255", false, spec.FateRefused},
		{"PREROUTING -i dun+ -j TTL --ttl-set 1", false, spec.FateDropped},
		{"FORWARD -o dun+ -j TTL --ttl-set 0", false, spec.FateArrives},
		{"POSTROUTING -o lan0 -j TTL --ttl-set 1", false, spec.FateArrives}, // the client is on the link itself
		{"PREROUTING -i lan0 -j HL --hl-set 1", true, spec.FateRefused},
		{"PREROUTING -i dun+ -j HL --hl-set 1", true, spec.FateDropped},
		{"iifname lan0 ip ttl set 1", false, spec.FateRefused},
		{"iifname lan0 ip ttl set 1", true, spec.FateArrives},
		{"iifname lan0 ip6 hoplimit set 1", true, spec.FateRefused},
	} {
		tool, source, host := "iptables-nft", w.ClientAddr, w.HostAddr
		if c.v6 {
			tool, source, host = "ip6tables-nft", w.ClientAddr6, w.HostAddr6
		}
		clean := func() { testenv.Run(t, tool, "-t", "mangle", "-F") }
		if strings.HasPrefix(c.rule, "iifname ") {
			clean = func() { testenv.Run(t, "nft", "delete", "table", "inet", "other") }
			testenv.Run(t, "nft", "add", "table", "inet", "other")
			testenv.Run(t, "nft", "add", "chain", chain)
			testenv.Run(t, "nft", append([]string{"add", "rule", "inet", "other", "way"}, strings.Fields(c.rule)...)...)
		} else {
			testenv.Run(t, tool, append([]string{"-t", "mangle", "-A"}, strings.Fields(c.rule)...)...)
		}
		to := netip.AddrPortFrom(host, 8080)
		got := w.trace(spec.Packet{Protocol: spec.TCP, Source: source, To: to})
		if got.Fate != c.fate {
			t.Errorf("%s: %s %q, want %s\n%s", c.rule, got.Fate, got.Dies, c.fate, told(got))
		}
		patience := 300 * time.Millisecond
		if c.fate != spec.FateDropped { // then only a wrong word lasts that long, however busy the machine
			patience = 10 * time.Second
		}
		conn, err := w.Client.Dial("tcp", to.String(), patience)
		if err == nil {
			conn.Close()
		}
		if (err == nil) != (c.fate == spec.FateArrives) || c.fate == spec.FateRefused && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s, IPv6 %v: %v, but it is said: %s", c.rule, c.v6, err, c.fate)
		}
		clean()
	}
}

// What is said of answers is what the kernel does with them: rules behind nat see
// the port that the client asked, and those in another conntrack zone are lost.
func TestTraceAnswers(t *testing.T) { testenv.Host(t, func() { testTraceAnswers(t) }) }

func testTraceAnswers(t *testing.T) {
	w := newPublished(t)
	to := netip.AddrPortFrom(w.HostAddr, 8080)
	fromHost := spec.Packet{Protocol: spec.TCP, From: spec.FromHost, To: to}
	outside := spec.Packet{Protocol: spec.TCP, Source: w.ClientAddr, To: to}
	address := "ip saddr " + w.HostAddr.String() + " tcp sport 8080 drop"
	for _, c := range []struct {
		hook, rule string
		packet     spec.Packet
		fate       spec.Fate
		dies       string
	}{
		{"postrouting priority 300", "oif lan0 tcp sport 8080 drop", outside, spec.FateDropped, "the answer: nft inet other way, rule 1: oif \"lan0\" tcp sport 8080 drop"},
		{"postrouting priority 300", "oif lan0 " + address, outside, spec.FateDropped, "the answer: nft inet other way, rule 1"},
		{"postrouting priority 300", "oif lan0 tcp sport 80 drop", outside, spec.FateArrives, ""},
		{"postrouting priority 0", "oif lan0 tcp sport 80 drop", outside, spec.FateDropped, "the answer: nft inet other way, rule 1"},
		{"postrouting priority 0", "oif lan0 tcp sport 8080 drop", outside, spec.FateArrives, ""},
		{"input priority 300", address, fromHost, spec.FateDropped, "the answer: nft inet other way, rule 1"},
		{"input priority 300", "tcp sport 80 drop", fromHost, spec.FateArrives, ""},
		{"input priority 0", "tcp sport 80 drop", fromHost, spec.FateDropped, "the answer: nft inet other way, rule 1"},
		{"prerouting priority -300", "iif lan0 ct zone set 5", outside, spec.FateDropped, "the answer: nft inet other way, rule 1: iif \"lan0\" ct zone set 5"},
		{"prerouting priority -300", "iif lan0 ct zone set 5 accept", outside, spec.FateDropped, "zone 5"},
		{"prerouting priority -300", "ct zone set 5", outside, spec.FateArrives, ""},
		{"prerouting priority -300", "iif lan0 ct original zone set 5", outside, spec.FateArrives, ""},
		{"prerouting priority -300", "iif lan0 ct reply zone set 5", outside, spec.FateDropped, "zone 5"},
		{"output priority -300", "tcp dport 8080 ct zone set 5", fromHost, spec.FateDropped, "zone 5"},
	} {
		testenv.Run(t, "nft", "add table inet other; add chain inet other way { type filter hook "+c.hook+"; }; add rule inet other way "+c.rule)
		got := w.trace(c.packet)
		if got.Fate != c.fate || !strings.Contains(got.Dies, c.dies) || len(got.Unseen) > 0 {
			t.Errorf("%s %s: %s %q, unseen %q, want %s %q\n%s", c.hook, c.rule, got.Fate, got.Dies, got.Unseen, c.fate, c.dies, told(got))
		}
		from := w.Client
		if c.packet.From == spec.FromHost {
			from = w.Host
		}
		w.meetsFrom(from, c.fate, to, c.hook+" "+c.rule)
		testenv.Run(t, "nft", "delete", "table", "inet", "other")
	}
}

// What is said of routes back to clients is what the kernel does with the answers.
func TestTraceRouteBack(t *testing.T) { testenv.Host(t, func() { testTraceRouteBack(t) }) }

func testTraceRouteBack(t *testing.T) {
	w := newPublished(t)
	testenv.Serve(t, w.Host, "host", 8082)
	client := w.ClientAddr.String()
	for _, c := range []struct {
		add, del, dies string
		known, some    spec.Fate
	}{
		{"add blackhole " + client, "del " + client, "route to " + client + ": its route says blackhole", spec.FateDropped, spec.FateMaybe},
		{"add prohibit " + client, "del " + client, "route to " + client + ": its route says prohibit", spec.FateDropped, spec.FateMaybe},
		{"add unreachable " + client, "del " + client, "route to " + client + ": nobody has this address", spec.FateDropped, spec.FateMaybe},
		{"replace blackhole default", "replace default via " + client, "", spec.FateArrives, spec.FateMaybe}, // the client is on the link
		{"add unreachable default metric 4000", "del unreachable default", "", spec.FateArrives, spec.FateArrives},
		{"add blackhole 10.0.0.0/8", "del blackhole 10.0.0.0/8", "", spec.FateArrives, spec.FateArrives},
		{"add " + client + " dev lo", "del " + client + " dev lo", "the answer: route to " + client + ": its route leads to lo", spec.FateDropped, spec.FateMaybe},
		{"add " + client + " dev lo table 77", "del " + client + " dev lo table 77", "the answer: route to " + client + ": its route leads to lo", spec.FateDropped, spec.FateArrives},
	} {
		testenv.Run(t, "ip", append([]string{"route"}, strings.Fields(c.add)...)...)
		if strings.HasSuffix(c.add, " table 77") {
			testenv.Run(t, "ip", "rule", "add", "to", client, "lookup", "77")
		}
		for _, port := range []uint16{8080, 8082} {
			to := netip.AddrPortFrom(w.HostAddr, port)
			got := w.trace(spec.Packet{Protocol: spec.TCP, Source: w.ClientAddr, To: to})
			if got.Fate != c.known || !strings.Contains(got.Dies, c.dies) {
				t.Errorf("%s, to %s: %s %q, want %s %q\n%s", c.add, to, got.Fate, got.Dies, c.known, c.dies, told(got))
			}
			if got := w.trace(spec.Packet{Protocol: spec.TCP, To: to}); got.Fate != c.some {
				t.Errorf("%s, to %s from some client: %s %q, want %s\n%s", c.add, to, got.Fate, got.Dies, c.some, told(got))
			}
			w.meets(c.known, to, c.add)
		}
		testenv.Run(t, "ip", append([]string{"route"}, strings.Fields(c.del)...)...)
	}
}

// What rules of policy routing are said to do with packets to replicas and with
// their answers is what the kernel does.
func TestTracePolicyRouting(t *testing.T) { testenv.Host(t, func() { testTracePolicyRouting(t) }) }

func testTracePolicyRouting(t *testing.T) {
	w := newPublished(t)
	to := netip.AddrPortFrom(w.HostAddr, 8080)
	link := w.trace(spec.Packet{Protocol: spec.TCP, To: to}).Reach[0].Link
	replica, client := addr4(1, 10).String(), w.ClientAddr.String()
	// The reverse path filter asks for the way back to the replica as the host would.
	const filtered = ", so that the reverse path filter (iptables-nft raw DUNNAGE-RAW, rule 3) drops it"
	const ofLink = ", so that the reverse path filter (net.ipv4.conf.lan0.rp_filter) drops it"
	testenv.Run(t, "ip", "route", "add", "blackhole", "default", "table", "100")
	testenv.Run(t, "ip", "route", "add", "default", "dev", "lan1", "table", "101")
	testenv.Run(t, "iptables-nft", "-t", "mangle", "-A", "PREROUTING", "-i", "lan0", "-j", "MARK", "--set-mark", "0x5")
	for _, c := range []struct {
		rule  string
		known spec.Fate // of the client's packets
		some  spec.Fate // of those of some client
		dies  string
	}{
		{"to " + pool4.String() + " blackhole", spec.FateDropped, spec.FateDropped, "ip rule: pref 10 to " + pool4.String() + " blackhole"},
		{"to " + pool4.String() + " prohibit", spec.FateRefused, spec.FateRefused, "ip rule: pref 10 to " + pool4.String() + " prohibit"},
		{"to " + pool4.String() + " unreachable", spec.FateRefused, spec.FateRefused, "ip rule: pref 10 to " + pool4.String() + " unreachable"},
		{"from " + client + " blackhole", spec.FateDropped, spec.FateMaybe, "ip rule: pref 10 from " + client + "/32 blackhole"},
		{"iif lan0 prohibit", spec.FateRefused, spec.FateRefused, "ip rule: pref 10 iif lan0 prohibit"},
		{"iif lo to " + pool4.String() + " blackhole", spec.FateDropped, spec.FateDropped, "the answer: ip rule: pref 10 to " + pool4.String() + " iif lo blackhole" + filtered},
		{"not iif lan0 to " + pool4.String() + " blackhole", spec.FateDropped, spec.FateDropped, "the answer: ip rule: not pref 10 to " + pool4.String() + " iif lan0 blackhole" + filtered},
		{"fwmark 0x5 blackhole", spec.FateDropped, spec.FateDropped, "ip rule: pref 10 fwmark 0x5/0xffffffff blackhole"},
		{"fwmark 0x6 blackhole", spec.FateArrives, spec.FateArrives, ""},
		{"ipproto tcp dport 80 blackhole", spec.FateDropped, spec.FateDropped, "ip rule: pref 10 ipproto 6 dport 80-80 blackhole"},
		{"ipproto tcp dport 8080 blackhole", spec.FateArrives, spec.FateArrives, ""},
		{"ipproto udp blackhole", spec.FateArrives, spec.FateArrives, ""},
		{"iif lan0 lookup 100", spec.FateDropped, spec.FateDropped, "ip rule: pref 10 iif lan0 lookup 100, whose route for it is blackhole"},
		{"iif lan0 lookup 100 suppress_prefixlength 0", spec.FateDropped, spec.FateDropped, "ip rule: pref 10 iif lan0 lookup 100 suppress_prefixlength 0, whose route for it is blackhole"},
		{"iif lan0 goto 32766", spec.FateArrives, spec.FateArrives, ""},
		{"from " + replica + " blackhole", spec.FateDropped, spec.FateDropped, "the answer: ip rule: pref 10 from " + replica + "/32 blackhole"},
		{"iif " + link + " prohibit", spec.FateDropped, spec.FateDropped, "the answer: ip rule: pref 10 iif " + link + " prohibit"},
		{"to " + client + " iif " + link + " blackhole", spec.FateDropped, spec.FateMaybe, "the answer: ip rule: pref 10 to " + client + "/32 iif " + link + " blackhole"},
		{"to " + client + " iif " + link + " blackhole", spec.FateDropped, spec.FateMaybe, "ip rule: pref 10 to " + client + "/32 iif " + link + " blackhole" + ofLink},
		{"ipproto tcp sport 80 blackhole", spec.FateDropped, spec.FateDropped, "ip rule: pref 10 ipproto 6 sport 80-80 blackhole" + ofLink},
		{"iif " + link + " lookup 101", spec.FateDropped, spec.FateDropped, "ip rule: pref 10 iif " + link + " lookup 101" + ofLink},
	} {
		strict := "0"
		if strings.HasSuffix(c.dies, ofLink) {
			strict = "1"
		}
		testenv.Run(t, "sysctl", "-w", "net.ipv4.conf.lan0.rp_filter="+strict)
		testenv.Run(t, "ip", append([]string{"rule", "add", "pref", "10"}, strings.Fields(c.rule)...)...)
		for source, fate := range map[netip.Addr]spec.Fate{w.ClientAddr: c.known, {}: c.some} {
			got := w.trace(spec.Packet{Protocol: spec.TCP, Source: source, To: to})
			if got.Fate != fate || got.Dies != c.dies {
				t.Errorf("%s, from %s: %s %q, want %s %q\n%s", c.rule, source, got.Fate, got.Dies, fate, c.dies, told(got))
			}
		}
		w.meets(c.known, to, c.rule)
		del := []string{"rule", "del", "pref", "10"}
		if _, rest, ok := strings.Cut(c.dies, "ip rule: "); ok { // what is said is what deletes it
			text, _, _ := strings.Cut(rest, ", ")
			del = append([]string{"rule", "del"}, strings.Fields(text)...)
		}
		testenv.Run(t, "ip", del...)
	}
}

func TestTraceIsTrueNFT(t *testing.T)    { testenv.Host(t, func() { testTraceIsTrue(t, NFT) }) }
func TestTraceIsTrueLegacy(t *testing.T) { testenv.Host(t, func() { testTraceIsTrue(t, Legacy) }) }

// Random rules of others beside ours: what is said of a packet, without a maybe,
// is what becomes of a connection.
func testTraceIsTrue(t *testing.T, backend Backend) {
	w := newWorld(t, backend)
	one := network(1, false)
	a, b := w.start("a", member(one, 10)), w.start("b", member(one, 11))
	closed := spec.PublishedRoute{Project: "web", Service: "shut", Port: 8081, Target: 80, Protocol: spec.TCP, Allow: []netip.Prefix{netip.PrefixFrom(w.AttackerAddr, 32)}, Backends: []spec.Backend{a.backend(0)}}
	w.apply(spec.Routing{
		Networks:  []spec.NetworkAddressing{one},
		Services:  []spec.ServiceRoute{{Project: "web", Service: "app", Network: one.ID, Addr: addr4(1, 2), Addr6: addr6(1, 2), Backends: []spec.Backend{b.backend(0)}}},
		Published: append(published(8080, 80, a.backend(0), b.backend(0)), closed),
	})
	testenv.Serve(t, w.Host, "host", 8082)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	counts := map[spec.Fate]int{}
	for range 8 {
		rules := foreignRules(random, w)
		for _, r := range rules {
			testenv.Run(t, "iptables-"+string(backend), r...)
		}
		for _, from := range []struct {
			ns     *testenv.NS
			source netip.Addr
			host   netip.Addr
		}{{w.Client, w.ClientAddr, w.HostAddr}, {w.Attacker, w.AttackerAddr, w.AttackerHostAddr}, {w.Host, netip.Addr{}, w.HostAddr}} {
			for _, port := range []uint16{8080, 8081, 8082} {
				p := spec.Packet{Protocol: spec.TCP, Source: from.source, To: netip.AddrPortFrom(from.host, port)}
				if from.ns == w.Host {
					p.From = spec.FromHost
				}
				said := w.trace(p)
				counts[said.Fate]++
				// A connection to what arrives nowhere near a server is refused as well.
				answers := slices.ContainsFunc(said.Reach, func(r spec.Arrival) bool { return r.To.Port() == 80 || r.To.Port() == 8082 })
				patience := 250 * time.Millisecond
				if said.Fate == spec.FateArrives && answers { // then only a wrong word lasts that long, however busy the machine
					patience = 10 * time.Second
				}
				c, err := from.ns.Dial("tcp", p.To.String(), patience)
				if err == nil {
					c.Close()
				}
				switch {
				case said.Fate == spec.FateMaybe || said.Fate == spec.FatePartly:
				case (err == nil) != (said.Fate == spec.FateArrives && answers):
					t.Errorf("from %s to %s: %v, but said to be %s %v %s\nrules %q\n%s", from.source, p.To, err, said.Fate, said.Reach, said.Dies, rules, told(said))
				case (said.Fate == spec.FateDropped || said.Fate == spec.FateHeld) && !strings.Contains(err.Error(), "timeout"):
					// The other way round it may be: a rule can drop the notice of a refusal.
					t.Errorf("from %s to %s: %v, but said to be %s %v\nrules %q\n%s", from.source, p.To, err, said.Fate, said.Dies, rules, told(said))
				}
			}
		}
		for _, table := range []string{"raw", "mangle", "nat", "filter"} {
			clean(t, backend, table)
		}
	}
	t.Log(counts)
	if counts[spec.FateArrives] == 0 || counts[spec.FateDropped]+counts[spec.FateRefused] == 0 {
		t.Errorf("too little was tried: %v", counts)
	}
}

// foreignRules are some rules of others, before and behind ours.
func foreignRules(r *rand.Rand, w *world) [][]string {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	all := [][]string{{"-N", "other"}, {"-t", "mangle", "-N", "other"}}
	for range 1 + r.IntN(4) {
		var args []string
		table := pick("raw", "mangle", "filter", "filter", "filter", "nat")
		chains := map[string][]string{"raw": {"PREROUTING", "OUTPUT"}, "mangle": {"PREROUTING", "FORWARD", "INPUT", "OUTPUT", "POSTROUTING", "other"}, "filter": {"FORWARD", "INPUT", "OUTPUT", "other"}, "nat": {"PREROUTING", "OUTPUT"}}
		chain := pick(chains[table]...)
		args = append(args, "-t", table, pick("-A", "-I"), chain)
		switch r.IntN(4) {
		case 0:
			args = append(args, "-s", pick(w.ClientAddr.String(), "198.51.100.0/24", "127.0.0.0/8", "192.0.0.0/8"))
		case 1:
			args = append(args, "!", "-s", pick(w.ClientAddr.String(), "198.51.100.0/24"))
		}
		if chain != "OUTPUT" && chain != "POSTROUTING" && chain != "other" && r.IntN(3) == 0 {
			args = append(args, "-i", pick("lan0", "lan+", "lan1", "lo"))
		}
		if chain == "FORWARD" && r.IntN(4) == 0 {
			args = append(args, "!", "-o", pick("dun+", "lan1"))
		}
		switch r.IntN(4) {
		case 0:
			args = append(args, "-p", "tcp", "--dport", pick("80", "8080", "8081:8090", "1:1000"))
		case 1:
			args = append(args, "-p", "tcp", "-m", "multiport", "--dports", pick("80,443", "8082,8080", "1000:9000"))
		case 2:
			args = append(args, "-p", pick("tcp", "udp", "icmp"))
		}
		if table != "raw" {
			switch r.IntN(6) {
			case 0:
				args = append(args, "-m", "conntrack", "--ctstate", pick("NEW", "ESTABLISHED,RELATED", "DNAT", "INVALID"))
			case 1:
				args = append(args, "-m", "mark", "--mark", pick("0x1", "0x0/0x1"))
			case 2:
				args = append(args, "-m", "addrtype", "--dst-type", "LOCAL")
			}
		}
		target := map[string][]string{"raw": {"DROP", "ACCEPT", "DROP"}, "mangle": {"DROP", "ACCEPT", "MARK", "other"}, "filter": {"DROP", "ACCEPT", "REJECT", "RETURN", "other"}, "nat": {"REDIRECT", "ACCEPT"}}
		to := pick(target[table]...)
		if to == "other" && chain == "other" {
			to = "RETURN"
		}
		args = append(args, pick("-j", "-j", "-j", "-g"), to)
		i := len(args) - 2
		if to != "other" {
			args[i] = "-j"
		}
		switch to {
		case "MARK":
			args = append(args, "--set-mark", "0x1")
		case "REDIRECT":
			if !slices.Contains(args, "tcp") {
				args = slices.Insert(args, 4, "-p", "tcp")
				if n := slices.Index(args[6:], "-p"); n >= 0 {
					args = slices.Delete(args, 6+n, 6+n+2)
				}
			}
			args = append(args, "--to-ports", pick("8082", "7"))
		}
		all = append(all, args)
	}
	if r.IntN(4) == 0 {
		all = append(all, []string{"-P", pick("FORWARD", "INPUT"), "DROP"})
	}
	return all
}

// clean removes what is not ours from a table.
func clean(t *testing.T, backend Backend, table string) {
	t.Helper()
	tool := "iptables-" + string(backend)
	for _, line := range strings.Split(testenv.Run(t, tool, "-t", table, "-S"), "\n") {
		f := strings.Fields(line)
		switch {
		case len(f) < 2 || strings.HasPrefix(f[1], "DUNNAGE-") || strings.Contains(line, "DUNNAGE-"):
		case f[0] == "-P" && f[2] == "DROP":
			testenv.Run(t, tool, "-t", table, "-P", f[1], "ACCEPT")
		case f[0] == "-A":
			testenv.Run(t, tool, append([]string{"-t", table, "-D"}, f[1:]...)...)
		}
	}
	for _, line := range strings.Split(testenv.Run(t, tool, "-t", table, "-S"), "\n") {
		if line == "-N other" {
			testenv.Run(t, tool, "-t", table, "-X", "other")
		}
	}
}
