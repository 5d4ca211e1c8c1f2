package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// neverMet are fault points that no scenario of the driver comes to, and why.
var neverMet = map[string]string{
	"containerd choice rename": "only --containerd auto chooses, and the driver's agent has its own",
	"host address delete":      "only agent --uninstall, which can be run again",
	"host file grow":           "only where a running replica gets a neighbour with a longer name; between two writes of the same file",
	"host loopback up":         "a lab's loopback is up, as every machine's",
	"inside address delete":    "only where somebody has set another address; TestDrift does",
	"link address":             "only where somebody has changed the hardware address of a link; TestDrift does",
	"link arp":                 "only where somebody has set ARP of a link off; TestDrift does",
	"link delete":              "only of a link that a crash left half made, so by who is killed in 'link add'",
	"link mtu":                 "only where somebody has made a replica's link too small, or its ends unequal; TestDrift does",
	"recent images move aside": "only where somebody has put a directory in the place of the notes; the engine's tests do",
	"secret file remove":       "only where a running replica loses a secret, which replaces it",
	"settings file remove":     "only agent --uninstall, which can be run again",
	"table wake":               "only where somebody has switched a table of nf_tables off; TestDrift does",
	"user chain delete":        "only agent --uninstall, which can be run again",
}

// takesName are functions that pass a point which their first argument names,
// and files in which names are made up.
var (
	takesName   = []string{"fault.Do", "fault.Point", "replaceDurably"}
	makesUpName = []string{
		"engine/choice.go", // replaceDurably hands its name on
		"engine/points.go", // containerd's calls have the names of their methods
	}
)

// namedPoints are the fault points that the sources name.
func namedPoints(t *testing.T) []string {
	t.Helper()
	const root = "../.."
	names := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "bin", "build", "test", "internal/fault"}, rel):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 || !slices.Contains(takesName, called(call)) {
				return true
			}
			text, ok := call.Args[0].(*ast.BasicLit)
			switch {
			case ok:
				name, err := strconv.Unquote(text.Value)
				if err != nil {
					t.Fatal(err)
				}
				names[name] = true
			case !slices.Contains(makesUpName, rel):
				t.Errorf("%s makes a fault point's name up: write it out, so that it can be looked for", rel)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(names))
}

// called is what a call calls, "name" or "package.name".
func called(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			return x.Name + "." + f.Sel.Name
		}
	}
	return ""
}

// unmet compares the points that the sources name with those that scenarios
// passed.
func unmet(named, passed []string, excused map[string]string) (missed, outdated []string) {
	met := map[string]bool{}
	for _, p := range passed {
		met[strings.TrimSuffix(strings.TrimSuffix(p, " before"), " after")] = true
	}
	for _, name := range named {
		if _, ok := excused[name]; !ok && !met[name] {
			missed = append(missed, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(excused)) {
		if met[name] || !slices.Contains(named, name) {
			outdated = append(outdated, name)
		}
	}
	return missed, outdated
}

// allMet fails the test for a fault point that nobody is killed at.
func allMet(t *testing.T, passed []string) {
	t.Helper()
	missed, outdated := unmet(namedPoints(t), passed, neverMet)
	for _, name := range missed {
		t.Errorf("no scenario comes to the fault point %q: give the driver one that does, or say in neverMet why there is none", name)
	}
	for _, name := range outdated {
		t.Errorf("neverMet names %q, which is met or isn't there any more", name)
	}
}

// A point that is added without a scenario is noticed, and so is one that is
// excused for nothing.
func TestUnmetFaultPoints(t *testing.T) {
	named := namedPoints(t)
	if len(named) < 50 || !slices.Contains(named, "store commit") || !slices.Contains(named, "recent images rename") {
		t.Fatalf("found only %q", named)
	}
	passed := []string{"a before", "a after", "containerd.Call before", "b before"}
	missed, outdated := unmet([]string{"a", "b", "c", "d"}, passed, map[string]string{"b": "", "d": "", "gone": ""})
	if !slices.Equal(missed, []string{"c"}) || !slices.Equal(outdated, []string{"b", "gone"}) {
		t.Errorf("missed %q, outdated %q", missed, outdated)
	}
}
