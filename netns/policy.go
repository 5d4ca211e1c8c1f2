package netns

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"dunnage/netns/walk"
)

// policy is the policy routing of one family. Hosts that have none but the usual
// rules have it empty: then the kernel is asked for routes, and no table is read.
type policy struct {
	rules  []walk.PolicyRule
	routes []netlink.Route // of all tables
}

func readPolicy(v6 bool) (policy, error) {
	kind := netlink.FAMILY_V4
	if v6 {
		kind = netlink.FAMILY_V6
	}
	messages, err := retryDump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETRULE, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfInfomsg(kind))
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWRULE)
	})
	if err != nil {
		return policy{}, fmt.Errorf("list the rules of policy routing: %w", err)
	}
	var p policy
	for _, m := range messages { // in the order in which the kernel asks them
		if len(m) >= unix.SizeofRtMsg {
			p.rules = append(p.rules, parsePolicyRule(m))
		}
	}
	if !slices.ContainsFunc(p.rules, func(r walk.PolicyRule) bool { return !r.Plain() }) {
		return policy{}, nil
	}
	p.routes, err = retryDump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(kind, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return policy{}, fmt.Errorf("list the routes of all tables: %w", err)
	}
	return p, nil
}

// parsePolicyRule reads a fib_rule_hdr with its attributes. netlink.RuleList leaves
// the action out, which tells a blackhole from a table.
func parsePolicyRule(m []byte) walk.PolicyRule {
	const (
		invert         = 0x2 // FIB_RULE_INVERT
		sourcePortMask = 28  // FRA_SPORT_MASK
		portMask       = 29  // FRA_DPORT_MASK
	)
	action := int(m[7])
	r := walk.PolicyRule{Suppress: -1, Not: binary.NativeEndian.Uint32(m[8:])&invert != 0, Unknown: m[3] != 0}
	r.Ends = map[int]string{nl.FR_ACT_BLACKHOLE: "blackhole", nl.FR_ACT_PROHIBIT: "prohibit", nl.FR_ACT_UNREACHABLE: "unreachable"}[action]
	prefix := func(value []byte, bits byte) netip.Prefix {
		a, _ := netip.AddrFromSlice(value)
		return netip.PrefixFrom(a, int(bits))
	}
	ports := func(value []byte) [2]uint16 {
		return [2]uint16{binary.NativeEndian.Uint16(value), binary.NativeEndian.Uint16(value[2:])}
	}
	attributes(m[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
		number := func() uint32 { return binary.NativeEndian.Uint32(value) }
		name := func() string { return strings.TrimRight(string(value), "\x00") }
		switch kind {
		case nl.FRA_DST:
			r.To = prefix(value, m[1])
		case nl.FRA_SRC:
			r.From = prefix(value, m[2])
		case nl.FRA_IIFNAME:
			r.In = name()
		case nl.FRA_OIFNAME:
			r.Out = name()
		case nl.FRA_GOTO:
			r.Goto = int(number())
		case nl.FRA_PRIORITY:
			r.Priority = int(number())
		case nl.FRA_FWMARK:
			r.Mark = number()
		case nl.FRA_FWMASK:
			r.Mask = number()
		case nl.FRA_TABLE:
			r.Table = int(number())
		case nl.FRA_SUPPRESS_PREFIXLEN:
			r.Suppress = int(int32(number()))
		case nl.FRA_SUPPRESS_IFGROUP:
			r.Unknown = r.Unknown || number() != ^uint32(0)
		case nl.FRA_IP_PROTO:
			r.Protocol = value[0]
		case nl.FRA_SPORT_RANGE:
			r.FromPorts = ports(value)
		case nl.FRA_DPORT_RANGE:
			r.ToPorts = ports(value)
		case sourcePortMask, portMask: // Linux 6.15
			r.Unknown = r.Unknown || binary.NativeEndian.Uint16(value) != 0xffff
		case nl.FRA_FLOW, nl.FRA_PAD, nl.FRA_PROTOCOL: // select nothing
		default:
			r.Unknown = true
		}
	})
	return r
}

