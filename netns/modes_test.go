package netns

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dunnage/internal/testenv"
	"dunnage/spec"
)

// TestModes attaches to the host's network and to none, and takes it back.
func TestModes(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		for id, mode := range map[string]spec.NetworkMode{"in-host": spec.NetworkHost, "in-none": spec.NetworkNone} {
			for range 2 { // the second time, all of it is there
				if err := w.net.Attach(w.ctx, spec.Endpoint{Replica: id, Network: mode, Hostname: id}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if own, err := os.Readlink(ownNamespace); err != nil || !strings.Contains(testenv.OpenNS(t, w.net.Namespace("in-host")).Run(t, "readlink", "/proc/self/ns/net"), own) {
			t.Errorf("the replica in the host's network isn't in %s (%v)", own, err)
		}
		none := testenv.OpenNS(t, w.net.Namespace("in-none"))
		if links := strings.Fields(none.Run(t, "sh", "-c", "ls /proc/self/net/dev_snmp6")); !slices.Equal(links, []string{"lo"}) {
			t.Errorf("in no network there are %q", links)
		}
		testenv.Serve(t, none, "alone", 80)
		w.wantAnswer("itself", none, "tcp", netip.MustParseAddr("127.0.0.1"), 80, "alone", netip.Addr{})
		w.wantNobody("from the host", w.Host, "tcp", netip.MustParseAddr("127.0.0.1"), 80)

		want := []string{"in-host", "in-none"}
		if some, whole, err := w.net.Attached(w.ctx); err != nil || !slices.Equal(some, want) || !slices.Equal(whole, want) {
			t.Errorf("attached %v, whole %v (%v)", some, whole, err)
		}
		for _, id := range want {
			if err := w.net.removeNamespace(id); err != nil {
				t.Fatal(err)
			}
		}
		if _, whole, err := w.net.Attached(w.ctx); err != nil || len(whole) > 0 {
			t.Errorf("without their namespaces, %v are whole (%v)", whole, err)
		}
		for _, id := range want {
			if err := w.net.Detach(w.ctx, id); err != nil {
				t.Fatal(err)
			}
		}
		if some, _, err := w.net.Attached(w.ctx); err != nil || len(some) > 0 {
			t.Errorf("detached, %v are left (%v)", some, err)
		}
	})
}

// TestHostGateway asks a server on the host by the name that extra_hosts gives
// it, from wherever a replica can be.
func TestHostGateway(t *testing.T) {
	testenv.Host(t, func() {
		w := newWorld(t, Auto)
		places := map[string]spec.Endpoint{
			"outside":  {Addresses: []spec.EndpointAddress{member(network(1, false), 10)}},
			"internal": {Addresses: []spec.EndpointAddress{member(network(2, true), 10)}},
			"in-host":  {Network: spec.NetworkHost},
		}
		for id, e := range places {
			e.Replica, e.Hosts = id, []spec.HostName{{Name: "host.docker.internal"}}
			if err := w.net.Attach(w.ctx, e); err != nil {
				t.Fatal(err)
			}
		}
		w.apply(spec.Routing{Networks: []spec.NetworkAddressing{network(1, false), network(2, true)}})
		testenv.Serve(t, w.Host, "host", 8080)
		for id := range places {
			text, err := os.ReadFile(w.net.Files(id).Hosts)
			if err != nil {
				t.Fatal(err)
			}
			before, _, _ := strings.Cut(string(text), "\thost.docker.internal\n")
			addr := netip.MustParseAddr(before[strings.LastIndex(before, "\n")+1:])
			w.wantAnswer(id, testenv.OpenNS(t, w.net.Namespace(id)), "tcp", addr, 8080, "host", netip.Addr{})
		}
	})
}

func TestResolverOfTheManifest(t *testing.T) {
	const host = "search host.example\nnameserver 127.0.0.53\nnameserver 192.0.2.53\noptions edns0 trust-ad\n"
	server := netip.MustParseAddr("192.0.2.1")
	for name, c := range map[string]struct {
		mode spec.NetworkMode
		dns  spec.DNS
		want string
	}{
		"nothing said":         {want: "search host.example\nnameserver 192.0.2.53\noptions edns0 trust-ad\n"},
		"the host's network":   {mode: spec.NetworkHost, want: host},
		"another server":       {dns: spec.DNS{Servers: []netip.Addr{server}}, want: "search host.example\noptions edns0 trust-ad\nnameserver 192.0.2.1\n"},
		"all of it":            {spec.NetworkHost, spec.DNS{Servers: []netip.Addr{server}, Search: []string{"a.example", "b.example"}, Options: []string{"ndots:2"}}, "nameserver 192.0.2.1\nsearch a.example b.example\noptions ndots:2\n"},
		"nowhere to search":    {dns: spec.DNS{Search: []string{"."}}, want: "nameserver 192.0.2.53\noptions edns0 trust-ad\n"},
		"a resolver on its lo": {dns: spec.DNS{Servers: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}, want: "search host.example\noptions edns0 trust-ad\nnameserver 127.0.0.1\n"},
	} {
		got, err := plainNetwork(t, host, "").resolvText(spec.Endpoint{Network: c.mode, DNS: c.dns})
		if err != nil || got != c.want {
			t.Errorf("%s: %q (%v), want %q", name, got, err, c.want)
		}
	}
}

func TestHostsOfTheManifest(t *testing.T) {
	n := plainNetwork(t, "", "")
	n.cfg.Hosts = filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(n.cfg.Hosts, []byte("127.0.0.1 localhost\n198.51.100.1 legacy"), 0o644); err != nil {
		t.Fatal(err)
	}
	hosts := []spec.HostName{{Name: "db", Addr: netip.MustParseAddr("192.0.2.9")}, {Name: "gate"}}
	names := []spec.NamedAddress{{Addr: addr4(1, 2), Names: []string{"db"}}}
	const loopback = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	for name, c := range map[string]struct {
		e    spec.Endpoint
		want string
	}{
		"before the services": {
			spec.Endpoint{Hostname: "web", DomainName: "example.org", Addresses: []spec.EndpointAddress{member(network(1, false), 10)}, Hosts: hosts, Names: names},
			loopback + "10.213.1.10\tweb.example.org web\nfd00:d:0:1::a\tweb.example.org web\n192.0.2.9\tdb\n" + gateway(false).String() + "\tgate\n10.213.1.2\tdb\n",
		},
		"no network":         {spec.Endpoint{Network: spec.NetworkNone, Hostname: "job"}, loopback + "127.0.0.1\tjob\n"},
		"the host's network": {spec.Endpoint{Network: spec.NetworkHost, Hostname: "machine", Hosts: hosts[:1]}, "192.0.2.9\tdb\n127.0.0.1 localhost\n198.51.100.1 legacy"},
	} {
		if got, err := n.hostsText(c.e); err != nil || got != c.want {
			t.Errorf("%s: %q (%v), want %q", name, got, err, c.want)
		}
	}
}
