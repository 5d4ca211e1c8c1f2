package walk

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"dunnage/netns/rules"
)

// priorities are those of iptables' tables (linux/netfilter_ipv4.h), in both
// backends. That of nat hangs on the hook.
var priorities = map[string]int{"raw": -300, "mangle": -150, "filter": 0, "security": 50}

const (
	priorityDNAT = -100
	prioritySNAT = 100
)

// Iptables reads what iptables-save -c of one backend and family prints; program
// is how that is told to people: "iptables-nft".
func Iptables(program, text string) Ruleset {
	p := saved{set: Ruleset{chains: map[string]*chain{}}, program: program}
	for line := range strings.Lines(text) {
		p.line(strings.TrimSpace(line))
	}
	for _, b := range p.set.bases {
		b.chain.guests = p.guests[b.chain.table]
	}
	for _, c := range p.order { // owners hang on chains that are declared later
		for i := range c.rules {
			c.rules[i].owner = c.ruleOwner(c.rules[i])
		}
	}
	return p.set
}

// Foreign lists the tables of which iptables-save says that only nft can read them.
func Foreign(text string) []string {
	var tables []string
	for line := range strings.Lines(text) {
		name, ok := strings.CutPrefix(line, "# Table `")
		if name, _, found := strings.Cut(name, "' is incompatible"); ok && found {
			tables = append(tables, name)
		}
	}
	return tables
}

type saved struct {
	set     Ruleset
	program string
	table   string
	dormant bool
	order   []*chain
	guests  map[string]guests
}

func (p *saved) line(l string) {
	switch {
	case strings.HasPrefix(l, "*"):
		p.table, p.dormant = l[1:], false
	case p.table != "" && l == rules.DormantLine:
		p.dormant = true
	case l == "COMMIT":
		p.table = ""
	case p.table == "":
	case strings.HasPrefix(l, ":"):
		p.declare(strings.Fields(l[1:]))
	case strings.HasPrefix(l, "[") || strings.HasPrefix(l, "-A "):
		p.rule(l)
	}
}

// declare reads ":FORWARD DROP [12:720]".
func (p *saved) declare(f []string) {
	if len(f) < 2 {
		return
	}
	c := p.chain(f[0])
	if p.guests == nil {
		p.guests = map[string]guests{}
	}
	g := p.guests[p.table]
	g.note(f[0])
	p.guests[p.table] = g
	if f[1] == "-" || !slices.Contains(builtins, f[0]) {
		return
	}
	b := base{chain: c, hook: Hook(strings.ToLower(f[0])), nat: p.table == "nat", priority: priorities[p.table], drops: f[1] == "DROP", dormant: p.dormant}
	if b.nat {
		b.priority = priorityDNAT
		if b.hook == Postrouting || b.hook == Input {
			b.priority = prioritySNAT
		}
	}
	if len(f) > 2 {
		b.counted = packetsOf(f[2])
	}
	p.set.bases = append(p.set.bases, b)
}

func (p *saved) chain(name string) *chain {
	key := p.table + " " + name
	c := p.set.chains[key]
	if c == nil {
		c = &chain{program: p.program, table: p.table, name: name}
		p.set.chains[key] = c
		p.order = append(p.order, c)
	}
	return c
}

// packetsOf reads the first number of "[12:720]".
func packetsOf(counters string) uint64 {
	n, _, _ := strings.Cut(strings.Trim(counters, "[]"), ":")
	packets, _ := strconv.ParseUint(n, 10, 64) // without counters it is 0
	return packets
}

func (p *saved) rule(l string) {
	var r rule
	if counters, rest, ok := strings.Cut(l, " "); ok && strings.HasPrefix(counters, "[") {
		r.packets, l = packetsOf(counters), rest
	}
	name, text, _ := strings.Cut(strings.TrimPrefix(l, "-A "), " ")
	r.text = text
	p.read(&r, words(text))
	c := p.chain(name)
	r.number = len(c.rules) + 1
	c.rules = append(c.rules, r)
}

// read fills in a rule's tests and what it does.
func (p *saved) read(r *rule, args []string) {
	negate, module := false, ""
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch arg {
		case "!":
			negate = true
			continue
		case "-j", "-g":
			if i+1 < len(args) {
				r.do = p.target(arg == "-g", args[i+1], args[i+2:])
				if args[i+1] == "CT" {
					var unsure bool
					if r.zone, unsure = ctZone(args[i+2:]); unsure {
						r.do.kind = strange
					}
				}
			}
			return
		case "-m":
			i++
			if i < len(args) {
				module = args[i]
			}
			switch module {
			case "rpfilter":
				r.tests = append(r.tests, comesBack)
			default:
				if !slices.Contains(bare, module) {
					r.tests = append(r.tests, unknown)
				}
			}
			continue
		case "--invert": // of rpfilter
			if module != "rpfilter" {
				r.tests = append(r.tests, unknown)
				continue
			}
			r.tests[len(r.tests)-1] = func(p *packet) answer { return comesBack(p).not() }
			continue
		}
		var values []string
		for free := arg == "--comment"; i+1 < len(args) && (free || !strings.HasPrefix(args[i+1], "-") && args[i+1] != "!"); free = false {
			i++
			values = append(values, args[i])
		}
		if arg == "--probability" && len(values) == 1 {
			r.chance, _ = strconv.ParseFloat(values[0], 64)
			continue
		}
		t := match(module, arg, values)
		if t != nil && negate {
			inner := t
			t = func(p *packet) answer { return inner(p).not() }
		}
		if t != nil {
			r.tests = append(r.tests, t)
		}
		negate = false
	}
}

