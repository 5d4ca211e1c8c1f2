package netns

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dunnage/internal/fault"
	"dunnage/netns/rules"
	"dunnage/spec"
)

// serviceAddrs are the addresses that must be local for r.
func (n *Network) serviceAddrs(r spec.Routing) map[netip.Addr]bool {
	want := map[netip.Addr]bool{}
	pools := n.usable()
	for _, pool := range pools {
		res := rules.Reserved(pool)
		want[res.Hold], want[res.Refuse] = true, true
	}
	for _, s := range r.Services {
		want[s.Addr] = true
		if s.Addr6.IsValid() && len(pools) > 1 {
			want[s.Addr6] = true
		}
	}
	return want
}

// addServiceRoutes makes service addresses local: the host must find a route
// before OUTPUT can rewrite the destination.
func (n *Network) addServiceRoutes(r spec.Routing) error {
	have, err := localRoutes(n.usable())
	if err != nil {
		return err
	}
	lo, err := loopback()
	if err != nil {
		return err
	}
	for a := range n.serviceAddrs(r) {
		if _, ok := have[a]; ok {
			continue
		}
		if err := n.tolerate(a, addLocal(lo, a, n.gateway(a))); err != nil {
			return err
		}
	}
	return nil
}

func (n *Network) removeServiceRoutes(r spec.Routing) error {
	have, err := localRoutes(n.usable())
	if err != nil {
		return err
	}
	want := n.serviceAddrs(r)
	for a, route := range have {
		if want[a] {
			continue
		}
		if err := n.tolerate(a, deleteRoute(route)); err != nil {
			return err
		}
	}
	return nil
}

// localRoutes lists the local routes that dunnage made in the pools.
func localRoutes(pools []netip.Prefix) (map[netip.Addr]netlink.Route, error) {
	all := map[netip.Addr]netlink.Route{}
	for _, pool := range pools {
		list, err := listRoutes(family(pool), unix.RT_TABLE_LOCAL, unix.RTN_LOCAL)
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			if a, ok := netip.AddrFromSlice(r.Dst.IP); ok {
				all[a.Unmap()] = r
			}
		}
	}
	return all, nil
}

// listRoutes lists dunnage's routes of a type in a table.
func listRoutes(family, table, kind int) ([]netlink.Route, error) {
	filter := &netlink.Route{Table: table, Protocol: routeProtocol, Type: kind}
	list, err := retryDump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TYPE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return list, nil
}

func family(pool netip.Prefix) int {
	if pool.Addr().Is6() {
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_V4
}

func deleteRoute(r netlink.Route) error {
	if err := fault.Do("route delete", func() error { return netlink.RouteDel(&r) }); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete route to %s: %w", r.Dst, err)
	}
	return nil
}

// hostDamage names what the host lacks of that which the rules of r need:
// forwarding, its addresses, the local routes, the end of the pools.
func (n *Network) hostDamage(r spec.Routing) ([]spec.Damage, error) {
	var all []spec.Damage
	add := func(kind spec.DamageKind, format string, args ...any) {
		all = append(all, spec.Damage{Kind: kind, What: fmt.Sprintf(format, args...)})
	}
	pools := n.usable()
	for _, p := range pools {
		s := forwarding(p)
		now, err := n.settings.read(s)
		if err != nil {
			return nil, err
		}
		if now != s.value {
			add(spec.DamageSetting, "%s", s.instead(now))
		}
	}
	have, err := n.kernelState()
	if err != nil {
		return nil, err
	}
	for _, a := range ofFamilies(pools, have.lostGateways) {
		add(spec.DamageAddress, "address %s of the host gone", a)
	}
	want := n.serviceAddrs(r)
	var gone, surplus []netip.Addr
	for a := range want {
		if !have.local[a] {
			gone = append(gone, a)
		}
	}
	for _, a := range ofFamilies(pools, slices.Collect(maps.Keys(have.local))) {
		if !want[a] {
			surplus = append(surplus, a)
		}
	}
	if len(gone) > 0 {
		add(spec.DamageRoute, "local %s gone", routesTo(gone))
	}
	if len(surplus) > 0 {
		add(spec.DamageRoute, "local %s left over", routesTo(surplus))
	}
	for _, p := range pools {
		if !have.closed[p] {
			add(spec.DamageRoute, "unreachable route for the rest of %s gone", p)
		}
	}
	return all, nil
}

// routesTo is "route to A" or "routes to A and 9 more".
func routesTo(all []netip.Addr) string {
	first := slices.MinFunc(all, netip.Addr.Compare)
	if len(all) == 1 {
		return fmt.Sprintf("route to %s", first)
	}
	return fmt.Sprintf("routes to %s and %d more", first, len(all)-1)
}

// lostGateways lists the addresses of the host's own that it doesn't have.
func (n *Network) lostGateways() ([]netip.Addr, error) {
	lo, err := loopback()
	if err != nil {
		return nil, err
	}
	addrs, err := retryDump(func() ([]netlink.Addr, error) { return netlink.AddrList(lo, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	var lost []netip.Addr
	for _, pool := range n.pools() {
		gateway := rules.Reserved(pool).Gateway
		if !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.Equal(gateway.AsSlice()) }) {
			lost = append(lost, gateway)
		}
	}
	return lost, nil
}

// removeHost deletes dunnage's routes and addresses.
func (n *Network) removeHost() error {
	lo, err := loopback()
	if err != nil {
		return err
	}
	var all []error
	for _, pool := range n.pools() {
		for table, kind := range map[int]int{unix.RT_TABLE_LOCAL: unix.RTN_LOCAL, unix.RT_TABLE_MAIN: unix.RTN_UNREACHABLE} {
			list, err := listRoutes(family(pool), table, kind)
			all = append(all, err)
			for _, r := range list {
				all = append(all, deleteRoute(r))
			}
		}
		all = append(all, deleteGateway(lo, pool))
	}
	return errors.Join(all...)
}

// deleteGateway takes the host's address in a pool off it.
func deleteGateway(lo netlink.Link, pool netip.Prefix) error {
	err := fault.Do("host address delete", func() error {
		return netlink.AddrDel(lo, &netlink.Addr{IPNet: hostNet(rules.Reserved(pool).Gateway)})
	})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("delete the host's address in %s: %w", pool, err)
	}
	return nil
}
