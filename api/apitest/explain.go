package apitest

import (
	"context"
	"fmt"
	"net/netip"

	"dunnage/spec"
)

// Explain says of a published port that it is reached, and of the port 9999 that
// a rule of somebody else drops what goes there.
func (f *Fake) Explain(_ context.Context, r spec.ExplainRequest) (spec.Explanation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := spec.Explanation{Asked: r.Asked}
	to := netip.MustParseAddrPort("198.51.100.7:8080")
	switch r.Asked {
	case "8080", "web":
		e.Services, e.OK, e.Verdict = []string{"shop/web"}, true, "connections reach web-1"
		e.Ways = []spec.ExplainedWay{{
			Service: "shop/web", OK: true, Verdict: e.Verdict,
			Trace: spec.Trace{
				Packet: spec.Packet{Protocol: spec.TCP, Source: r.From, To: to}, In: "eth0", Fate: spec.FateArrives,
				Steps: []spec.TraceStep{
					{Where: "iptables-nft nat PREROUTING", Number: 2, Rule: "-j DUNNAGE-PREROUTING", Owner: spec.OwnerDunnage, Packets: 12, What: "goes to DUNNAGE-PREROUTING"},
					{Where: "iptables-nft nat DUNNAGE-P-0123456789abcdef", Number: 1, Rule: "-p tcp -j DNAT --to-destination 10.208.16.10:80", Owner: spec.OwnerDunnage, Packets: 9, What: "sent on to 10.208.16.10:80"},
					{Where: "route", What: "10.208.16.10 is reached by dun0123456789ab"},
				},
				Reach: []spec.Arrival{{To: netip.MustParseAddrPort("10.208.16.10:80"), Link: "dun0123456789ab", Replica: "shop-web-0123abcd-1", Chance: 1}},
				Flows: []spec.FlowCount{{Answers: netip.MustParseAddr("10.208.16.10"), Count: 3}},
			},
		}}
		e.Replicas = []spec.ReplicaStatus{{Project: "shop", Service: "web", Replica: "shop-web-0123abcd-1", State: spec.StateReady, Health: spec.HealthHealthy, Routed: true}}
	case "9999":
		rule := "-s 203.0.113.0/24 -p tcp -m comment --comment \"no guests from over there, says the owner of this host\" -j DROP"
		dies := "iptables-nft filter FORWARD, rule 1: " + rule
		e.Services, e.Verdict = []string{"shop/web"}, "connections are dropped by "+dies
		e.Next = []string{"`iptables-nft -t filter -vnL FORWARD --line-numbers` shows the chain; a drop there is final: delete the rule (`iptables-nft -t filter -D FORWARD 1`), or narrow it"}
		e.Ways = []spec.ExplainedWay{{
			Service: "shop/web", Verdict: e.Verdict, Stale: []string{"2 TCP connections lead to 10.208.16.9, which is no replica's"},
			Trace: spec.Trace{
				Packet: spec.Packet{Protocol: spec.TCP, Source: r.From, To: netip.AddrPortFrom(to.Addr(), 9999)}, Fate: spec.FateDropped, Dies: dies,
				Steps: []spec.TraceStep{
					{Where: "iptables-nft filter FORWARD", Number: 1, Rule: rule, Owner: spec.OwnerOther, Packets: 4, What: "dropped: the client gets no answer", Ends: true},
				},
				Flows:  []spec.FlowCount{{Answers: netip.MustParseAddr("10.208.16.9"), Count: 2}},
				Unseen: []string{"the tables that nft has made: the program nft isn't installed"},
			},
			Reached: &spec.Reach{VisitTarget: spec.VisitTarget{Addr: netip.AddrPortFrom(to.Addr(), 9999)}, State: spec.ReachUnreachable, Detail: "connect: timeout"},
		}}
	default:
		return e, fmt.Errorf("service or replica %s: %w", r.Asked, spec.ErrNotFound)
	}
	return e, nil
}
