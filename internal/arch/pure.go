package arch

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// impure are packages that a pure one doesn't import: they bring I/O, a clock's
// surroundings, randomness or the log.
var impure = []string{
	"bufio", "crypto/rand", "database/sql", "embed", "expvar", "flag", "io/ioutil", "log", "log/slog", "math/rand", "math/rand/v2",
	"net", "net/http", "net/rpc", "net/smtp", "os", "os/exec", "os/signal", "os/user", "path/filepath", "plugin", "runtime", "sync", "sync/atomic", "syscall", "testing", "unsafe",
}

// clock are the functions of package time that look at the clock or wait.
var clock = []string{"After", "AfterFunc", "NewTicker", "NewTimer", "Now", "Since", "Sleep", "Tick", "Until"}

// unordered marks a range over a map whose order shows nowhere, with a reason:
//
//	//arch:unordered sums don't hang on it
const unordered = "//arch:unordered "

// purity checks one folder: no I/O, no clock, no randomness, no goroutine, and
// no range over a map, whose order differs from run to run.
func purity(t *tree, p *pkg, module string) []string {
	var found []string
	info := typesOf(t, p, module)
	for _, f := range p.files {
		if f.test {
			continue
		}
		for _, i := range f.imports {
			if slices.Contains(impure, i.path) {
				found = append(found, fmt.Sprintf("%s: imports %s: the package is pure", t.at(i.pos), i.path))
			}
		}
		fine := reasonsIn(t, f)
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if block, ok := n.(*ast.BlockStmt); ok {
				for _, pos := range sortedAfter(block) {
					fine[t.fset.Position(pos).Line] = true
				}
			}
			return true
		})
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if what := impurity(info, n); what != "" && !fine[t.fset.Position(n.Pos()).Line] {
				found = append(found, fmt.Sprintf("%s: %s: the package is pure", t.at(n.Pos()), what))
			}
			return true
		})
	}
	return found
}

// reasonsIn lists the lines that an unordered mark stands above or on.
func reasonsIn(t *tree, f file) map[int]bool {
	lines := map[int]bool{}
	for _, g := range f.syntax.Comments {
		for _, c := range g.List {
			if reason, ok := strings.CutPrefix(c.Text, unordered); ok && len(strings.Fields(reason)) > 1 {
				line := t.fset.Position(c.Pos()).Line
				lines[line], lines[line+1] = true, true
			}
		}
	}
	return lines
}

// sortedAfter finds the loops of a block that only gather: what they append to
// is sorted by a later statement of the same block.
func sortedAfter(block *ast.BlockStmt) []token.Pos {
	var loops []token.Pos
	for i, stmt := range block.List {
		loop, ok := stmt.(*ast.RangeStmt)
		if !ok {
			continue
		}
		into := appended(loop.Body)
		for _, later := range block.List[i+1:] {
			if s := sorted(later); s != "" && slices.Contains(into, s) {
				loops = append(loops, loop.Pos())
			}
		}
	}
	return loops
}

// appended lists what statements of the form x = append(x, ...) in body grow.
func appended(body *ast.BlockStmt) []string {
	var into []string
	ast.Inspect(body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		if fn, ok := call.Fun.(*ast.Ident); ok && fn.Name == "append" {
			into = append(into, types.ExprString(call.Args[0]))
		}
		return true
	})
	return into
}

// sorted is what a call of slices.Sort, SortFunc or SortStableFunc sorts.
func sorted(stmt ast.Stmt) string {
	expr, ok := stmt.(*ast.ExprStmt)
	if !ok {
		return ""
	}
	call, ok := expr.X.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 || !strings.HasPrefix(types.ExprString(call.Fun), "slices.Sort") {
		return ""
	}
	return types.ExprString(call.Args[0])
}

// impurity names what n does that a pure package must not.
func impurity(info *types.Info, n ast.Node) string {
	switch n := n.(type) {
	case *ast.GoStmt:
		return "starts a goroutine"
	case *ast.RangeStmt:
		return rangeOrder(info, n)
	case *ast.SelectorExpr:
		if fn, ok := info.Uses[n.Sel].(*types.Func); ok && fn.Pkg() != nil && fn.Pkg().Path() == "time" &&
			fn.Signature().Recv() == nil && slices.Contains(clock, fn.Name()) {
			return "uses time." + fn.Name()
		}
	}
	return ""
}

func rangeOrder(info *types.Info, n *ast.RangeStmt) string {
	if t := info.TypeOf(n.X); t != nil {
		if _, ok := t.Underlying().(*types.Map); ok {
			return "ranges over a map"
		}
	}
	call, ok := n.X.(*ast.CallExpr)
	if !ok {
		return ""
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if fn, ok := info.Uses[sel.Sel].(*types.Func); ok && fn.Pkg() != nil && fn.Pkg().Path() == "maps" {
		return "ranges over maps." + fn.Name()
	}
	return ""
}

// typesOf type-checks the folder's own files. What can't be resolved is left
// without a type: the build says that better than this check could.
func typesOf(t *tree, p *pkg, module string) *types.Info {
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	im := &treeImporter{tree: t, module: module, done: map[string]*types.Package{}}
	im.check(p, info)
	return info
}

// standard reads the standard library's export data, which the go command
// keeps in its build cache. One for all: it remembers what it has read.
var standard = importer.ForCompiler(token.NewFileSet(), "gc", nil)

// treeImporter reads the module's own packages out of the tree. Other modules
// have no place in a pure package.
type treeImporter struct {
	tree   *tree
	module string
	done   map[string]*types.Package // nil while it is being checked
}

func (im *treeImporter) Import(path string) (*types.Package, error) {
	folder, own := strings.CutPrefix(path, im.module+"/")
	if !own && isStandard(path) {
		return standard.Import(path)
	}
	p := im.tree.packages[folder]
	if p == nil {
		return nil, fmt.Errorf("no package %s", path)
	}
	done, seen := im.done[path]
	if !seen {
		im.done[path] = nil
		done = im.check(p, nil)
		im.done[path] = done
	}
	if done == nil {
		return nil, fmt.Errorf("package %s imports itself", path)
	}
	return done, nil
}

func (im *treeImporter) check(p *pkg, info *types.Info) *types.Package {
	var files []*ast.File
	for _, f := range p.files {
		if !f.test {
			files = append(files, f.syntax)
		}
	}
	conf := types.Config{Importer: im, Error: func(error) {}, FakeImportC: true}
	checked, err := conf.Check(im.module+"/"+p.folder, im.tree.fset, files, info)
	if checked == nil { // only for files without a package clause, which don't parse
		panic(fmt.Sprintf("check types of %s: %v", p.folder, err))
	}
	return checked
}
