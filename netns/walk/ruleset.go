package walk

import (
	"net/netip"

	"dunnage/spec"
)

// Ruleset is what one program prints of one family's rules.
type Ruleset struct {
	bases   []base
	chains  map[string]*chain // by "TABLE CHAIN"
	atLinks []linkChain
}

// linkChain is a chain that meets packets at a link: as they come in, before all
// hooks, or as they go out, behind all. Its rules aren't followed.
type linkChain struct {
	family, table, name string
	hook                Hook     // Ingress, Egress
	links               []string // empty = not known
	drops               bool     // some, or all
}

// base is a chain that the kernel itself calls.
type base struct {
	chain    *chain
	hook     Hook
	priority int
	nat      bool
	drops    bool   // by its policy
	dormant  bool   // its table is: the kernel doesn't ask it
	counted  uint64 // packets that met the policy
}

// Hook is a place on a packet's way, with netfilter's own name.
type Hook string

// The hooks, in the order of their way.
const (
	Prerouting  Hook = "prerouting"
	Input       Hook = "input"
	Forward     Hook = "forward"
	Output      Hook = "output"
	Postrouting Hook = "postrouting"

	Ingress Hook = "ingress" // at a link, before all of them
	Egress  Hook = "egress"  // and behind
)

type chain struct {
	program string // "iptables-nft", "nft" ...
	table   string
	name    string
	rules   []rule
	guests  guests         // who else has chains in the table
	owner   spec.RuleOwner // of a native table's rules
}

func (c *chain) where() string { return c.program + " " + c.table + " " + c.name }

type rule struct {
	number  int    // in its chain, from 1
	text    string // without "-A CHAIN "
	packets uint64
	owner   spec.RuleOwner
	tests   []test
	chance  float64 // of the packets that pass the tests, 0 = all
	zone    *uint32 // of conntrack, that it puts them into; nil = none
	do      verdict
}

// answer says whether a packet is of a kind.
type answer int

const (
	no answer = iota
	maybe
	yes
)

func is(b bool) answer {
	if b {
		return yes
	}
	return no
}

func (a answer) not() answer { return yes - a }

type test func(*packet) answer

// kind is what a rule does with the packets that it takes.
type kind int

const (
	pass    kind = iota // counts, logs: the next rule decides
	accept              // by this base chain: those after it are asked still
	drop                // and nobody is told
	refuse              // the client gets a reset or an ICMP error
	back                // to the rule after the one that led here
	jump                // to another chain
	leap                // the same, and not back here (goto)
	dnat                // another destination
	snat                // another source
	mark                // for rules that match on it
	notrack             // nat isn't asked
	ttl                 // another time to live (IPv6: hop limit)
	strange             // a target that isn't known here
	queue               // a program decides whether it goes on
	steal               // a program outside of netfilter decides
)

// verdict is a rule's target with its arguments.
type verdict struct {
	kind   kind
	to     string     // jump, leap: key of the chain
	name   string     // of the chain, or the target as it is written
	addr   netip.Addr // dnat; zero = the packet's stays
	port   uint16     // dnat; 0 = the packet's stays
	here   bool       // dnat: to the host itself
	unsure bool       // dnat: one of several addresses or ports
	value  uint32     // mark, ttl
	mask   uint32
	shift  int // ttl: added to the packet's own; 0 = value replaces it
}

// packet is the first packet of a connection, at some place of its way.
type packet struct {
	facts *Facts

	in, out  string     // links; "" = none, or not known
	src, dst netip.Addr // zero = some client of the world
	sport    uint16     // 0 = not known
	port     uint16     // that it goes to; 0 = not known
	hook     Hook

	reply  bool            // the answer to the first packet
	later  bool            // of an answer: the rule asked takes no first packets
	astray *spec.TraceStep // of what the rule asked finds astray: the rule of policy routing that makes it so
	late   netip.Addr      // of an answer: dst once the address is translated back

	translated bool
	settled    bool       // what translates at this hook has decided
	masked     bool       // its source is translated
	mask       netip.Addr // to this; zero = not known
	untracked  bool
	bare       bool // it stands for a question about routes, with addresses alone
	mark       uint32
	marked     bool // by a rule that may have matched: the mark isn't known

	zone   *zone   // nil = the one that all are in
	life   *life   // nil = as its sender has set it
	chance float64 // that a packet takes this way, as far as rules throw dice
	hangs  []int   // on what it hangs that isn't known: see split
}

// life is a time to live that a rule has set. It isn't changed once made.
type life struct {
	left int
	by   spec.TraceStep
}

// state is all of a packet that rules can ask for.
type state struct {
	in, out                        string
	dst                            netip.AddrPort
	translated, settled, untracked bool
	masked                         bool
	mask                           netip.Addr
	mark                           uint32
	marked                         bool
	zone                           *zone
	life                           *life
}

func (p *packet) state() state {
	return state{p.in, p.out, netip.AddrPortFrom(p.dst, p.port), p.translated, p.settled, p.untracked, p.masked, p.mask, p.mark, p.marked, p.zone, p.life}
}

func (p *packet) maybe() bool { return len(p.hangs) > 0 }

// Facts are what is known of a packet, and of the host that it meets.
type Facts struct {
	Packet spec.Packet
	In     string // the link by which it comes; "" = not known, or from the host itself

	// Strange are addresses that no client of the world has: those of the pools.
	Strange []netip.Prefix

	Local func(netip.Addr) bool  // an address of the host
	Route func(netip.Addr) Route // which way the host sends what is for an address

	// Filter is how a link takes packets whose answers wouldn't leave by it; nil = all do.
	Filter func(link string) ReverseFilter

	// Lost is a prefix of clients of the world to whom no answer leads, and why:
	// "203.0.113.0/24: its route says blackhole"; empty = there is none.
	Lost string

	// Policy are the rules of policy routing, in the kernel's order; empty = none but
	// those that each host has. Table asks a routing table for an address, zero = some
	// client's of the world; ok: it has a route.
	Policy []PolicyRule
	Table  func(table int, a netip.Addr) (r TableRoute, ok bool)

	// IPsec are the policies of `ip xfrm policy` and the kernel's defaults that block, in
	// the kernel's order; empty = all pass.
	IPsec []IPsecPolicy

	// Programs are what stands at a link besides rules, on the way in or out, and may
	// drop what passes; nil = nothing does.
	Programs func(link string, out bool) []Program

	Hold netip.Addr // where connections without a replica wait
}

// Program is a BPF program or a filter of tc. What it does isn't followed.
type Program struct {
	Where string // "XDP at eth0", "tc egress at eth0"
	Name  string // "program 42 (drop_all)"
}

// Route is the kernel's answer to where a packet goes next.
type Route struct {
	Link  string // out of which; "lo" for the host itself
	Local bool
	Near  bool   // no router is between
	Dead  string // why it goes nowhere: no route, unreachable; empty = it goes
	Stays string // why a packet of somebody else isn't passed on there: forwarding is off; empty = it is
}

func (f *Facts) fromHost() bool { return f.Packet.From == spec.FromHost }
