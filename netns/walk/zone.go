package walk

import (
	"fmt"
	"slices"
	"strconv"

	"dunnage/spec"
)

// priorityTrack is where conntrack takes a packet: a zone that is set later has no
// effect.
const priorityTrack = -200

// zone is the part of conntrack that a rule has put a packet into. It isn't changed
// once made.
type zone struct {
	id uint32
	by spec.TraceStep
}

func (z *zone) number() uint32 {
	if z == nil {
		return 0
	}
	return z.id
}

// ctZone reads the zone of "-j CT --zone 5": that of answers, by which they are
// known. One that comes from the packet's mark isn't known.
func ctZone(args []string) (id *uint32, unsure bool) {
	for _, option := range []string{"--zone", "--zone-reply"} {
		i := slices.Index(args, option)
		if i < 0 || i+1 >= len(args) {
			continue
		}
		n, err := strconv.ParseUint(args[i+1], 0, 16)
		if err != nil {
			return nil, true
		}
		value := uint32(n)
		return &value, false
	}
	return nil, false
}

// enterZone does what the rule says. By the loopback a packet comes in tracked.
func (w *walker) enterZone(b callable, id uint32, p *packet, step spec.TraceStep) {
	if b.priority >= priorityTrack || p.in == "lo" && p.hook == Prerouting {
		return
	}
	step.What = fmt.Sprintf("tracked in conntrack zone %d", id)
	w.tell(step)
	p.zone = &zone{id, step}
}

// known returns the answers to first that conntrack takes for such. Others have the
// connection in another zone, and addresses that nobody translates back.
func (w *walker) known(first *packet, ways []*packet) (on []*packet) {
	for _, p := range ways {
		is, was := p.zone.number(), first.zone.number()
		if is == was || !first.translated && !first.masked {
			on = append(on, p)
			continue
		}
		z := first.zone
		if was == 0 {
			z = p.zone
		}
		s := z.by
		s.What = fmt.Sprintf("the connection is in conntrack zone %d and its answers in zone %d: nothing translates their addresses back", was, is)
		s.Ends, s.Maybe = true, p.maybe() || first.maybe()
		w.tell(s)
		w.die(p, spec.FateDropped, fmt.Sprintf("%s, rule %d: %s: %s", s.Where, s.Number, s.Rule, s.What))
	}
	return on
}
