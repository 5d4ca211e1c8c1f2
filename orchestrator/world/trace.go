package world

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"

	"dunnage/spec"
)

// Trace lets packets arrive where the kernel's rules name backends, or die of the
// rule that blocks their port. Every connection is one of each packet's.
func (w *World) Trace(_ context.Context, packets []spec.Packet) ([]spec.Trace, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []spec.Trace
	for _, p := range packets {
		all = append(all, w.trace(p))
	}
	return all, nil
}

// SocketPrograms are those that somebody has attached.
func (w *World) SocketPrograms(int) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Programs, nil
}

func (w *World) trace(p spec.Packet) spec.Trace {
	const foreign = "-p tcp -j DROP"
	t := spec.Trace{Packet: p, Fate: spec.FateArrives}
	count := map[netip.Addr]int{}
	for _, c := range w.conns {
		count[c.addr]++
	}
	for _, a := range slices.SortedFunc(maps.Keys(count), netip.Addr.Compare) {
		t.Flows = append(t.Flows, spec.FlowCount{Answers: a, Count: count[a]})
	}
	backends, target, absent, published := w.toward(p)
	switch {
	case w.Blocked[p.To.Port()]:
		t.Fate, t.Dies = spec.FateDropped, "iptables-nft filter FORWARD, rule 1: "+foreign
		t.Steps = []spec.TraceStep{{Where: "iptables-nft filter FORWARD", Number: 1, Rule: foreign, Owner: spec.OwnerOther, What: "dropped: the client gets no answer", Ends: true}}
	case !published:
		t.Reach = []spec.Arrival{{To: p.To, Host: true, Chance: 1}}
	case len(backends) == 0:
		t.Fate, t.Dies = spec.FateRefused, "iptables-nft filter DUNNAGE-INPUT, rule 5: -j REJECT"
		if absent == spec.Hold {
			t.Fate = spec.FateHeld
		}
		t.Steps = []spec.TraceStep{{Where: "iptables-nft filter DUNNAGE-INPUT", Number: 5, Rule: "-j REJECT", Owner: spec.OwnerDunnage, What: "refused", Ends: true}}
	}
	if w.Early[p.To.Port()] && t.Dies == "" {
		const chain, rule = "nft netdev early in", "hook ingress on eth0"
		t.Fate, t.Dies = spec.FateMaybe, chain+": "+rule
		t.Steps = []spec.TraceStep{{Where: chain, Rule: rule, Owner: spec.OwnerOther, What: "may drop it", Maybe: true, Ends: true}}
	}
	if t.Dies == "" || t.Fate == spec.FateMaybe {
		for _, b := range backends {
			t.Reach = append(t.Reach, spec.Arrival{To: netip.AddrPortFrom(b.Addr, cmp.Or(b.Port, target)), Link: "dun0", Chance: 1 / float64(len(backends))})
		}
	}
	return t
}

// toward is what the kernel's rules say of the packet's address.
func (w *World) toward(p spec.Packet) (backends []spec.Backend, target uint16, absent spec.Absent, found bool) {
	for _, s := range w.kernel.Services {
		if s.Addr == p.To.Addr() {
			return s.Backends, p.To.Port(), s.Absent, true
		}
	}
	for _, r := range w.kernel.Published {
		if r.Port == p.To.Port() && r.Protocol == p.Protocol && !w.flushed {
			return r.Backends, r.Target, r.Absent, true
		}
	}
	return nil, 0, "", false
}
