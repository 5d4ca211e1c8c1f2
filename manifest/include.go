package manifest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds of what files may bring along.
const (
	maxIncluded = 64 // files
	maxExtends  = 32 // services in a chain
)

// unfold checks a layer against the table and returns it behind the layers
// that it includes and those that its services extend. Layers override those
// before them, which is what Compose comes to: a file goes before what it
// includes, and an include before the later ones. trail are the files that
// lead here.
func (l *loading) unfold(y *layer, trail []string) []*layer {
	w := l.walker(y)
	w.mapping(y.root, rules, "")
	y.root.remove("version") // compose-go warns about it once a process
	if y.foreign {
		w.settleIn(y)
	}
	imported := l.include(w, y, append(slices.Clone(trail), y.src.path))
	extended := l.extend(w, y, imported)
	y.root.remove("include")
	return distinct(slices.Concat(imported, extended, []*layer{y}))
}

// distinct keeps the last of each layer: a file may be included twice.
func distinct(layers []*layer) []*layer {
	var out []*layer
	seen := map[*layer]bool{}
	for _, y := range slices.Backward(layers) {
		if !seen[y] {
			seen[y] = true
			out = append(out, y)
		}
	}
	slices.Reverse(out)
	return out
}

// include returns the layers of a layer's include entries, the first entry
// last.
func (l *loading) include(w *walker, y *layer, trail []string) []*layer {
	e := y.root.get("include")
	if e == nil {
		return nil
	}
	var out []*layer
	for _, item := range e.val.items {
		out = append(l.includeEntry(w, y, item, trail), out...)
	}
	return distinct(out)
}

func (l *loading) includeEntry(w *walker, y *layer, item *tree, trail []string) []*layer {
	fail := func(p *problem) []*layer {
		l.fail(item.at, index("include", item.index), p)
		return nil
	}
	var paths []string
	for _, p := range w.texts(item, "path") {
		paths = append(paths, absolute(y.dir, p))
	}
	if len(paths) == 0 {
		return fail(refuse("Name a file", "the entry has no path"))
	}
	for _, p := range paths {
		if slices.Contains(trail, p) {
			return fail(refuse("Remove one of the includes", "the files include each other: %s", l.drawFiles(append(trail, p))))
		}
	}
	dir := filepath.Dir(paths[0])
	if d := w.texts(item.child("project_directory"), ""); len(d) > 0 {
		dir = absolute(y.dir, d[0])
	}
	envFiles := w.texts(item.child("env_file"), "")
	key := strings.Join(slices.Concat(paths, []string{"", dir, ""}, envFiles), "\x00")
	if known, ok := l.included[key]; ok {
		return known
	}
	env, err := l.envWith(y, dir, envFiles)
	if err != nil {
		return fail(refuse("Correct or create the file", "%s", err))
	}
	var out []*layer
	for _, p := range paths {
		layers, err := l.read(p)
		if err != nil {
			return fail(refuse("Correct the path or create the file; files of other machines aren't fetched", "the included file can't be read: %s", err))
		}
		for _, in := range layers {
			in.dir, in.env, in.foreign = dir, env, true
			in.root.keep("services", "networks", "volumes", "configs", "secrets", "include")
			out = append(out, l.unfold(in, trail)...)
		}
	}
	l.included[key] = distinct(out)
	return l.included[key]
}

// envWith is the layer's environment with what files add to it.
func (l *loading) envWith(y *layer, dir string, files []string) (map[string]string, error) {
	env, vars := maps.Clone(y.env), map[string]string{}
	if len(files) == 0 {
		if st, err := os.Stat(filepath.Join(dir, ".env")); err == nil && st.Mode().IsRegular() {
			files = []string{filepath.Join(dir, ".env")}
		}
	}
	for _, f := range files {
		if f == "/dev/null" {
			continue // Compose's way to have none
		}
		if err := l.envFiles.add(vars, absolute(y.dir, f), env, true); err != nil {
			return nil, err
		}
	}
	return under(env, vars), nil
}

// read parses a file that the manifest names.
func (l *loading) read(path string) ([]*layer, error) {
	if l.files++; l.files > maxIncluded {
		return nil, fmt.Errorf("more than %d files are included and extended", maxIncluded)
	}
	data, err := readRegular(path)
	if err != nil {
		return nil, err
	}
	l.also = append(l.also, path)
	return parse(source{name: shown(l.opts.WorkingDir, path), path: path, data: data}, ofCompose, l.report), nil
}

