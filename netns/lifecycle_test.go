package netns

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/netns/rules"
	"dunnage/spec"
)

// save is what the backend prints of a family ("iptables", "ip6tables").
func save(t testing.TB, backend Backend, family string) string {
	t.Helper()
	return testenv.Run(t, family+"-"+string(backend)+"-save")
}

// withoutNoise drops what changes by itself: the dates and packet counters.
func withoutNoise(text string) string {
	var keep []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		if strings.HasPrefix(line, ":") {
			line, _, _ = strings.Cut(line, " [")
		}
		keep = append(keep, strings.TrimSpace(line))
	}
	return strings.Join(keep, "\n")
}

// sample is a routing without replicas behind it: rules only.
func sample() spec.Routing {
	one, two := network(1, false), network(2, true)
	backends := []spec.Backend{
		{Replica: "web-app-1", Addr: addr4(1, 10), Addr6: addr6(1, 10)},
		{Replica: "web-app-2", Addr: addr4(1, 11), Addr6: addr6(1, 11)},
	}
	r := spec.Routing{
		Networks: []spec.NetworkAddressing{one, two},
		Services: []spec.ServiceRoute{
			{Project: "web", Service: "app", Network: one.ID, Addr: addr4(1, 2), Addr6: addr6(1, 2), Backends: backends},
			{Project: "web", Service: "db", Network: two.ID, Addr: addr4(2, 2), Addr6: addr6(2, 2), Absent: spec.Hold},
		},
		Published: append(published(80, 80, backends...), published(8080, 80, backends...)...),
	}
	return r
}

func TestLifeCycleNFT(t *testing.T)    { testenv.Host(t, func() { testLifeCycle(t, NFT) }) }
func TestLifeCycleLegacy(t *testing.T) { testenv.Host(t, func() { testLifeCycle(t, Legacy) }) }

// testLifeCycle goes through what can happen to rules on a host that has rules
// of its own. The steps build on each other.
func testLifeCycle(t *testing.T, backend Backend) {
	w := newWorld(t, backend)
	foreign := func() string {
		return withoutOurs(save(t, backend, "iptables")) + withoutOurs(save(t, backend, "ip6tables"))
	}
	for _, f := range []string{"iptables-", "ip6tables-"} {
		ipt := f + string(backend)
		testenv.Run(t, ipt, "-N", "OWNER")
		testenv.Run(t, ipt, "-A", "OWNER", "-p", "tcp", "--dport", "25", "-j", "DROP")
		testenv.Run(t, ipt, "-A", "FORWARD", "-j", "OWNER")
		testenv.Run(t, ipt, "-P", "FORWARD", "DROP")
		testenv.Run(t, ipt, "-t", "nat", "-A", "POSTROUTING", "-o", "lan9", "-j", "MASQUERADE")
	}
	before := foreign()
	r := sample()

	w.apply(r)
	w.wantEqual("after the first Apply", r, true)
	first := w.ruleSet(r)
	if first.Kernel != first.Rendered {
		t.Errorf("kernel has\n%s\nrendered\n%s", first.Kernel, first.Rendered)
	}
	w.apply(r)
	if again := w.ruleSet(r); again != first {
		t.Errorf("applying twice made\n%s", again.Kernel)
	}
	if foreign() != before {
		t.Errorf("rules of others changed:\n%s\nwere\n%s", foreign(), before)
	}

	// Removing 80/tcp leaves 80/udp and 8080.
	less := r
	less.Published = slices.DeleteFunc(slices.Clone(r.Published), func(p spec.PublishedRoute) bool { return p.Port == 80 && p.Protocol == spec.TCP })
	w.apply(less)
	w.wantEqual("after removing 80/tcp", less, true)
	w.wantEqual("after removing 80/tcp, compared with before", r, false)

	// Everything flushed by somebody: back byte-equal, and so are damaged parts.
	for _, damage := range []string{
		"-t nat -F", "-t filter -F DUNNAGE-TO", "-t nat -D PREROUTING 1", "-t nat -A DUNNAGE-PUBLISHED -j RETURN", "-t raw -F", "-t raw -F PREROUTING",
	} {
		testenv.Run(t, "iptables-"+string(backend), strings.Fields(damage)...)
		w.wantEqual("after "+damage, r, false)
		w.apply(r)
		if damage == "-t nat -F" {
			testenv.Run(t, "iptables-"+string(backend), "-t", "nat", "-A", "POSTROUTING", "-o", "lan9", "-j", "MASQUERADE")
		}
		if got := w.ruleSet(r); got != first {
			t.Errorf("after %s, Apply made\n%s\nwant\n%s", damage, got.Kernel, first.Kernel)
		}
	}
	testenv.Run(t, "ip", "route", "del", "local", addr4(1, 2).String(), "table", "local")
	w.wantEqual("after losing a service address", r, false)
	w.apply(r)
	w.wantEqual("after repairing a service address", r, true)

	// The operator's chain is evaluated first and never touched.
	testenv.Run(t, "iptables-"+string(backend), "-A", rules.UserChain, "-p", "tcp", "--dport", "6666", "-j", "DROP")
	w.apply(spec.Routing{})
	w.apply(r)
	if text := save(t, backend, "iptables"); !strings.Contains(text, "-A DUNNAGE-USER -p tcp -m tcp --dport 6666 -j DROP") {
		t.Errorf("the operator's rule is gone:\n%s", text)
	}

	// A rule of somebody else that leads into a chain that goes away.
	gone := published80Chain(t, w)
	testenv.Run(t, "iptables-"+string(backend), "-t", "nat", "-N", "OTHER")
	testenv.Run(t, "iptables-"+string(backend), "-t", "nat", "-A", "OTHER", "-j", gone)
	w.apply(spec.Routing{})
	w.wantEqual("with a foreign jump into an old chain", spec.Routing{}, true)
	testenv.Run(t, "iptables-"+string(backend), "-t", "nat", "-F", "OTHER")
	testenv.Run(t, "iptables-"+string(backend), "-t", "nat", "-X", "OTHER")

	// Teardown, twice; the operator's chain stays while it has rules.
	for range 2 {
		if err := w.net.Remove(w.ctx); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Run(t, "iptables-"+string(backend), "-F", rules.UserChain)
	if err := w.net.Remove(w.ctx); err != nil {
		t.Fatal(err)
	}
	if text := save(t, backend, "iptables") + save(t, backend, "ip6tables"); strings.Contains(text, "DUNNAGE") || strings.Contains(text, "dunnage") {
		t.Errorf("left after Remove:\n%s", text)
	}
	if foreign() != before {
		t.Errorf("rules of others after Remove:\n%s\nwere\n%s", foreign(), before)
	}
	if out := testenv.Run(t, "ip", "route", "show", "table", "all", "proto", "213"); out != "" {
		t.Errorf("routes left after Remove:\n%s", out)
	}
	if restored, err := w.net.RestoreSettings(); err != nil || !slices.Contains(restored, "net.ipv4.ip_forward=0") {
		t.Errorf("restored %q, %v", restored, err)
	}
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); err != nil || strings.TrimSpace(string(b)) != "0" {
		t.Errorf("ip_forward after Remove is %s (%v), want the former 0", b, err)
	}
}

