package walk

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dunnage/netns/rules"
	"dunnage/spec"
)

// host is a machine with a LAN on eth0, a pool of 10.208.0.0/12 and replicas at
// 10.208.16.10 and .11. Service addresses and the reserved ones are its own.
func host(in string) Facts {
	own := []string{"198.51.100.7", "127.0.0.1", "10.208.0.1", "10.208.0.2", "10.208.0.3", "10.208.16.1"}
	local := func(a netip.Addr) bool { return a.IsLoopback() || slices.Contains(own, a.String()) }
	return Facts{
		In: in, Local: local, Hold: netip.MustParseAddr("10.208.0.2"),
		Strange: []netip.Prefix{netip.MustParsePrefix("10.208.0.0/12")},
		Route: func(a netip.Addr) Route {
			switch {
			case local(a):
				return Route{Link: "lo", Local: true}
			case a == netip.MustParseAddr("10.208.16.10"):
				return Route{Link: "dunaaaaaaaaaaaa"}
			case a == netip.MustParseAddr("10.208.16.11"):
				return Route{Link: "dunbbbbbbbbbbbb"}
			case netip.MustParsePrefix("10.208.0.0/12").Contains(a):
				return Route{Dead: "no route to it: unreachable"}
			case netip.MustParsePrefix("172.17.0.0/16").Contains(a):
				return Route{Link: "docker0"}
			}
			return Route{Link: "eth0"}
		},
	}
}

func dump(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".rules"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// ours are the rules of the ports that the cases name.
func ours(t *testing.T) string {
	t.Helper()
	backend := func(last byte) spec.Backend {
		return spec.Backend{Replica: "shop-web", Addr: netip.AddrFrom4([4]byte{10, 208, 16, last})}
	}
	port := func(n, target uint16, of ...spec.Backend) spec.PublishedRoute {
		return spec.PublishedRoute{Project: "shop", Service: "web", Port: n, Protocol: spec.TCP, Target: target, Backends: of}
	}
	held, allowed, dns := port(8082, 80), port(8083, 8083, backend(10)), port(53, 53, backend(11))
	held.Absent, allowed.Allow, dns.Protocol = spec.Hold, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, spec.UDP
	v4, _, err := rules.Render(spec.Routing{
		Networks:  []spec.NetworkAddressing{{ID: "shop_default", Subnet: netip.MustParsePrefix("10.208.16.0/24")}},
		Services:  []spec.ServiceRoute{{Project: "shop", Service: "web", Network: "shop_default", Addr: netip.MustParseAddr("10.208.16.1"), Backends: []spec.Backend{backend(10)}}},
		Published: []spec.PublishedRoute{port(8080, 80, backend(10), backend(11)), port(8081, 80), held, allowed, port(8084, 80, backend(10), backend(99)), dns},
	}, rules.Config{Pool: netip.MustParsePrefix("10.208.0.0/12")})
	if err != nil {
		t.Fatal(err)
	}
	return v4.String()
}

// together is one backend's text with the rules of both: ours where we put them.
func together(front bool, texts ...string) string {
	type table struct{ declared, jumps, rules []string }
	tables := map[string]*table{}
	hooks := map[string][]string{"raw": {"PREROUTING", "OUTPUT"}, "filter": {"INPUT", "FORWARD", "OUTPUT"}}
	var names []string
	var in *table
	var name string
	for _, text := range texts {
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			switch {
			case strings.HasPrefix(line, "*"):
				name = line[1:]
				if tables[name] == nil {
					tables[name] = &table{}
					names = append(names, name)
				}
				in = tables[name]
			case strings.HasPrefix(line, ":"):
				in.declared = append(in.declared, line)
			case strings.Contains(line, `"dunnage: `) && !strings.Contains(line, "-A DUNNAGE-") && name != "nat" && !front:
				in.jumps = append(in.jumps, line)
			case strings.Contains(line, "-A "):
				in.rules = append(in.rules, line)
			}
		}
	}
	var b strings.Builder
	for _, name := range names {
		t := tables[name]
		b.WriteString("*" + name + "\n")
		for _, h := range append(hooks[name], builtins...) {
			if hooks[name] != nil && !slices.Contains(hooks[name], h) || slices.ContainsFunc(t.declared, func(d string) bool { return strings.HasPrefix(d, ":"+h+" ") }) {
				continue
			}
			t.declared = append(t.declared, ":"+h+" ACCEPT [0:0]")
		}
		if name == "filter" && !slices.Contains(t.declared, ":DUNNAGE-USER - [0:0]") {
			t.declared = append(t.declared, ":DUNNAGE-USER - [0:0]")
		}
		b.WriteString(strings.Join(slices.Concat(t.declared, t.jumps, t.rules, []string{"COMMIT"}), "\n") + "\n")
	}
	return b.String()
}

