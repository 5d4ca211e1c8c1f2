package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"dunnage/netns/rules"
	"dunnage/netns/walk"
	"dunnage/spec"
)

// Trace follows packets through the kernel's rules, of everybody, as they are
// now, with their counters; see package walk. With each come the connections that
// conntrack has for the address. Packets whose source is an address of the host
// are the host's own.
func (n *Network) Trace(ctx context.Context, packets []spec.Packet) ([]spec.Trace, error) {
	sets := map[bool]familyRules{}
	var wg sync.WaitGroup
	var read [2]familyRules
	var errs [2]error
	for i, v6 := range []bool{false, true} {
		if slices.ContainsFunc(packets, func(p spec.Packet) bool { return p.To.Addr().Is6() == v6 }) {
			wg.Go(func() {
				read[i], errs[i] = n.readFamily(ctx, v6)
				if errs[i] == nil {
					read[i].policy, errs[i] = readPolicy(v6)
				}
				if errs[i] == nil {
					read[i].lost, errs[i] = n.lost(v6)
				}
				if errs[i] == nil {
					read[i].ipsec, errs[i] = readIPsec(v6)
				}
			})
		}
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	sets[false], sets[true] = read[0], read[1]
	flows, err := n.flows(ctx, 0)
	if err != nil {
		return nil, err
	}
	programs, err := readLinkPrograms()
	if err != nil {
		return nil, err
	}
	var all []spec.Trace
	for _, p := range packets {
		set := sets[p.To.Addr().Is6()]
		facts := n.facts(p, set.policy)
		facts.Lost, facts.IPsec, facts.Programs = set.lost, set.ipsec, programs.at
		t := walk.Follow(set.sets, facts)
		t.In, t.Unseen, t.Flows = facts.In, append(t.Unseen, set.unseen...), countFlows(flows, p)
		t.Away = !facts.Local(p.To.Addr())
		if facts.In != "" && facts.Packet.From != spec.FromHost {
			doubts, err := linkDoubts(facts.In, p.Source, p.To.Addr().Is6())
			if err != nil {
				return nil, err
			}
			t.Unseen = append(append(t.Unseen, doubts...), set.arp...)
		}
		all = append(all, t)
	}
	return all, nil
}

// familyRules are the rules that packets of one family meet.
type familyRules struct {
	sets   []walk.Ruleset
	unseen []string
	arp    []string // chains that may keep neighbours from finding each other
	policy policy
	lost   string // see walk.Facts
	ipsec  []walk.IPsecPolicy
}

// readFamily reads the backend in use, the other one and nf_tables' own tables.
func (n *Network) readFamily(ctx context.Context, v6 bool) (f familyRules, err error) {
	tools := []programs{n.tables.v4, n.tables.other4}
	if v6 {
		tools = []programs{n.tables.v6, n.tables.other6}
	}
	var foreign []string
	for _, p := range tools {
		if !p.inUse() {
			continue
		}
		text, err := p.read(ctx, "-c")
		if err != nil {
			return f, err
		}
		f.sets = append(f.sets, walk.Iptables(p.name(), text))
		foreign = append(foreign, walk.Foreign(text)...)
	}
	native, err := n.conntrack.nativeTables()
	if err != nil || native == 0 && len(foreign) == 0 {
		return f, err
	}
	nft, err := lookPath("nft")
	if err != nil {
		f.unseen = []string{"the tables that nft has made: the program nft isn't installed"}
		return f, nil
	}
	list, err := run(ctx, "", nft, "-j", "list", "ruleset")
	if err != nil {
		return f, fmt.Errorf("read rules: %w", err)
	}
	listing, err := run(ctx, "", nft, "-a", "list", "ruleset")
	if err != nil {
		return f, fmt.Errorf("read rules: %w", err)
	}
	set, err := walk.NFT([]byte(list), listing, v6, foreign)
	f.sets = append(f.sets, set)
	if !v6 && err == nil {
		f.arp, err = walk.ARP([]byte(list))
	}
	return f, err
}

// nativeTables counts the tables of nf_tables that iptables doesn't show.
func (s *netfilter) nativeTables() (count int, err error) {
	all, err := s.tables()
	for _, t := range all {
		if !t.shown() {
			count++
		}
	}
	return count, err
}

// facts are what the host knows of a packet.
func (n *Network) facts(p spec.Packet, by policy) walk.Facts {
	k := &kernelRoutes{known: map[netip.Addr]walk.Route{}}
	pool := n.cfg.Pool
	if p.To.Addr().Is6() {
		pool = n.cfg.Pool6
	}
	f := walk.Facts{Packet: p, Strange: n.pools(), Route: k.route, Local: func(a netip.Addr) bool { return k.route(a).Local }}
	if pool.IsValid() {
		f.Hold = rules.Reserved(pool).Hold
	}
	if p.Source.IsValid() && f.Local(p.Source) {
		f.Packet.From = spec.FromHost
	}
	switch {
	case p.From == spec.FromHost || f.Packet.From == spec.FromHost:
		if !p.Source.IsValid() {
			f.Packet.Source = k.source(p.To.Addr())
		}
	case p.Source.IsValid():
		f.In = k.route(p.Source).Link
		if f.In == "" || f.In == "lo" { // by which nobody comes, whatever a route says
			f.In = worldLink(p.To.Addr())
		}
	default:
		f.In = worldLink(p.To.Addr())
	}
	k.in = f.In
	if p.To.Addr().Is4() {
		f.Filter = reverseFilter
	}
	f.Policy = by.rules
	f.Table = func(table int, a netip.Addr) (walk.TableRoute, bool) {
		r, ok := by.route(table, a)
		r.Stays = stays(k.in, p.To.Addr().Is6())
		return r, ok
	}
	return f
}

// kernelRoutes asks the kernel for routes, for each address once.
type kernelRoutes struct {
	known map[netip.Addr]walk.Route
	in    string
}

func (k *kernelRoutes) route(a netip.Addr) walk.Route {
	r, ok := k.known[a]
	if !ok {
		r = routeTo(a)
		k.known[a] = r
	}
	r.Stays = ""
	if !r.Local && r.Dead == "" {
		r.Stays = stays(k.in, a.Is6())
	}
	return r
}

func routeTo(a netip.Addr) walk.Route {
	found, err := netlink.RouteGet(net.IP(a.AsSlice()))
	switch {
	case errors.Is(err, unix.ENETUNREACH):
		return walk.Route{Dead: "the host has no route to it"}
	case errors.Is(err, unix.EHOSTUNREACH):
		return walk.Route{Dead: "nobody has this address: its route says unreachable"}
	case errors.Is(err, unix.EINVAL):
		return walk.Route{Dead: "its route says blackhole"}
	case errors.Is(err, unix.EACCES):
		return walk.Route{Dead: "its route says prohibit"}
	case err != nil:
		return walk.Route{Dead: "the host doesn't route it: " + err.Error()}
	case len(found) == 0:
		return walk.Route{Dead: "the host has no route to it"}
	}
	r := walk.Route{Local: found[0].Type == unix.RTN_LOCAL, Near: len(found[0].Gw) == 0 && found[0].Via == nil}
	if link, err := net.InterfaceByIndex(found[0].LinkIndex); err == nil {
		r.Link = link.Name
	}
	return r
}

// source is the address from which the host itself sends.
func (k *kernelRoutes) source(to netip.Addr) netip.Addr {
	found, err := netlink.RouteGet(net.IP(to.AsSlice()))
	if err != nil || len(found) == 0 {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(found[0].Src)
	return a.Unmap()
}

// stays says why the host passes nothing on that comes by the link, empty if it does.
func stays(in string, v6 bool) string {
	off := func(s sysctl) bool {
		v, err := s.read()
		return err == nil && v == "0"
	}
	all := sysctl{name: "net/ipv4/ip_forward"}
	if v6 {
		all.name = "net/ipv6/conf/all/forwarding"
	}
	one := all
	if !v6 && in != "" { // it decides; that of all links only switches each
		one = linkForwarding(in)
	}
	switch {
	case !off(one):
	case off(all):
		return "the host forwards nothing: " + all.dotted() + " is 0"
	default:
		return "the host forwards nothing that comes by " + in + ": " + linkForwarding(in).dotted() + " is 0"
	}
	return ""
}

// reverseFilter is a link's rp_filter: the higher one of its own and that of all.
func reverseFilter(link string) walk.ReverseFilter {
	most := walk.FilterOff
	for _, of := range []string{"all", link} {
		v, err := sysctl{name: "net/ipv4/conf/" + of + "/rp_filter"}.read()
		n, err2 := strconv.Atoi(v)
		if err == nil && err2 == nil {
			most = max(most, walk.ReverseFilter(n))
		}
	}
	return most
}

// worldLink is the link by which clients of the world come to an address: the one
// that has it, else the one of the default route; empty = not known.
func worldLink(to netip.Addr) string {
	links, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil || l.Flags&net.FlagLoopback != 0 {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == to {
				return l.Name
			}
		}
	}
	route, err := defaultRoute(family(netip.PrefixFrom(to, to.BitLen())))
	if err != nil || route == nil {
		return ""
	}
	link, err := net.InterfaceByIndex(route.LinkIndex)
	if err != nil {
		return ""
	}
	return link.Name
}

// countFlows counts the connections for the packet's address by who answers them.
func countFlows(all []entry, p spec.Packet) []spec.FlowCount {
	proto := uint8(unix.IPPROTO_TCP)
	if p.Protocol == spec.UDP {
		proto = unix.IPPROTO_UDP
	}
	count := map[netip.Addr]int{}
	for _, e := range all {
		to := e.dst == p.To.Addr() && (p.To.Port() == 0 || e.dport == p.To.Port())
		if to && e.proto == proto && e.live() {
			count[e.answers]++
		}
	}
	var out []spec.FlowCount
	for a, n := range count {
		out = append(out, spec.FlowCount{Answers: a, Count: n})
	}
	slices.SortFunc(out, func(a, b spec.FlowCount) int { return a.Answers.Compare(b.Answers) })
	return out
}
