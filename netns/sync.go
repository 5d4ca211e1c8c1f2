package netns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"dunnage/internal/fault"
	"dunnage/netns/rules"
)

// change says what a sync did.
type change struct {
	of      *reading
	from    ruleset
	want    rules.Document
	commits uint32 // of documents, one for each of their tables
	singles bool   // single rules or chains were changed too
	unnamed bool   // some backend is no longer named

	end func() // lets the program go that committed; nil = there is none
}

func (c change) wrote() bool { return c.commits > 0 || c.singles }

func (c change) close() {
	if c.end != nil {
		c.end()
	}
}

// sync makes one family's rules equal to want. Order: chains of the scaffold,
// then the nat chains, then the jumps that make them live. Of these, only the
// nat chains differ in a redeploy: one document, one commit. With the scaffold
// it is one document still, but a commit for each table, in this order.
func (p programs) sync(ctx context.Context, want rules.Document, cfg rules.Config) (change, error) {
	have, err := p.rules(ctx)
	if err != nil {
		return change{}, err
	}
	done := change{of: p.last, from: have, want: want}
	lacksUserChain := len(want) > 0 && !rules.HasUserChain(have.text)
	if rules.Equal(want, have.doc) && !lacksUserChain {
		return done, nil
	}
	missing, extra := jumps(want, have.doc)
	done.singles = lacksUserChain || len(missing)+len(extra) > 0
	if err := p.deleteJumps(extra); err != nil {
		return change{}, err
	}
	if lacksUserChain {
		if err := p.makeUserChain(); err != nil {
			return change{}, err
		}
	}
	var doc string
	for _, table := range []string{"raw", "filter", "nat"} {
		part := rules.Diff(want.Table(table), have.doc.Table(table))
		if part != "" {
			done.commits++
		}
		doc += part
	}
	if doc != "" {
		err := fault.Do("rules commit", func() (err error) {
			done.end, err = p.commit(ctx, doc)
			return err
		})
		if err != nil {
			return change{}, err
		}
	}
	done.unnamed = loses(rules.Named(have.doc, cfg), rules.Named(want, cfg))
	return done, p.insertJumps(missing)
}

// loses reports whether after lacks one of before; both are sorted.
func loses(before, after []netip.Addr) bool {
	return slices.ContainsFunc(before, func(a netip.Addr) bool {
		_, found := slices.BinarySearchFunc(after, a, netip.Addr.Compare)
		return !found
	})
}

// tableJump is a jump and the table it stands in.
type tableJump struct {
	table string
	rules.Jump
}

func jumps(want, have rules.Document) (missing, extra []tableJump) {
	for _, table := range []string{"raw", "filter", "nat"} {
		m, e := rules.JumpDiff(want.Table(table), have.Table(table))
		for _, j := range m {
			missing = append(missing, tableJump{table, j})
		}
		for _, j := range e {
			extra = append(extra, tableJump{table, j})
		}
	}
	return missing, extra
}

// insertJumps touches chains of others rule by rule, the only way that leaves
// the rest of them alone.
func (p programs) insertJumps(all []tableJump) error {
	if len(all) == 0 {
		return nil
	}
	t, err := p.edit()
	if err != nil {
		return err
	}
	for _, j := range all {
		args := rules.Args(j.Rule)
		if j.First {
			err = fault.Do("rule insert", func() error { return t.Insert(j.table, j.Chain, 1, args...) })
		} else {
			err = fault.Do("rule append", func() error { return t.Append(j.table, j.Chain, args...) })
		}
		if err != nil {
			return fmt.Errorf("add jump to %s/%s: %w", j.table, j.Chain, err)
		}
	}
	return nil
}

func (p programs) deleteJumps(all []tableJump) error {
	if len(all) == 0 {
		return nil
	}
	t, err := p.edit()
	if err != nil {
		return err
	}
	for _, j := range all {
		if err := fault.Do("rule delete", func() error { return t.Delete(j.table, j.Chain, rules.Args(j.Rule)...) }); err != nil {
			return fmt.Errorf("delete jump from %s/%s: %w", j.table, j.Chain, err)
		}
	}
	return nil
}

// makeUserChain makes the operator's chain. It is never named in a document:
// that would empty it.
func (p programs) makeUserChain() error {
	t, err := p.edit()
	if err != nil {
		return err
	}
	if err := fault.Do("user chain make", func() error { return t.NewChain("filter", rules.UserChain) }); err != nil {
		return fmt.Errorf("make chain %s: %w", rules.UserChain, err)
	}
	return nil
}

// remove deletes everything of ours; the operator's chain only if it is empty
// and nothing leads to it.
func (p programs) remove(ctx context.Context) error {
	done, err := p.sync(ctx, nil, rules.Config{})
	done.close()
	if err != nil {
		return err
	}
	text, err := p.read(ctx)
	if err != nil || !rules.HasUserChain(text) || rules.UserChainUsed(text) {
		return err
	}
	t, err := p.edit()
	if err != nil {
		return err
	}
	if err := fault.Do("user chain delete", func() error { return t.DeleteChain("filter", rules.UserChain) }); err != nil {
		return fmt.Errorf("delete chain %s: %w", rules.UserChain, err)
	}
	return nil
}
