package manifest

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"dunnage/spec"
)

// walker checks one layer against the table and takes out of the tree what was
// refused, so that the second pass still finds the other problems.
type walker struct {
	report *report
	env    map[string]string
	quiet  *warnings
	ports  *int // published so far
}

func (w *walker) fail(at place, path string, err error) {
	var p *problem
	if !errors.As(err, &p) {
		p = refuse("", "%s", err)
	}
	w.report.add(at, path, p)
}

// mapping checks the entries of a mapping against the children of r.
func (w *walker) mapping(t *tree, r *rule, path string) {
	kept := t.entries[:0]
	for _, e := range t.entries {
		if w.entry(e, r, join(path, e.key)) {
			kept = append(kept, e)
		}
	}
	t.entries = kept
}

// entry reports whether the entry is usable.
func (w *walker) entry(e entry, r *rule, path string) bool {
	rule := r.lookup(e.key)
	ours := rule == nil && spec.Nearest(e.key, []string{"x-dunnage"}) != ""
	switch {
	case ours && r.child("x-dunnage") == nil:
		w.fail(e.at, path, refuse("Write it as services.<service>.x-dunnage", "x-dunnage has a meaning directly under a service, or a secret of the top level, only"))
		return false
	case rule == nil && !ours && strings.HasPrefix(e.key, "x-") && r.extensible() && !r.own:
		return true
	case rule == nil:
		w.fail(e.at, path, unknown(e.key, r))
		return false
	case rule.key.verdict == refused:
		w.fail(e.at, path, &problem{rule.key.text, rule.key.hint})
		return false
	}
	if rule.name == "*" && !w.name(e, rule, path) {
		return false
	}
	if e.val.mark == "!reset" {
		return true // takes the key out of the files before
	}
	return w.value(e.val, rule, path)
}

// unknown says what a key that the table lacks might have meant.
func unknown(name string, r *rule) *problem {
	near := spec.Nearest(name, r.names())
	switch {
	case near == "x-dunnage":
		return refuse("Did you mean x-dunnage?", "the key would have no effect")
	case r.own && near != "":
		return refuse(fmt.Sprintf("Did you mean %s?", near), "this version of dunnage doesn't know the key")
	case r.own:
		return refuse("Known here: "+strings.Join(r.names(), ", "), "this version of dunnage doesn't know the key")
	case near != "":
		return refuse(fmt.Sprintf("Did you mean %s?", near), "the Compose Specification has no such key here")
	}
	return refuse("Remove it, or write it as x-"+strings.TrimPrefix(name, "x-")+" if it is data of your own", "the Compose Specification has no such key here")
}

// name checks a key that is a name.
func (w *walker) name(e entry, r *rule, path string) bool {
	switch r.key.path {
	case "services.*":
		if !partOfID.MatchString(e.key) {
			w.fail(e.at, path, refuse("Use letters and digits, separated by single -, _ or .", "%q isn't a valid service name", clip(e.key)))
			return false
		}
	case "secrets.*":
		if err := checkSecretName(e.key); err != nil {
			w.fail(e.at, path, err)
			return false
		}
	case "networks.*", "volumes.*", "configs.*":
		if !identifier.MatchString(e.key) {
			w.fail(e.at, path, refuse("Use letters, digits, -, _ and .", "%q isn't a valid name", clip(e.key)))
			return false
		}
	case "services.*.x-dunnage.secret_env.*":
		if err := checkSecretVariable(e.key); err != nil {
			w.fail(e.at, path, err)
			return false
		}
	case "services.*.environment.*":
		if err := checkVariable(e.key); err != nil {
			w.fail(e.at, path, err)
			return false
		}
	case "services.*.labels.*", "services.*.annotations.*":
		if strings.TrimSpace(e.key) == "" {
			w.fail(e.at, path, refuse("Write KEY: VALUE", "the label has no name"))
			return false
		}
	case "services.*.sysctls.*":
		if err := checkSysctl(e.key); err != nil {
			w.fail(e.at, path, err)
			return false
		}
	case "services.*.extra_hosts.*":
		if err := checkHostname(e.key); err != nil {
			w.fail(e.at, path, err)
			return false
		}
	case "services.*.ulimits.*":
		if spec.Nearest(e.key, ulimitNames) != e.key {
			w.fail(e.at, path, refuse("Known: "+strings.Join(ulimitNames, ", "), "%q isn't a resource limit", clip(e.key)))
			return false
		}
	}
	return true
}

// value checks what stands at a key or in a list.
func (w *walker) value(t *tree, r *rule, path string) bool {
	s := shapeOf(t)
	switch {
	case r.key.shape&shapeAny != 0:
		return true
	case r.key.shape&s == 0:
		w.fail(t.at, path, wrongShape(t, r))
		return false
	case t.kind == yaml.MappingNode:
		w.mapping(t, r, path)
		return w.required(t, r, path)
	case t.kind == yaml.SequenceNode:
		w.list(t, r, path)
		return true
	case s == shapeNull:
		return true
	}
	return w.scalar(t, r, path)
}

func wrongShape(t *tree, r *rule) *problem {
	if t.null() {
		if r.key.path == "services.*" {
			return refuse("Give it an image", "the service is empty")
		}
		return refuse("Give it a value or remove the key", "there is no value, but it must be %s", r.key.wants())
	}
	for _, e := range t.entries {
		if c := r.child(e.key); c != nil && c.key.verdict == refused {
			return &problem{c.key.text, c.key.hint}
		}
	}
	hint := ""
	if r.key.shape&shapeText != 0 && shapeOf(t)&scalar != 0 {
		hint = `Put it in quotes: "` + t.value + `"`
		var p *problem
		switch {
		case strings.HasPrefix(r.key.what, "a duration"):
			hint = "Add a unit, such as " + t.value + "s"
		case r.key.check != nil && errors.As(r.key.check(t.value), &p):
			return p // quotes wouldn't help
		}
	}
	return refuse(hint, "it must be %s, but this is %s", r.key.wants(), t.describe())
}

