package walk

import (
	"fmt"

	"dunnage/spec"
)

// mostRouters is more than lie between any two hosts. Senders begin with a time to
// live of 64, 128 or 255.
const mostRouters = 32

// shortened sets the packet's time to live. Where it isn't known whether that is
// too short afterwards, the packet goes on with it and without.
func (w *walker) shortened(v verdict, p *packet, step spec.TraceStep) []*packet {
	on := []*packet{p}
	now := int(v.value)
	switch {
	case v.shift == 0:
	case p.life != nil:
		now = min(max(p.life.left+v.shift, 0), 255)
	case v.shift > -mostRouters:
		return on
	default:
		now = 0
		if v.shift > -255 {
			taken, left := w.parted(p)
			p, on = taken, []*packet{taken, left}
		}
	}
	step.What = fmt.Sprintf("gets a TTL of %d", now)
	step.Maybe = p.maybe()
	p.life = &life{left: now, by: step}
	w.tell(step)
	return on
}

// expires reports whether the host, as a router, passes the packet on no more, and
// tells of the rule that has shortened its life. Else it has one hop less.
func (w *walker) expires(p *packet) bool {
	if p.life == nil {
		return false
	}
	if p.life.left > 1 {
		p.life = &life{left: p.life.left - 1, by: p.life.by}
		return false
	}
	w.die(p, spec.FateRefused, w.blame(p, "the host passes nothing on with that"))
	return true
}

// leave tells which answers expire on their way from the host to the client, and
// returns those that may come there.
func (w *walker) leave(ways []*packet) (on []*packet) {
	clear(w.told)
	for _, p := range ways {
		switch {
		case p.life == nil || p.life.left >= mostRouters || p.dst.IsValid() && w.facts.Route(p.dst).Near:
		case p.life.left <= 1 && p.dst.IsValid():
			w.die(p, spec.FateDropped, w.blame(p, "the next router passes nothing on with that"))
			continue
		default:
			lost, left := w.parted(p)
			w.die(lost, spec.FateDropped, w.blame(lost, "it expires on the way to clients behind as many routers"))
			p = left
		}
		on = append(on, p)
	}
	return on
}

// blame tells of the rule that has set the packet's life as that which ends it.
func (w *walker) blame(p *packet, why string) (reason string) {
	s := p.life.by
	s.Ends, s.Maybe = true, p.maybe()
	s.What = fmt.Sprintf("leaves it a TTL of %d: %s", p.life.left, why)
	w.tell(s)
	return fmt.Sprintf("%s, rule %d: %s, which %s", s.Where, s.Number, s.Rule, s.What)
}
