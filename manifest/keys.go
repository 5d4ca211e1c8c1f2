package manifest

import (
	"slices"
	"strings"
)

// verdict says what happens to a key.
type verdict int

const (
	honoured    verdict = iota // means what the Compose Specification says
	differently                // accepted, but means something else; the text says what
	refused                    // an error; the text says why, the hint what to do instead
)

func (v verdict) String() string {
	return [...]string{"honoured", "honoured differently", "refused"}[v]
}

// key is one row of the table: a key of a Compose file, how its value looks
// and what becomes of it. A refused key stands for everything below it.
type key struct {
	path    string // "services.*.ports.[].target": * is any name, [] any item
	shape   shape
	check   check  // of a scalar value, after interpolation; may be nil
	what    string // kind.what
	verdict verdict
	text    string
	hint    string
}

// wants names what may stand at the key.
func (k key) wants() string {
	if k.what != "" {
		return k.what
	}
	return k.shape.String()
}

// yes is a key that is honoured.
func yes(path string, k kind, text string) key {
	return key{path: path, shape: k.shape, check: k.check, what: k.what, verdict: honoured, text: text}
}

// other is a key that is accepted and means something else than in Compose.
func other(path string, k kind, text string) key {
	return key{path: path, shape: k.shape, check: k.check, what: k.what, verdict: differently, text: text}
}

// no is a key that is refused.
func no(path, why, instead string) key {
	return key{path: path, verdict: refused, text: why, hint: instead}
}

// rule is the table as a tree, for walking next to the YAML.
type rule struct {
	key      key
	name     string
	known    bool // a row stands for it
	own      bool // of dunnage's own, where no Compose key is meant
	children []*rule
}

// table is every row, in the order of docs/compose.md.
var table = slices.Concat(topKeys, serviceKeys, imageKeys, rolloutKeys, containerKeys, limitKeys, hostKeys, refusedKeys, dunnageKeys, networkKeys, volumeKeys, configKeys, secretKeys)

var rules = buildRules(table)

func buildRules(rows []key) *rule {
	return addRules(&rule{known: true, key: key{shape: shapeMap}}, rows)
}

func addRules(root *rule, rows []key) *rule {
	for _, row := range rows {
		at := root
		for _, name := range strings.Split(row.path, ".") {
			next := at.child(name)
			if next == nil {
				next = &rule{name: name, own: at.own || name == "x-dunnage"}
				at.children = append(at.children, next)
			}
			at = next
		}
		at.key, at.known = row, true
	}
	return root
}

func (r *rule) child(name string) *rule {
	for _, c := range r.children {
		if c.name == name {
			return c
		}
	}
	return nil
}

// lookup finds the rule for a key as written: by its name, else by the
// wildcard of a mapping whose keys are names.
func (r *rule) lookup(name string) *rule {
	if c := r.child(name); c != nil {
		return c
	}
	return r.child("*")
}

// item is the rule for the items of a list; nil if lists don't stand there.
func (r *rule) item() *rule { return r.child("[]") }

// extensible reports whether x-* keys may stand beside this rule's children:
// everywhere but among names, where x-foo is a name.
func (r *rule) extensible() bool { return r.child("*") == nil }

// names lists the known keys below r.
func (r *rule) names() []string {
	var names []string
	for _, c := range r.children {
		if c.name != "*" && c.name != "[]" && c.known && c.key.verdict != refused {
			names = append(names, c.name)
		}
	}
	slices.Sort(names)
	return names
}