// What is said of a packet, in the words that tests compare.
func summary(tr spec.Trace) string {
	var reach []string
	for _, a := range tr.Reach {
		reach = append(reach, a.To.String())
	}
	return strings.TrimSpace(string(tr.Fate) + " " + strings.Join(reach, " "))
}

func TestDumps(t *testing.T) {
	const lan = "203.0.113.9"
	cases := []struct {
		name  string
		dumps string // beside our own rules
		apart bool   // in the other backend
		front bool   // before our jumps
		from  string // "" = the world, "host"
		to    string
		proto spec.Protocol
		want  string
		dies  string // in the reason
		owner spec.RuleOwner
	}{
		{name: "our rules alone", to: "198.51.100.7:8080", want: "arrives 10.208.16.10:80 10.208.16.11:80"},
		{name: "from the host", from: "host", to: "127.0.0.1:8080", want: "arrives 10.208.16.10:80 10.208.16.11:80"},
		{name: "UDP has its own tree", to: "198.51.100.7:53", proto: spec.UDP, want: "arrives 10.208.16.11:53"},
		{name: "and TCP none", to: "198.51.100.7:53", want: "arrives 198.51.100.7:53"},
		{name: "loopback from outside", to: "127.0.0.1:8080", want: "dropped", dies: "127.0.0.1 from outside"},
		{name: "no replica: refused", to: "198.51.100.7:8081", want: "refused", dies: "DUNNAGE-INPUT", owner: spec.OwnerDunnage},
		{name: "no replica: held", to: "198.51.100.7:8082", want: "held", dies: "DUNNAGE-INPUT", owner: spec.OwnerDunnage},
		{name: "held from the host", from: "host", to: "198.51.100.7:8082", want: "held", dies: "filter DUNNAGE-OUTPUT", owner: spec.OwnerDunnage},
		{name: "an allowed client", from: "192.0.2.4", to: "198.51.100.7:8083", want: "arrives 10.208.16.10:8083"},
		{name: "another one", from: lan, to: "198.51.100.7:8083", want: "refused", dies: "DUNNAGE-INPUT", owner: spec.OwnerDunnage},
		{name: "some client", to: "198.51.100.7:8083", want: "maybe 10.208.16.10:8083", dies: "DUNNAGE-INPUT", owner: spec.OwnerDunnage},
		{name: "the host isn't in the list and may", from: "host", to: "198.51.100.7:8083", want: "arrives 10.208.16.10:8083"},
		{name: "a replica that is gone", to: "198.51.100.7:8084", want: "partly 10.208.16.10:80", dies: "10.208.16.99: no route to it"},
		{name: "the pool's addresses from outside", to: "10.208.16.10:80", want: "dropped", dies: "filter DUNNAGE-TO", owner: spec.OwnerDunnage},
		{name: "a service address from the host", from: "host", to: "10.208.16.1:80", want: "arrives 10.208.16.10:80"},

		{name: "docker beside us", dumps: "docker", to: "198.51.100.7:8080", want: "arrives 10.208.16.10:80 10.208.16.11:80"},
		{name: "docker's own port", dumps: "docker", to: "198.51.100.7:9000", want: "arrives 172.17.0.2:80"},
		{name: "docker in the other backend", dumps: "docker", apart: true, to: "198.51.100.7:8080", want: "dropped", dies: "policy DROP, as docker sets it", owner: spec.OwnerDocker},

		{name: "ufw in the other backend", dumps: "ufw", apart: true, to: "198.51.100.7:8080", want: "dropped", dies: "policy DROP, as ufw sets it", owner: spec.OwnerUFW},
		{name: "ufw beside us routes what we accept", dumps: "ufw", to: "198.51.100.7:8080", want: "arrives 10.208.16.10:80 10.208.16.11:80"},
		{name: "ufw for the host itself", dumps: "ufw", to: "198.51.100.7:22", want: "maybe 198.51.100.7:22", dies: "ufw-user-limit"},
		{name: "what ufw has not allowed", dumps: "ufw", to: "198.51.100.7:23", want: "dropped", dies: "policy DROP, as ufw sets it", owner: spec.OwnerUFW},

		{name: "firewalld refuses what it doesn't know", dumps: "firewalld", front: true, to: "198.51.100.7:8080", want: "refused", dies: "icmp-host-prohibited", owner: spec.OwnerFirewalld},
		{name: "firewalld lets ssh in", dumps: "firewalld", to: "198.51.100.7:22", want: "arrives 198.51.100.7:22"},

		{name: "kube-proxy leaves us alone", dumps: "kube", to: "198.51.100.7:8080", want: "arrives 10.208.16.10:80 10.208.16.11:80"},
		{name: "kube-proxy's node port", dumps: "kube", to: "198.51.100.7:30080", want: "partly 172.17.0.2:80", dies: "no route"},

		{name: "a foreign redirection in front", dumps: "redirect", to: "198.51.100.7:8080", want: "arrives 198.51.100.7:3128"},
		{name: "a redirection in the other backend may come first", dumps: "redirect", apart: true, to: "198.51.100.7:8080", want: "arrives 10.208.16.10:80 10.208.16.11:80 198.51.100.7:3128"},
		{name: "and none of another port", dumps: "redirect", apart: true, to: "198.51.100.7:8083", from: "192.0.2.4", want: "arrives 10.208.16.10:8083"},
		{name: "a list that another program keeps", dumps: "fail2ban", front: true, to: "198.51.100.7:8080", want: "maybe 10.208.16.10:80 10.208.16.11:80", dies: "f2b-web, rule 1", owner: spec.OwnerOther},
		{name: "of one port only", dumps: "fail2ban", front: true, to: "198.51.100.7:53", proto: spec.UDP, want: "arrives 10.208.16.11:53"},
		{name: "the operator's own block", dumps: "user", from: "203.0.113.5", to: "198.51.100.7:8080", want: "dropped", dies: "DUNNAGE-USER, rule 1", owner: spec.OwnerUser},
		{name: "and whom it isn't about", dumps: "user", from: "203.0.114.5", to: "198.51.100.7:8080", want: "arrives 10.208.16.10:80 10.208.16.11:80"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := host("eth0")
			f.Packet = spec.Packet{Protocol: c.proto, To: netip.MustParseAddrPort(c.to)}
			if c.proto == "" {
				f.Packet.Protocol = spec.TCP
			}
			switch c.from {
			case "host":
				f.In, f.Packet.From = "", spec.FromHost
				f.Packet.Source = f.Packet.To.Addr()
			case "":
			default:
				f.Packet.Source = netip.MustParseAddr(c.from)
			}
			var sets []Ruleset
			switch {
			case c.dumps == "":
				sets = []Ruleset{Iptables("iptables-nft", together(false, ours(t)))}
			case c.apart:
				sets = []Ruleset{Iptables("iptables-nft", together(false, ours(t))), Iptables("iptables-legacy", dump(t, c.dumps))}
			default:
				sets = []Ruleset{Iptables("iptables-nft", together(c.front, dump(t, c.dumps), ours(t)))}
			}
			got := Follow(sets, f)
			if s := summary(got); s != c.want {
				t.Errorf("%s, want %s: %s\n%s", s, c.want, got.Dies, steps(got))
			}
			if !strings.Contains(got.Dies, c.dies) {
				t.Errorf("dies of %q, want %q\n%s", got.Dies, c.dies, steps(got))
			}
			if i := slices.IndexFunc(got.Steps, func(s spec.TraceStep) bool { return s.Ends }); c.owner != "" && (i < 0 || got.Steps[i].Owner != c.owner) {
				t.Errorf("the rule isn't %s's:\n%s", c.owner, steps(got))
			}
		})
	}
}