func published80Chain(t *testing.T, w *world) string {
	for _, r := range rules.Parse(save(t, w.net.tables.backend, "iptables")).Table("nat").Chains {
		if strings.HasPrefix(r.Name, "DUNNAGE-P-") {
			return r.Name
		}
	}
	t.Fatal("no chain of a published port")
	return ""
}

// withoutOurs drops our chains and jumps from what iptables-save prints. The
// tables are sorted: legacy prints the one used last first.
func withoutOurs(text string) string {
	var tables []string
	for table := range strings.SplitSeq(withoutNoise(text), "*") {
		var keep []string
		for line := range strings.Lines(table) {
			if !strings.Contains(line, "DUNNAGE") && !isPolicy(line) {
				keep = append(keep, strings.TrimSpace(line))
			}
		}
		if len(keep) > 2 { // more than the name and COMMIT
			tables = append(tables, strings.Join(keep, "\n"))
		}
	}
	slices.Sort(tables)
	return strings.Join(tables, "\n")
}

// isPolicy tells the lines of built-in chains that accept: tables appear with
// them when they are first used.
func isPolicy(line string) bool {
	return strings.HasPrefix(line, ":") && strings.HasSuffix(strings.TrimSpace(line), " ACCEPT")
}

func (w *world) ruleSet(r spec.Routing) spec.RuleSet {
	w.Helper()
	set, err := w.net.RuleSet(w.ctx, r)
	if err != nil {
		w.Fatal(err)
	}
	return set
}

func (w *world) wantEqual(when string, r spec.Routing, want bool) {
	w.Helper()
	_, equal, err := w.net.Routed(w.ctx, r)
	if err != nil || equal != want {
		set := w.ruleSet(r)
		w.Errorf("%s: equal = %v (%v), want %v\nkernel:\n%s\nrendered:\n%s", when, equal, err, want, set.Kernel, set.Rendered)
	}
}

// TestSwitchBackend: what an earlier agent left in the other backend goes.
func TestSwitchBackend(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Legacy)
		w.apply(sample())
		for _, step := range [][2]Backend{{NFT, Legacy}, {Legacy, NFT}} {
			next, err := New(Config{RunDir: testenv.HostRunDir, Pool: pool4, Pool6: pool6, Iptables: step[0]})
			if err != nil {
				t.Fatal(err)
			}
			w.net = next
			w.apply(sample())
			w.wantEqual(fmt.Sprintf("after switching to %s", step[0]), sample(), true)
			for _, f := range []string{"iptables", "ip6tables"} {
				if text := save(t, step[1], f); strings.Contains(text, "DUNNAGE") {
					t.Errorf("%s still has rules in %s:\n%s", f, step[1], text)
				}
			}
		}
	})
}

