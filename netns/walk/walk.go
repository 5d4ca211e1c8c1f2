package walk

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"dunnage/spec"
)

// Follow walks a packet through the rules of its family. Of two chains with one
// priority the kernel asks the one that was made last, which can't be seen: sets
// are taken in their order, so those of the backend in use come first. Where it
// matters, as only the first that translates does, both are followed.
func Follow(sets []Ruleset, facts Facts) spec.Trace {
	w := &walker{facts: &facts, trace: spec.Trace{Packet: facts.Packet}, told: map[told]int{}}
	for _, s := range sets {
		w.atLinks = append(w.atLinks, s.atLinks...)
		for _, b := range s.bases {
			w.bases = append(w.bases, callable{base: b, chains: s.chains})
		}
	}
	slices.SortStableFunc(w.bases, func(a, b callable) int { return cmp.Compare(a.priority, b.priority) })
	to := facts.Packet.To
	start := []*packet{{facts: &facts, in: facts.In, src: facts.Packet.Source, dst: to.Addr(), port: to.Port(), chance: 1}}
	if facts.fromHost() {
		w.fromHost(start)
	} else {
		w.enter(start)
		w.fromOutside(w.met(Ingress, start))
	}
	w.conclude()
	return w.trace
}

type walker struct {
	bases   []callable // by priority
	atLinks []linkChain
	facts   *Facts
	trace   spec.Trace
	told    map[told]int // steps of this stage, and where they stand
	ends    []end
	answers bool        // it follows an answer
	by      *PolicyRule // that has decided on the last way
	depth   int
	last    int // number of the last split
}

// callable is a base chain with those that it may lead to.
type callable struct {
	base
	chains map[string]*chain
}

// end is a way that leads nowhere.
type end struct {
	fate   spec.Fate
	reason string
	maybe  bool
}

func (w *walker) fromOutside(ways []*packet) {
	here, on := w.route(w.hook(Prerouting, ways))
	w.arrive(w.ipsec(IPsecIn, w.hook(Input, here)), true)
	on = w.ipsec(IPsecOut, w.ipsec(IPsecForward, on))
	on = w.exit(w.hook(Postrouting, w.hook(Forward, on)))
	w.arrive(on, false)
}

// enter and exit tell of what stands at the links by which the packets come in and go
// out, before and behind the chains of links.
func (w *walker) enter(ways []*packet) {
	for _, p := range ways {
		w.programs(p, p.in, false)
	}
}

func (w *walker) exit(ways []*packet) (on []*packet) {
	ways = w.met(Egress, ways)
	for _, p := range ways {
		w.programs(p, p.out, true)
	}
	return ways
}

func (w *walker) programs(p *packet, link string, out bool) {
	if w.facts.Programs == nil {
		return
	}
	for _, b := range w.facts.Programs(link, out) {
		w.tell(spec.TraceStep{Where: b.Where, Rule: b.Name, Owner: spec.OwnerOther, What: "may drop it: what it does isn't followed", Maybe: true})
		w.unseen(b.Where + ": " + b.Name + " may drop packets: what it does isn't followed")
	}
}

// met tells of the chains that meet the packets at the link by which they come in or
// go out, and may drop them. Which they do isn't followed.
func (w *walker) met(h Hook, ways []*packet) []*packet {
	order := "before"
	if h == Egress {
		order = "behind"
	}
	var on []*packet
	for _, p := range ways {
		link := p.in
		if h == Egress {
			link = p.out
		}
		for _, c := range w.atLinks {
			if c.hook != h || !c.drops || link != "" && len(c.links) > 0 && !slices.Contains(c.links, link) {
				continue
			}
			taken, left := w.parted(p)
			step := spec.TraceStep{
				Where: "nft " + c.family + " " + c.table + " " + c.name, Rule: "hook " + string(h) + " on " + strings.Join(c.links, ", "),
				Owner: tableOwner(c.table), What: "may drop it " + order + " all other rules: its own aren't followed", Maybe: true, Ends: true,
			}
			w.tell(step)
			w.die(taken, spec.FateDropped, step.Where+": "+step.Rule+", which comes "+order+" all other rules")
			p = left
		}
		on = append(on, p)
	}
	return on
}

// fromHost: the way out that OUTPUT's rules see is that of the original
// destination. What stays on the host comes in again by the loopback, where nat
// isn't asked a second time.
func (w *walker) fromHost(ways []*packet) {
	for _, p := range ways {
		p.in, p.out = "", w.facts.Route(p.dst).Link
	}
	here, on := w.route(w.hook(Output, w.ipsec(IPsecOut, ways)))
	for i := len(on) - 1; i >= 0; i-- {
		if on[i].translated { // it is asked about anew
			on = slices.Replace(on, i, i+1, w.ipsec(IPsecOut, on[i:i+1])...)
		}
	}
	here = w.exit(w.hook(Postrouting, here))
	for _, p := range here {
		p.in, p.out, p.settled = "lo", "", true
	}
	w.enter(here)
	w.arrive(w.hook(Input, w.hook(Prerouting, here)), true)
	on = w.exit(w.hook(Postrouting, on))
	w.arrive(on, false)
}

