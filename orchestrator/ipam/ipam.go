// Package ipam hands out subnets of the agent's pool and addresses of those
// subnets. It is pure: what is taken is an argument, the lowest free one wins.
package ipam

import (
	"fmt"
	"net/netip"
)

// SubnetBits is the prefix length of a network's subnet: 256 networks to a
// pool, with subnets no larger than /20 and no smaller than /24 (IPv6: /64).
func SubnetBits(pool netip.Prefix) int {
	if pool.Addr().Is6() {
		return 64
	}
	return min(max(pool.Bits()+8, 20), 24)
}

// Subnet returns the first subnet of pool that overlaps none of taken. The
// pool's first subnet is never handed out: it holds the reserved addresses of
// the rules (gateway, hold, refuse).
func Subnet(pool netip.Prefix, taken []netip.Prefix) (netip.Prefix, error) {
	bits := SubnetBits(pool)
	for p := next(netip.PrefixFrom(pool.Masked().Addr(), bits)); p.IsValid() && pool.Contains(p.Addr()); p = next(p) {
		if !overlapsAny(p, taken) {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("address pool %s has no free subnet for another network (%d in use); start the agent with a larger --pool", pool, len(taken))
}

// Size is how many addresses a subnet of the IPv4 pool has to hand out.
func Size(pool netip.Prefix) int { return 1<<(32-SubnetBits(pool)) - 2 }

// Addr returns the lowest free address of subnet. The first address (of zeros)
// and an IPv4 subnet's last one are never handed out.
func Addr(subnet netip.Prefix, taken map[netip.Addr]bool) (netip.Addr, error) {
	for a := subnet.Addr().Next(); subnet.Contains(a); a = a.Next() {
		if taken[a] || (a.Is4() && !subnet.Contains(a.Next())) {
			continue
		}
		return a, nil
	}
	return netip.Addr{}, fmt.Errorf("network %s has no free address; those of removed replicas come back after a minute", subnet)
}

func overlapsAny(p netip.Prefix, taken []netip.Prefix) bool {
	for _, t := range taken {
		if t.IsValid() && t.Overlaps(p) {
			return true
		}
	}
	return false
}

// next is the prefix right after p, or the zero Prefix at the end of the
// address space.
func next(p netip.Prefix) netip.Prefix {
	b := p.Addr().AsSlice()
	for i, carry := (p.Bits()-1)/8, byte(1)<<(7-(p.Bits()-1)%8); i >= 0 && carry > 0; i-- {
		b[i] += carry
		if b[i] >= carry {
			carry = 0
		} else {
			carry = 1
		}
		if i == 0 && carry > 0 {
			return netip.Prefix{}
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, p.Bits())
}
