package walk

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// NFT reads what `nft -j list ruleset` prints of native tables, for IPv4 or IPv6;
// listing is what `nft -a list ruleset` prints, for the words of the rules.
// Tables that iptables-save shows are left out, but for foreign ones, which it
// only names.
func NFT(list []byte, listing string, v6 bool, foreign []string) (set Ruleset, err error) {
	var all struct {
		Objects []nftObject `json:"nftables"`
	}
	if err := json.Unmarshal(list, &all); err != nil {
		return set, fmt.Errorf("read nft's rules: %w", err)
	}
	n := &native{set: Ruleset{chains: map[string]*chain{}}, v6: v6, foreign: foreign, words: handles(listing), links: linksOf(listing), dormant: dormantIn(listing), sets: map[string][]json.RawMessage{}}
	for _, o := range all.Objects {
		n.declare(o)
	}
	for _, o := range all.Objects {
		if r := o.Rule; r != nil && n.follows(r.Family, r.Table) {
			n.rule(*r)
		}
		if r := o.Rule; r != nil && r.mayEnd() {
			for i, e := range n.set.atLinks {
				n.set.atLinks[i].drops = e.drops || e.family == r.Family && e.table == r.Table
			}
		}
	}
	return n.set, nil
}

// ARP tells of the chains in what `nft -j list ruleset` prints that may drop ARP. What
// they do isn't followed.
func ARP(list []byte) (unseen []string, err error) {
	var all struct {
		Objects []nftObject `json:"nftables"`
	}
	if err := json.Unmarshal(list, &all); err != nil {
		return nil, fmt.Errorf("read nft's rules: %w", err)
	}
	ends := map[string]bool{} // tables with a rule that may
	for _, o := range all.Objects {
		if o.Rule != nil && o.Rule.Family == "arp" && o.Rule.mayEnd() {
			ends[o.Rule.Table] = true
		}
	}
	for _, o := range all.Objects {
		if c := o.Chain; c != nil && c.Family == "arp" && c.Hook != "" && (c.Policy == "drop" || ends[c.Table]) {
			unseen = append(unseen, fmt.Sprintf("nft: chain %s of table arp %s may drop ARP, without which neighbours don't find each other: `nft list table arp %s`", c.Name, c.Table, c.Table))
		}
	}
	return unseen, nil
}

// nftObject is an entry of nft's list: one of its fields is set.
type nftObject struct {
	Chain *nftChain `json:"chain"`
	Rule  *nftRule  `json:"rule"`
	Set   *nftSet   `json:"set"`
	Map   *nftSet   `json:"map"`
}

type nftChain struct {
	Family, Table, Name, Type, Hook, Policy string
	Prio                                    int
}

type nftRule struct {
	Family, Table, Chain string
	Handle               int
	Expr                 []map[string]json.RawMessage
}

// mayEnd reports whether the rule may keep packets from those behind it.
func (r nftRule) mayEnd() bool {
	return slices.ContainsFunc(r.Expr, func(e map[string]json.RawMessage) bool {
		for _, statement := range []string{"drop", "reject", "fwd", "queue", "vmap"} {
			if _, has := e[statement]; has {
				return true
			}
		}
		return false
	})
}

type nftSet struct {
	Family, Table, Name string
	Elem                []json.RawMessage
}

type native struct {
	set     Ruleset
	v6      bool
	foreign []string
	words   map[string]string
	links   map[string][]string
	dormant map[string]bool
	sets    map[string][]json.RawMessage
}

// follows reports whether packets of the family meet the table, and not under its
// name in iptables.
func (n *native) follows(family, table string) bool {
	mine := "ip"
	if n.v6 {
		mine = "ip6"
	}
	if family == "inet" {
		return true
	}
	_, known := priorities[table]
	return family == mine && (!known && table != "nat" || slices.Contains(n.foreign, table))
}

func (n *native) declare(o nftObject) {
	for _, s := range []*nftSet{o.Set, o.Map} {
		if s != nil {
			n.sets[s.Family+" "+s.Table+" "+s.Name] = s.Elem
		}
	}
	c := o.Chain
	if c == nil {
		return
	}
	dormant := n.dormant[c.Family+" "+c.Table]
	switch {
	case dormant:
	case Hook(c.Hook) == Ingress, Hook(c.Hook) == Egress:
		n.set.atLinks = append(n.set.atLinks, linkChain{family: c.Family, table: c.Table, name: c.Name, hook: Hook(c.Hook), links: n.links[c.Family+" "+c.Table+" "+c.Name], drops: c.Policy == "drop"})
	}
	if !n.follows(c.Family, c.Table) {
		return
	}
	made := n.chain(c.Family, c.Table, c.Name)
	if c.Hook != "" {
		n.set.bases = append(n.set.bases, base{chain: made, hook: Hook(c.Hook), priority: c.Prio, nat: c.Type == "nat", drops: c.Policy == "drop", dormant: dormant})
	}
}

