package world

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"dunnage/spec"
)

// Attach gives a replica its addresses.
func (w *World) Attach(_ context.Context, e spec.Endpoint) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	effect, err := w.call("attach %s", e.Replica)
	if !effect {
		return err
	}
	addrs := []netip.Addr{}
	for _, a := range e.Addresses {
		w.checkFresh(e.Replica, a.Addr)
		addrs = append(addrs, a.Addr)
	}
	w.attached[e.Replica] = addrs
	return err
}

// checkFresh notes an address that somebody has, or had until just now.
func (w *World) checkFresh(id string, addr netip.Addr) {
	for other, addrs := range w.attached {
		if other != id && slices.Contains(addrs, addr) {
			w.violate("%s and %s share the address %s", id, other, addr)
		}
	}
	if t, ok := w.released[addr]; ok && w.now.Sub(t) < time.Minute && w.attached[id] == nil {
		w.violate("%s gets the address %s, released %s ago", id, addr, w.now.Sub(t))
	}
}

// Detach takes them away.
func (w *World) Detach(_ context.Context, id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	effect, err := w.call("detach %s", id)
	if effect {
		for _, c := range w.containers {
			if c.key.ID != id && c.req.NetNS == w.Namespace(id) && c.phase == spec.PhaseRunning {
				w.violate("%s loses the namespace of %s while it runs", c.key.ID, id)
			}
		}
		delete(w.attached, id)
	}
	return err
}

// Attached lists replicas with a namespace.
func (w *World) Attached(context.Context) (some, whole []string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return nil, nil, ErrCrashed
	}
	for _, id := range slices.Sorted(maps.Keys(w.attached)) {
		if w.Lie != LieNoLeftovers || w.containers[id] != nil {
			some = append(some, id)
		}
	}
	return some, some, nil
}

// Sweep finds nothing: a world has no routes.
func (w *World) Sweep(context.Context) ([]string, error) { return nil, nil }

// Namespace is where nothing is.
func (w *World) Namespace(replica string) string { return namespaces + replica }

const namespaces = "/world/"

// Files are nowhere.
func (w *World) Files(string) spec.HostFiles { return spec.HostFiles{} }

// WriteNames rewrites a hosts file.
func (w *World) WriteNames(_ context.Context, e spec.Endpoint) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.call("names %s", e.Replica)
	return err
}

// Apply swaps the rules.
func (w *World) Apply(_ context.Context, r spec.Routing) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = nil
	effect, err := w.call("apply")
	if err == nil {
		w.left = &r
	}
	if !effect || w.Lie == LieEqual {
		return err
	}
	w.checkSwitch(r)
	w.written.Add(difference(w.kernel, r))
	w.kernel, w.flushed = r, false
	named := w.named()
	for _, c := range w.conns {
		if _, ok := slices.BinarySearchFunc(named, c.addr, netip.Addr.Compare); ok {
			c.unroutedAt = time.Time{}
		} else if c.unroutedAt.IsZero() {
			c.unroutedAt = w.now
		}
	}
	return err
}

// Left is what the last Apply left, if it came to its end.
func (w *World) Left() (spec.Routing, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left == nil {
		return spec.Routing{}, false
	}
	return *w.left, true
}

// Written counts what Apply wrote.
func (w *World) Written() spec.Written {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.written
}

// difference counts a rule for each backend of a service, in one family.
func difference(before, after spec.Routing) spec.Written {
	count := func(r spec.Routing) map[string]int {
		out := map[string]int{}
		for _, s := range r.Services {
			for _, b := range s.Backends {
				out[s.Network+" "+b.Replica]++
			}
		}
		return out
	}
	out := spec.Written{Commits: 1}
	was, is := count(before), count(after)
	for k, n := range is {
		out.Rules.Added += max(0, n-was[k])
	}
	for k, n := range was {
		out.Rules.Removed += max(0, n-is[k])
	}
	return out
}

// named lists the backends in the kernel's rules.
func (w *World) named() []netip.Addr {
	set := map[netip.Addr]bool{}
	for _, s := range w.kernel.Services {
		for _, b := range s.Backends {
			set[b.Addr] = true
		}
	}
	return slices.SortedFunc(maps.Keys(set), netip.Addr.Compare)
}

// Routed reads the rules back.
func (w *World) Routed(_ context.Context, r spec.Routing) ([]netip.Addr, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.dead:
		return nil, false, ErrCrashed
	case w.Lie == LieUnnamed:
		return nil, false, nil
	case w.Lie == LieEqual:
		return w.named(), true, nil
	}
	return w.named(), !w.flushed && r.Equal(w.kernel), nil
}

// Connections counts what lives.
func (w *World) Connections(_ context.Context, addrs []netip.Addr) (map[netip.Addr]int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[netip.Addr]int{}
	if w.dead {
		return nil, ErrCrashed
	}
	if w.Lie == LieNoConns {
		return out, nil
	}
	for _, c := range w.conns {
		if slices.Contains(addrs, c.addr) {
			out[c.addr]++
		}
	}
	return out, nil
}

// Holder says that every port is free.
func (w *World) Holder(context.Context, netip.Addr, uint16, spec.Protocol) (string, error) {
	return "", nil
}

// Damaged says what somebody has emptied or taken away.
func (w *World) Damaged(_ context.Context, _ spec.Routing, replicas []string) ([]spec.Damage, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return nil, ErrCrashed
	}
	var out []spec.Damage
	if w.flushed {
		out = append(out, spec.Damage{Kind: spec.DamageChain, What: "rules flushed"})
	}
	for _, id := range replicas {
		if w.attached[id] == nil {
			out = append(out, spec.Damage{Kind: spec.DamageNamespace, Replica: id, What: "namespace of " + id + " gone"})
		}
	}
	return out, nil
}

// Problems finds none.
func (w *World) Problems(context.Context) ([]string, error) { return nil, nil }

// RuleSet is empty.
func (w *World) RuleSet(context.Context, spec.Routing) (spec.RuleSet, error) {
	return spec.RuleSet{}, nil
}

// Watch takes the set of probed processes.
func (w *World) Watch(targets []spec.ProbeTarget) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.targets = map[string]spec.ProbeTarget{}
	for _, t := range targets {
		w.targets[t.Replica] = t
	}
}

// Again gives processes that were never ready another ten seconds.
func (w *World) Again(replicas []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range replicas {
		w.again[id] = w.now
	}
}

// Assure finds nothing that Health doesn't tell.
func (w *World) Assure(context.Context, []string) map[string]string { return nil }

// sick reports whether the replica has served and doesn't any more.
func (w *World) sick(id string) bool {
	c := w.containers[id]
	after := w.images[c.req.Image.Digest].SickAfter
	return after > 0 && !w.now.Before(c.started.Add(after))
}

// Checks keeps no history.
func (w *World) Checks(string, time.Time) []spec.Check { return nil }

// Output is nothing: no probe is a command.
func (w *World) Output(string) []string { return nil }

// Health says what a probe would find now. A process that is never ready is
// unhealthy after ten seconds.
func (w *World) Health(replica string, started time.Time) (spec.Health, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t, ok := w.targets[replica]
	switch {
	case w.Lie == LieHealthy:
		return spec.HealthHealthy, ""
	case !ok || !t.StartedAt.Equal(started):
		return spec.HealthStarting, ""
	case w.serves(replica):
		return spec.HealthHealthy, ""
	case w.now.Sub(started) > 10*time.Second && w.now.Sub(w.again[replica]) > 10*time.Second, w.sick(replica):
		return spec.HealthUnhealthy, "no answer"
	default:
		return spec.HealthStarting, "no answer yet"
	}
}