// TestChangedPool: rules of an agent that had another pool, or IPv6, go.
func TestChangedPool(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, NFT)
		w.apply(spec.Routing{})
		pool := pool4
		pool4 = netip.MustParsePrefix("10.99.0.0/16")
		next, err := New(Config{RunDir: testenv.HostRunDir, Pool: pool4, Iptables: NFT})
		if err != nil {
			t.Fatal(err)
		}
		w.net = next
		w.apply(spec.Routing{})
		if text := save(t, NFT, "iptables"); strings.Contains(text, pool.String()) {
			t.Errorf("the former pool is still there:\n%s", text)
		}
		if text := save(t, NFT, "ip6tables"); strings.Contains(text, "-j DUNNAGE-") {
			t.Errorf("IPv6 rules are still there:\n%s", text)
		}
	})
}

// TestParallelApply: many callers at once leave one of their states, whole.
func TestParallelApply(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		var all []spec.PublishedRoute
		for i := range 50 {
			all = append(all, spec.PublishedRoute{
				Project: "web", Service: fmt.Sprint("app", i), Port: uint16(8000 + i), Target: 80, Protocol: spec.TCP,
				Backends: []spec.Backend{{Replica: fmt.Sprint("r", i), Addr: addr4(1, 10+i), Addr6: addr6(1, 10+i)}},
			})
		}
		nets := []spec.NetworkAddressing{network(1, false)}
		var wg sync.WaitGroup
		for i := range all {
			wg.Go(func() {
				if err := w.net.Apply(w.ctx, spec.Routing{Networks: nets, Published: all[:i+1]}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		r := spec.Routing{Networks: nets, Published: all}
		w.apply(r)
		w.wantEqual("after 50 callers", r, true)
		named, _, err := w.net.Routed(w.ctx, r)
		if err != nil || len(named) != 100 {
			t.Errorf("rules name %d addresses (%v), want 50 of each family", len(named), err)
		}
	})
}

// TestDropRules: a dropping rule behind ours is harmless, one before ours is
// respected and reported.
func TestDropRules(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		app := w.start("app", member(network(1, false), 10))
		r := spec.Routing{Networks: []spec.NetworkAddressing{network(1, false)}, Published: published(8080, 80, app.backend(0))}
		w.apply(r)
		testenv.Run(t, "iptables", "-A", "FORWARD", "-j", "DROP")
		w.wantAnswer("DROP appended", w.Client, "tcp", w.HostAddr, 8080, "app", w.ClientAddr)
		w.wantProblems(0)
		testenv.Run(t, "iptables", "-I", "FORWARD", "-j", "DROP")
		w.wantNobody("DROP inserted", w.Client, "tcp", w.HostAddr, 8080)
		w.wantProblems(1)
		testenv.Run(t, "iptables", "-D", "FORWARD", "1")
		w.wantProblems(0) // at once: nobody waits for a warning to go
		testenv.Run(t, "iptables", "-I", "FORWARD", "-s", "198.51.100.0/24", "-p", "tcp", "--dport", "443", "-j", "DROP")
		w.wantProblems(0) // nothing of ours to do with it
		testenv.Run(t, "iptables", "-D", "FORWARD", "1")
		for _, rule := range [][]string{
			{"raw", "PREROUTING", "-i", "dun+"}, {"mangle", "FORWARD", "-d", "10.208.0.0/12"}, {"mangle", "PREROUTING"},
		} {
			testenv.Run(t, "iptables", append([]string{"-t", rule[0], "-A"}, append(rule[1:], "-j", "DROP")...)...)
			w.wantProblems(1)
			testenv.Run(t, "iptables", append([]string{"-t", rule[0], "-D"}, append(rule[1:], "-j", "DROP")...)...)
		}
		testenv.Run(t, "iptables", "-t", "raw", "-A", "PREROUTING", "-s", "198.51.100.7", "-j", "DROP") // of a block list
		w.wantProblems(0)
		testenv.Run(t, "iptables-legacy", "-P", "FORWARD", "DROP")
		w.wantProblems(1)
		testenv.Run(t, "iptables-legacy", "-P", "FORWARD", "ACCEPT")
		look(t, w, r)
		for port, n := range map[string]int{"80": 0, "8080": 1} {
			testenv.Run(t, "iptables-legacy", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", port, "-j", "DNAT", "--to-destination", "192.0.2.1")
			w.wantProblems(n)
			testenv.Run(t, "iptables-legacy", "-t", "nat", "-F", "PREROUTING")
		}
	})
}

func (w *world) wantProblems(n int) {
	w.Helper()
	got, err := w.net.Problems(w.ctx)
	if err != nil || len(got) != n {
		w.Errorf("problems are %q (%v), want %d", got, err, n)
	}
	for _, p := range got {
		if _, next := spec.SplitProblem(p); next == "" {
			w.Errorf("%q doesn't say what to do", p)
		}
	}
}
