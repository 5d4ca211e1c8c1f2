package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"dunnage/spec"
)

// findCorpus lists the Compose files of other people that stand beside the
// checkout, if they do.
func findCorpus() (files []string, err error) {
	dir := filepath.Join("..", "..", "shared", "corpus", "compose")
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no Compose files in %s", dir)
	}
	return files, err
}

// corpusFiles is findCorpus for a test. When root tests are asked for, which is
// when everything is, the corpus' absence is a failure.
func corpusFiles(t *testing.T) []string {
	t.Helper()
	files, err := findCorpus()
	switch {
	case err != nil && os.Getenv("DUNNAGE_ROOT_TESTS") == "":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	return files
}

// demanded are the variables without which Compose refuses a file: ${NAME:?why}.
var demanded = regexp.MustCompile(`\$\{(\w+):?\?`)

// prepare does what the file's user has done: the file stands in a directory of
// its own, the env files that it names are there, though empty, its secrets' too,
// with a value, and the variables that it demands are set. It returns the way to load it.
func prepare(t *testing.T, path string) Options {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "home", "somebody", "stacks", "app") // some files name ../
	file := filepath.Join(dir, filepath.Base(path))
	writeFile(t, file, data)
	for _, l := range parse(source{name: path, data: data}, ofCompose, newReport()) {
		for _, s := range l.root.child("services").children() {
			for _, name := range envFileNames(s.child("env_file")) {
				if !filepath.IsAbs(name) {
					writeFile(t, filepath.Join(dir, name), nil)
				}
			}
		}
		for _, s := range l.root.child("secrets").children() {
			if f := s.child("file"); f != nil && !filepath.IsAbs(f.value) && !strings.Contains(f.value, "$") {
				writeFile(t, filepath.Join(dir, f.value), []byte("x"))
			}
		}
	}
	o := Options{Files: []string{file}, WorkingDir: dir, ProjectName: "corpus", Environment: []string{"HOME=/home/somebody"}}
	for _, m := range demanded.FindAllSubmatch(data, -1) {
		o.Environment = append(o.Environment, string(m[1])+"=x")
	}
	return o
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// envFileNames are the files of an env_file, in each of its forms, that are
// named without variables.
func envFileNames(t *tree) (names []string) {
	items := t.list()
	if t != nil && t.kind == yaml.ScalarNode {
		items = []*tree{t}
	}
	for _, i := range items {
		if p := i.child("path"); p != nil {
			i = p
		}
		if i.value != "" && !strings.Contains(i.value, "$") {
			names = append(names, i.value)
		}
	}
	return names
}

// share is the end of docs/compose.md as it is now, or as it was where there is
// no corpus.
func share(t *testing.T, before string) string {
	files, err := findCorpus()
	if err != nil {
		return before
	}
	loaded, bad := 0, 0
	for _, path := range files {
		o := prepare(t, path)
		if _, err := Load(t.Context(), o); err == nil {
			loaded++
		} else if !composeTakes(t, o) {
			bad++
		}
	}
	return fmt.Sprintf("Of %d Compose files of other people's projects %d load, which is %d %%; each of the others is refused with place and reason, "+
		"%d of them by Compose too. They were tried as a user has them: the env files that they name are there, though empty, "+
		"secrets have a value, and variables that they demand with `:?` are set, to `x`.", len(files), loaded, 100*loaded/len(files), bad)
}

// composeTakes reports whether Compose's own loader accepts the file.
func composeTakes(t *testing.T, o Options) (ok bool) {
	data, err := os.ReadFile(o.Files[0])
	if err != nil {
		t.Fatal(err)
	}
	details := types.ConfigDetails{WorkingDir: o.WorkingDir, Environment: types.NewMapping(o.Environment), ConfigFiles: []types.ConfigFile{{Filename: o.Files[0], Content: data}}}
	quietly(func(*warnings) {
		_, err := loader.LoadWithContext(t.Context(), details, func(lo *loader.Options) { lo.SetProjectName(o.ProjectName, true) })
		ok = err == nil
	})
	return ok
}

// TestCorpus: every real file either loads, and then every key in it is
// honoured, or is refused at a place and with a reason.
func TestCorpus(t *testing.T) {
	var loaded, refusals, problems int
	for _, path := range corpusFiles(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			o := prepare(t, path)
			res, err := Load(t.Context(), o)
			if err == nil {
				loaded++
				checkWholly(t, path)
				checkRoundTrip(t, res)
				return
			}
			t.Log(err)
			var list Errors
			if !errors.As(err, &list) {
				t.Fatalf("refused without a position: %v", err)
			}
			refusals++
			problems += len(list)
			for _, e := range list {
				checkPlaced(t, o.WorkingDir, e)
			}
		})
	}
	t.Logf("%d files load, %d are refused for %d problems, all of them with a position", loaded, refusals, problems)
	if loaded == 0 || refusals == 0 {
		t.Error("the corpus has files of both sorts; this run saw only one")
	}
}

