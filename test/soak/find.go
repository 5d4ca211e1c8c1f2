package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"slices"
	"strings"
)

// measuring lists the tests that call row, itself or through others, sorted.
// Methods count by their name alone: one too many is played rather than one
// forgotten.
func measuring(dir fs.FS) ([]string, error) {
	files, err := fs.Glob(dir, "*_test.go")
	if err != nil {
		return nil, err
	}
	calls := map[string][]string{} // function -> what it calls
	for _, name := range files {
		src, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", name, err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				calls[fn.Name.Name] = append(calls[fn.Name.Name], called(fn)...)
			}
		}
	}
	var out []string
	for name := range calls {
		if strings.HasPrefix(name, "Test") && name != "TestMain" && reaches(calls, name, map[string]bool{}) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// called lists the names of what a function calls.
func called(fn *ast.FuncDecl) (names []string) {
	ast.Inspect(fn, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		switch f := call.Fun.(type) {
		case *ast.Ident:
			names = append(names, f.Name)
		case *ast.SelectorExpr:
			names = append(names, f.Sel.Name)
		}
		return true
	})
	return names
}

func reaches(calls map[string][]string, name string, seen map[string]bool) bool {
	if name == "row" {
		return true
	}
	if seen[name] {
		return false
	}
	seen[name] = true
	return slices.ContainsFunc(calls[name], func(next string) bool { return reaches(calls, next, seen) })
}
