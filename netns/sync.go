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
	commits uint32 // one for each table of the document
	jumps   bool   // something that isn't ours was changed too
	unnamed bool   // some backend is no longer named

	end func() // lets the program go that committed; nil = there is none
}

func (c change) wrote() bool { return c.commits > 0 }

func (c change) close() {
	if c.end != nil {
		c.end()
	}
}

// sync makes one family's rules equal to want with one document: a commit for
// each table that differs, in this order. Each brings the chains and the jumps
// that make them live at once, so that there is no instant without, and rules
// of others stay as they are. In a redeploy only the nat table differs. A dormant
// table is switched on again.
func (p programs) sync(ctx context.Context, want rules.Document, cfg rules.Config) (change, error) {
	have, err := p.rules(ctx)
	if err != nil {
		return change{}, err
	}
	done := change{of: p.last, from: have, want: want}
	var doc string
	var asleep []string
	if len(want) > 0 && !rules.HasUserChain(have.text) {
		// The operator's chain is made, and never declared in a document:
		// that would empty it.
		doc += "*filter\n-N " + rules.UserChain + "\nCOMMIT\n"
		done.commits++
		done.jumps = true
	}
	for _, table := range []string{"raw", "filter", "nat"} {
		w, h := want.Table(table), have.doc.Table(table)
		if part := rules.Diff(w, h); part != "" {
			doc += part
			done.commits++
		}
		missing, extra := rules.JumpDiff(w, h)
		done.jumps = done.jumps || len(missing)+len(extra) > 0
		if w.Used() && rules.IsDormant(have.text, table) {
			asleep = append(asleep, table)
		}
	}
	if doc == "" && asleep == nil {
		return done, nil
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
	for _, table := range asleep { // last: it must not wake up with rules that are wrong
		if err := fault.Do("table wake", func() error { return p.wake(table) }); err != nil {
			done.close()
			return change{}, err
		}
		done.commits++
		done.jumps = true
	}
	done.unnamed = loses(rules.Named(have.doc, cfg), rules.Named(want, cfg))
	return done, p.sabotageCommit()
}

// loses reports whether after lacks one of before; both are sorted.
func loses(before, after []netip.Addr) bool {
	return slices.ContainsFunc(before, func(a netip.Addr) bool {
		_, found := slices.BinarySearchFunc(after, a, netip.Addr.Compare)
		return !found
	})
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
