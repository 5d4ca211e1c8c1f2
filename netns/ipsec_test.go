package netns

import (
	"net/netip"
	"strings"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// What is said of IPsec's policies is what the kernel does with them, in its order, and
// with the addresses that it asks about; each goes by the words that name it.
func TestTraceIPsec(t *testing.T) { testenv.Host(t, func() { testTraceIPsec(t) }) }

func testTraceIPsec(t *testing.T) {
	w := newPublished(t)
	testenv.Serve(t, w.Host, "host", 8082)
	client, host, replica, other := w.ClientAddr.String(), w.HostAddr.String(), addr4(1, 10).String(), w.AttackerAddr.String()
	for _, c := range []struct {
		policy    string // " ; " stands between several
		published spec.Fate
		host      spec.Fate
		own       spec.Fate // from the host itself to the replica
		dies      string
	}{
		{"dir in src " + client + " dst 0.0.0.0/0 action block", "arrives", "dropped", "arrives", ""},
		{"dir fwd src " + client + " dst 0.0.0.0/0 action block", "dropped", "arrives", "arrives", "ip xfrm policy: dir fwd src " + client + "/32 dst 0.0.0.0/0, which blocks"},
		{"dir fwd src 0.0.0.0/0 dst " + host + " proto tcp dport 8080 action block", "dropped", "arrives", "arrives", "proto tcp dport 8080"},
		{"dir fwd src 0.0.0.0/0 dst 0.0.0.0/0 proto tcp dport 80 action block", "arrives", "arrives", "arrives", ""},
		{"dir fwd src 0.0.0.0/0 dst 0.0.0.0/0 proto udp action block", "arrives", "arrives", "arrives", ""},
		{"dir fwd src " + other + " dst 0.0.0.0/0 action block", "arrives", "arrives", "arrives", ""},
		{"dir fwd src " + replica + " dst 0.0.0.0/0 action block", "dropped", "arrives", "arrives", "the answer: ip xfrm policy: dir fwd src " + replica},
		{"dir out src 0.0.0.0/0 dst " + replica + " action block", "dropped", "arrives", "refused", "dir out src 0.0.0.0/0 dst " + replica},
		{"dir out src 0.0.0.0/0 dst " + client + " action block", "dropped", "dropped", "arrives", "the answer: ip xfrm policy: dir out"},
		{"dir in src " + replica + " dst 0.0.0.0/0 action block", "arrives", "arrives", "dropped", ""},
		{"dir fwd src " + client + " dst 0.0.0.0/0 action block priority 9 ; dir fwd src 0.0.0.0/0 dst 0.0.0.0/0 action allow priority 8", "arrives", "arrives", "arrives", ""},
		{"dir fwd src " + client + " dst 0.0.0.0/0 action block priority 8 ; dir fwd src 0.0.0.0/0 dst 0.0.0.0/0 action allow priority 9", "dropped", "arrives", "arrives", "dir fwd"},
	} {
		for one := range strings.SplitSeq(c.policy, " ; ") {
			testenv.Run(t, "ip", append([]string{"xfrm", "policy", "add"}, strings.Fields(one)...)...)
		}
		to := netip.AddrPortFrom(w.HostAddr, 8080)
		got := w.trace(spec.Packet{Protocol: spec.TCP, Source: w.ClientAddr, To: to})
		if got.Fate != c.published || !strings.Contains(got.Dies, c.dies) || len(got.Unseen) > 0 {
			t.Errorf("%s: %s %q, unseen %q, want %s %q\n%s", c.policy, got.Fate, got.Dies, got.Unseen, c.published, c.dies, told(got))
		}
		w.meets(c.published, to, c.policy)
		to = netip.AddrPortFrom(w.HostAddr, 8082)
		if got := w.trace(spec.Packet{Protocol: spec.TCP, Source: w.ClientAddr, To: to}); got.Fate != c.host {
			t.Errorf("%s, to the host: %s %q, want %s\n%s", c.policy, got.Fate, got.Dies, c.host, told(got))
		}
		w.meets(c.host, to, c.policy)
		to = netip.AddrPortFrom(addr4(1, 10), 80)
		if got := w.trace(spec.Packet{Protocol: spec.TCP, From: spec.FromHost, To: to}); got.Fate != c.own {
			t.Errorf("%s, from the host: %s %q, want %s\n%s", c.policy, got.Fate, got.Dies, c.own, told(got))
		}
		w.meetsFrom(w.Host, c.own, to, c.policy)
		for _, p := range mustIPsec(t) { // by its own words
			testenv.Run(t, "ip", append([]string{"xfrm", "policy", "delete"}, strings.Fields(p)...)...)
		}
	}

	testenv.Run(t, "ip", "xfrm", "policy", "setdefault", "fwd", "block")
	to := netip.AddrPortFrom(w.HostAddr, 8080)
	if got := w.trace(spec.Packet{Protocol: spec.TCP, To: to}); got.Fate != spec.FateDropped || got.Dies != "ip xfrm policy: the default, fwd block, which blocks" {
		t.Errorf("%s %q", got.Fate, got.Dies)
	}
	w.meets(spec.FateDropped, to, "the default")
	testenv.Run(t, "ip", "xfrm", "policy", "setdefault", "fwd", "accept")

	const sealed = "dir fwd src 203.0.113.0/24 dst 0.0.0.0/0"
	testenv.Run(t, "ip", strings.Fields("xfrm policy add "+sealed+" tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel")...)
	if got := w.trace(spec.Packet{Protocol: spec.TCP, Source: netip.MustParseAddr("203.0.113.9"), To: to}); got.Fate != spec.FateArrives || len(got.Unseen) != 1 || !strings.HasPrefix(got.Unseen[0], "ip xfrm policy: "+sealed+" asks for IPsec") {
		t.Errorf("%s, unseen %q", got.Fate, got.Unseen)
	}
}

func mustIPsec(t *testing.T) (out []string) {
	t.Helper()
	all, err := readIPsec(false)
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	for _, p := range all {
		out = append(out, p.String())
	}
	return out
}
