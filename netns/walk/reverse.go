package walk

import (
	"fmt"

	"dunnage/spec"
)

// ReverseFilter is a link's rp_filter, as the kernel numbers it.
type ReverseFilter int

// The ways to filter.
const (
	FilterOff    ReverseFilter = iota
	FilterStrict               // the way back is by the link itself
	FilterLoose                // there is one
)

// wayBack is the way that an answer like back would take to the packet's source, and
// the rule of policy routing that has decided on it, nil = none but those that each
// host has. sure: no other rule may.
func (p *packet) wayBack(back packet) (r Route, by *spec.TraceStep, sure bool) {
	dry := &walker{facts: p.facts, told: map[told]int{}}
	back.facts, back.src, back.dst = p.facts, p.dst, p.src
	found, on := dry.lookup(&back)
	if n := len(dry.trace.Steps); n > 0 {
		by = &dry.trace.Steps[n-1]
	} else if dry.by != nil && !dry.by.Plain() {
		by = &spec.TraceStep{Where: p.facts.ipRule(), Rule: dry.by.String(), Owner: spec.OwnerOther}
	}
	switch {
	case on == nil:
		return Route{Dead: "a rule of policy routing ends it"}, by, true
	case found.Link == "" && !p.src.IsValid(): // clients of the world come by the link of their answers
		found.Link = p.in
	case found.Link == "":
		found = p.facts.Route(p.src)
	}
	return found, by, len(dry.ends) == 0
}

// comesBack is the reverse path filter: the answer would leave by the link that
// the packet came by. Clients of the world are taken as not forged.
func comesBack(p *packet) answer {
	if !p.src.IsValid() || p.in == "" || p.in == "lo" {
		return yes
	}
	r, by, sure := p.wayBack(packet{hook: Output, bare: true}) // the kernel asks as if the host itself sent there
	hit := is(r.Dead == "" && r.Link == p.in)
	if !sure {
		hit = hit.unsure()
	}
	if hit != yes {
		p.astray = by
	}
	return hit
}

// filter does what rp_filter of the packet's link does, and returns what it leaves.
// The kernel asks for an answer that comes in by the link out of which the packet goes.
func (w *walker) filter(p *packet, out string) (left *packet) {
	f := w.facts
	if f.Filter == nil || f.fromHost() || p.in == "" || p.in == "lo" || f.Filter(p.in) == FilterOff {
		return p
	}
	r, by, sure := p.wayBack(packet{in: out, reply: true, sport: p.port})
	fails := r.Dead != "" || f.Filter(p.in) == FilterStrict && r.Link != p.in
	switch {
	case !fails && sure:
		return p
	case !fails:
		p, left = w.parted(p)
	}
	name := "net.ipv4.conf." + p.in + ".rp_filter"
	if by != nil {
		w.die(p, spec.FateDropped, w.blameRule(p, *by, name))
		return left
	}
	why := r.Dead
	if why == "" {
		why = fmt.Sprintf("the way back is by %s, not by %s", r.Link, p.in)
	}
	step := spec.TraceStep{Where: "route", Maybe: p.maybe(), Ends: true, What: fmt.Sprintf("%s: %s, so that the reverse path filter (%s) drops it", p.src, why, name)}
	w.tell(step)
	w.die(p, spec.FateDropped, "route to "+step.What)
	return left
}

// blameRule tells of the rule of policy routing that makes a reverse path filter
// drop the packet.
func (w *walker) blameRule(p *packet, s spec.TraceStep, filter string) (reason string) {
	to := "the client"
	if p.src.IsValid() {
		to = p.src.String()
	}
	s.What = fmt.Sprintf("the way back to %s isn't by %s: the reverse path filter (%s) drops it", to, p.in, filter)
	s.Maybe, s.Ends = p.maybe(), true
	w.tell(s)
	return fmt.Sprintf("%s: %s, so that the reverse path filter (%s) drops it", s.Where, s.Rule, filter)
}

func (f *Facts) ipRule() string {
	if f.Packet.To.Addr().Is6() {
		return "ip -6 rule"
	}
	return "ip rule"
}
