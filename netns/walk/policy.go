package walk

import (
	"fmt"
	"net/netip"
	"strings"

	"dunnage/spec"
)

// PolicyRule is an entry of `ip rule`. Zero fields select nothing.
type PolicyRule struct {
	Priority   int
	From, To   netip.Prefix
	In, Out    string // links
	Mark, Mask uint32
	Protocol   uint8     // number
	FromPorts  [2]uint16 // first and last
	ToPorts    [2]uint16
	Not        bool // it takes what doesn't match
	Unknown    bool // it selects by more, which isn't known here

	Ends     string // "blackhole", "prohibit", "unreachable"; empty = it has a table, or Goto
	Table    int
	Suppress int // routes with as few bits aren't taken; -1 = all are
	Goto     int // priority of the rule that is asked next
}

// TableRoute is what a routing table has for an address.
type TableRoute struct {
	Route
	Bits  int
	Ends  string // kind of a route that leads nowhere: "blackhole", "prohibit", "unreachable"
	Maybe bool   // not for all clients of the world, or not the same
}

// Plain reports whether the rule is one of those that each host has.
func (r PolicyRule) Plain() bool {
	standard := PolicyRule{Priority: r.Priority, Table: r.Table, Suppress: -1}
	return r == standard && r.Table >= tableDefault && r.Table <= tableLocal
}

// The tables that each host has, as the kernel numbers them.
const (
	tableDefault = 253
	tableLocal   = 255
)

// String is the rule in the words that `ip rule del` takes.
func (r PolicyRule) String() string {
	var b strings.Builder
	word := func(name string, value any) { fmt.Fprintf(&b, " %s %v", name, value) }
	if r.Not {
		b.WriteString("not ")
	}
	fmt.Fprintf(&b, "pref %d", r.Priority)
	if r.From.IsValid() {
		word("from", r.From)
	}
	if r.To.IsValid() {
		word("to", r.To)
	}
	if r.Mark != 0 || r.Mask != 0 {
		word("fwmark", fmt.Sprintf("%#x/%#x", r.Mark, r.Mask))
	}
	if r.In != "" {
		word("iif", r.In)
	}
	if r.Out != "" {
		word("oif", r.Out)
	}
	if r.Protocol != 0 {
		word("ipproto", r.Protocol)
	}
	if r.FromPorts != [2]uint16{} {
		word("sport", fmt.Sprintf("%d-%d", r.FromPorts[0], r.FromPorts[1]))
	}
	if r.ToPorts != [2]uint16{} {
		word("dport", fmt.Sprintf("%d-%d", r.ToPorts[0], r.ToPorts[1]))
	}
	if r.Ends != "" {
		b.WriteString(" " + r.Ends)
	} else {
		word("lookup", r.Table)
	}
	if r.Suppress >= 0 && r.Ends == "" {
		word("suppress_prefixlength", r.Suppress)
	}
	return b.String()
}

// takes tests the packet as it is where it is routed: its address is translated.
func (r PolicyRule) takes(p *packet) answer {
	hit := is(r.Out == "") // no link is chosen yet
	in, host := p.in, p.hook == Output
	if host {
		in = "lo"
	}
	if r.From.IsValid() {
		hit = min(hit, p.isIn(r.From.String(), p.src))
	}
	if r.To.IsValid() {
		hit = min(hit, p.isIn(r.To.String(), p.dst))
	}
	if r.In != "" && in != r.In {
		hit = min(hit, is(in == "" && r.In != "lo").unsure())
	}
	if r.Mark != 0 || r.Mask != 0 {
		hit = min(hit, p.hasMark(fmt.Sprintf("%#x/%#x", r.Mark, r.Mask)))
	}
	flow := yes
	if r.Protocol != 0 {
		flow = min(flow, is(p.speaks(fmt.Sprint(r.Protocol))))
	}
	if r.FromPorts != [2]uint16{} {
		flow = min(flow, p.fromPorts(fmt.Sprintf("%d:%d", r.FromPorts[0], r.FromPorts[1])))
	}
	if r.ToPorts != [2]uint16{} {
		flow = min(flow, p.toPorts(fmt.Sprintf("%d:%d", r.ToPorts[0], r.ToPorts[1])))
	}
	if (host || p.bare) && (r.Protocol != 0 || r.FromPorts != [2]uint16{} || r.ToPorts != [2]uint16{}) {
		flow = maybe // what is routed anew behind OUTPUT has none of these
		if p.bare {
			flow = no
		}
	}
	hit = min(hit, flow)
	if r.Unknown {
		hit = hit.unsure()
	}
	if r.Not {
		return hit.not()
	}
	return hit
}

// lookup asks the rules of policy routing in their order until one has a route. on
// is the packet where none ends it for sure; found is the route, where it is known.
func (w *walker) lookup(p *packet) (found Route, on *packet) {
	unsure, next := false, 0 // a rule may have decided; those up to next aren't asked
	for _, r := range w.facts.Policy {
		hit := r.takes(p)
		if unsure {
			hit = hit.unsure()
		}
		if hit == no || r.Priority < next {
			continue
		}
		if r.Goto != 0 {
			if hit == yes {
				next = r.Goto
			}
			unsure = unsure || hit == maybe
			continue
		}
		kind, why := r.Ends, ""
		if kind == "" {
			t, ok := w.facts.Table(r.Table, p.dst)
			if ok && t.Ends == "" && t.Bits <= r.Suppress { // what ends it isn't passed over
				ok, unsure = false, unsure || !p.dst.IsValid() // some have another route there
			}
			if !ok {
				continue
			}
			if t.Maybe {
				hit = hit.unsure()
			}
			if t.Ends == "" || r.Plain() {
				if hit == yes {
					w.by = &r
					return t.Route, p
				}
				unsure = true
				continue
			}
			kind, why = t.Ends, ", whose route for it is "+t.Ends
		}
		left := w.ended(r, kind, why, hit, p)
		if left == nil {
			return Route{}, nil
		}
		p = left
	}
	return Route{}, p
}

// ended tells of the rule that ends the packet, and returns what it leaves.
func (w *walker) ended(r PolicyRule, kind, why string, hit answer, p *packet) (left *packet) {
	if hit == maybe {
		p, left = w.parted(p)
	}
	step := spec.TraceStep{Where: w.facts.ipRule(), Rule: r.String(), Owner: spec.OwnerOther, Maybe: p.maybe(), Ends: true, What: "refused: the client is told at once"}
	fate := spec.FateRefused
	if kind == "blackhole" && !w.facts.fromHost() {
		fate, step.What = spec.FateDropped, "dropped: the client gets no answer"
	}
	w.tell(step)
	w.die(p, fate, step.Where+": "+step.Rule+why)
	return left
}
