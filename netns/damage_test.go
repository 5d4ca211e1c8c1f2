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

func TestDamageIsNamedNFT(t *testing.T)    { testenv.Host(t, func() { testDamageIsNamed(t, NFT) }) }
func TestDamageIsNamedLegacy(t *testing.T) { testenv.Host(t, func() { testDamageIsNamed(t, Legacy) }) }

// testDamageIsNamed: what others do to ours is seen, named, and made good by
// the same Apply and Attach as always, while their rules stay as they are.
func testDamageIsNamed(t *testing.T, backend Backend) {
	w := newWorld(t, backend)
	ipt, link := "iptables-"+string(backend), hostLink("app")
	testenv.Run(t, "sh", "-ec", ipt+" -N OWNER; "+ipt+" -A FORWARD -j OWNER; "+ipt+" -t nat -A PREROUTING -p tcp --dport 9999 -j REDIRECT --to-ports 22")
	one := member(network(1, false), 10)
	app := w.start("app", one)
	w.sleeper(w.net.Namespace("app")) // by which the namespace is found without its mount
	e := spec.Endpoint{Replica: "app", Hostname: "app", Addresses: []spec.EndpointAddress{one}}
	r := spec.Routing{
		Networks:  []spec.NetworkAddressing{network(1, false)},
		Services:  []spec.ServiceRoute{{Project: "web", Service: "app", Network: network(1, false).ID, Addr: addr4(1, 2), Addr6: addr6(1, 2), Backends: []spec.Backend{app.backend(0)}}},
		Published: published(8080, 80, app.backend(0)),
	}
	w.apply(r)
	inside := "nsenter --net=" + w.net.Namespace("app") + " ip link set eth0 "
	dump := ipt + "-save > /mnt/old"
	testenv.Run(t, "sh", "-ec", dump)
	type damage struct {
		damage string
		want   []string // parts of what is named, in any order
	}
	var dormant []damage
	if backend == NFT {
		dormant = []damage{
			{"nft 'add table ip nat { flags dormant; }'", []string{"table: IPv4 nat: table dormant"}},
			{"nft 'add table ip6 filter { flags dormant; }'", []string{"table: IPv6 filter: table dormant"}},
			{ipt + " -t nat -F; nft 'add table ip nat { flags dormant; }'", []string{"table: IPv4 nat: table dormant", "chain: IPv4 nat: chains DUNNAGE-", "jump: IPv4 nat: jumps from"}},
		}
	}
	for _, c := range append(dormant, []damage{
		{ipt + " -t nat -F DUNNAGE-PUBLISHED", []string{"chain: IPv4 nat: chain DUNNAGE-PUBLISHED emptied"}},
		{ipt + " -t nat -F", []string{"chain: IPv4 nat: chains DUNNAGE-", "jump: IPv4 nat: jumps from PREROUTING, OUTPUT, POSTROUTING gone"}},
		{"ip6" + ipt[2:] + " -F FORWARD", []string{"jump: IPv6 filter: jump from FORWARD gone"}},
		{ipt + " -t nat -I PREROUTING -p tcp --dport 8080 -j DNAT --to-destination 192.0.2.1", []string{"jump: IPv4 nat: jump from PREROUTING behind '-p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.1'"}},
		{ipt + " -t nat -I OUTPUT -p tcp --dport 8080 -j REDIRECT --to-ports 22", []string{"jump: IPv4 nat: jump from OUTPUT behind"}},
		{ipt + " -A DUNNAGE-TO -j ACCEPT", []string{"chain: IPv4 filter: chain DUNNAGE-TO: rule '-j ACCEPT' added"}},
		{ipt + " -I DUNNAGE-FORWARD -j DROP", []string{"chain: IPv4 filter: chain DUNNAGE-FORWARD: rule '-j DROP' added"}},
		{ipt + "-restore < /mnt/old; " + ipt + " -t raw -D PREROUTING 1", []string{"jump: IPv4 raw: jump from PREROUTING gone"}},
		{"sysctl -qw net.ipv4.ip_forward=0", []string{"setting: setting net.ipv4.ip_forward: 0 instead of 1"}},
		{"sysctl -qw net.ipv6.conf.all.forwarding=0", []string{"setting: setting net.ipv6.conf.all.forwarding: 0 instead of 1"}},
		{"sysctl -qw net.ipv4.conf." + link + ".route_localnet=0", []string{"setting app: setting net.ipv4.conf." + link + ".route_localnet: 0 instead of 1"}},
		{"ip route del local " + addr4(1, 2).String() + " table local", []string{"route: local route to 10.213.1.2 gone"}},
		{"ip route del unreachable " + pool4.String(), []string{"route: unreachable route for the rest of 10.213.0.0/16 gone"}},
		{"ip addr del " + gateway(false).String() + "/32 dev lo", []string{"address: address 10.213.0.1 of the host gone", "route app: route to 10.213.1.10 of app gone"}},
		{"ip route del " + one.Addr.String(), []string{"route app: route to 10.213.1.10 of app gone"}},
		{"ip neigh del " + one.Addr6.String() + " dev " + link, []string{"neighbour app: neighbour " + one.Addr6.String() + " of app gone or another"}},
		{"ip link set " + link + " down", []string{"link app: link " + link + " of app down"}},
		{"sysctl -qw net.ipv4.conf." + link + ".forwarding=0", []string{"setting app: setting net.ipv4.conf." + link + ".forwarding: 0 instead of 1"}},
		{"sysctl -qw net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf." + link + ".disable_ipv6=1", []string{"route app: route to " + one.Addr6.String() + " of app gone", "neighbour app: neighbour " + one.Addr6.String()}},
		{"ip link set " + link + " mtu 576", []string{"link app: MTU of link " + link + " of app is 576 instead of 1500", "route app: route to " + one.Addr6.String() + " of app gone", "neighbour app: neighbour " + one.Addr6.String()}},
		{"ip link set " + link + " address 02:11:22:33:44:55", []string{"link app: hardware address of link " + link + " of app is 02:11:22:33:44:55 instead of 02:", "neighbour app: neighbour " + one.Addr.String(), "neighbour app: neighbour " + one.Addr6.String()}},
		{"ip link set " + link + " arp off", []string{"link app: ARP of link " + link + " of app off", "neighbour app: neighbour " + one.Addr.String(), "neighbour app: neighbour " + one.Addr6.String()}},
		{inside + "address 02:11:22:33:44:55", []string{"namespace app: hardware address of link eth0 of app is 02:11:22:33:44:55 instead of 02:"}},
		{inside + "arp off", []string{"namespace app: ARP of link eth0 of app off, inside its namespace"}},
		{inside + "arp off; " + inside + "arp on", []string{"namespace app: neighbour 169.254.1.1 of app gone or another, inside its namespace"}},
		{inside + "mtu 576", []string{"namespace app: MTU of eth0 of app is 576 instead of 1500, inside its namespace"}},
		{inside + "mtu 9000", []string{"namespace app: MTU of eth0 of app is 9000 instead of 1500, inside its namespace"}},
		{"nsenter --net=" + w.net.Namespace("app") + " ip link set eth0 down", []string{"namespace app: eth0 of app down, inside its namespace"}},
		{"ip link del " + link, []string{"link app: link " + link + " of app gone"}},
		{"umount -l " + w.net.Namespace("app"), []string{"namespace app: namespace of app not mounted"}},
	}...) {
		w.wantDamage("before "+c.damage, r)
		testenv.Run(t, "sh", "-ec", c.damage)
		before := withoutOurs(save(t, backend, "iptables")) + withoutOurs(save(t, backend, "ip6tables"))
		w.wantDamage("after "+c.damage, r, c.want...)
		w.apply(r)
		if err := w.net.Attach(w.ctx, e); err != nil {
			t.Fatal(err)
		}
		w.wantDamage("after the repair of "+c.damage, r)
		w.answersSoon("after the repair of " + c.damage)
		if after := withoutOurs(save(t, backend, "iptables")) + withoutOurs(save(t, backend, "ip6tables")); after != before {
			t.Errorf("the repair of %s has changed rules of others:\n%s\nwere\n%s", c.damage, after, before)
		}
	}
}

