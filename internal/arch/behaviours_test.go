package arch

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	namedTest = regexp.MustCompile("`(Test[A-Za-z0-9]+|[a-z-]+\\.txtar|[a-z-]+\\.txt)`")
	testFunc  = regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
)

// The page of behaviours may only name tests and their files that are there.
func TestBehavioursNameTests(t *testing.T) {
	const root = "../.."
	var known []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && slices.Contains([]string{".git", "bin", "build"}, d.Name()) {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() {
			return err
		}
		known = append(known, d.Name())
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllSubmatch(b, -1) {
			known = append(known, string(m[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "behaviours.md"))
	if err != nil {
		t.Fatal(err)
	}
	names := namedTest.FindAllSubmatch(page, -1)
	if len(names) < 100 {
		t.Fatalf("only %d names found in the page", len(names))
	}
	for _, m := range names {
		if name := string(m[1]); !slices.Contains(known, name) {
			t.Errorf("docs/behaviours.md names %s, which isn't there", name)
		}
	}
}
