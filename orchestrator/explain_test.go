package orchestrator

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"dunnage/orchestrator/world"
	"dunnage/spec"
)

// publishing is a world in which service web of project shop has port 8080.
func publishing(t *testing.T) *scenario {
	t.Helper()
	s := newScenario(1, world.Truth)
	t.Cleanup(func() { s.stop() })
	if op := ask(t, s, published("fast", 0)); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	return s
}

// Explain names what is between a client and the replicas, and what to do; it
// answers while the engine doesn't.
func TestExplain(t *testing.T) {
	s := publishing(t)
	s.w.Hung = true
	explain := func(asked, from string) (spec.Explanation, error) {
		r := spec.ExplainRequest{Asked: asked}
		if from != "" {
			r.From = netip.MustParseAddr(from)
		}
		return s.loop.Explain(t.Context(), r)
	}
	for _, asked := range []string{"8080", "8080/tcp", "tcp://192.0.2.1:8080", "192.0.2.1:8080", "web", "shop/web"} {
		got, err := explain(asked, "")
		if err != nil || !got.OK || got.Verdict != "connections reach web-1" || !slices.Equal(got.Services, []string{"shop/web"}) || len(got.Replicas) != 1 {
			t.Errorf("%s: %+v, %v", asked, got, err)
		}
		if w := got.Ways[0]; len(w.Reach) == 0 || w.Reach[0].Replica != got.Replicas[0].Replica {
			t.Errorf("%s: %+v", asked, w)
		}
	}
	replica := s.loop.state.replicaRecords()[0]
	for _, asked := range []string{replica.ID, "web-1", "shop/web-1", "shop-web-1"} {
		got, err := explain(asked, "")
		if err != nil || len(got.Ways) != len(replica.Addresses) || got.Ways[0].Packet.To.Addr() != replica.Addresses[0].Addr || !slices.Equal(got.Services, []string{"shop/web"}) {
			t.Errorf("%s: %+v, %v", asked, got, err)
		}
	}
	p := published("fast", 0)
	p.Services[0].Replicas = 2
	s.w.Hung = false
	if op := ask(t, s, p); op.State != spec.OperationDone {
		t.Fatalf("%+v", op)
	}
	s.w.Hung = true
	for asked, want := range map[string]int{"web": 2, "web-1": 1, replica.ID: 1} {
		if got, err := explain(asked, ""); err != nil || len(got.Replicas) != want || want == 1 && got.Replicas[0].Replica != replica.ID {
			t.Errorf("%s: %+v, %v", asked, got.Replicas, err)
		}
	}
	for asked, want := range map[string]string{"99999": `"99999" isn't a port: those are the numbers from 1 to 65535`, "web-3": "service or replica web-3: not found", "shop-web-3": "service or replica shop-web-3: not found", "other-web-1": "service or replica other-web-1: not found"} {
		if _, err := explain(asked, ""); err == nil || !strings.HasPrefix(spec.Text(err), want) {
			t.Errorf("%s: %v", asked, err)
		}
	}
	if got, err := explain("8080", "203.0.113.9"); err != nil || len(got.Ways) != 1 || got.Ways[0].Packet.Source.String() != "203.0.113.9" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := explain("9090", ""); err != nil || got.OK || !strings.Contains(got.Verdict, "port 9090/tcp isn't published, and nobody on the host listens") {
		t.Errorf("%+v, %v", got, err)
	}
	for _, addr := range s.loop.state.replicaRecords()[0].Addresses {
		for _, asked := range []string{addr.Addr.String(), "tcp://" + addr.Addr.String(), addr.Addr.String() + ":80"} {
			if got, err := explain(asked, ""); err != nil || !slices.Equal(got.Services, []string{"shop/web"}) || got.Ways[0].Packet.To.String() != addr.Addr.String()+":80" {
				t.Errorf("%s: %+v, %v", asked, got, err)
			}
		}
	}
	for _, wrong := range []string{"203.0.113.5", "[2001:db8::1]", "nobody", "8080/sctp", "0", "70000", "http://192.0.2.1", "other/web", ""} {
		if got, err := explain(wrong, ""); !errors.Is(err, spec.ErrNotFound) && !errors.Is(err, spec.ErrRefused) {
			t.Errorf("%q: %+v, %v", wrong, got, err)
		}
	}

	s.w.Programs = []string{"cgroup ingress: program 7 (deny)"}
	got, err := explain("8080", "")
	if err != nil || !got.OK || got.Verdict != "connections reach web-1, web-2, as far as can be seen" ||
		!slices.Contains(got.Ways[0].Unseen, "web-1, cgroup ingress: program 7 (deny) may drop packets: what it does isn't followed") {
		t.Errorf("%+v, %v", got, err)
	}
	s.w.Programs = nil

	s.w.Blocked = map[uint16]bool{8080: true}
	got, err = explain("8080", "")
	if err != nil || got.OK || !strings.Contains(got.Verdict, "dropped by iptables-nft filter FORWARD, rule 1: -p tcp -j DROP") ||
		!slices.ContainsFunc(got.Next, func(n string) bool { return strings.Contains(n, "iptables-nft -t filter -vnL FORWARD") }) {
		t.Errorf("%+v, %v", got, err)
	}
}