func (n *native) chain(family, table, name string) *chain {
	key := family + " " + table + " " + name
	if n.set.chains[key] == nil {
		n.set.chains[key] = &chain{program: "nft", table: family + " " + table, name: name, owner: tableOwner(table)}
	}
	return n.set.chains[key]
}

// rule reads a rule. One that looks its verdict up in a map becomes one for each
// of the map's entries.
func (n *native) rule(o nftRule) {
	c := n.chain(o.Family, o.Table, o.Chain)
	r := rule{number: 1, owner: c.owner, text: n.words[fmt.Sprintf("%s %s %s %d", o.Family, o.Table, o.Chain, o.Handle)]}
	if len(c.rules) > 0 {
		r.number = c.rules[len(c.rules)-1].number + 1
	}
	r.text = cmp.Or(r.text, fmt.Sprintf("handle %d", o.Handle))
	scope := o.Family + " " + o.Table + " "
	for _, e := range o.Expr {
		for _, name := range slices.Sorted(keysOf(e)) {
			if name == "vmap" {
				c.rules = append(c.rules, n.lookup(r, scope, e[name])...)
				continue
			}
			n.statement(&r, scope, name, e[name])
		}
	}
	if r.do.kind == pass && slices.ContainsFunc(o.Expr, func(e map[string]json.RawMessage) bool { return e["xt"] != nil }) {
		r.do = verdict{kind: strange, name: "xt"}
	}
	if r.do.kind != pass || r.packets > 0 || r.zone != nil {
		c.rules = append(c.rules, r)
	}
}

