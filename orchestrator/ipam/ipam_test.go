package ipam

import (
	"net/netip"
	"testing"
)

func TestSubnet(t *testing.T) {
	for _, tc := range []struct{ pool, first, second string }{
		{"10.208.0.0/12", "10.208.16.0/20", "10.208.32.0/20"},
		{"10.213.0.0/16", "10.213.1.0/24", "10.213.2.0/24"},
		{"10.9.8.0/22", "10.9.9.0/24", "10.9.10.0/24"},
		{"fd00:6475:6e00::/48", "fd00:6475:6e00:1::/64", "fd00:6475:6e00:2::/64"},
	} {
		pool := netip.MustParsePrefix(tc.pool)
		a, err := Subnet(pool, nil)
		if err != nil || a.String() != tc.first {
			t.Errorf("first subnet of %s = %v, %v; want %s", pool, a, err, tc.first)
		}
		b, err := Subnet(pool, []netip.Prefix{a})
		if err != nil || b.String() != tc.second {
			t.Errorf("second subnet of %s = %v, %v; want %s", pool, b, err, tc.second)
		}
	}
}

func TestSubnetExhausted(t *testing.T) {
	pool := netip.MustParsePrefix("255.255.252.0/22")
	var taken []netip.Prefix
	for range 3 {
		p, err := Subnet(pool, taken)
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, p)
	}
	if p, err := Subnet(pool, taken); err == nil {
		t.Fatalf("got %v from a pool that is used up", p)
	}
}

func TestAddr(t *testing.T) {
	subnet := netip.MustParsePrefix("10.9.9.0/29")
	taken := map[netip.Addr]bool{}
	var got []string
	for {
		a, err := Addr(subnet, taken)
		if err != nil {
			break
		}
		taken[a] = true
		got = append(got, a.String())
	}
	if len(got) != 6 || got[0] != "10.9.9.1" || got[5] != "10.9.9.6" {
		t.Fatalf("addresses of %s: %v", subnet, got)
	}
	delete(taken, netip.MustParseAddr("10.9.9.3"))
	if a, err := Addr(subnet, taken); err != nil || a.String() != "10.9.9.3" {
		t.Fatalf("freed address: %v, %v", a, err)
	}
}

func TestSizeIsWhatAddrHandsOut(t *testing.T) {
	pool := netip.MustParsePrefix("10.9.0.0/16")
	subnet, err := Subnet(pool, nil)
	if err != nil {
		t.Fatal(err)
	}
	taken := map[netip.Addr]bool{}
	for {
		a, err := Addr(subnet, taken)
		if err != nil {
			break
		}
		taken[a] = true
	}
	if len(taken) != Size(pool) {
		t.Errorf("%s has %d addresses, Size says %d", subnet, len(taken), Size(pool))
	}
}