// What drops the answer ends the connection as well; the client's port is none of
// those that servers have.
func TestAnswers(t *testing.T) {
	for rule, want := range map[string]string{
		"-A FORWARD -p tcp -m tcp --sport 80 -j DROP":                                    "dropped",
		"-A FORWARD -i dun+ -m conntrack --ctdir REPLY -j DROP":                          "dropped",
		"-A FORWARD -p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK -j REJECT":                 "dropped",
		"-A FORWARD -i dun+ -m conntrack --ctstate NEW -j DROP":                          "arrives 10.208.16.10:80 10.208.16.11:80",
		"-A FORWARD -i dun+ -p tcp -m tcp --dport 443 -j DROP":                           "arrives 10.208.16.10:80 10.208.16.11:80",
		"-A FORWARD -p tcp -m tcp --dport 8080 -j DROP":                                  "arrives 10.208.16.10:80 10.208.16.11:80",
		"-A FORWARD -p tcp -m multiport --dports 8080,50000 -j DROP":                     "arrives 10.208.16.10:80 10.208.16.11:80",
		"-A FORWARD -p tcp -m tcp --dport 80 -m conntrack --ctstate ESTABLISHED -j DROP": "maybe 10.208.16.10:80 10.208.16.11:80",
		"-A FORWARD -p tcp -m tcp --dport 1024:30000 -j DROP":                            "arrives 10.208.16.10:80 10.208.16.11:80",
		"-A FORWARD -i dun+ -p tcp -m tcp --dport 1024:65535 -j DROP":                    "maybe 10.208.16.10:80 10.208.16.11:80",
		"-A FORWARD -s 10.208.16.10/32 -p tcp -m tcp --sport 80:90 -j DROP":              "partly 10.208.16.11:80",
		"-A FORWARD -p tcp -m tcp --sport 1:1023 --dport 80 -j DROP":                     "arrives 10.208.16.10:80 10.208.16.11:80",
		"-A FORWARD -o eth0 -d 192.0.2.0/24 -p tcp -m tcp --sport 80 -j DROP":            "maybe 10.208.16.10:80 10.208.16.11:80",
	} {
		f := host("eth0")
		f.Packet = spec.Packet{Protocol: spec.TCP, To: netip.MustParseAddrPort("198.51.100.7:8080")}
		text := together(true, "*filter\n"+rule+"\nCOMMIT\n", ours(t))
		got := Follow([]Ruleset{Iptables("iptables-nft", text)}, f)
		if s := summary(got); s != want || strings.HasPrefix(got.Dies, "the answer: ") != (want[0] != 'a') {
			t.Errorf("%s: %s %q, want %s\n%s", rule, s, got.Dies, want, steps(got))
		}
	}
}