func keysOf(m map[string]json.RawMessage) func(func(string) bool) {
	return func(yield func(string) bool) {
		//arch:unordered the caller sorts what it gets
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// lookup is a rule for each entry of a verdict map.
func (n *native) lookup(r rule, scope string, raw json.RawMessage) []rule {
	var v struct {
		Key, Data json.RawMessage
	}
	var data struct{ Set [][]json.RawMessage }
	_ = json.Unmarshal(raw, &v) // what isn't understood has no entries
	if json.Unmarshal(v.Data, &data) != nil {
		var name string
		_ = json.Unmarshal(v.Data, &name)
		for _, e := range n.sets[scope+strings.TrimPrefix(name, "@")] {
			var pair []json.RawMessage
			if json.Unmarshal(e, &pair) == nil {
				data.Set = append(data.Set, pair)
			}
		}
	}
	var all []rule
	for _, pair := range data.Set {
		if len(pair) != 2 {
			continue
		}
		one := r
		one.tests = append(slices.Clone(r.tests), n.compare(scope, v.Key, pair[0]))
		var verdicts map[string]json.RawMessage
		if json.Unmarshal(pair[1], &verdicts) == nil {
			for _, name := range slices.Sorted(keysOf(verdicts)) {
				n.statement(&one, scope, name, verdicts[name])
			}
		}
		all = append(all, one)
	}
	return all
}

// statement adds one expression of a rule: a match, or what the rule does.
func (n *native) statement(r *rule, scope, name string, raw json.RawMessage) {
	var v struct {
		Op, Target  string
		Left, Right json.RawMessage
		Packets     uint64
		Addr, Port  json.RawMessage
		Key, Value  json.RawMessage
	}
	_ = json.Unmarshal(raw, &v) // "accept": null has no fields
	switch name {
	case "match":
		t := n.compare(scope, v.Left, v.Right)
		switch v.Op {
		case "==", "in":
			r.tests = append(r.tests, t)
		case "!=":
			r.tests = append(r.tests, func(p *packet) answer { return t(p).not() })
		default:
			r.tests = append(r.tests, unknown)
		}
	case "accept":
		r.do.kind = accept
	case "drop":
		r.do.kind = drop
	case "reject":
		r.do.kind = refuse
	case "return":
		r.do.kind = back
	case "jump", "goto":
		r.do = verdict{kind: jump, to: scope + v.Target, name: v.Target}
		if name == "goto" {
			r.do.kind = leap
		}
	case "dnat", "redirect":
		r.do = verdict{kind: dnat, here: name == "redirect"}
		r.do.addr, _ = netip.ParseAddr(text(v.Addr))
		var port uint16
		r.do.unsure = len(v.Addr) > 0 && !r.do.addr.IsValid() || len(v.Port) > 0 && json.Unmarshal(v.Port, &port) != nil
		r.do.port = port
	case "snat", "masquerade":
		r.do.kind = snat
	case "notrack":
		r.do.kind = notrack
	case "queue":
		r.do = verdict{kind: queue, name: name}
	case "synproxy", "tproxy":
		r.do = verdict{kind: steal, name: name}
	case "mangle":
		switch kind := kindOf(v.Key); {
		case kind == "meta mark":
			r.do = verdict{kind: mark, mask: ^uint32(0)}
		case kind == "ip ttl" && !n.v6, kind == "ip6 hoplimit" && n.v6:
			r.do = verdict{kind: ttl}
		case kind == "ct zone", kind == "ct reply zone": // that of requests alone doesn't matter to answers
			if json.Unmarshal(v.Value, &r.zone) != nil {
				r.zone, r.do = nil, verdict{kind: strange, name: "ct zone set"}
			}
			return
		default:
			return
		}
		if json.Unmarshal(v.Value, &r.do.value) != nil {
			r.tests = append(r.tests, unknown)
		}
	case "counter":
		r.packets = v.Packets
	case "log", "comment", "continue":
	default: // limits, counts of connections, xt
		r.tests = append(r.tests, unknown)
	}
}

func text(raw json.RawMessage) string {
	var s string
	_ = json.Unmarshal(raw, &s) // no text is the empty one
	return s
}

// kindOf names what an expression takes from a packet: "ip daddr", "meta iifname",
// "ct state", "fib oif saddr"; what isn't understood is "".
func kindOf(raw json.RawMessage) string {
	var e struct {
		Payload struct{ Protocol, Field string }
		Meta    struct{ Key string }
		CT      struct{ Key, Dir string }
		Fib     struct {
			Result string
			Flags  []string
		}
	}
	if json.Unmarshal(raw, &e) != nil {
		return ""
	}
	switch {
	case e.Payload.Field != "":
		return e.Payload.Protocol + " " + e.Payload.Field
	case e.Meta.Key != "":
		return "meta " + e.Meta.Key
	case e.CT.Key != "":
		return strings.Join(strings.Fields("ct "+e.CT.Dir+" "+e.CT.Key), " ")
	case e.Fib.Result != "" && len(e.Fib.Flags) > 0:
		return "fib " + e.Fib.Result + " " + e.Fib.Flags[0]
	}
	return ""
}

// compare is the test that what left takes from a packet is in right.
func (n *native) compare(scope string, left, right json.RawMessage) test {
	var masked struct {
		And []json.RawMessage `json:"&"`
	}
	if json.Unmarshal(left, &masked) == nil && len(masked.And) == 2 {
		var mask, want uint32
		if kindOf(masked.And[0]) != "meta mark" || json.Unmarshal(masked.And[1], &mask) != nil || json.Unmarshal(right, &want) != nil {
			return unknown
		}
		return func(p *packet) answer { return p.hasMark(fmt.Sprintf("%#x/%#x", want, mask)) }
	}
	kind := kindOf(left)
	if kind == "fib oif saddr" && string(right) == "false" {
		return func(p *packet) answer { return comesBack(p).not() }
	}
	var any []test
	for _, value := range n.values(scope, right) {
		any = append(any, n.equals(kind, value))
	}
	if len(any) == 0 && strings.HasPrefix(text(right), "@") {
		return func(*packet) answer { return no } // an empty set
	}
	if len(any) == 0 {
		return unknown
	}
	return func(p *packet) answer {
		best := no
		for _, t := range any {
			best = max(best, t(p))
		}
		return best
	}
}

// values takes sets apart.
func (n *native) values(scope string, raw json.RawMessage) []json.RawMessage {
	var set struct{ Set []json.RawMessage }
	if json.Unmarshal(raw, &set) == nil && set.Set != nil {
		return elements(set.Set)
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil {
		return elements(list)
	}
	if name, ok := strings.CutPrefix(text(raw), "@"); ok {
		return elements(n.sets[scope+name])
	}
	return []json.RawMessage{raw}
}

// elements unpacks those that have a timeout or a counter of their own.
func elements(all []json.RawMessage) []json.RawMessage {
	out := slices.Clone(all)
	for i, e := range out {
		var with struct {
			Elem struct{ Val json.RawMessage }
		}
		if json.Unmarshal(e, &with) == nil && len(with.Elem.Val) > 0 {
			out[i] = with.Elem.Val
		}
	}
	return out
}

// equals tests one value, in the words of the same tests of iptables.
func (n *native) equals(kind string, raw json.RawMessage) test {
	value, ok := plain(raw)
	if !ok {
		return unknown
	}
	link := func(of func(*packet) string) test {
		return func(p *packet) answer { return is(onLink(of(p), value, "*")) }
	}
	switch kind {
	case "ip saddr", "ip6 saddr":
		return n.ofFamily(kind, func(p *packet) answer { return p.inside(value, p.src) })
	case "ct original ip saddr", "ct original ip6 saddr":
		return n.ofFamily(kind, func(p *packet) answer { return p.inside(value, p.client()) })
	case "ip daddr", "ip6 daddr":
		return n.ofFamily(kind, func(p *packet) answer { return p.inside(value, p.dst) })
	case "ct original ip daddr", "ct original ip6 daddr":
		return n.ofFamily(kind, func(p *packet) answer { return p.inside(value, p.facts.Packet.To.Addr()) })
	case "tcp dport", "udp dport", "th dport", "tcp sport", "udp sport", "th sport":
		return func(p *packet) answer {
			proto, field, _ := strings.Cut(kind, " ")
			ports := strings.Replace(value, "-", ":", 1)
			switch {
			case proto != "th" && !p.speaks(proto):
				return no
			case field == "sport":
				return p.fromPorts(ports)
			}
			return p.toPorts(ports)
		}
	case "ct original proto-dst":
		return func(p *packet) answer {
			return inPorts(strings.Replace(value, "-", ":", 1), p.facts.Packet.To.Port())
		}
	case "ip protocol", "ip6 nexthdr", "meta l4proto":
		return func(p *packet) answer { return is(p.speaks(value)) }
	case "meta nfproto", "meta protocol":
		return func(*packet) answer { return is((value == "ipv6" || value == "ip6") == n.v6) }
	case "meta iifname", "meta iif":
		return func(p *packet) answer { return p.cameBy(strings.Replace(value, "*", "+", 1)) }
	case "meta oifname", "meta oif":
		return link(func(p *packet) string { return p.out })
	case "meta mark":
		return func(p *packet) answer { return p.hasMark(value) }
	case "ct state":
		return func(p *packet) answer { return p.inState([]string{strings.ToUpper(value)}) }
	case "ct status":
		return func(p *packet) answer { return is(value == "dnat" && p.translated || value == "snat" && p.masked) }
	case "ct direction":
		return func(p *packet) answer { return is((value == "reply") == p.reply) }
	case "fib type daddr":
		return func(p *packet) answer { return p.addressType(p.dst, []string{strings.ToUpper(value)}) }
	case "fib type saddr":
		return func(p *packet) answer { return p.addressType(p.src, []string{strings.ToUpper(value)}) }
	}
	return unknown
}

// ofFamily is t for packets of the family that the name of what is compared has.
func (n *native) ofFamily(kind string, t test) test {
	if strings.Contains(kind, "ip6") != n.v6 {
		return func(*packet) answer { return no }
	}
	return t
}

func (p *packet) inside(value string, a netip.Addr) answer {
	if strings.Contains(value, "-") {
		return between(value, a)
	}
	return p.isIn(value, a)
}

// plain writes a value as iptables does: "80", "80-90", "10.0.0.0/8".
func plain(raw json.RawMessage) (string, bool) {
	var v struct {
		Prefix struct {
			Addr string
			Len  int
		}
		Range []json.RawMessage
	}
	var number uint64
	switch {
	case text(raw) != "":
		return text(raw), true
	case json.Unmarshal(raw, &number) == nil:
		return fmt.Sprint(number), true
	case json.Unmarshal(raw, &v) != nil:
		return "", false
	case v.Prefix.Addr != "":
		return fmt.Sprintf("%s/%d", v.Prefix.Addr, v.Prefix.Len), true
	case len(v.Range) == 2:
		low, ok := plain(v.Range[0])
		high, ok2 := plain(v.Range[1])
		return low + "-" + high, ok && ok2
	}
	return "", false
}
