package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// tree is a module's Go files.
type tree struct {
	fset     *token.FileSet
	packages map[string]*pkg // by folder, "" for the root
}

// pkg is one folder's files, test files included.
type pkg struct {
	folder string
	files  []file
}

type file struct {
	name    string // path in the module
	test    bool
	syntax  *ast.File
	imports []imported
}

type imported struct {
	path string
	pos  token.Pos
}

// load parses every Go file of root but those of other modules, of testdata and
// of folders that the go command passes over.
func load(root fs.FS) (*tree, error) {
	t := &tree{fset: token.NewFileSet(), packages: map[string]*pkg{}}
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skipped(root, name) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		return t.add(root, name)
	})
	return t, err
}

func skipped(root fs.FS, dir string) bool {
	if dir == "." {
		return false
	}
	base := path.Base(dir)
	if base == "testdata" || base == "build" || base == "bin" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return true
	}
	_, err := fs.Stat(root, path.Join(dir, "go.mod"))
	return err == nil
}

func (t *tree) add(root fs.FS, name string) error {
	src, err := fs.ReadFile(root, name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	syntax, err := parser.ParseFile(t.fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("parse %s: %w", name, err)
	}
	f := file{name: name, test: strings.HasSuffix(name, "_test.go"), syntax: syntax}
	for _, s := range syntax.Imports {
		p, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			return fmt.Errorf("parse %s: import %s: %w", name, s.Path.Value, err)
		}
		f.imports = append(f.imports, imported{p, s.Pos()})
	}
	folder := path.Dir(name)
	if t.packages[folder] == nil {
		t.packages[folder] = &pkg{folder: folder}
	}
	t.packages[folder].files = append(t.packages[folder].files, f)
	return nil
}

// sorted lists the packages by folder.
func (t *tree) sorted() []*pkg {
	var all []*pkg
	for _, p := range t.packages {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *pkg) int { return strings.Compare(a.folder, b.folder) })
	return all
}

// at is a position as people write it.
func (t *tree) at(p token.Pos) string {
	pos := t.fset.Position(p)
	return fmt.Sprintf("%s:%d", pos.Filename, pos.Line)
}

// under reports whether folder is root or lies in it.
func under(folder, root string) bool {
	return root == everything || folder == root || strings.HasPrefix(folder, root+"/")
}

func underAny(folder string, roots []string) bool {
	return slices.ContainsFunc(roots, func(r string) bool { return under(folder, r) })
}