// An answer in another conntrack zone than its request isn't known as one.
func TestZones(t *testing.T) {
	const both = "10.208.16.10:80 10.208.16.11:80"
	for rules, want := range map[string]struct{ summary, dies string }{
		"-A PREROUTING -i eth0 -j CT --zone 5":                                            {"dropped", "the answer: iptables-nft raw PREROUTING, rule 1: -i eth0 -j CT --zone 5: the connection is in conntrack zone 5 and its answers in zone 0"},
		"-A PREROUTING -i dun+ -j CT --zone-reply 5":                                      {"dropped", "the connection is in conntrack zone 0 and its answers in zone 5"},
		"-A PREROUTING -i dunaaaaaaaaaaaa -j CT --zone 5":                                 {"partly 10.208.16.11:80", "zone 5"},
		"-A PREROUTING -s 192.0.2.0/24 -j CT --zone 5":                                    {"maybe " + both, "zone 5"},
		"-A PREROUTING -i eth0 -j CT --zone-orig 5":                                       {"arrives " + both, ""},
		"-A PREROUTING -j CT --zone 5":                                                    {"arrives " + both, ""},
		"-A PREROUTING -i eth0 -j CT --zone 5\n-A PREROUTING -i dun+ -j CT --zone 5":      {"arrives " + both, ""},
		"-A PREROUTING -i eth0 -j CT --zone 5\n-A PREROUTING -i eth0 -j CT --zone-orig 5": {"dropped", "zone 5"},
	} {
		f := host("eth0")
		f.Packet = spec.Packet{Protocol: spec.TCP, To: netip.MustParseAddrPort("198.51.100.7:8080")}
		got := Follow([]Ruleset{Iptables("iptables-nft", together(true, "*raw\n"+rules+"\nCOMMIT\n", ours(t)))}, f)
		if s := summary(got); s != want.summary || !strings.Contains(got.Dies, want.dies) || len(got.Unseen) > 0 {
			t.Errorf("%s: %s %q, unseen %q, want %+v\n%s", rules, s, got.Dies, got.Unseen, want, steps(got))
		}
	}
}

