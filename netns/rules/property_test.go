package rules

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"dunnage/spec"
)

func TestRoutingProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := routings.Draw(t, "routing")
		v4, v6, err := Render(r, testConfig)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range []Document{v4, v6} {
			checkText(t, d)
		}
		checkFamily(t, newFamily(testConfig.Pool), v4, r)
		checkFamily(t, newFamily(testConfig.Pool6), v6, r)
	})
}

// tb is what rapid.T and testing.T share.
type tb interface {
	Helper()
	Fatalf(string, ...any)
}

// checkText: parsing what was rendered gives the same document, names are
// short, every chain can be reached, and nothing differs from itself.
func checkText(t tb, d Document) {
	t.Helper()
	parsed := Parse(d.String())
	if parsed.String() != d.String() || !Equal(d, parsed) {
		t.Fatalf("parsed text differs:\n%s\nrendered:\n%s", parsed, d)
	}
	for _, table := range d {
		if diff := Diff(table, parsed.Table(table.Name)); diff != "" {
			t.Fatalf("a table differs from itself:\n%s", diff)
		}
		leads := map[string]bool{}
		for _, j := range table.Jumps {
			leads[target(j.Rule)] = true
		}
		for _, c := range table.Chains {
			for _, rule := range c.Rules {
				leads[target(rule)] = true
			}
		}
		for _, c := range table.Chains {
			if len(c.Name) > maxChain || !leads[c.Name] {
				t.Fatalf("chain %s: %d characters, reached: %v", c.Name, len(c.Name), leads[c.Name])
			}
		}
	}
}