// answersSoon asks again while the kernel drops packets at a link that has just
// been set up.
func (w *world) answersSoon(when string) {
	w.Helper()
	w.hasAnswerSoon(when, w.Client, netip.AddrPortFrom(w.HostAddr, 8080))
}

func (w *world) hasAnswerSoon(when string, from *testenv.NS, to netip.AddrPort) {
	w.Helper()
	var err error
	for began := time.Now(); time.Since(began) < generous; time.Sleep(10 * time.Millisecond) {
		if _, err = testenv.Ask(from, "tcp", to); err == nil {
			return
		}
	}
	w.Errorf("%s, to %s: %v", when, to, err)
}

// wantDamage checks that all of want is named and nothing else.
func (w *world) wantDamage(when string, r spec.Routing, want ...string) {
	w.Helper()
	all, err := w.net.Damaged(w.ctx, r, []string{"app"})
	if err != nil {
		w.Fatalf("%s: %v", when, err)
	}
	var got []string
	for _, d := range all {
		got = append(got, strings.TrimSuffix(string(d.Kind)+" "+d.Replica, " ")+": "+d.What)
	}
	missing := slices.DeleteFunc(slices.Clone(want), func(s string) bool {
		return slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, s) })
	})
	if len(missing) > 0 || len(got) != len(want) {
		w.Errorf("%s: named are\n%s\nwant\n%s", when, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