func (l *loading) drawFiles(paths []string) string {
	var names []string
	for _, p := range paths {
		names = append(names, shown(l.opts.WorkingDir, p))
	}
	return strings.Join(names, " -> ")
}

// texts are the interpolated texts at a key of t, or t itself where key is
// empty or t is a text.
func (w *walker) texts(t *tree, key string) []string {
	if t != nil && key != "" && len(t.entries) > 0 {
		t = t.child(key)
	}
	if t == nil || t.null() {
		return nil
	}
	items := t.items
	if len(t.entries) == 0 && len(items) == 0 && t.value != "" {
		items = []*tree{t}
	}
	var out []string
	for _, i := range items {
		if v, err := w.again(i); err == nil {
			out = append(out, v)
		}
	}
	return out
}

// again interpolates without a word: the walk told of unset variables and of
// failures, and what stands below an x- key concerns nobody.
func (w *walker) again(t *tree) (string, error) {
	silent := *w
	silent.report = newReport()
	return silent.interpolate(t, "")
}

// settleIn writes the values and the paths of a foreign layer in such a way
// that they mean the same in the project's environment and directory.
func (w *walker) settleIn(y *layer) {
	w.bake(y.root)
	dir := strings.ReplaceAll(y.dir, "$", "$$")
	if e := y.root.get("services"); e != nil {
		for _, s := range e.val.entries {
			w.fill(s.val.child("environment"))
			anchorService(s.val, dir)
		}
	}
	for _, v := range y.root.child("volumes").children() {
		if opts := v.child("driver_opts"); bindOptions(opts) {
			anchor(opts.child("device"), dir)
		}
	}
	for _, kind := range []string{"configs", "secrets"} {
		if e := y.root.get(kind); e != nil {
			for _, f := range e.val.entries {
				anchor(f.val.child("file"), dir)
			}
		}
	}
}

// bake puts the values of variables into the texts below t.
func (w *walker) bake(t *tree) {
	if strings.Contains(t.value, "$") {
		v, err := w.again(t)
		if err != nil {
			v = t.value
		}
		t.value = strings.ReplaceAll(v, "$", "$$")
	}
	for _, e := range t.entries {
		w.bake(e.val)
	}
	for _, i := range t.items {
		w.bake(i)
	}
}

// fill gives variables without a value the one that they have here.
func (w *walker) fill(environment *tree) {
	if environment == nil {
		return
	}
	for _, e := range environment.entries {
		if v, ok := w.env[e.key]; ok && e.val.null() {
			e.val.tag, e.val.value = "!!str", strings.ReplaceAll(v, "$", "$$")
		}
	}
	for _, i := range environment.items {
		if v, ok := w.env[i.value]; ok {
			i.value += "=" + strings.ReplaceAll(v, "$", "$$")
		}
	}
}

// anchorService makes the relative paths of a service absolute.
func anchorService(s *tree, dir string) {
	anchor(s.child("extends").child("file"), dir)
	for _, key := range []string{"env_file", "label_file"} {
		files := s.child(key)
		anchor(files, dir)
		for _, f := range files.list() {
			anchor(f, dir)
			anchor(f.child("path"), dir)
		}
	}
	for _, v := range s.child("volumes").list() {
		switch {
		case len(v.entries) == 0 && strings.HasPrefix(v.value, "."):
			source, rest, _ := strings.Cut(v.value, ":")
			v.value = absolute(dir, source) + ":" + rest
		case v.child("type") != nil && v.child("type").value == "bind":
			anchor(v.child("source"), dir)
		}
	}
	for _, o := range s.child("security_opt").list() {
		opt, file := cutOption(o.value)
		if opt == "seccomp" && file != "unconfined" && file != "builtin" && !strings.HasPrefix(file, "{") {
			o.value = "seccomp=" + absolute(dir, file)
		}
	}
	build := s.child("build")
	anchorContext(build, dir)
	anchorContext(build.child("context"), dir)
}

func anchor(t *tree, dir string) {
	if t != nil && t.value != "" && !filepath.IsAbs(t.value) {
		t.value = absolute(dir, t.value)
	}
}

// anchorContext leaves what isn't a directory of this machine.
func anchorContext(t *tree, dir string) {
	if t != nil && !strings.Contains(t.value, "://") && !strings.HasPrefix(t.value, "github.com/") && !strings.HasPrefix(t.value, "git@") {
		anchor(t, dir)
	}
}