// The verdict says what a person would conclude from the same facts.
func TestVerdicts(t *testing.T) {
	replica := netip.MustParseAddr("10.208.16.10")
	status := func(state spec.ReplicaState) spec.Status {
		return spec.Status{Projects: []spec.ProjectStatus{{Name: "shop", Services: []spec.ServiceStatus{{Name: "web", Replicas: []spec.ReplicaStatus{
			{Project: "shop", Service: "web", Replica: "shop-web-0123abcd-1", State: state, Pid: 1, Addresses: []netip.Addr{replica}},
		}}}}}}
	}
	to := netip.MustParseAddrPort("198.51.100.7:8080")
	ended := func(where, rule string, owner spec.RuleOwner) []spec.TraceStep {
		return []spec.TraceStep{{Where: where, Number: 3, Rule: rule, Owner: owner, What: "dropped", Ends: true}}
	}
	arrives := []spec.Arrival{{To: netip.AddrPortFrom(replica, 80), Chance: 1}}
	cases := []struct {
		name    string
		state   spec.ReplicaState
		way     spec.ExplainedWay
		holder  string
		reached spec.ReachState
		failed  int // visits in a row
		ok      bool
		want    string
		next    string
		stale   string
	}{
		{name: "well", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateArrives, Reach: arrives}}, ok: true, want: "connections reach web-1"},
		{name: "well, but not all is seen", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateArrives, Reach: arrives, Unseen: []string{"x"}}}, ok: true, want: "connections reach web-1, as far as can be seen"},
		{name: "no answer, and not all is seen", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateArrives, Reach: arrives, Packet: spec.Packet{Protocol: spec.TCP, To: to}, Unseen: []string{"XDP at eth0: program 7 may drop packets"}}},
			reached: spec.ReachUnreachable, want: "but the visitor gets no answer", next: "\nXDP at eth0: program 7 may drop packets"},
		{name: "a visit failed, and not all is seen", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateArrives, Reach: arrives, Packet: spec.Packet{Protocol: spec.TCP, To: to}, Unseen: []string{"x"}}},
			reached: spec.ReachReachable, failed: 1, want: "the rules lead to web-1, but the visitor gets no answer"},
		{name: "a visit failed", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateArrives, Reach: arrives, Packet: spec.Packet{Protocol: spec.TCP, To: to}}},
			reached: spec.ReachReachable, failed: 1, ok: true, want: "connections reach web-1"},
		{name: "a chain behind all others", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateMaybe, Dies: "the answer: nft netdev late out: hook egress on eth0", Steps: ended("nft netdev late out", "hook egress on eth0", spec.OwnerOther)}}, want: "some answers may die: nft netdev late out", next: "`nft list table netdev late` shows what out drops on its link, behind all other rules"},
		{name: "unhealthy", state: spec.StateUnhealthy, way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateArrives, Reach: arrives}}, want: "web-0123abcd-1, which is unhealthy", next: "dunnage logs -p shop web"},
		{name: "warm, at its own address", state: spec.StateWarm, way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateArrives, Reach: arrives, Packet: spec.Packet{Protocol: spec.TCP, To: arrives[0].To}}}, ok: true, want: "connections to its own address reach web-1, which is warm: the rules send it none before `dunnage rollback -p shop 0`"},
		{name: "warm, and in the rules", state: spec.StateWarm, way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateArrives, Reach: arrives, Packet: spec.Packet{Protocol: spec.TCP, To: to}}}, want: "web-0123abcd-1, which is warm", next: "dunnage ps -p shop web"},
		{name: "a foreign redirection", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateArrives, Reach: []spec.Arrival{{To: netip.MustParseAddrPort("172.17.0.2:80")}},
			Steps: []spec.TraceStep{{Where: "iptables-nft nat DOCKER", Number: 2, Rule: "-j DNAT", Owner: spec.OwnerDocker, What: "sent on to 172.17.0.2:80"}}}}, want: "172.17.0.2:80, which is no replica's: sent there by iptables-nft nat DOCKER, rule 2", next: "publish the service on another one"},
		{name: "a redirection to the host", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateArrives, Reach: []spec.Arrival{{To: netip.MustParseAddrPort("198.51.100.7:3128"), Host: true}},
			Steps: []spec.TraceStep{{Where: "nft ip own pre", Number: 1, Rule: "redirect to :3128 # handle 2", Owner: spec.OwnerOther, What: "sent on to 198.51.100.7:3128"}}}}, want: "connections go to 198.51.100.7:3128, the host itself: sent there by nft ip own pre, rule 1", next: "`nft delete rule ip own pre handle 2`"},
		{name: "one that may come first", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateArrives, Reach: []spec.Arrival{{To: netip.AddrPortFrom(replica, 80), Maybe: true}, {To: netip.MustParseAddrPort("198.51.100.7:3128"), Host: true, Maybe: true}},
			Steps: []spec.TraceStep{{Where: "iptables-legacy nat PREROUTING", Number: 1, Rule: "-j REDIRECT", Owner: spec.OwnerOther, What: "sent on to 198.51.100.7:3128", Maybe: true}}}}, want: "connections may go to 198.51.100.7:3128, the host itself: sent there by iptables-legacy nat PREROUTING, rule 1", next: "`iptables-legacy -t nat -D PREROUTING 1`"},
		{name: "not tracked", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateArrives, Reach: []spec.Arrival{{To: to, Host: true}},
			Steps: []spec.TraceStep{{Where: "iptables-nft raw PREROUTING", Number: 1, Rule: "-j CT --notrack", Owner: spec.OwnerOther, What: "not tracked: no address is translated"}}}}, want: "connections go to 198.51.100.7:8080, the host itself: no address is translated, since they aren't tracked because of iptables-nft raw PREROUTING, rule 1", next: "`iptables-nft -t raw -D PREROUTING 1`"},
		{name: "our rules are gone", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateArrives, Reach: []spec.Arrival{{To: to, Host: true}}}}, want: "nothing leads to a replica", next: "net rules --diff"},
		{name: "not an address of the host", way: spec.ExplainedWay{Trace: spec.Trace{Away: true, Packet: spec.Packet{To: to}, Fate: spec.FateArrives, Reach: []spec.Arrival{{To: to, Link: "eth0"}}}}, want: "no link of the host has the address 198.51.100.7: connections to it aren't for this host, and leave it by eth0", next: "publish the port at one of those"},
		{name: "and a rule that would drop them", way: spec.ExplainedWay{Trace: spec.Trace{Away: true, Packet: spec.Packet{To: to}, Fate: spec.FateDropped, Dies: "x", Steps: ended("iptables-nft filter FORWARD", "policy DROP", spec.OwnerOther)}}, want: "no link of the host has the address 198.51.100.7: connections to it aren't for this host", next: "publish the port at one of those"},
		{name: "a rule of policy routing", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateDropped, Dies: "ip rule: pref 10", Steps: ended("ip rule", "pref 10 to 10.208.0.0/12 blackhole", spec.OwnerOther)}}, want: "dropped by ip rule: pref 10", next: "whoever added it has to delete it (`ip rule del pref 10 to 10.208.0.0/12 blackhole`)"},
		{name: "a policy of IPsec", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateDropped, Dies: "ip xfrm policy: dir fwd src 203.0.113.9/32 dst 0.0.0.0/0, which blocks", Steps: ended("ip xfrm policy", "dir fwd src 203.0.113.9/32 dst 0.0.0.0/0", spec.OwnerOther)}}, want: "dropped by ip xfrm policy: dir fwd", next: "`ip xfrm policy delete dir fwd src 203.0.113.9/32 dst 0.0.0.0/0` takes it away"},
		{name: "IPsec's default", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateDropped, Dies: "ip xfrm policy: the default, fwd block, which blocks", Steps: ended("ip xfrm policy", "the default, fwd block", spec.OwnerOther)}}, want: "dropped by ip xfrm policy: the default", next: "`ip xfrm policy setdefault fwd accept`"},
		{name: "a chain at the link", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateMaybe, Dies: "nft netdev early in: hook ingress on eth0", Steps: ended("nft netdev early in", "hook ingress on eth0", spec.OwnerOther)}}, want: "some connections may die: nft netdev early in", next: "`nft list table netdev early` shows what in drops"},
		{name: "and an allow list", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateMaybe, Reach: arrives, Dies: "nft netdev early in: hook ingress on eth0",
			Steps: append(ended("nft netdev early in", "hook ingress on eth0", spec.OwnerOther), spec.TraceStep{Rule: `--comment "shop/web is closed to this client" -j DNAT`, Owner: spec.OwnerDunnage})}}, want: "some connections may die: nft netdev early in"},
		{name: "another conntrack zone", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateDropped, Dies: "the answer: nft inet foo p, rule 1: x",
			Steps: []spec.TraceStep{{Where: "nft inet foo p", Number: 1, Rule: "ct zone set 5 # handle 2", Owner: spec.OwnerOther, What: "the connection is in conntrack zone 5 and its answers in zone 0: y", Ends: true, Answer: true}}}}, want: "answers are dropped by nft inet foo p, rule 1", next: "into the same zone, or delete the rule (`nft delete rule inet foo p handle 2`)"},
		{name: "one that ends some", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FatePartly, Dies: "ip -6 rule: pref 10", Steps: ended("ip -6 rule", "pref 10 to fd00::/16 prohibit", spec.OwnerOther)}}, want: "some connections die: ip -6 rule: pref 10", next: "`ip -6 rule del pref 10 to fd00::/16 prohibit`"},
		{name: "no way back to some", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateMaybe, Dies: "the answer: route to 203.0.113.0/24: its route says blackhole",
			Steps: []spec.TraceStep{{Where: "route", What: "203.0.113.0/24: its route says blackhole", Answer: true, Maybe: true, Ends: true}}}}, want: "some answers may die: route to 203.0.113.0/24", next: "`ip route show exact 203.0.113.0/24` shows it; the agent leaves the host's own routes alone"},
		{name: "no way back", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateDropped, Dies: "the answer: ip rule: pref 10", Steps: ended("ip rule", "pref 10 blackhole", spec.OwnerOther)}}, want: "answers are dropped by ip rule: pref 10"},
		{name: "held", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateHeld}}, want: "no replica of shop/web is ready: connections wait", next: "dunnage ps -p shop web"},
		{name: "refused by us", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateRefused, Steps: ended("iptables-nft filter DUNNAGE-INPUT", "-j REJECT", spec.OwnerDunnage)}}, want: "no replica of shop/web takes connections"},
		{name: "not allowed", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateRefused, Packet: spec.Packet{Source: netip.MustParseAddr("203.0.113.9")},
			Steps: append([]spec.TraceStep{{Rule: `--comment "shop/web is closed to this client" -j DNAT`, Owner: spec.OwnerDunnage}}, ended("iptables-nft filter DUNNAGE-INPUT", "-j REJECT", spec.OwnerDunnage)...)}}, want: "203.0.113.9 isn't on the allow list of shop/web", next: "x-dunnage.allow"},
		{name: "ufw", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateDropped, Dies: "iptables-legacy filter FORWARD: policy DROP, as ufw sets it", Steps: ended("iptables-legacy filter FORWARD", "policy DROP", spec.OwnerUFW)}}, want: "dropped by iptables-legacy filter FORWARD: policy DROP", next: "ufw route allow"},
		{name: "a rule of the operator", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateDropped, Dies: "x", Steps: ended("iptables-nft filter DUNNAGE-USER", "-j DROP", spec.OwnerUser)}}, want: "(yours)", next: "a rule of yours"},
		{name: "a native table", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateDropped, Dies: "x", Steps: ended("nft inet strict way", "drop # handle 4", spec.OwnerOther)}}, want: "dropped by x", next: "nft -a list chain inet strict way"},
		{name: "a link doesn't forward", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateDropped, Dies: "route to x", Steps: []spec.TraceStep{{Where: "route", What: "10.0.0.1: the host forwards nothing that comes by eth0.5: net.ipv4.conf.eth0/5.forwarding is 0", Ends: true}}}}, want: "dropped by route", next: "`sysctl -w net.ipv4.conf.eth0/5.forwarding=1`"},
		{name: "forwarding is off", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateDropped, Dies: "route to x", Steps: []spec.TraceStep{{Where: "route", What: "the host forwards nothing", Ends: true}}}}, want: "dropped by route", next: "ip_forward"},
		{name: "stale connections", way: spec.ExplainedWay{Trace: spec.Trace{Fate: spec.FateArrives, Reach: arrives, Packet: spec.Packet{Protocol: spec.UDP, To: to},
			Flows: []spec.FlowCount{{Answers: netip.MustParseAddr("10.208.16.9"), Count: 2}, {Answers: replica, Count: 5}, {Answers: to.Addr(), Count: 1}}}},
			ok: true, want: "connections reach web-1", next: "`conntrack -D -p udp --orig-dst 198.51.100.7 --orig-port-dst 8080 --reply-src 10.208.16.9` ends the stale ones alone, so that their clients connect anew\n" +
				"`conntrack -D -p udp --orig-dst 198.51.100.7 --orig-port-dst 8080 --reply-src 198.51.100.7` ends", stale: "2 UDP connections lead to 10.208.16.9, which is no replica's; 1 UDP connection leads to the host itself: they began before the port was published"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.state == "" {
				c.state = spec.StateReady
			}
			c.way.Service = "shop/web"
			e := spec.Explanation{Ways: []spec.ExplainedWay{c.way}, Holder: c.holder}
			reach := []spec.Reach{{VisitTarget: spec.VisitTarget{Project: "shop", Service: "web", Addr: c.way.Packet.To}, State: c.reached, Failed: c.failed}}
			answers{status: status(c.state), reach: reach}.explain(&e)
			if e.OK != c.ok || !strings.Contains(e.Verdict, c.want) || !strings.Contains(strings.Join(e.Next, "\n"), c.next) {
				t.Errorf("%v %q next %q, want %v %q next %q", e.OK, e.Verdict, e.Next, c.ok, c.want, c.next)
			}
			if stale := strings.Join(e.Ways[0].Stale, "; "); stale != c.stale {
				t.Errorf("stale %q, want %q", stale, c.stale)
			}
		})
	}
	verdictOf := func(a answers, ways ...spec.ExplainedWay) spec.Explanation {
		e := spec.Explanation{Ways: ways}
		a.status.Projects = status(spec.StateReady).Projects
		a.explain(&e)
		return e
	}
	wantNext := func(e spec.Explanation, want, never string) {
		t.Helper()
		if next := strings.Join(e.Next, "\n"); !strings.Contains(next, want) || strings.Contains(next, never) {
			t.Errorf("next %q, want %q and no %q", next, want, never)
		}
	}
	stopped := spec.Explanation{Ways: []spec.ExplainedWay{{Service: "shop/web", Trace: spec.Trace{Fate: spec.FateDropped, Dies: "x", Steps: ended("iptables-nft filter FORWARD", "-j DROP", spec.OwnerOther)}}}}
	idle := status(spec.StateStopped)
	idle.Projects[0].Services[0].Stopped = true
	answers{status: idle}.explain(&stopped)
	if stopped.OK || stopped.Verdict != "shop/web was stopped on request: nobody answers connections" || !slices.Equal(stopped.Next, []string{"`dunnage start -p shop web` starts it"}) {
		t.Errorf("%+v", stopped)
	}
	refused := spec.ExplainedWay{Service: "shop/web", Trace: spec.Trace{Fate: spec.FateRefused, Dies: "x", Steps: ended("iptables-nft filter DUNNAGE-OUTPUT", "-j REJECT", spec.OwnerDunnage)}}
	for state, ok := range map[spec.ReplicaState]bool{spec.StateCompleted: true, spec.StateFailed: false} {
		job := spec.Explanation{Ways: []spec.ExplainedWay{refused}}
		answers{status: status(state)}.explain(&job)
		if job.OK != ok || ok && job.Verdict != "shop/web has done its work and ended well: nobody answers connections any more" {
			t.Errorf("a job that is %s: %+v", state, job)
		}
	}
	unrouted := func(addr string) spec.ExplainedWay {
		at := netip.AddrPortFrom(netip.MustParseAddr(addr), 8080)
		return spec.ExplainedWay{Service: "shop/web", Trace: spec.Trace{Fate: spec.FateRefused, Dies: "route to " + addr, Packet: spec.Packet{Protocol: spec.TCP, From: spec.FromHost, To: at},
			Steps: []spec.TraceStep{{Where: "route", What: addr + ": the host has no route to it", Ends: true}}}}
	}
	// Only of what the agent repairs is it said that it does.
	const within = "within a second"
	wantNext(verdictOf(answers{}, unrouted(replica.String())), within, "leaves")
	wantNext(verdictOf(answers{}, unrouted("127.0.0.1")), "ip address add 127.0.0.1/8 dev lo", within)
	wantNext(verdictOf(answers{}, unrouted("203.0.113.5")), "leaves the host's own routes alone", within)
	fought := answers{status: spec.Status{Problems: []string{(&fight{damage: []spec.Damage{{What: "setting net.ipv4.ip_forward: 0 instead of 1"}}, undone: make([]time.Time, 7)}).text()}}}
	wantNext(verdictOf(fought, unrouted(replica.String())), "another program undoes repairs: setting net.ipv4.ip_forward: 0 instead of 1: repaired each time, and undone by another program 7 times in the last minute", within)
	self := netip.MustParseAddrPort("[::1]:8080")
	six := verdictOf(answers{}, spec.ExplainedWay{Service: "shop/web", Trace: spec.Trace{Fate: spec.FateArrives, Packet: spec.Packet{To: self}, Reach: []spec.Arrival{{To: self, Host: true}}}})
	if wantNext(six, "ask 127.0.0.1", "--diff"); six.OK || !strings.Contains(six.Verdict, "ports aren't published on [::1]") {
		t.Errorf("%+v", six)
	}

	// One way that fails isn't all of them.
	outside := spec.ExplainedWay{Service: "shop/web", Trace: spec.Trace{Fate: spec.FateArrives, Reach: arrives, Packet: spec.Packet{Protocol: spec.TCP, To: to}}}
	if e := verdictOf(answers{}, outside, unrouted("127.0.0.1")); e.OK || e.Verdict != "1 of 2 ways not as it should be, from the host itself to 127.0.0.1:8080: connections are refused by route to 127.0.0.1; on the others, connections reach web-1" {
		t.Errorf("%+v", e)
	}

	// The visitor's finding is that of the host's addresses.
	away := netip.MustParseAddrPort("203.0.113.5:8080")
	now := time.Now()
	held := answers{now: now, status: spec.Status{Projects: []spec.ProjectStatus{{Name: "shop", Services: []spec.ServiceStatus{{Name: "web", HeldUntil: now.Add(12300 * time.Millisecond)}}}}}}
	waits := spec.Explanation{Ways: []spec.ExplainedWay{{Service: "shop/web", Trace: spec.Trace{Fate: spec.FateHeld}}}}
	if held.explain(&waits); waits.Verdict != "no replica of shop/web is ready: connections wait, 12s more at most" {
		t.Error(waits.Verdict)
	}
	reached := answers{reach: []spec.Reach{{VisitTarget: spec.VisitTarget{Project: "shop", Service: "web", Port: 8080, Addr: netip.MustParseAddrPort("198.51.100.9:8080")}, State: spec.ReachReachable}}}
	if e := verdictOf(reached, outside, spec.ExplainedWay{Service: "shop/web", Trace: spec.Trace{Away: true, Fate: spec.FateArrives, Packet: spec.Packet{Protocol: spec.TCP, To: away}, Reach: []spec.Arrival{{To: away, Link: "eth0"}}}}); e.Ways[0].Reached == nil || e.Ways[1].Reached != nil {
		t.Errorf("%+v", e.Ways)
	}
	unpublished := spec.Explanation{Holder: "nginx (pid 812)", Ways: []spec.ExplainedWay{{Trace: spec.Trace{Fate: spec.FateArrives, Packet: spec.Packet{Protocol: spec.TCP, To: to}, Reach: []spec.Arrival{{To: to, Host: true}}}}}}
	answers{}.explain(&unpublished)
	if !unpublished.OK || unpublished.Verdict != "port 8080/tcp isn't published by dunnage; nginx (pid 812) listens on the host" {
		t.Errorf("%+v", unpublished)
	}

	// Of a port that isn't published, that is said first; a rule matters only where
	// somebody listens.
	unpublished.Ways[0].Trace = spec.Trace{Fate: spec.FateDropped, Dies: "iptables-nft filter INPUT, rule 3: -j DROP", Packet: spec.Packet{Protocol: spec.TCP, To: to}, Steps: ended("iptables-nft filter INPUT", "-j DROP", spec.OwnerOther)}
	for holder, want := range map[string]string{
		"":                "port 8080/tcp isn't published, and nobody on the host listens: refused",
		"nginx (pid 812)": "port 8080/tcp isn't published by dunnage; nginx (pid 812) listens on the host, but connections are ended by iptables-nft filter INPUT, rule 3: -j DROP",
	} {
		e := spec.Explanation{Holder: holder, Ways: slices.Clone(unpublished.Ways)}
		answers{}.explain(&e)
		if next := strings.Join(e.Next, "\n"); e.OK || e.Verdict != want || strings.Contains(next, "-D INPUT 3") != (holder != "") {
			t.Errorf("%+v, want %q", e, want)
		}
	}
	unreachable := spec.Explanation{Ways: []spec.ExplainedWay{{Service: "shop/web", Trace: spec.Trace{Fate: spec.FateArrives, Reach: arrives, Packet: spec.Packet{Protocol: spec.TCP, To: to}}}}}
	visited := []spec.Reach{{VisitTarget: spec.VisitTarget{Project: "shop", Service: "web", Addr: netip.MustParseAddrPort("198.51.100.7:8080")}, State: spec.ReachUnreachable, Detail: "connect: refused"}}
	answers{status: status(spec.StateReady), reach: visited}.explain(&unreachable)
	if unreachable.OK || !strings.Contains(unreachable.Verdict, "lead to web-1, but the visitor gets no answer: connect: refused") {
		t.Errorf("%+v", unreachable)
	}
}
