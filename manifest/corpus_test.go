package manifest

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dunnage/spec"
)

// corpusFiles lists the Compose files of other people that stand beside the
// checkout. When root tests are asked for, which is when everything is, their
// absence is a failure.
func corpusFiles(t *testing.T) []string {
	t.Helper()
	dir := filepath.Join("..", "..", "shared", "corpus", "compose")
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err == nil && len(files) > 0 {
		return files
	}
	if os.Getenv("DUNNAGE_ROOT_TESTS") == "" {
		t.Skipf("no Compose files in %s: %v", dir, err)
	}
	t.Fatalf("no Compose files in %s: %v", dir, err)
	return nil
}

func corpusOptions(t *testing.T, path string) Options {
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return Options{Files: []string{abs}, WorkingDir: filepath.Dir(abs), ProjectName: "corpus", Environment: []string{"HOME=/home/somebody"}}
}

// TestCorpus: every real file either loads, and then every key in it is
// honoured, or is refused at a place and with a reason.
func TestCorpus(t *testing.T) {
	var loaded, refusals, problems int
	for _, path := range corpusFiles(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			res, err := Load(t.Context(), corpusOptions(t, path))
			if err == nil {
				loaded++
				checkWholly(t, path)
				checkRoundTrip(t, res.Project)
				return
			}
			var list Errors
			if !errors.As(err, &list) {
				t.Fatalf("refused without a position: %v", err)
			}
			refusals++
			problems += len(list)
			for _, e := range list {
				checkPlaced(t, filepath.Dir(path), e)
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
	for _, l := range parse(source{name: path, data: data}, newReport()) {
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
func checkRoundTrip(t *testing.T, p spec.Project) {
	t.Helper()
	text, err := Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(t.Context(), Options{Files: []string{"-"}, Stdin: strings.NewReader(string(text)), WorkingDir: "/nowhere"})
	if err != nil {
		t.Fatalf("what config prints doesn't load: %v\n%s", err, text)
	}
	if diff := cmp.Diff(p, again.Project, equalProjects...); diff != "" {
		t.Errorf("not the same after a round trip (-before +after):\n%s\n%s", diff, text)
	}
}
