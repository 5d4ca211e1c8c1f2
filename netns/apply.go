package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dunnage/netns/rules"
	"dunnage/spec"
)

// Apply makes the kernel's rules equal to r. Before the commit it adds what
// new rules need (local routes of new service addresses), after it removes
// what only old rules needed, so that no instant has a rule without its route.
// Last, it deletes the UDP conntrack entries that lead to backends which r
// doesn't have for that port: such clients would stay on them for ever.
func (n *Network) Apply(ctx context.Context, r spec.Routing) error {
	v4, v6, err := rules.Render(r, n.rules())
	if err != nil {
		return fmt.Errorf("render rules: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forgetLeft(r)
	if err := n.ensureHost(ctx); err != nil {
		return fmt.Errorf("prepare the host's network: %w", err)
	}
	if err := n.addServiceRoutes(r); err != nil {
		return err
	}
	wrote, unnamed, err := n.syncTables(ctx, v4, v6)
	if err != nil {
		return err
	}
	if err := n.removeServiceRoutes(r); err != nil {
		return err
	}
	if err := n.sweep(ctx, r, wrote, unnamed); err != nil {
		return err
	}
	n.noteLeft(r, v4, v6)
	return nil
}

// Written counts what Apply has written since the Network was made.
func (n *Network) Written() spec.Written {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.written
}

// sweep runs after every change that can leave a flow behind: one that takes a
// backend away, or one beside published UDP ports, whose clients may have been
// asking in vain before. And once after the start, since the agent before may
// have died between its commit and its sweep. A walk through conntrack's table
// takes 10 ms however little is in it.
func (n *Network) sweep(ctx context.Context, r spec.Routing, wrote, unnamed bool) error {
	udp := slices.ContainsFunc(r.Published, func(p spec.PublishedRoute) bool { return p.Protocol == spec.UDP })
	if n.swept && !unnamed && !(wrote && (udp || n.udp)) {
		return nil
	}
	n.swept = false
	if err := n.sweepUDP(ctx, r); err != nil {
		return err
	}
	n.swept, n.udp = true, udp
	return nil
}

// syncTables works on both families side by side and says whether it wrote, and
// whether some backend is no longer named. The first call of a process also
// clears the backend and the family that an earlier configuration may have used.
func (n *Network) syncTables(ctx context.Context, v4, v6 rules.Document) (wrote, unnamed bool, err error) {
	families := []wanted{{n.tables.v4, v4}}
	if n.cfg.Pool6.IsValid() || !n.swept {
		families = append(families, wanted{n.tables.v6, v6})
	}
	all := make([]change, len(families))
	var g errgroup.Group // no failure of one family ends the other's commit
	for i, f := range families {
		g.Go(func() (err error) {
			all[i], err = f.sync(ctx, f.doc, n.rules())
			return err
		})
	}
	err = g.Wait()
	done := time.Now()
	for _, c := range all {
		c.close()
		wrote = wrote || c.wrote()
		unnamed = unnamed || c.unnamed
		if c.wrote() {
			counted := rules.Count(c.want, c.from.doc)
			counted.Last = done
			n.written.Add(counted)
		}
	}
	if err != nil {
		n.swept = false // what was written before the failure is swept with the next try
		return false, false, err
	}
	n.tables.conclude(all...)
	if !n.swept {
		err = n.removeOther(ctx)
	}
	return wrote, unnamed, err
}

// wanted is what one family's tables should be.
type wanted struct {
	programs
	doc rules.Document
}

// removeOther deletes our rules from the backend that isn't in use (any more).
func (n *Network) removeOther(ctx context.Context) error {
	for _, p := range []programs{n.tables.other4, n.tables.other6} {
		if !p.inUse() {
			continue
		}
		if err := p.remove(ctx); err != nil {
			return fmt.Errorf("remove rules of the backend used before: %w", err)
		}
	}
	return nil
}

// Routed parses the nat rules back.
func (n *Network) Routed(ctx context.Context, r spec.Routing) (named []netip.Addr, equal bool, err error) {
	want4, want6, err := n.rendered.render(r, n.rules())
	if err != nil {
		return nil, false, fmt.Errorf("render rules: %w", err)
	}
	have4, have6, err := n.kernel(ctx)
	if err != nil {
		return nil, false, err
	}
	host, err := n.hostDamage(r)
	if err != nil {
		return nil, false, err
	}
	named = slices.Concat(rules.Named(have4, n.rules()), rules.Named(have6, n.rules()))
	return named, len(host) == 0 && rules.Equal(want4, have4) && rules.Equal(want6, have6), nil
}

// rendered keeps the rules of the routing that every look asks about.
type rendered struct {
	mu      sync.Mutex
	routing spec.Routing
	v4, v6  rules.Document
}

// render is rules.Render. What it returns isn't to be changed.
func (m *rendered) render(r spec.Routing, c rules.Config) (v4, v6 rules.Document, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.v4 != nil && r.Equal(m.routing) {
		return m.v4, m.v6, nil
	}
	if v4, v6, err = rules.Render(r, c); err == nil {
		m.routing, m.v4, m.v6 = r, v4, v6
	}
	return v4, v6, err
}

// RuleSet returns the rules of r rendered and as the kernel has them.
func (n *Network) RuleSet(ctx context.Context, r spec.Routing) (spec.RuleSet, error) {
	want4, want6, err := rules.Render(r, n.rules())
	if err != nil {
		return spec.RuleSet{}, fmt.Errorf("render rules: %w", err)
	}
	n.tables.v4.last.forget() // a person wants to see it read
	n.tables.v6.last.forget()
	have4, have6, err := n.kernel(ctx)
	if err != nil {
		return spec.RuleSet{}, err
	}
	return spec.RuleSet{Rendered: ruleText(want4, want6), Kernel: ruleText(have4.Ours(want4), have6.Ours(want6))}, nil
}

func ruleText(v4, v6 rules.Document) string {
	text := "# IPv4\n" + v4.String()
	if len(v6) > 0 {
		text += "# IPv6\n" + v6.String()
	}
	return text
}

// kernel reads both families side by side.
func (n *Network) kernel(ctx context.Context) (v4, v6 rules.Document, err error) {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		have, err := n.tables.v4.rules(gctx)
		v4 = have.doc
		return err
	})
	if n.cfg.Pool6.IsValid() {
		g.Go(func() error {
			have, err := n.tables.v6.rules(gctx)
			v6 = have.doc
			return err
		})
	}
	err = g.Wait()
	return v4, v6, err
}

// Remove deletes everything that dunnage has on the host's network beside the
// replicas themselves (Detach does those): rules in both backends, routes, its
// addresses. Nothing there is no error. The operator's chain stays while it has
// rules, and RestoreSettings is the rest.
func (n *Network) Remove(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.swept = false
	if note, err := readLeft(n.cfg.RunDir); err == nil && note.Changed {
		n.changed.Store(true)
	}
	n.left = nil
	n.forgetLeft(spec.Routing{})
	var all []error
	for _, p := range []programs{n.tables.v4, n.tables.v6, n.tables.other4, n.tables.other6} {
		if p.inUse() {
			all = append(all, p.remove(ctx))
		}
	}
	all = append(all, n.removeVisitor(), n.removeHost())
	if err := errors.Join(all...); err != nil {
		return fmt.Errorf("remove the rules: %w", err)
	}
	return nil
}