func checkPlaced(t *testing.T, dir string, e *Error) {
	t.Helper()
	if e.File == "" || e.Line < 1 || e.Column < 1 || e.Reason == "" {
		t.Errorf("no place or no reason: %+v", e)
	}
	data, err := os.ReadFile(filepath.Join(dir, e.File))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	if e.Line > len(lines) || e.Column > len(lines[e.Line-1])+1 {
		t.Errorf("beyond the end of the file or the line: %v", e)
	}
}

// checkWholly walks the raw YAML of a file that loaded: each key must have a
// row that honours it, or be an x- key.
func checkWholly(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range parse(source{name: path, data: data}, ofCompose, newReport()) {
		eachKey(l.root, "", func(p string) {
			if r := rowFor(p); r == nil || r.key.verdict == refused {
				t.Errorf("%s loaded, but %s isn't honoured", path, p)
			}
		})
	}
}

// eachKey calls f with the path of every key but x- ones, names and all.
func eachKey(t *tree, path string, f func(string)) {
	for _, e := range t.entries {
		if strings.HasPrefix(e.key, "x-") && e.key != "x-dunnage" {
			continue
		}
		p := join(path, strings.ReplaceAll(e.key, ".", "_"))
		f(p)
		eachKey(e.val, p, f)
	}
	for _, i := range t.items {
		eachKey(i, join(path, "[]"), f)
	}
}

// rowFor finds the rule of a path with real names.
func rowFor(path string) *rule {
	r := rules
	for _, name := range strings.Split(path, ".") {
		if name == "[]" {
			r = r.item()
		} else {
			r = r.lookup(name)
		}
		if r == nil || r.key.shape&shapeAny != 0 {
			return r
		}
	}
	return r
}

var equalProjects = []cmp.Option{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}

// checkRoundTrip: what `dunnage config` prints loads to the same project.
func checkRoundTrip(t *testing.T, r Result) {
	t.Helper()
	text, err := Encode(r.Project)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Files: []string{"-"}, Stdin: strings.NewReader(string(text)), WorkingDir: "/nowhere"}
	for _, d := range r.Project.Secrets {
		if d.Environment != "" {
			o.Environment = append(o.Environment, d.Environment+"="+string(r.Secrets[d.Name].Reveal()))
		}
	}
	again, err := Load(t.Context(), o)
	if err != nil {
		t.Fatalf("what config prints doesn't load: %v\n%s", err, text)
	}
	if diff := cmp.Diff(r.Project, again.Project, equalProjects...); diff != "" {
		t.Errorf("not the same after a round trip (-before +after):\n%s\n%s", diff, text)
	}
	if !maps.EqualFunc(r.Secrets, again.Secrets, spec.SecretValue.Equal) {
		t.Errorf("secrets have other values after a round trip:\n%s", text)
	}
}
