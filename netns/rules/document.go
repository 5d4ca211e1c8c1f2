package rules

import (
	"cmp"
	"slices"
	"strings"
)

// Document is dunnage's part of one family's tables: raw, filter, nat.
type Document []Table

// Table is dunnage's part of one table.
type Table struct {
	Name    string
	Dormant bool    // of one parsed: see MarkDormant
	Jumps   []Jump  // rules in chains of others that lead to ours
	Chains  []Chain // sorted by name
}

// Chain is one chain of ours. Rules are in order, without "-A NAME ".
type Chain struct {
	Name  string
	Rules []string
}

// Jump is a rule in somebody else's chain that leads to one of ours.
type Jump struct {
	Chain string // the chain it stands in: FORWARD, PREROUTING ...
	Rule  string // without "-A CHAIN "
	First bool   // where to put it if it is missing; not part of equality
	Leads bool   // nothing of others may come before it

	Behind string // of one parsed: the first rule of others before it; empty = there is none
}

// same reports whether both are the same rule of the same chain.
func (j Jump) same(o Jump) bool { return j.Chain == o.Chain && j.Rule == o.Rule }

// Table returns the table called name, or an empty one.
func (d Document) Table(name string) Table {
	for _, t := range d {
		if t.Name == name {
			return t
		}
	}
	return Table{Name: name}
}

// Chain returns the chain called name.
func (t Table) Chain(name string) (Chain, bool) {
	i, ok := slices.BinarySearchFunc(t.Chains, name, func(c Chain, n string) int { return cmp.Compare(c.Name, n) })
	if !ok {
		return Chain{}, false
	}
	return t.Chains[i], true
}

// Foreign reports whether a rule of somebody else leads to a chain of ours.
func (d Document) Foreign() bool {
	return slices.ContainsFunc(d, func(t Table) bool {
		return slices.ContainsFunc(t.Jumps, func(j Jump) bool { return !j.ours() })
	})
}

// Ours is the document, parsed from the kernel, without what Diff leaves alone:
// rules of others that lead to our chains, and the empty chains that want lacks
// and such rules keep from being deleted.
func (d Document) Ours(want Document) Document {
	var out Document
	for _, t := range d {
		kept := Table{Name: t.Name, Dormant: t.Dormant}
		for _, j := range t.Jumps {
			if j.ours() {
				kept.Jumps = append(kept.Jumps, j)
			}
		}
		for _, c := range t.Chains {
			if _, wanted := want.Table(t.Name).Chain(c.Name); wanted || len(c.Rules) > 0 || !t.pinned(c.Name) {
				kept.Chains = append(kept.Chains, c)
			}
		}
		out = append(out, kept)
	}
	return out
}

// String is the document as iptables-save prints it, without comments, chains
// of others and the policies of the built-in chains. Feeding it to
// iptables-restore --noflush makes the chains new; jumps would be doubled.
func (d Document) String() string {
	var b strings.Builder
	for _, t := range d {
		t.write(&b)
	}
	return b.String()
}

func (t Table) write(b *strings.Builder) {
	b.WriteString("*" + t.Name + "\n")
	if t.Dormant {
		b.WriteString(DormantLine + "\n")
	}
	for _, c := range t.Chains {
		b.WriteString(":" + c.Name + " - [0:0]\n")
	}
	for _, j := range t.Jumps {
		b.WriteString("-A " + j.Chain + " " + j.Rule + "\n")
	}
	for _, c := range t.Chains {
		c.write(b)
	}
	b.WriteString("COMMIT\n")
}

func (c Chain) write(b *strings.Builder) {
	for _, r := range c.Rules {
		b.WriteString("-A " + c.Name + " " + r + "\n")
	}
}

// builder collects the chains of a table in any order.
type builder struct {
	table  Table
	chains map[string][]string
}

func newBuilder(table string) *builder {
	return &builder{table: Table{Name: table}, chains: map[string][]string{}}
}

// add appends a rule, made of the parts that aren't empty.
func (b *builder) add(chain string, parts ...string) {
	b.chains[chain] = append(b.chains[chain], join(parts))
}

// chain makes sure that the chain exists, even without rules.
func (b *builder) chain(name string) {
	if _, ok := b.chains[name]; !ok {
		b.chains[name] = nil
	}
}

func (b *builder) jump(chain string, first bool, parts ...string) {
	b.table.Jumps = append(b.table.Jumps, Jump{Chain: chain, Rule: join(parts), First: first})
}

// lead makes the jumps so far stay before all rules of others.
func (b *builder) lead() {
	for i := range b.table.Jumps {
		b.table.Jumps[i].Leads = true
	}
}

func (b *builder) done() Table {
	t := b.table
	for name, rules := range b.chains {
		t.Chains = append(t.Chains, Chain{Name: name, Rules: rules})
	}
	slices.SortFunc(t.Chains, func(x, y Chain) int { return cmp.Compare(x.Name, y.Name) })
	return t
}

func join(parts []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(parts), func(p string) bool { return p == "" }), " ")
}
