package netns

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestIPv6SwitchedOff: a host that loses IPv6 while replicas run serves on by
// IPv4, in every respect, says so, and has both again when IPv6 is back.
func TestIPv6SwitchedOff(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, NFT)
		one := member(network(1, false), 10)
		app := w.start("app", one)
		e := spec.Endpoint{Replica: "app", Hostname: "app", Addresses: []spec.EndpointAddress{one}}
		r := sample()
		r.Published = published(8080, 80, app.backend(0))
		w.apply(r)
		news := w.net.Changes(t.Context())
		w.hasAnswerSoon("at first", w.Host, netip.AddrPortFrom(one.Addr6, 80))

		// The setting of the loopback alone sends no message of a link of ours.
		for _, of := range []string{"lo", "all"} {
			look(t, w, r)
			drain(news)
			testenv.Run(t, "sysctl", "-qw", "net.ipv6.conf."+of+".disable_ipv6=1")
			w.wantNews(news, of+" switched off")
			w.wantProblem(of, "net.ipv6.conf."+of+".disable_ipv6 is 1")
			w.wantDamage(of+" switched off", r)
			testenv.Run(t, "iptables-nft", "-t", "nat", "-F")
			w.apply(r)
			if err := w.net.Attach(w.ctx, e); err != nil {
				t.Fatal(err)
			}
			late := w.start("late-"+of, member(network(1, false), 20))
			r.Published = published(8080, 80, late.backend(0))
			w.apply(r)
			w.answersSoon("a replica made without IPv6")
			w.wantAnswer("a replica made without IPv6", w.Client, "tcp", w.HostAddr, 8080, late.id, netip.Addr{})
			w.wantDamage("nothing to miss without IPv6", r)
			if fronts, err := w.net.Fronts(w.ctx); err != nil || !slices.Equal(fronts, []netip.Addr{w.HostAddr}) {
				t.Errorf("clients use %v, %v", fronts, err)
			}

			drain(news)
			testenv.Run(t, "sysctl", "-qw", "net.ipv6.conf."+of+".disable_ipv6=0")
			w.wantNews(news, of+" switched on")
			if problems := w.problems(); len(problems) > 0 {
				t.Errorf("IPv6 is back, and these are told: %q", problems)
			}
			w.apply(r)
			for _, e := range []spec.Endpoint{e, {Replica: late.id, Hostname: late.id, Addresses: late.addrs}} {
				if err := w.net.Attach(w.ctx, e); err != nil {
					t.Fatal(err)
				}
			}
			w.wantDamage("IPv6 is back", r)
			w.hasAnswerSoon("IPv6 is back", w.Host, netip.AddrPortFrom(one.Addr6, 80))
			w.hasAnswerSoon("a replica made without IPv6", w.Host, netip.AddrPortFrom(late.addrs[0].Addr6, 80))
			if err := w.net.Detach(w.ctx, late.id); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestIPv6Refused: what the kernel refuses of IPv6 alone, for whatever reason,
// doesn't hold IPv4 up.
func TestIPv6Refused(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, NFT)
		one := member(network(1, false), 10)
		const forwarding = "/proc/sys/net/ipv6/conf/all/forwarding"
		testenv.Run(t, "sh", "-ec", "echo 0 > "+forwarding+"; echo 0 > /mnt/fixed; mount --bind /mnt/fixed "+forwarding+"; mount -o remount,bind,ro "+forwarding)
		app := w.start("app", one)
		r := spec.Routing{Networks: []spec.NetworkAddressing{network(1, false)}, Published: published(8080, 80, app.backend(0))}
		w.apply(r)
		w.answersSoon("without IPv6")
		if problems := w.problems(); len(problems) != 1 || !strings.Contains(problems[0], "served by IPv4 alone") {
			t.Errorf("told are %q", problems)
		}
	})
}

// TestIPv6LeftOut: addresses of a time with IPv6 don't keep a replica from being
// attached without.
func TestIPv6LeftOut(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, NFT)
		n, err := New(Config{RunDir: testenv.HostRunDir, Pool: pool4, Iptables: NFT})
		if err != nil {
			t.Fatal(err)
		}
		w.net = n
		w.start("app", member(network(1, false), 10))
		w.hasAnswerSoon("without a pool", w.Host, netip.AddrPortFrom(addr4(1, 10), 80))
	})
}

// TestIPv6Pause: the pause between two tries grows while they fail, and begins
// anew when IPv6 has been well for long.
func TestIPv6Pause(t *testing.T) {
	var f ipv6Failure
	at, failure := time.Now(), errors.New("no")
	for range 10 {
		f.note(failure, at)
		f.note(failure, at) // of the same try
		if f.last(at) == nil {
			t.Fatal("it is tried at once")
		}
		at = f.until
		if f.last(at) != nil {
			t.Fatal("it is never tried")
		}
	}
	if f.pause != retryIPv6Last {
		t.Errorf("after ten failures the pause is %s", f.pause)
	}
	f.note(failure, at.Add(time.Hour))
	if f.pause != retryIPv6First {
		t.Errorf("after an hour the pause is %s", f.pause)
	}
}

func (w *world) problems() []string {
	w.Helper()
	all, err := w.net.Problems(w.ctx)
	if err != nil {
		w.Fatal(err)
	}
	return all
}

func (w *world) wantProblem(when, part string) {
	w.Helper()
	if all := w.problems(); len(all) != 1 || !strings.Contains(all[0], part) {
		w.Errorf("%s: told are %q, want one with %q", when, all, part)
	}
}

func (w *world) wantNews(news <-chan struct{}, what string) {
	w.Helper()
	select {
	case <-news:
	case <-time.After(generous):
		w.Errorf("nobody noticed: %s", what)
	}
}