// What a target does that isn't known here is told as unseen, and a match that
// isn't known may take the packet.
func TestNotUnderstood(t *testing.T) {
	const both = "10.208.16.10:80 10.208.16.11:80"
	for rule, want := range map[string]struct{ summary, unseen string }{
		"-A FORWARD -o dun+ -j XYZ --way 3":      {"arrives " + both, "iptables-nft filter FORWARD, rule 1: -o dun+ -j XYZ --way 3: what XYZ does isn't known"},
		"-A FORWARD -i dun+ -j XYZ":              {"arrives " + both, "the answer: iptables-nft filter FORWARD, rule 1"},
		"-A FORWARD -o eth1 -j XYZ":              {"arrives " + both, ""},
		"-A FORWARD -o dun+ -j CT --zone mark":   {"arrives " + both, "iptables-nft filter FORWARD, rule 1: -o dun+ -j CT --zone mark: what CT does isn't known"},
		"-A FORWARD -j LOG":                      {"arrives " + both, ""},
		"-A FORWARD -m xyz -j DROP":              {"maybe " + both, ""},
		"-A FORWARD -m bpf --bytecode 1 -j DROP": {"maybe " + both, ""},
		"-A FORWARD -p tcp -m tcp -j DROP":       {"dropped", ""},
		"-A FORWARD -o dun+ -j NFQUEUE":          {"maybe " + both, ""},
		"-A FORWARD -m xyz -j ACCEPT":            {"arrives " + both, ""},
	} {
		f := host("eth0")
		f.Packet = spec.Packet{Protocol: spec.TCP, To: netip.MustParseAddrPort("198.51.100.7:8080")}
		got := Follow([]Ruleset{Iptables("iptables-nft", together(true, "*filter\n"+rule+"\nCOMMIT\n", ours(t)))}, f)
		if s := summary(got); s != want.summary || len(got.Unseen) > 0 != (want.unseen != "") || want.unseen != "" && !strings.HasPrefix(got.Unseen[0], want.unseen) {
			t.Errorf("%s: %s, unseen %q, want %+v\n%s", rule, s, got.Unseen, want, steps(got))
		}
	}
}

// Programs are told of where packets and their answers pass, and end nothing for sure.
func TestPrograms(t *testing.T) {
	const replica, other = "dunaaaaaaaaaaaa", "dunbbbbbbbbbbbb"
	for _, c := range []struct {
		name string
		from spec.Vantage
		to   string
		want string // links and ways, in the order in which they are told of
	}{
		{"to replicas", "", "198.51.100.7:8080", "eth0, " + replica + " out, " + other + " out, answer " + replica + ", answer eth0 out, answer " + other},
		{"to the host itself", "", "198.51.100.7:9999", "eth0, answer eth0 out"},
		{"from the host to a replica", spec.FromHost, "10.208.16.10:80", replica + " out, answer " + replica},
		{"within the host", spec.FromHost, "127.0.0.1:9999", "lo out, lo, answer lo out, answer lo"},
	} {
		f := host("eth0")
		f.Packet = spec.Packet{Protocol: spec.TCP, From: c.from, To: netip.MustParseAddrPort(c.to)}
		if c.from == spec.FromHost {
			f.In = ""
		}
		f.Programs = func(link string, out bool) []Program {
			if out {
				link += " out"
			}
			return []Program{{Where: "tc at " + link, Name: "p"}}
		}
		got := Follow([]Ruleset{Iptables("iptables-nft", together(true, ours(t)))}, f)
		var at []string
		for _, s := range got.Unseen {
			where, _, _ := strings.Cut(s, ": p may drop packets")
			at = append(at, strings.NewReplacer("the answer: ", "answer ", "tc at ", "").Replace(where))
		}
		if s := strings.Join(at, ", "); s != c.want || got.Fate != spec.FateArrives || !slices.ContainsFunc(got.Steps, func(s spec.TraceStep) bool { return strings.HasPrefix(s.Where, "tc at ") && s.Maybe && !s.Ends }) {
			t.Errorf("%s: %s, at %q, want %q\n%s", c.name, got.Fate, s, c.want, steps(got))
		}
	}
}