// hook sends the packets through all base chains of a hook, and returns those
// that come out.
func (w *walker) hook(h Hook, ways []*packet) []*packet {
	clear(w.told)
	for _, p := range ways {
		p.hook = h
	}
	for _, b := range w.bases {
		if b.hook != h {
			continue
		}
		if b.dormant {
			w.asleep(b, ways)
			continue
		}
		var on []*packet
		if b.nat && (h == Prerouting || h == Output) { // who has masked the source doesn't change who is reached
			ways = w.rivals(b, ways)
		}
		for _, p := range ways {
			if p.reply {
				p.backAt(h, b.priority)
			}
			if b.nat && (p.untracked || p.settled || p.reply) {
				on = append(on, p) // one chain of all that translate decides, for the whole connection
				continue
			}
			out, rest := w.chain(b, b.chain, []*packet{p})
			on = append(append(on, out...), w.policy(b, rest)...)
		}
		ways = w.merge(on)
	}
	for _, p := range ways {
		p.settled = false
		if p.reply {
			p.backAt(h, math.MaxInt)
		}
	}
	return w.merge(ways)
}

// asleep tells of a chain that the packets pass by.
func (w *walker) asleep(b callable, ways []*packet) {
	if len(ways) == 0 || len(b.chain.rules) == 0 && !b.drops {
		return
	}
	family := strings.Fields(b.chain.table)
	name := family[len(family)-1]
	w.tell(spec.TraceStep{Where: b.chain.where(), Rule: "flags dormant", Owner: spec.OwnerOther, What: "table " + name + " is switched off: none of its rules is asked"})
}

// backAt translates an answer back, as far as conntrack has by then: its destination
// as it comes in, and its source, which was the replica's, as it goes out or arrives.
func (p *packet) backAt(h Hook, priority int) {
	switch {
	case h == Prerouting && priority >= priorityDNAT:
		p.dst = p.late
	case (h == Postrouting || h == Input) && priority >= prioritySNAT:
		p.src, p.sport = p.facts.Packet.To.Addr(), p.facts.Packet.To.Port()
	}
}

// rivals adds the ways that lead by a chain with b's priority which translates as
// well, where b does: the kernel may ask that one first.
func (w *walker) rivals(b callable, ways []*packet) []*packet {
	var all []*packet
	for _, p := range ways {
		if p.untracked || p.settled || p.reply || !w.translates(b, p) {
			all = append(all, p)
			continue
		}
		for _, other := range w.bases {
			if !other.nat || other.dormant || other.hook != b.hook || other.priority != b.priority || other.chain == b.chain || !w.translates(other, p) {
				continue
			}
			w.last++
			first := p.copied()
			first.hangs, p.hangs = append(first.hangs, w.last), append(slices.Clone(p.hangs), -w.last)
			out, rest := w.chain(other, other.chain, []*packet{first})
			all = append(append(all, out...), rest...)
		}
		all = append(all, p)
	}
	return all
}

// translates reports whether the chain may translate the packet; nothing is told.
func (w *walker) translates(b callable, p *packet) bool {
	dry := &walker{bases: w.bases, facts: w.facts, told: map[told]int{}}
	out, rest := dry.chain(b, b.chain, []*packet{p.copied()})
	return slices.ContainsFunc(append(out, rest...), func(p *packet) bool { return p.settled })
}

// policy decides about those that no rule has decided about.
func (w *walker) policy(b callable, ways []*packet) []*packet {
	if !b.drops {
		return ways
	}
	owner := b.chain.policyOwner()
	reason := b.chain.where() + ": policy DROP"
	if owner != spec.OwnerOther {
		reason += ", as " + string(owner) + " sets it"
	}
	for _, p := range ways {
		w.tell(spec.TraceStep{
			Where: b.chain.where(), Rule: "policy DROP", Owner: owner, Packets: b.counted,
			What: "no rule above has accepted it: dropped, the client gets no answer", Maybe: p.maybe(), Ends: true,
		})
		w.die(p, spec.FateDropped, reason)
	}
	return nil
}

// chain sends packets through a chain. out are those that a rule has let out of
// the base chain, rest those that come to the chain's end or a RETURN.
func (w *walker) chain(b callable, c *chain, ways []*packet) (out, rest []*packet) {
	if w.depth++; w.depth <= maxDepth { // the kernel refuses loops, a damaged text may have one
		for i := range c.rules {
			var next []*packet
			for _, p := range ways {
				taken, left := w.split(&c.rules[i], p)
				if left != nil {
					next = append(next, left)
				}
				if taken != nil {
					o, r, on := w.apply(b, c, &c.rules[i], taken)
					out, rest, next = append(out, o...), append(rest, r...), append(next, on...)
				}
			}
			ways = w.merge(next)
		}
	}
	w.depth--
	return out, w.merge(append(rest, ways...))
}

