package walk

import (
	"cmp"
	"net/netip"
	"slices"

	"dunnage/spec"
)

// route asks where the packets go next: to the host itself, or on.
func (w *walker) route(ways []*packet) (here, on []*packet) {
	clear(w.told)
	for _, p := range ways {
		found, p := w.lookup(p)
		if p == nil {
			continue
		}
		r := w.facts.Route(p.dst)
		if r.Dead != "" && found.Link != "" { // a rule ends what the host itself sends there
			r = found
		}
		if r.Local || r.Dead == "" && r.Stays == "" {
			out := r.Link
			if r.Local {
				out = "lo"
			}
			if p = w.filter(p, out); p == nil {
				continue
			}
		}
		step := spec.TraceStep{Where: "route", Maybe: p.maybe()}
		switch outside := !w.facts.fromHost(); {
		case outside && p.dst.IsLoopback() && !p.translated && w.facts.In != "lo":
			step.What, step.Ends = "the kernel takes nothing for "+p.dst.String()+" from outside", true
			w.die(p, spec.FateDropped, "route: "+step.What)
		case r.Local:
			step.What = p.dst.String() + " is the host itself"
			p.out = "lo"
			if outside {
				p.out = ""
			}
			here = append(here, p)
		case r.Dead != "":
			step.What, step.Ends = p.dst.String()+": "+r.Dead, true
			w.die(p, spec.FateRefused, "route to "+step.What)
		case outside && r.Stays != "":
			step.What, step.Ends = p.dst.String()+": "+r.Stays, true
			w.die(p, spec.FateDropped, "route to "+step.What)
		case outside && w.expires(p):
			continue
		default:
			step.What = p.dst.String() + " is reached by " + r.Link
			p.out = r.Link
			on = append(on, p)
		}
		w.tell(step)
	}
	return here, on
}

func (w *walker) arrive(ways []*packet, local bool) {
	for _, p := range ways {
		a := spec.Arrival{To: netip.AddrPortFrom(p.dst, p.port), Host: local, Chance: p.chance, Maybe: p.maybe()}
		if !local {
			a.Link = p.out
		}
		back, lost := w.answer(p, local)
		if lost == nil || back {
			a.Maybe = a.Maybe || lost != nil
			w.trace.Reach = append(w.trace.Reach, a)
		}
		if lost != nil {
			lost.maybe = lost.maybe || back
			w.ends = append(w.ends, *lost)
		}
	}
}

// answer follows what who is reached answers. back: it comes to the client on some
// way; lost: it doesn't on some. Rules that take it are told of where they end it.
func (w *walker) answer(p *packet, local bool) (back bool, lost *end) {
	if w.facts.Packet.Protocol == "" || p.untracked {
		return true, nil // nothing is known of who answers what
	}
	sub := &walker{bases: w.bases, atLinks: w.atLinks, facts: w.facts, told: map[told]int{}, answers: true}
	a := &packet{
		facts: p.facts, reply: true, in: p.out, src: p.dst, sport: p.port, dst: p.client(), late: p.client(),
		translated: p.translated, masked: p.masked, chance: 1,
	}
	if p.mask.IsValid() {
		a.dst = p.mask
	}
	ways := []*packet{a}
	if local {
		a.in, a.out = "lo", w.facts.In
		if w.facts.fromHost() {
			a.out = "lo"
		}
		ways = sub.ipsec(IPsecOut, sub.routeBack(ways))
		a.in = ""
		ways = sub.exit(sub.hook(Postrouting, sub.known(p, sub.hook(Output, ways))))
		if w.facts.fromHost() {
			for _, p := range ways {
				p.in, p.out = "lo", ""
			}
			sub.enter(ways)
			ways = sub.hook(Input, sub.hook(Prerouting, ways))
		}
	} else {
		sub.enter(ways)
		ways = sub.known(p, sub.hook(Prerouting, sub.met(Ingress, ways)))
		for _, p := range ways {
			p.dst, p.out = p.late, w.facts.In
		}
		ways = slices.DeleteFunc(sub.routeBack(ways), func(p *packet) bool { return !w.facts.fromHost() && sub.expires(p) })
		if w.facts.fromHost() {
			ways = sub.ipsec(IPsecIn, sub.hook(Input, ways))
		} else {
			ways = sub.ipsec(IPsecOut, sub.ipsec(IPsecForward, ways))
			ways = sub.exit(sub.hook(Postrouting, sub.hook(Forward, ways)))
		}
	}
	if !w.facts.fromHost() {
		ways = sub.leave(ways)
	}
	for _, s := range sub.trace.Unseen {
		w.unseen("the answer: " + s)
	}
	if len(sub.ends) == 0 {
		return true, nil
	}
	for _, s := range sub.trace.Steps {
		if s.Ends {
			w.tell(s)
		}
	}
	e := sub.ends[0]
	e.fate, e.reason = spec.FateDropped, "the answer: "+e.reason
	e.maybe = e.maybe || p.maybe()
	return len(ways) > 0, &e
}

// ToLoopback is why no answer gets to a client whose route leads to lo.
const ToLoopback = "its route leads to lo, so that answers to it never leave the host"

// routeBack asks for the way to the client. Those that go out by another link than
// the client is taken to be behind do so from then on.
func (w *walker) routeBack(ways []*packet) (on []*packet) {
	clear(w.told)
	for _, p := range ways {
		found, p := w.lookup(p)
		if p == nil {
			continue
		}
		switch step := (spec.TraceStep{Where: "route", Ends: true}); {
		case w.facts.fromHost():
		case p.dst.IsValid():
			if found == (Route{}) {
				found = w.facts.Route(p.dst)
			}
			if !found.Local && found.Link == "lo" {
				found.Dead = ToLoopback
			}
			if found.Dead != "" {
				step.What, step.Maybe = p.dst.String()+": "+found.Dead, p.maybe()
				w.tell(step)
				w.die(p, spec.FateDropped, "route to "+step.What)
				continue
			}
			if !found.Local {
				p.out = cmp.Or(found.Link, p.out)
			}
		case w.facts.Lost != "":
			lost, left := w.parted(p)
			step.What, step.Maybe = w.facts.Lost, true
			w.tell(step)
			w.die(lost, spec.FateDropped, "route to "+step.What)
			p = left
		}
		on = append(on, p)
	}
	return on
}
