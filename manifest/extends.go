package manifest

import (
	"path/filepath"
	"slices"
	"strings"
)

// extend returns layers that hold, for each service that extends another, the
// services it extends under its own name: the nearest in the last layer.
func (l *loading) extend(w *walker, y *layer, imported []*layer) []*layer {
	e := y.root.get("services")
	if e == nil {
		return nil
	}
	var names []string
	bases := map[string][]*tree{}
	deepest := 0
	for _, s := range e.val.entries {
		x := extending{l, w, nil}
		if b := x.bases(y, imported, s.key, s.val); len(b) > 0 {
			names, bases[s.key] = append(names, s.key), b
			deepest = max(deepest, len(b))
		}
	}
	for _, s := range e.val.entries {
		s.val.remove("extends")
	}
	out := make([]*layer, deepest)
	for i := range out {
		services := &tree{at: e.val.at, kind: e.val.kind, tag: e.val.tag}
		for _, n := range names {
			if at := len(bases[n]) - deepest + i; at >= 0 {
				services.entries = append(services.entries, entry{bases[n][at].at, n, bases[n][at]})
			}
		}
		root := &tree{at: y.root.at, kind: y.root.kind, tag: y.root.tag, entries: []entry{{e.at, "services", services}}}
		out[i] = &layer{src: y.src, root: root, dir: y.dir, env: y.env}
	}
	return out
}

// extending follows one chain of extends.
type extending struct {
	*loading
	w     *walker
	trail []string // services that lead here
}

// bases are copies of the services that a service extends, the nearest last.
func (x extending) bases(y *layer, imported []*layer, name string, service *tree) []*tree {
	e := service.get("extends")
	if e == nil || e.val.mark == "!reset" || x.report.ended {
		return nil
	}
	path := join("services."+name, "extends")
	fail := func(p *problem) []*tree {
		x.fail(e.at, path, p)
		return nil
	}
	here := y.src.name + ": " + name
	switch {
	case slices.Contains(x.trail, here):
		return fail(refuse("Remove one of the extends", "the services extend each other: %s", strings.Join(append(x.trail, here), " -> ")))
	case len(x.trail) == maxExtends:
		return fail(refuse("Write the service out", "services extend each other more than %d deep", maxExtends))
	}
	x.trail = append(slices.Clone(x.trail), here)
	ref := x.w.texts(e.val, "service")
	if len(ref) == 0 {
		return nil // told by the walk
	}
	from, where, told := append(slices.Clone(imported), y), "this file", x.report.below("services."+ref[0])
	if file := x.w.texts(e.val.child("file"), ""); len(file) > 0 {
		other := absolute(y.dir, file[0])
		layers, err := x.extended(other)
		if err != nil {
			return fail(refuse("Correct the path or create the file; files of other machines aren't fetched", "the file can't be read: %s", err))
		}
		from, imported = layers, nil
		where, told = shown(x.opts.WorkingDir, other), x.unreadable[other]
	}
	var out []*tree
	for _, o := range from {
		base := x.base(o, ref[0])
		if base == nil {
			continue
		}
		if !slices.Contains(imported, o) {
			out = append(out, x.bases(o, imported, ref[0], base)...)
		}
		if base = x.copy(base); base != nil {
			base.remove("extends")
			out = append(out, base)
		}
	}
	switch {
	case len(out) > 0, x.report.below(path), x.report.ended:
	case told:
		x.report.known[path] = true
	default:
		return fail(refuse("Correct the name, or name its file with extends.file", "there is no service %q in %s", clip(ref[0]), where))
	}
	return out
}

// base finds a service in a layer. In a file that is only extended, nothing
// has been checked before.
func (x extending) base(o *layer, name string) *tree {
	services := o.root.child("services")
	s := services.child(name)
	if s == nil || !o.extendedOnly || o.checked[name] {
		return s
	}
	o.checked[name] = true
	w := x.walker(o)
	part := &tree{at: services.at, kind: services.kind, tag: services.tag, entries: []entry{*services.get(name)}}
	w.mapping(part, rules.child("services"), "services")
	w.settleIn(&layer{dir: o.dir, root: &tree{entries: []entry{{services.at, "services", part}}}})
	return part.child(name)
}

// extended reads a file of extends.file, once.
func (x extending) extended(path string) ([]*layer, error) {
	if known, ok := x.extendable[path]; ok {
		return known, nil
	}
	problems := len(x.report.errs)
	layers, err := x.read(path)
	if err != nil {
		return nil, err
	}
	x.unreadable[path] = len(x.report.errs) > problems
	for _, y := range layers {
		y.dir, y.env = filepath.Dir(path), x.env
		y.extendedOnly, y.checked = true, map[string]bool{}
	}
	x.extendable[path] = layers
	return layers, nil
}

// copy counts what it copies: a large service may be extended often.
func (x extending) copy(t *tree) *tree {
	if x.report.nodes++; x.report.nodes > maxNodes {
		if !x.report.ended {
			x.report.ended = true
			x.fail(t.at, "", refuse("Extend fewer services", "the files grow beyond %d values when extends is followed", maxNodes))
		}
		return nil
	}
	c := *t
	c.entries, c.items = nil, nil
	for _, e := range t.entries {
		if v := x.copy(e.val); v != nil {
			c.entries = append(c.entries, entry{e.at, e.key, v})
		}
	}
	for _, i := range t.items {
		if v := x.copy(i); v != nil {
			c.items = append(c.items, v)
		}
	}
	return &c
}
