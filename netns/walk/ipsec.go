package walk

import (
	"fmt"
	"net/netip"
	"strings"

	"dunnage/spec"
)

// IPsecPolicy is an entry of `ip xfrm policy`. Zero fields select nothing.
type IPsecPolicy struct {
	Way              IPsecWay
	From, To         netip.Prefix
	Protocol         uint8  // number
	FromPort, ToPort uint16 // of the protocol
	More             string // what else it selects by, in ip's words: it isn't known here whether that matches

	Block   bool // what it takes is dropped
	Seals   bool // what it takes has to be, or is, protected by IPsec
	Default bool // it is the kernel's own, for what no other takes
}

// IPsecWay is where the kernel asks a policy, in the words of `ip xfrm policy`.
type IPsecWay string

// The ways of packets.
const (
	IPsecIn      IPsecWay = "in"  // to the host itself
	IPsecForward IPsecWay = "fwd" // passed on
	IPsecOut     IPsecWay = "out" // leaving, also what is passed on
)

const ipsecPlace = "ip xfrm policy"

// String is the policy in the words that `ip xfrm policy delete` takes.
func (r IPsecPolicy) String() string {
	if r.Default {
		return fmt.Sprintf("the default, %s block", r.Way)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "dir %s src %s dst %s", r.Way, r.From, r.To)
	switch r.Protocol {
	case 0:
	case 6:
		b.WriteString(" proto tcp")
	case 17:
		b.WriteString(" proto udp")
	default:
		fmt.Fprintf(&b, " proto %d", r.Protocol)
	}
	if r.FromPort != 0 {
		fmt.Fprintf(&b, " sport %d", r.FromPort)
	}
	if r.ToPort != 0 {
		fmt.Fprintf(&b, " dport %d", r.ToPort)
	}
	return b.String() + r.More
}

func (r IPsecPolicy) takes(p *packet) answer {
	hit := yes
	if r.From.IsValid() {
		hit = min(hit, p.isIn(r.From.String(), p.src))
	}
	if r.To.IsValid() {
		hit = min(hit, p.isIn(r.To.String(), p.dst))
	}
	if r.Protocol != 0 {
		hit = min(hit, is(p.speaks(fmt.Sprint(r.Protocol))))
	}
	if r.FromPort != 0 {
		hit = min(hit, p.fromPorts(fmt.Sprint(r.FromPort)))
	}
	if r.ToPort != 0 {
		hit = min(hit, p.toPorts(fmt.Sprint(r.ToPort)))
	}
	if r.More != "" || p.masked && p.reply && r.To.IsValid() && r.To.Bits() > 0 {
		return hit.unsure()
	}
	return hit
}

// ipsec asks IPsec's policies in their order; the first that takes a packet decides.
// The loopback is exempt. What comes in is asked about with the addresses that it came
// with, which the kernel takes from conntrack; what leaves, with those that it has.
func (w *walker) ipsec(way IPsecWay, ways []*packet) (on []*packet) {
	if len(w.facts.IPsec) == 0 {
		return ways
	}
	clear(w.told)
	for _, p := range ways {
		if left := w.policed(way, p); left != nil {
			on = append(on, left)
		}
	}
	return on
}

func (w *walker) policed(way IPsecWay, p *packet) (left *packet) {
	if link := map[bool]string{true: p.out, false: p.in}[way == IPsecOut]; link == "lo" {
		return p
	}
	unsure := false // one that lets it pass may have decided
	for _, r := range w.facts.IPsec {
		if r.Way != way {
			continue
		}
		asked := *p
		if way != IPsecOut && !p.reply {
			asked.dst, asked.port = w.facts.Packet.To.Addr(), w.facts.Packet.To.Port()
		}
		hit := r.takes(&asked)
		switch {
		case hit == no:
			continue
		case r.Block && unsure:
			p = w.blocked(r, hit.unsure(), p)
		case r.Block:
			p = w.blocked(r, hit, p)
		case r.Seals:
			w.unseen(fmt.Sprintf("%s: %s asks for IPsec: whether packets have it isn't followed", ipsecPlace, r))
		}
		if hit == yes || p == nil {
			return p
		}
		unsure = unsure || !r.Block
	}
	return p
}

// blocked tells of the policy that drops the packet, and returns what it leaves.
func (w *walker) blocked(r IPsecPolicy, hit answer, p *packet) (left *packet) {
	if hit == maybe {
		p, left = w.parted(p)
	}
	step := spec.TraceStep{Where: ipsecPlace, Rule: r.String(), Owner: spec.OwnerOther, Maybe: p.maybe(), Ends: true, What: "blocked by IPsec's policy: the client gets no answer"}
	fate := spec.FateDropped
	if r.Way == IPsecOut && w.facts.fromHost() && !w.answers {
		fate, step.What = spec.FateRefused, "blocked by IPsec's policy: the program is told at once"
	}
	w.tell(step)
	w.die(p, fate, step.Where+": "+step.Rule+", which blocks")
	return left
}