func (w *walker) list(t *tree, r *rule, path string) {
	item := r.item()
	if item == nil { // a list of texts without a row of its own
		item = &rule{key: key{path: r.key.path, shape: shapeText}}
	}
	kept := t.items[:0]
	targets := map[string]int{}
	for _, v := range t.items {
		p := index(path, v.index)
		if v.mark == "!reset" || w.value(v, item, p) && w.bounded(v, item, p) && w.distinct(v, item, p, targets) {
			kept = append(kept, v)
		}
	}
	t.items = kept
}

// bounded keeps the number of published ports finite before anybody expands
// the ranges.
func (w *walker) bounded(t *tree, r *rule, path string) bool {
	if r.key.path != "services.*.ports.[]" {
		return true
	}
	n := 1
	if t.kind == yaml.ScalarNode {
		v, _ := w.interpolate(t, path)
		ports, _ := parsePortItem(v)
		n = len(ports)
	}
	before := *w.ports
	*w.ports += n
	if *w.ports > maxPorts && before <= maxPorts {
		w.fail(t.at, path, refuse("Publish fewer", "one project may publish at most %d ports", maxPorts))
	}
	return *w.ports <= maxPorts
}

// distinct refuses a second mount or file at one place of the same list: Compose
// drops the first without a word. Over several files it is a way to override.
func (w *walker) distinct(t *tree, r *rule, p string, targets map[string]int) bool {
	var target string
	what := "file"
	switch r.key.path {
	case "services.*.volumes.[]":
		what, target = "mount", w.volumeTarget(t, p)
	case "services.*.secrets.[]":
		target = w.fileTarget(t, p, secretTarget)
	case "services.*.configs.[]":
		target = w.fileTarget(t, p, configTarget)
	default:
		return true
	}
	if first, ok := targets[target]; ok {
		w.fail(t.at, p, refuse("Remove one of them", "the %s at %s is there twice, first as item %d", what, target, first))
		return false
	}
	targets[target] = t.index
	return true
}

func (w *walker) volumeTarget(t *tree, p string) string {
	if e := t.get("target"); e != nil {
		target, _ := w.interpolate(e.val, p)
		return path.Clean(target)
	}
	v, _ := w.interpolate(t, p)
	it, _ := parseVolumeItem(v)
	return path.Clean(it.target)
}

func (w *walker) fileTarget(t *tree, p string, of func(source, target string) string) string {
	if t.kind == yaml.ScalarNode {
		v, _ := w.interpolate(t, p)
		return of(v, "")
	}
	var source, target string
	if e := t.get("source"); e != nil {
		source, _ = w.interpolate(e.val, p)
	}
	if e := t.get("target"); e != nil {
		target, _ = w.interpolate(e.val, p)
	}
	return of(source, target)
}

// scalar checks a value after interpolation.
func (w *walker) scalar(t *tree, r *rule, path string) bool {
	v, err := w.interpolate(t, path)
	if err != nil {
		w.fail(t.at, path, err)
		return false
	}
	if c := w.checkFor(r); c != nil {
		if err := c(v); err != nil {
			w.fail(t.at, path, writtenAs(err, t.value, v))
			return false
		}
	}
	w.settle(t, r, v)
	return true
}

// checkFor is the check of a scalar: a key that takes one item or a list of
// them has the check on its items.
func (w *walker) checkFor(r *rule) check {
	if r.key.check == nil && r.key.shape&shapeList != 0 && r.item() != nil {
		return r.item().key.check
	}
	return r.key.check
}

// requiredKeys must be there, by the path of their mapping.
var requiredKeys = map[string][]string{
	"services.*.volumes.[]":                        {"type", "target"},
	"services.*.ports.[]":                          {"target"},
	"services.*.devices.[]":                        {"source", "target"},
	"services.*.configs.[]":                        {"source"},
	"services.*.secrets.[]":                        {"source"},
	"services.*.blkio_config.device_read_bps.[]":   {"path", "rate"},
	"services.*.blkio_config.device_read_iops.[]":  {"path", "rate"},
	"services.*.blkio_config.device_write_bps.[]":  {"path", "rate"},
	"services.*.blkio_config.device_write_iops.[]": {"path", "rate"},
	"services.*.env_file.[]":                       {"path"},
	"services.*.ulimits.*":                         {"soft", "hard"},
	"services.*.depends_on.*":                      {"condition"},
	"services.*.x-dunnage.probe.http":              {"port"},
	"services.*.x-dunnage.probe.tcp":               {"port"},
	"services.*.x-dunnage.accept":                  {"command"},
	"services.*.x-dunnage.canary":                  {"replicas"},
	"services.*.extends":                           {"service"},
	"include.[]":                                   {"path"},
}

// required checks keys that must be there.
func (w *walker) required(t *tree, r *rule, path string) bool {
	need := requiredKeys[r.key.path]
	if r.key.path == "services.*.volumes.[]" {
		if e := t.get("type"); e != nil && e.val.value == "bind" {
			need = append(slices.Clone(need), "source")
		}
	}
	for _, k := range need {
		if t.get(k) != nil {
			continue
		}
		if !w.report.below(join(path, k)) {
			w.fail(t.at, path, refuse("Add "+k+":", "the key %s is missing", k))
		}
		return false
	}
	return true
}