// target reads what follows -j or -g.
func (p *saved) target(leaps bool, name string, args []string) verdict {
	v := verdict{name: name}
	value := func(option string) string {
		if i := slices.Index(args, option); i >= 0 && i+1 < len(args) {
			return args[i+1]
		}
		return ""
	}
	switch name {
	case "ACCEPT":
		v.kind = accept
	case "DROP":
		v.kind = drop
	case "REJECT":
		v.kind = refuse
	case "RETURN":
		v.kind = back
	case "DNAT":
		v.kind = dnat
		v.addr, v.port, v.unsure = destination(value("--to-destination"))
	case "REDIRECT":
		v.kind = dnat
		v.here = true
		if ports := value("--to-ports"); ports != "" {
			n, err := strconv.ParseUint(ports, 10, 16)
			v.port, v.unsure = uint16(n), err != nil
		}
	case "SNAT", "MASQUERADE":
		v.kind = snat
		v.addr, _, _ = destination(value("--to-source"))
	case "NETMAP":
		v.kind, v.unsure = dnat, true
	case "MARK":
		v.kind = mark
		v.value, v.mask = number(value("--set-xmark"))
	case "NOTRACK":
		v.kind = notrack
	case "CT":
		if slices.Contains(args, "--notrack") {
			v.kind = notrack
		}
	case "TTL", "HL":
		v = lifetime(args)
	case "QUEUE", "NFQUEUE":
		v.kind = queue
	case "TPROXY", "SYNPROXY":
		v.kind = steal
	default:
		// Targets that change or count packets are written in capitals as the
		// chains of many tools are: a chain is what is declared as one.
		if p.set.chains[p.table+" "+name] != nil {
			v.kind = jump
			if leaps {
				v.kind = leap
			}
			v.to = p.table + " " + name
		} else if !slices.Contains(harmless, name) {
			v.kind = strange
		}
	}
	return v
}

// bare are the modules that select nothing by themselves, but by their options.
var bare = []string{"tcp", "udp", "icmp", "icmp6", "ipv6-icmp", "comment", "conntrack", "state", "multiport", "mark", "addrtype", "iprange", "physdev", "statistic"}

// harmless are the targets after which a packet goes on as it was, as far as rules
// and routes are concerned.
var harmless = []string{"LOG", "NFLOG", "ULOG", "AUDIT", "TRACE", "TEE", "LED", "IDLETIMER", "RATEEST", "SET",
	"CLASSIFY", "DSCP", "TOS", "ECN", "CHECKSUM", "TCPMSS", "TCPOPTSTRIP", "SECMARK", "CONNSECMARK", "CONNMARK"}

// lifetime reads "--ttl-set 1", "--hl-dec 3".
func lifetime(args []string) verdict {
	if len(args) != 2 {
		return verdict{}
	}
	n, err := strconv.ParseUint(args[1], 10, 8)
	_, change, _ := strings.Cut(strings.TrimPrefix(args[0], "--"), "-")
	switch {
	case err != nil:
	case change == "set":
		return verdict{kind: ttl, value: uint32(n)}
	case change == "inc" && n > 0:
		return verdict{kind: ttl, shift: int(n)}
	case change == "dec" && n > 0:
		return verdict{kind: ttl, shift: -int(n)}
	}
	return verdict{}
}

// destination reads what DNAT translates to: an address, a port, both, or ranges.
func destination(to string) (a netip.Addr, port uint16, unsure bool) {
	if ap, err := netip.ParseAddrPort(to); err == nil {
		return ap.Addr(), ap.Port(), false
	}
	if a, err := netip.ParseAddr(strings.Trim(to, "[]")); err == nil {
		return a, 0, false
	}
	if p, ok := strings.CutPrefix(to, ":"); ok {
		n, err := strconv.ParseUint(p, 10, 16)
		return a, uint16(n), err != nil
	}
	low, _, _ := strings.Cut(to, "-") // a range: its first address stands for it
	a, _ = netip.ParseAddr(strings.Trim(low, "[]"))
	return a, 0, true
}

// number reads "0x4000/0xc000"; without a mask it is all bits.
func number(text string) (value, mask uint32) {
	v, m, has := strings.Cut(text, "/")
	n, _ := strconv.ParseUint(v, 0, 32)
	if !has {
		return uint32(n), ^uint32(0)
	}
	bits, _ := strconv.ParseUint(m, 0, 32)
	return uint32(n), uint32(bits)
}

// words splits a rule as iptables-save quotes it.
func words(text string) []string {
	var all []string
	var w strings.Builder
	quoted, escaped, begun := false, false, false
	for _, r := range text {
		switch {
		case escaped:
			w.WriteRune(r)
			escaped = false
		case quoted && r == '\\':
			escaped = true
		case r == '"':
			quoted, begun = !quoted, true
		case r == ' ' && !quoted:
			if begun {
				all = append(all, w.String())
			}
			w.Reset()
			begun = false
		default:
			w.WriteRune(r)
			begun = true
		}
	}
	if begun {
		all = append(all, w.String())
	}
	return all
}
