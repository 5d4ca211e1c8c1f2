package arch

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// check returns every breach of r in the module at root, sorted.
func check(root fs.FS, r rules) ([]string, error) {
	t, err := load(root)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, p := range t.sorted() {
		found = append(found, r.documented(t, p)...)
		for _, f := range p.files {
			for _, i := range f.imports {
				if why := r.refuse(p.folder, f.test, i.path); why != "" {
					found = append(found, fmt.Sprintf("%s: imports %s: %s", t.at(i.pos), i.path, why))
				}
			}
		}
		if slices.Contains(r.pure, p.folder) {
			found = append(found, purity(t, p, r.module)...)
		}
	}
	slices.Sort(found)
	return found, nil
}

// documented wants one doc comment a package, and a real one.
func (r rules) documented(t *tree, p *pkg) []string {
	tests := true
	for _, f := range p.files {
		if f.test {
			continue
		}
		tests = false
		if f.syntax.Doc != nil && len(strings.Fields(f.syntax.Doc.Text())) > 3 {
			return nil
		}
	}
	if tests { // nobody imports it
		return nil
	}
	return []string{fmt.Sprintf("%s: no doc comment says what the package is for", p.folder)}
}

// refuse says why folder may not import path, or nothing if it may.
func (r rules) refuse(folder string, test bool, path string) string {
	own, isOwn := strings.CutPrefix(path, r.module+"/")
	switch {
	case isOwn:
		return r.refuseOwn(folder, test, own)
	case isStandard(path):
		return ""
	default:
		return r.refuseLibrary(folder, test, path)
	}
}

// isStandard: the standard library's paths have no dot in their first element.
func isStandard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func (r rules) refuseOwn(folder string, test bool, own string) string {
	supports := underAny(folder, r.supports)
	switch {
	case under(own, folder), under(folder, own) && !strings.Contains(own, "/"):
		return "" // its own room: from the outside in and back
	case (test || supports) && (underAny(own, r.testSees) || underAny(own, r.supports)):
		return ""
	case underAny(own, r.supports) && !supports:
		return "only tests and examples may use it"
	}
	entry, ok := longest(r.sees, folder)
	if !ok {
		return "the folder isn't placed in internal/arch/rules.go"
	}
	if underAny(own, r.sees[entry]) {
		return ""
	}
	return fmt.Sprintf("%s may see %s", entry, list(r.sees[entry]))
}

func (r rules) refuseLibrary(folder string, test bool, path string) string {
	if underAny(folder, r.supports) || test && underAny(path, r.testOnly) {
		return ""
	}
	if underAny(folder, r.stdOnly) {
		return "only the standard library here"
	}
	entry, ok := longest(r.only, path)
	if !ok {
		return "no folder is named for this library in internal/arch/rules.go"
	}
	if underAny(folder, r.only[entry]) {
		return ""
	}
	return "only " + list(r.only[entry]) + " may import it"
}

// longest finds the entry of m that path lies under, the most exact one.
func longest(m map[string][]string, path string) (string, bool) {
	best, found := "", false
	for k := range m {
		if under(path, k) && (!found || len(k) > len(best)) {
			best, found = k, true
		}
	}
	return best, found
}

func list(folders []string) string {
	if len(folders) == 0 {
		return "nothing of ours"
	}
	return strings.Join(folders, ", ")
}
