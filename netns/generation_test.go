package netns

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestConclude: what an Apply wrote counts as read for a moment, unless
// somebody else has committed as well, and is read after that.
func TestConclude(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, NFT)
		one := network(1, false)
		routing := func(number int) spec.Routing {
			m := member(one, number)
			return spec.Routing{Networks: []spec.NetworkAddressing{one}, Published: published(8080, 80, spec.Backend{Replica: "r", Addr: m.Addr, Addr6: m.Addr6})}
		}
		look := func(r spec.Routing, number int) (equal bool) {
			t.Helper()
			named, equal, err := w.net.Routed(w.ctx, r)
			if err != nil {
				t.Fatal(err)
			}
			if want := member(one, number).Addr; !slices.ContainsFunc(named, func(a netip.Addr) bool { return a == want }) {
				t.Errorf("the rules name %v, want %s", named, want)
			}
			return equal
		}
		v4 := w.net.tables.v4.last

		w.apply(routing(10)) // makes the scaffold: nothing to conclude from
		if look(routing(10), 10); v4.concluded {
			t.Error("the first Apply, which touches chains of others, was taken for a plain commit")
		}

		w.apply(routing(11))
		if !v4.concluded || !look(routing(11), 11) || !v4.concluded {
			t.Error("two commits that raised the generation by two weren't enough to conclude from")
		}
		time.Sleep(concludedStands + 10*time.Millisecond)
		if !look(routing(11), 11) || v4.concluded {
			t.Error("what was concluded wasn't read later")
		}

		w.apply(routing(12))
		testenv.Run(t, "iptables-nft", "-t", "nat", "-F", "DUNNAGE-TCP")
		if look(routing(12), 12) || v4.concluded {
			t.Error("a foreign change right after an Apply wasn't seen")
		}
		w.apply(routing(12))

		// A rule of somebody else that leads to a chain of ours is in the text
		// that was read, not in what we want.
		testenv.Run(t, "iptables-nft", "-t", "nat", "-A", "PREROUTING", "-d", "192.0.2.99", "-j", "DUNNAGE-PUBLISHED")
		w.apply(routing(13))
		if look(routing(13), 13); v4.concluded {
			t.Error("a foreign rule that leads to our chains was left out of account")
		}
	})
}

// TestCommitRefused: a document that the program refuses is an error that says
// why, and changes nothing.
func TestCommitRefused(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, NFT)
		_, err := w.net.tables.v4.commit(w.ctx, "*nat\n:DUNNAGE-X - [0:0]\n-A DUNNAGE-X -j NOWHERE\nCOMMIT\n")
		if err == nil || !strings.Contains(err.Error(), "NOWHERE") {
			t.Errorf("a rule to a chain that isn't there: %v, want an error that names it", err)
		}
		if text := testenv.Run(t, "iptables-nft-save"); strings.Contains(text, "DUNNAGE-X") {
			t.Errorf("a refused document left something:\n%s", text)
		}
	})
}
