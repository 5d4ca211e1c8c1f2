package rules

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Parse reads what iptables-save prints and keeps what is dunnage's: its
// chains, and the rules anywhere that lead to them. UserChain is the
// operator's and isn't kept. It accepts any text: lines that it doesn't know
// belong to others.
func Parse(text string) Document {
	p := parser{tables: map[string]*builder{}}
	for line := range strings.Lines(text) {
		p.line(strings.TrimSpace(line))
	}
	return p.done()
}

type parser struct {
	tables  map[string]*builder
	current *builder
	front   map[string]string // chain of others in this table -> the first rule of others in it
}

func (p *parser) line(l string) {
	switch {
	case strings.HasPrefix(l, "*"):
		p.table(l[1:])
	case l == "COMMIT":
		p.current = nil
	case p.current == nil:
	case l == DormantLine:
		p.current.table.Dormant = true
	case strings.HasPrefix(l, ":"):
		if name, _, _ := strings.Cut(l[1:], " "); owned(name) {
			p.current.chain(name)
		}
	case strings.HasPrefix(l, "-A "):
		p.rule(l[3:])
	}
}

func (p *parser) table(name string) {
	if !slices.Contains(tableNames, name) {
		p.current = nil
		return
	}
	if p.tables[name] == nil {
		p.tables[name] = newBuilder(name)
	}
	p.current, p.front = p.tables[name], map[string]string{}
}

func (p *parser) rule(l string) {
	chain, rule, _ := strings.Cut(l, " ")
	if owned(chain) {
		p.current.add(chain, rule)
		return
	}
	jump := Jump{Chain: chain, Rule: rule, Behind: p.front[chain]}
	if chain != UserChain && owned(target(rule)) {
		p.current.table.Jumps = append(p.current.table.Jumps, jump)
	}
	if !jump.ours() && jump.Behind == "" {
		p.front[chain] = rule
	}
}

func (p *parser) done() Document {
	var d Document
	for _, name := range tableNames {
		if b := p.tables[name]; b != nil && len(b.chains)+len(b.table.Jumps) > 0 {
			d = append(d, b.done())
		}
	}
	return d
}

// HasUserChain reports whether the text that iptables-save printed declares
// the operator's chain in the filter table.
func HasUserChain(text string) bool {
	_, filter, _ := strings.Cut(text, "*filter\n")
	filter, _, _ = strings.Cut(filter, "\nCOMMIT")
	return strings.Contains(filter, "\n:"+UserChain+" ")
}

func owned(chain string) bool {
	return strings.HasPrefix(chain, Prefix) && chain != UserChain
}

// target is the chain or verdict that a rule leads to.
func target(rule string) string {
	for _, flag := range []string{"-j ", "-g "} {
		i := strings.LastIndex(" "+rule, " "+flag)
		if i >= 0 {
			name, _, _ := strings.Cut(rule[i+len(flag):], " ")
			return name
		}
	}
	return ""
}

// Named lists the replica addresses that a nat rule of d names, sorted: they
// may receive packets, so they must not be stopped or given away. The reserved
// addresses of the pools aren't replicas.
func Named(d Document, cfg Config) []netip.Addr {
	seen := map[netip.Addr]bool{}
	for _, c := range d.Table("nat").Chains {
		for _, r := range c.Rules {
			if a, ok := destination(r); ok && !cfg.reserved(a) {
				seen[a] = true
			}
		}
	}
	all := make([]netip.Addr, 0, len(seen))
	for a := range seen {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b netip.Addr) int { return cmp.Or(cmp.Compare(a.BitLen(), b.BitLen()), a.Compare(b)) })
	return all
}

func (c Config) reserved(a netip.Addr) bool {
	for _, pool := range []netip.Prefix{c.Pool, c.Pool6} {
		if pool.IsValid() && ReservedSubnet(pool).Contains(a) {
			return true
		}
	}
	return false
}

// destination is the address that the rule DNATs to or, for a hairpin rule,
// the one that it lets reach itself.
func destination(rule string) (netip.Addr, bool) {
	if _, to, ok := strings.Cut(rule, " --to-destination "); ok {
		to, _, _ = strings.Cut(to, " ")
		if ap, err := netip.ParseAddrPort(to); err == nil {
			return ap.Addr(), true
		}
		a, err := netip.ParseAddr(to)
		return a, err == nil
	}
	_, dst, ok := strings.Cut(rule, "-d ")
	if !ok || target(rule) != "SNAT" {
		return netip.Addr{}, false
	}
	dst, _, _ = strings.Cut(dst, " ")
	p, err := netip.ParsePrefix(dst)
	return p.Addr(), err == nil && p.IsSingleIP()
}

// UserChainUsed reports whether the operator's chain has rules, or a rule of
// somebody else leads to it.
func UserChainUsed(text string) bool {
	for line := range strings.Lines(text) {
		rule, ok := strings.CutPrefix(strings.TrimSpace(line), "-A ")
		chain, rule, _ := strings.Cut(rule, " ")
		if ok && (chain == UserChain || !owned(chain) && target(rule) == UserChain) {
			return true
		}
	}
	return false
}
