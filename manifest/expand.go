package manifest

import (
	"fmt"

	"go.yaml.in/yaml/v4"
)

// expander follows aliases and merge keys and bounds the result: aliases can
// make gigabytes of a few lines.
type expander struct {
	file   string
	of     fileKind
	report *report
	vars   substitutions
	open   map[*yaml.Node]bool
}

func (x *expander) place(n *yaml.Node) place {
	return place{x.file, max(n.Line, 1), max(n.Column, 1)}
}

func (x *expander) fail(n *yaml.Node, path string, p *problem) {
	x.report.add(x.place(n), path, p)
}

// document returns nil for one without content, and for one that isn't a
// mapping, which it reports.
func (x *expander) document(doc *yaml.Node) *tree {
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		return nil
	}
	x.open = map[*yaml.Node]bool{}
	top := doc.Content[0]
	t := x.expand(top, "", 0)
	switch {
	case t == nil || t.null():
		return nil
	case t.kind != yaml.MappingNode:
		x.fail(top, "", refuse(fmt.Sprintf("Start with a key, such as `%s:` in %s", x.of.begins, x.of.name), "the file must be a mapping, but this is %s", t.describe()))
		return nil
	}
	return t
}

// expand returns nil where nothing usable stands; it has been reported then.
func (x *expander) expand(n *yaml.Node, path string, depth int) *tree {
	if !x.count(n, path, depth) {
		return nil
	}
	if n.Kind == yaml.AliasNode {
		if n.Alias == nil || x.open[n.Alias] {
			x.fail(n, path, refuse("Write the value out", "the alias *%s refers to itself", n.Value))
			return nil
		}
		return x.expand(n.Alias, path, depth+1)
	}
	x.open[n] = true
	defer delete(x.open, n)
	t := &tree{at: x.place(n), kind: n.Kind, value: n.Value, style: n.Style}
	if !x.tag(n, t, path) {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		x.mapping(n, t, path, depth)
	case yaml.SequenceNode:
		for i, c := range n.Content {
			if v := x.expand(c, index(path, i), depth+1); v != nil {
				v.index = i
				t.items = append(t.items, v)
			}
		}
	}
	return t
}

func (x *expander) count(n *yaml.Node, path string, depth int) bool {
	if x.report.ended {
		return false
	}
	x.report.nodes++
	x.report.text += len(n.Value)
	switch {
	case x.report.nodes > maxNodes || x.report.text > maxText:
		x.report.ended = true
		x.fail(n, path, refuse("Use fewer aliases", "the file grows beyond %d values when its aliases are followed", maxNodes))
	case depth > maxDepth:
		x.report.ended = true
		x.fail(n, "", refuse("", "values are nested more than %d deep", maxDepth))
	case n.Kind == yaml.ScalarNode:
		if p := x.vars.add(n.Value); p != nil {
			x.report.ended = true
			x.fail(n, path, p)
		}
	}
	return !x.report.ended
}

// tag sets the tree's tag and merge mark.
func (x *expander) tag(n *yaml.Node, t *tree, path string) bool {
	t.tag = n.ShortTag()
	switch t.tag {
	case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq":
	case "!!timestamp", "!!merge":
		t.tag = "!!str" // a date or << that nobody asked to be one
	case "!reset", "!override":
		t.mark, t.tag = t.tag, untagged(n)
	default:
		x.fail(n, path, refuse("Remove the tag", "the YAML tag %s has no meaning in %s", t.tag, x.of.name))
		return false
	}
	return true
}

// untagged is the tag that n has by its content alone.
func untagged(n *yaml.Node) string {
	c := *n
	c.Tag, c.Style = "", n.Style&^yaml.TaggedStyle
	return c.ShortTag()
}

func (x *expander) mapping(n *yaml.Node, t *tree, path string, depth int) {
	seen := map[string]*yaml.Node{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.AliasNode && k.Alias != nil {
			k = k.Alias
		}
		if isMerge(k) {
			merges = append(merges, v)
			continue
		}
		if k.Kind != yaml.ScalarNode || (k.ShortTag() != "!!str" && k.ShortTag() != "!!timestamp") {
			x.fail(k, path, refuse("Put it in quotes", "the key %q isn't text", clip(k.Value)))
			continue
		}
		if len(k.Value) > maxKey {
			x.fail(k, path, refuse("Shorten it", "the key %q has more than %d bytes", clip(k.Value), maxKey))
			continue
		}
		p := join(path, k.Value)
		if first, ok := seen[k.Value]; ok {
			x.fail(k, p, refuse("Remove one of them", "the key is there twice, first on line %d", first.Line))
			continue
		}
		seen[k.Value] = k
		if c := x.expand(v, p, depth+1); c != nil {
			t.entries = append(t.entries, entry{x.place(k), k.Value, c})
		}
	}
	for _, m := range merges {
		x.merge(m, t, path, depth)
	}
}

func isMerge(k *yaml.Node) bool {
	return k.Kind == yaml.ScalarNode && k.Value == "<<" && k.ShortTag() == "!!merge"
}

// merge adds the keys of one or several mappings that t doesn't have itself.
func (x *expander) merge(n *yaml.Node, t *tree, path string, depth int) {
	m := x.expand(n, join(path, "<<"), depth+1)
	if m == nil {
		return
	}
	from := []*tree{m}
	if m.kind == yaml.SequenceNode {
		from = m.items
	}
	for _, f := range from {
		if f.kind != yaml.MappingNode {
			x.fail(n, path, refuse("Give it an alias of a mapping", "<< needs a mapping, but this is %s", f.describe()))
			continue
		}
		for _, e := range f.entries {
			if t.get(e.key) == nil {
				t.entries = append(t.entries, e)
			}
		}
	}
}