// A time to live that a rule sets ends what the host passes on: packets to
// replicas, answers, and answers on their way behind the host.
func TestTimeToLive(t *testing.T) {
	const both = "arrives 10.208.16.10:80 10.208.16.11:80"
	maybe := strings.Replace(both, "arrives", "maybe", 1)
	for _, c := range []struct {
		rule, from string
		near       bool
		want       string
	}{
		{"-A PREROUTING -i eth0 -j TTL --ttl-set 1", "", false, "refused"},
		{"-A PREROUTING -i eth0 -j TTL --ttl-set 2", "", false, both},
		{"-A PREROUTING -i eth0 -j TTL --ttl-dec 255", "", false, "refused"},
		{"-A PREROUTING -i eth0 -j TTL --ttl-dec 60", "", false, maybe},
		{"-A PREROUTING -i eth0 -j TTL --ttl-dec 1", "", false, both},
		{"-A PREROUTING -i eth0 -j TTL --ttl-inc 1", "", false, both},
		{"-A FORWARD -o dun+ -j TTL --ttl-set 1", "", false, both},
		{"-A PREROUTING -i dun+ -j TTL --ttl-set 1", "", false, "dropped"},
		{"-A PREROUTING -i dunaaaaaaaaaaaa -j TTL --ttl-set 1", "", false, "partly 10.208.16.11:80"},
		{"-A POSTROUTING -o eth0 -j TTL --ttl-set 1", "", false, maybe},
		{"-A POSTROUTING -o eth0 -j TTL --ttl-set 1", "203.0.113.9", false, "dropped"},
		{"-A POSTROUTING -o eth0 -j TTL --ttl-set 1", "203.0.113.9", true, both},
		{"-A POSTROUTING -o eth0 -j TTL --ttl-set 5", "203.0.113.9", false, maybe},
		{"-A POSTROUTING -o eth0 -j TTL --ttl-set 64", "", false, both},
		{"-A PREROUTING -i dun+ -j TTL --ttl-set 2", "203.0.113.9", false, "dropped"},
		{"-A PREROUTING -i dun+ -j TTL --ttl-set 1\n-A PREROUTING -i dun+ -j TTL --ttl-inc 63", "", false, both},
	} {
		f := host("eth0")
		asked := f.Route
		f.Route = func(a netip.Addr) Route { r := asked(a); r.Near = c.near; return r }
		f.Packet = spec.Packet{Protocol: spec.TCP, To: netip.MustParseAddrPort("198.51.100.7:8080")}
		if c.from != "" {
			f.Packet.Source = netip.MustParseAddr(c.from)
		}
		got := Follow([]Ruleset{Iptables("iptables-nft", together(true, "*mangle\n"+c.rule+"\nCOMMIT\n", ours(t)))}, f)
		if s := summary(got); s != c.want || strings.HasPrefix(c.want, "arrives") != (got.Dies == "") || got.Dies != "" && !strings.Contains(got.Dies, "-j TTL --ttl-") {
			t.Errorf("%s: %s %q, want %s\n%s", c.rule, s, got.Dies, c.want, steps(got))
		}
	}
}

func steps(tr spec.Trace) string {
	var b strings.Builder
	for _, s := range tr.Steps {
		b.WriteString(s.Where + " | " + s.Rule + " | " + string(s.Owner) + " | " + s.What)
		if s.Maybe {
			b.WriteString(" | maybe")
		}
		if s.Ends {
			b.WriteString(" | ENDS")
		}
		b.WriteByte('\n')
	}
	return b.String()
}