// checkFamily follows packets to every service and port.
func checkFamily(t *rapid.T, f family, d Document, r spec.Routing) {
	named := map[netip.Addr]bool{}
	for _, s := range r.Services {
		p := packet{in: "dun1", src: pick(f, addr4(1, 99), addr6(1, 99)), dst: f.service(s), proto: spec.TCP, port: 80, toLocal: true}
		want := f.shares(s.Backends, s.Absent, 0)
		wantOutcome(t, "service "+s.Service, d.Table("nat"), p, want, s.Sticky)
		f.note(named, s.Backends)
	}
	client := pick(f, netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8:9::9"))
	for _, p := range r.Published {
		if !f.serves(p.HostIP) {
			continue
		}
		f.note(named, p.Backends)
		dst := p.HostIP
		if !dst.IsValid() || dst.IsUnspecified() {
			dst = pick(f, netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:7::7"))
		}
		target := p.Target
		if target == p.Port {
			target = 0
		}
		want := f.shares(p.Backends, p.Absent, target)
		what := fmt.Sprintf("port %d/%s on %s", p.Port, p.Protocol, p.HostIP)
		out := packet{out: "lo", src: dst, dst: dst, proto: p.Protocol, port: p.Port, fromLocal: true, toLocal: true}
		wantOutcomeAt(t, what+" from the host", d.Table("nat"), chainOutput, out, want, p.Sticky)
		in := packet{in: "eth0", src: client, dst: dst, proto: p.Protocol, port: p.Port, toLocal: true}
		switch {
		case dst.IsLoopback():
			want = outcome{"RETURN": 1}
		case len(p.Allow) > 0 && !slices.ContainsFunc(p.Allow, func(a netip.Prefix) bool { return a.Contains(client) }):
			want = outcome{dnat(f.destination(f.Refuse, 0)): 1}
		}
		wantOutcome(t, what, d.Table("nat"), in, want, p.Sticky)
	}
	got := Named(d, testConfig)
	if want := slices.SortedFunc(maps.Keys(named), netip.Addr.Compare); !slices.Equal(got, want) {
		t.Fatalf("rules name %v, backends are %v", got, want)
	}
}

func (f family) note(named map[netip.Addr]bool, backends []spec.Backend) {
	for _, b := range backends {
		named[f.backend(b)] = true
	}
}

func dnat(to string) string { return "DNAT --to-destination " + to }

// shares is where connections must go: to each backend as its weight says.
func (f family) shares(backends []spec.Backend, absent spec.Absent, port uint16) outcome {
	want := outcome{}
	for _, b := range backends {
		want[dnat(f.destination(f.backend(b), cmp.Or(b.Port, port)))] = float64(weight(b)) / float64(total(backends))
	}
	if len(backends) == 0 {
		to := f.Refuse
		if absent == spec.Hold {
			to = f.Hold
		}
		want[dnat(f.destination(to, 0))] = 1
	}
	return want
}

func wantOutcome(t *rapid.T, what string, table Table, p packet, want outcome, sticky bool) {
	t.Helper()
	wantOutcomeAt(t, what, table, chainPrerouting, p, want, sticky)
}

// precision is what seven probabilities may lose, each rounded to 2^-31.
const precision = 7.0 / (1 << 31)

// wantOutcomeAt: the shares are those of want; or, of a sticky route, all is
// one of them.
func wantOutcomeAt(t *rapid.T, what string, table Table, chain string, p packet, want outcome, sticky bool) {
	t.Helper()
	got := walk(t, table, chain, p)
	same := len(got) == len(want)
	for verdict, share := range want {
		same = same && math.Abs(got[verdict]-share) < precision
	}
	if sticky {
		for verdict, share := range got {
			same = share == 1 && want[verdict] > 0
		}
	}
	if !same {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

// TestDispatchDepth: the rules that a new connection meets don't grow with the
// number of published ports.
func TestDispatchDepth(t *testing.T) {
	var r spec.Routing
	r.Networks = []spec.NetworkAddressing{testNetwork(1, false)}
	for i := range 10000 {
		r.Published = append(r.Published, spec.PublishedRoute{
			Project: "web", Service: fmt.Sprint("app", i), Port: uint16(20000 + i), Target: 80, Protocol: spec.TCP, Backends: testBackends("app", 1, 10, 1),
		})
	}
	v4, _, err := Render(r, testConfig)
	if err != nil {
		t.Fatal(err)
	}
	nat := v4.Table("nat")
	for _, c := range nat.Chains {
		if strings.HasPrefix(c.Name, Prefix+"TCP") && len(c.Rules) > fanOut {
			t.Errorf("chain %s has %d rules, want at most %d", c.Name, len(c.Rules), fanOut)
		}
	}
	in := packet{in: "eth0", src: netip.MustParseAddr("203.0.113.9"), dst: netip.MustParseAddr("192.0.2.1"), proto: spec.TCP, port: 29999, toLocal: true}
	got := walk(t, nat, chainPrerouting, in)
	if got[dnat("10.213.1.10:80")] != 1 {
		t.Errorf("port 29999 of 10,000 leads to %v", got)
	}
}

func FuzzParse(f *testing.F) {
	r := spec.Routing{Networks: []spec.NetworkAddressing{testNetwork(1, true)}}
	v4, v6, err := Render(r, testConfig)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(v4.String())
	f.Add(v6.String())
	f.Add("*nat\n:DUNNAGE-X - [0:0]\n-A DUNNAGE-X -j DNAT --to-destination [::1]:80\n-A FORWARD -g DUNNAGE-X\nCOMMIT\n")
	f.Fuzz(func(t *testing.T, text string) {
		d := Parse(text)
		again := Parse(d.String())
		if again.String() != d.String() {
			t.Errorf("parsing %q again gives %q", d, again)
		}
		Named(d, testConfig)
		UserChainUsed(text)
		for _, table := range d {
			table.Jumps = nil // one may stand there twice, which is once too often
			have := again.Table(table.Name)
			have.Jumps = nil
			if diff := Diff(table, have); diff != "" {
				t.Errorf("a table differs from itself: %q", diff)
			}
		}
	})
}
