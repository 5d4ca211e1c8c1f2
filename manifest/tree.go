package manifest

import (
	"fmt"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v4"
)

// place is a position in a file as written.
type place struct {
	file         string
	line, column int
}

func (p place) String() string { return fmt.Sprintf("%s:%d:%d", p.file, p.line, p.column) }

// tree is a YAML node without aliases and merge keys. Every node keeps the
// place where it was written, which for an alias is the anchor.
type tree struct {
	at      place
	kind    yaml.Kind // MappingNode, SequenceNode or ScalarNode
	tag     string    // "!!str", "!!int" ...
	mark    string    // "!reset" or "!override", Compose's merge instructions
	value   string    // scalar
	style   yaml.Style
	entries []entry // mapping, in order
	items   []*tree // sequence
	index   int     // in the sequence as written
}

// entry is one key of a mapping.
type entry struct {
	at  place // of the key
	key string
	val *tree
}

func (t *tree) null() bool { return t.kind == yaml.ScalarNode && t.tag == "!!null" }

// get returns the entry called key, or nil.
func (t *tree) get(key string) *entry {
	if t == nil {
		return nil
	}
	for i := range t.entries {
		if t.entries[i].key == key {
			return &t.entries[i]
		}
	}
	return nil
}

// child is the value at key, or nil.
func (t *tree) child(key string) *tree {
	if e := t.get(key); e != nil {
		return e.val
	}
	return nil
}

// children are the values of a mapping.
func (t *tree) children() (values []*tree) {
	if t == nil {
		return nil
	}
	for _, e := range t.entries {
		values = append(values, e.val)
	}
	return values
}

// list are the items of a sequence.
func (t *tree) list() []*tree {
	if t == nil {
		return nil
	}
	return t.items
}

func (t *tree) remove(key string) {
	t.entries = slices.DeleteFunc(t.entries, func(e entry) bool { return e.key == key })
}

// keep removes every key but these.
func (t *tree) keep(keys ...string) {
	t.entries = slices.DeleteFunc(t.entries, func(e entry) bool { return !slices.Contains(keys, e.key) })
}

// find follows keys down the mappings and returns how far it came: the place
// of the last key that exists, and whether all did.
func (t *tree) find(path ...string) (place, *tree, bool) {
	at := t.at
	for _, k := range path {
		e := t.get(k)
		if e == nil {
			return at, t, false
		}
		at, t = e.at, e.val
	}
	return at, t, true
}

// node makes a YAML node of the tree, for compose-go to read.
func (t *tree) node() *yaml.Node {
	n := &yaml.Node{Kind: t.kind, Tag: t.tag, Value: t.value}
	if t.kind == yaml.ScalarNode && t.tag == "!!str" {
		n.Style = yaml.DoubleQuotedStyle
	}
	if t.mark != "" {
		n.Tag, n.Style = t.mark, n.Style|yaml.TaggedStyle
	}
	for _, e := range t.entries {
		key := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: e.key, Style: yaml.DoubleQuotedStyle}
		n.Content = append(n.Content, key, e.val.node())
	}
	for _, i := range t.items {
		n.Content = append(n.Content, i.node())
	}
	return n
}

// describe names what stands there, for messages.
func (t *tree) describe() string {
	switch {
	case t.kind == yaml.MappingNode:
		return "a mapping"
	case t.kind == yaml.SequenceNode:
		return "a list"
	case t.null():
		return "nothing"
	case t.tag == "!!int", t.tag == "!!float":
		return "the number " + t.value
	case t.tag == "!!bool":
		return "the boolean " + t.value
	}
	return "the text " + strconv.Quote(clip(t.value))
}

// clip keeps messages short.
func clip(s string) string {
	const limit = 80
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "..."
}

// join appends a key to a path for people.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// index appends a list index to a path for people.
func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
