package netns

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

func TestLeftNFT(t *testing.T)    { testenv.Host(t, func() { testLeft(t, NFT) }) }
func TestLeftLegacy(t *testing.T) { testenv.Host(t, func() { testLeft(t, Legacy) }) }

// testLeft: the next agent learns what the last Apply left, so that damage done
// between the two has a name, and nothing where it can't be known.
func testLeft(t *testing.T, backend Backend) {
	w := newWorld(t, backend)
	ipt := "iptables-" + string(backend)
	next := func(change func(*Config)) *Network {
		t.Helper()
		cfg := w.net.cfg
		change(&cfg)
		n, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	same := func(*Config) {}
	unknown := func(when string, n *Network) {
		t.Helper()
		if r, ok := n.Left(); ok || len(r.Services) > 0 {
			t.Errorf("%s, left is %+v, %v", when, r, ok)
		}
	}
	unknown("at first", w.net)

	r := sample()
	w.apply(r)
	w.net = next(same)
	got, ok := w.net.Left()
	if !ok || !got.Equal(r) {
		t.Fatalf("left is %+v, %v, want\n%+v", got, ok, r)
	}
	found := func() (all []string) {
		t.Helper()
		damage, err := w.net.Damaged(w.ctx, got, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range damage {
			all = append(all, d.What)
		}
		return all
	}
	if all := found(); len(all) > 0 {
		t.Errorf("where nobody did anything, %q", all)
	}
	testenv.Run(t, ipt, "-t", "nat", "-F", "DUNNAGE-PUBLISHED")
	testenv.Run(t, "sysctl", "-qw", "net.ipv4.ip_forward=0")
	if all := found(); !slices.Equal(all, []string{"setting net.ipv4.ip_forward: 0 instead of 1", "IPv4 nat: chain DUNNAGE-PUBLISHED emptied"}) {
		t.Errorf("after both, %q", all)
	}

	// A repair that is cut short leaves the note: the rest is damage still.
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.net.Apply(over, r); err == nil {
		t.Fatal("an Apply without time succeeds")
	}
	if _, ok := next(same).Left(); !ok {
		t.Error("the note is gone after a repair that failed")
	}
	w.apply(r)

	// An agent that would make other rules knows the routing alone.
	if got, ok := next(func(c *Config) { c.Pool6 = netip.Prefix{} }).Left(); ok || !got.Equal(r) {
		t.Errorf("without IPv6, left is %+v, %v", got, ok)
	}

	unknown("with another pool", next(func(c *Config) { c.Pool = netip.MustParsePrefix("10.99.0.0/16") }))

	// What else lies in the note's place holds nobody up.
	note := leftFile(w.net.cfg.RunDir)
	aside := note + ".aside"
	testenv.Run(t, "mv", note, aside)
	testenv.Run(t, "mkfifo", note)
	unknown("of a FIFO", next(same))
	testenv.Run(t, "mv", aside, note)

	// An Apply to something else that is cut short may have changed anything.
	if err := w.net.Apply(over, spec.Routing{}); err == nil {
		t.Fatal("an Apply without time succeeds")
	}
	unknown("after an Apply that was cut short", next(same))

	w.apply(r)
	b, err := os.ReadFile(leftFile(w.net.cfg.RunDir))
	if err == nil {
		err = os.WriteFile(leftFile(w.net.cfg.RunDir), []byte(strings.Replace(string(b), `"host":"`, `"host":"0`, 1)), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	unknown("after a reboot", next(same))

	if err := w.net.Remove(w.ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(leftFile(w.net.cfg.RunDir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Remove, the note: %v", err)
	}
}
