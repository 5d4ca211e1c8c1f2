package rules

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"dunnage/spec"
)

// TestStickyCoversAllClients: every last byte of an address leads to exactly
// one backend, whatever stands before it, by the service's address as by its
// port; and each backend has its weight's share of them, to less than one.
func TestStickyCoversAllClients(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		backends := testBackends("app", 1, 10, rapid.IntRange(1, 40).Draw(t, "backends"))
		for i := range backends {
			backends[i].Weight = rapid.SampledFrom([]int{0, 1, 2, 9, 100}).Draw(t, "weight")
		}
		v4, v6, err := Render(stickyRouting(backends), testConfig)
		if err != nil {
			t.Fatal(err)
		}
		front := rapid.SliceOfN(rapid.Byte(), 15, 15).Draw(t, "front")
		for f, d := range map[family]Document{newFamily(testConfig.Pool): v4, newFamily(testConfig.Pool6): v6} {
			checkDispatch(t, d.Table("nat"))
			count := map[string]int{}
			for last := range 256 {
				src := netip.AddrFrom16([16]byte(append(slices.Clone(front), byte(last))))
				if !f.v6 {
					src = netip.AddrFrom4([4]byte{front[0], front[1], front[2], byte(last)})
				}
				count[f.only(t, d, src, clientEndingIn(f, last))]++
			}
			for _, b := range backends {
				got, want := count[dnat(f.destination(f.backend(b), 0))], 256*float64(weight(b))/float64(total(backends))
				if math.Abs(float64(got)-want) >= 1 {
					t.Fatalf("%s has %d of 256 clients, want %.2f", b.Replica, got, want)
				}
			}
		}
	})
}

// TestStickyMovesFew: when a backend comes, and so when it goes again, little
// more clients move than those that it gets.
func TestStickyMovesFew(t *testing.T) {
	for _, weights := range [][]int{{1, 1}, {1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1, 1, 1, 1}, {1, 9, 1}, {9, 1, 9}, {10, 10, 10, 1}} {
		moved, least := 0, 0.0
		for service := range 20 {
			all := testBackends(fmt.Sprint("app", service), 1, 10, len(weights))
			for i, w := range weights {
				all[i].Weight = w
			}
			few, many := assign(all[:len(all)-1]), assign(all)
			for b := range buckets {
				if few[b] != many[b] {
					moved++
				}
			}
			least += buckets * float64(weights[len(weights)-1]) / float64(total(all))
		}
		t.Logf("weights %v: the last one's coming moves %.1f %% of the clients, at least %.1f %% must",
			weights, float64(moved)*100/20/buckets, least*100/20/buckets)
		if over := float64(moved) - least; over > 0.04*20*buckets {
			t.Errorf("weights %v: %d moved, %.0f must", weights, moved, least)
		}
	}
}

// TestStickyAgrees: routes of a service name the same replica for a client,
// though their networks order the replicas' addresses differently.
func TestStickyAgrees(t *testing.T) {
	here := testBackends("app", 1, 10, 7)
	there := testBackends("app", 2, 10, 7)
	for i := range there {
		there[i].Addr = addr4(2, 90-i)
	}
	slices.SortFunc(there, func(a, b spec.Backend) int { return a.Addr.Compare(b.Addr) })
	a, b := assign(here), assign(there)
	for i := range buckets {
		if here[a[i]].Replica != there[b[i]].Replica {
			t.Errorf("bucket %d: %s and %s", i, here[a[i]].Replica, there[b[i]].Replica)
		}
	}
}

func stickyRouting(backends []spec.Backend) spec.Routing {
	one := testNetwork(1, false)
	return spec.Routing{
		Networks: []spec.NetworkAddressing{one},
		Services: []spec.ServiceRoute{{
			Project: "web", Service: "app", Network: one.ID, Addr: addr4(1, 2), Addr6: addr6(1, 2), Sticky: true, Backends: backends,
		}},
		Published: []spec.PublishedRoute{{
			Project: "web", Service: "app", Port: 80, Target: 80, Protocol: spec.TCP, Sticky: true, Backends: backends,
		}},
	}
}

// only is the one verdict for a new connection of a client to the service's
// address and of another one to its published port.
func (f family) only(t tb, d Document, client, other netip.Addr) string {
	t.Helper()
	p := packet{in: "eth0", src: client, dst: pick(f, addr4(1, 2), addr6(1, 2)), proto: spec.TCP, port: 80, toLocal: true}
	service := walk(t, d.Table("nat"), chainPrerouting, p)
	p.src, p.dst = other, pick(f, netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:7::7"))
	published := walk(t, d.Table("nat"), chainPrerouting, p)
	for verdict, share := range service {
		if share == 1 && published[verdict] == 1 {
			return verdict
		}
	}
	t.Fatalf("%s by the service's address: %v; %s by its port: %v", client, service, other, published)
	return ""
}

// clientEndingIn is a client somewhere else whose address has the last byte.
func clientEndingIn(f family, last int) netip.Addr {
	return pick(f, netip.AddrFrom4([4]byte{203, 0, 113, byte(last)}), netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(last)}))
}

// checkDispatch: a new connection meets no more than sixteen rules a level.
func checkDispatch(t tb, table Table) {
	t.Helper()
	for _, c := range table.Chains {
		if strings.HasPrefix(c.Name, Prefix+kindBuckets+"-") && len(c.Rules) > fan {
			t.Fatalf("chain %s has %d rules, want %d at most", c.Name, len(c.Rules), fan)
		}
	}
}