const maxDepth = 64

func (r *rule) test(p *packet) answer {
	all := yes
	p.astray = nil
	p.later = p.reply && establishedOnly(r.text)
	for _, t := range r.tests {
		all = min(all, t(p))
	}
	return all
}

// establishedOnly reports whether a rule spares the first packet of a connection by
// its state, so that the client's others meet it first.
func establishedOnly(text string) bool {
	t := strings.ToUpper(text)
	return strings.Contains(t, "ESTABLISHED") && !strings.Contains(t, "NEW")
}

// apply does what the rule says with a packet that it takes: out of the base
// chain, back to the chain before, or on to the next rule.
func (w *walker) apply(b callable, c *chain, r *rule, p *packet) (out, rest, on []*packet) {
	step := spec.TraceStep{Where: c.where(), Number: r.number, Rule: r.text, Owner: r.owner, Packets: r.packets, Maybe: p.maybe()}
	one := []*packet{p}
	if r.zone != nil {
		w.enterZone(b, *r.zone, p, step)
	}
	switch v := r.do; v.kind {
	case accept:
		step.What = "accepted, as far as this chain goes"
		w.tell(step)
		return one, nil, nil
	case strange:
		step.What = "what " + v.name + " does to it isn't known here"
		w.tell(step)
		w.unseen(fmt.Sprintf("%s, rule %d: %s: what %s does isn't known", step.Where, step.Number, step.Rule, v.name))
		return nil, nil, one
	case queue:
		taken, left := w.parted(p)
		step.Maybe = true
		w.end(step, v, taken)
		return []*packet{left}, nil, nil
	case drop, refuse, steal:
		w.end(step, v, p)
	case back:
		return nil, one, nil
	case jump, leap:
		step.What = "goes to " + v.name
		w.tell(step)
		to := b.chains[v.to]
		if to == nil {
			return nil, nil, one
		}
		o, r := w.chain(b, to, one)
		if v.kind == leap {
			return o, r, nil
		}
		return o, nil, r
	case dnat:
		w.translate(v, p)
		step.What = "sent on to " + hostPort(p.dst, p.port) + share(p.chance)
		step.Maybe = p.maybe()
		w.tell(step)
		return one, nil, nil
	case snat:
		p.settled, p.masked, p.mask = true, true, v.addr
		step.What = "gets another source address"
		w.tell(step)
		return one, nil, nil
	case mark:
		p.mark = p.mark&^v.mask ^ v.value
		p.marked = p.marked || p.maybe()
		step.What = fmt.Sprintf("marked %#x", p.mark)
		w.tell(step)
		return nil, nil, one
	case ttl:
		return nil, nil, w.shortened(v, p, step)
	case notrack:
		p.untracked = true
		step.What = "not tracked: no address is translated"
		w.tell(step)
		return nil, nil, one
	default:
		return nil, nil, one
	}
	return nil, nil, nil
}

// end tells of the rule at which the packet dies.
func (w *walker) end(step spec.TraceStep, v verdict, p *packet) {
	if p.astray != nil && v.kind != steal {
		w.die(p, spec.FateDropped, w.blameRule(p, *p.astray, fmt.Sprintf("%s, rule %d", step.Where, step.Number)))
		return
	}
	fate := spec.FateDropped
	step.What, step.Ends = "dropped: the client gets no answer", true
	switch {
	case v.kind == refuse:
		fate, step.What = spec.FateRefused, "refused: the client is told at once"
	case v.kind == steal || v.kind == queue:
		step.What = v.name + ": a program decides"
	case p.dst == w.facts.Hold && step.Owner == spec.OwnerDunnage:
		fate, step.What = spec.FateHeld, "held: the client tries again and meets the rules of then"
	}
	w.tell(step)
	w.die(p, fate, fmt.Sprintf("%s, rule %d: %s", step.Where, step.Number, step.Rule))
}

// translate changes the destination. The kernel asks no other chain that
// translates afterwards.
func (w *walker) translate(v verdict, p *packet) {
	p.translated, p.settled = true, true
	switch {
	case v.addr.IsValid():
		p.dst = v.addr
	case v.here && !w.facts.Local(p.dst):
		p.dst = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if w.facts.Packet.To.Addr().Is6() {
			p.dst = netip.IPv6Loopback()
		}
	}
	if v.port != 0 {
		p.port = v.port
	}
	if v.unsure {
		w.last++
		p.hangs = append(p.hangs, w.last)
	}
}

func hostPort(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}

// share tells with what chance a way is taken, if dice are thrown.
func share(chance float64) string {
	if chance > 0.9999 {
		return ""
	}
	return fmt.Sprintf(" (%d %% of the connections)", int(math.Round(100*chance)))
}