// deadRoutes are the kinds of routes that lead nowhere.
var deadRoutes = map[int]string{unix.RTN_BLACKHOLE: "blackhole", unix.RTN_PROHIBIT: "prohibit", unix.RTN_UNREACHABLE: "unreachable"}

// lost finds the widest route of the main table that ends the way to clients of the
// world: neither to a pool nor to private addresses, and no other comes before it.
func (n *Network) lost(v6 bool) (string, error) {
	kind, all := netlink.FAMILY_V4, netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if v6 {
		kind, all = netlink.FAMILY_V6, netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	routes, err := retryDump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(kind, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return "", fmt.Errorf("list routes: %w", err)
	}
	first := map[netip.Prefix]netlink.Route{}
	for _, r := range routes {
		to := all
		if r.Dst != nil {
			a, _ := netip.AddrFromSlice(r.Dst.IP)
			bits, _ := r.Dst.Mask.Size()
			to = netip.PrefixFrom(a.Unmap(), bits)
		}
		if known, has := first[to]; !has || r.Priority < known.Priority {
			first[to] = r
		}
	}
	widest, why := netip.Prefix{}, ""
	for to, r := range first {
		ends := ""
		if kind := deadRoutes[r.Type]; kind != "" {
			ends = "its route says " + kind
		} else if r.Type == unix.RTN_UNICAST && r.Protocol != unix.RTPROT_KERNEL && linkOf(r) == "lo" { // the kernel's are about its own addresses
			ends = walk.ToLoopback
		}
		if ends == "" || to.Addr().IsPrivate() || to != all && slices.ContainsFunc(n.pools(), to.Overlaps) {
			continue
		}
		if why == "" || to.Bits() < widest.Bits() || to.Bits() == widest.Bits() && to.Addr().Less(widest.Addr()) {
			widest, why = to, fmt.Sprintf("%s: %s", to, ends)
		}
	}
	return why, nil
}

// route looks an address up in a table, as the kernel would. A client of the world
// (zero) has the default route; where there are others, it may have one of those.
func (p policy) route(table int, a netip.Addr) (best walk.TableRoute, ok bool) {
	best.Bits = -1
	kinds := map[string]bool{}
	for _, r := range p.routes {
		if r.Table != table || r.Flags&unix.RTNH_F_DEAD != 0 {
			continue
		}
		bits := 0
		if r.Dst != nil {
			bits, _ = r.Dst.Mask.Size()
		}
		ends := deadRoutes[r.Type]
		switch {
		case !a.IsValid() && (r.Type == unix.RTN_LOCAL || r.Type == unix.RTN_BROADCAST || r.Type == unix.RTN_MULTICAST || r.Type == unix.RTN_ANYCAST):
			continue // no client's
		case !a.IsValid():
			kinds[ends] = true
			if ok && bits >= best.Bits {
				continue
			}
		case r.Dst != nil && !r.Dst.Contains(a.AsSlice()), bits <= best.Bits:
			continue
		}
		ok = r.Type != unix.RTN_THROW
		best = walk.TableRoute{Bits: bits, Ends: ends, Route: walk.Route{Link: linkOf(r), Local: r.Type == unix.RTN_LOCAL}}
		if ends != "" {
			best.Dead = "its route says " + ends
		}
	}
	if !a.IsValid() && ok {
		best.Maybe = best.Bits > 0 || len(kinds) > 1
	}
	return best, ok
}

// linkOf names the link of a route, or of its first next hop.
func linkOf(r netlink.Route) string {
	index := r.LinkIndex
	if index == 0 && len(r.MultiPath) > 0 {
		index = r.MultiPath[0].LinkIndex
	}
	link, err := net.InterfaceByIndex(index)
	if err != nil {
		return ""
	}
	return link.Name
}
