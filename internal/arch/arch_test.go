package arch

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

func TestProject(t *testing.T) {
	found, err := check(os.DirFS("../.."), project)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
}

// Every folder that the rules name must exist or be one that later parts will
// bring: a rule about a misspelt folder holds nothing.
func TestRulesNameRealFolders(t *testing.T) {
	later := []string{"cmd/dunnage-init", "internal/build"}
	var named []string
	for k, v := range project.sees {
		named = append(append(named, k), v...)
	}
	for _, v := range project.only {
		named = append(named, v...)
	}
	named = append(append(append(named, project.pure...), project.supports...), project.stdOnly...)
	for _, folder := range named {
		if folder == everything || underAny(folder, later) {
			continue
		}
		if fi, err := os.Stat("../../" + folder); err != nil || !fi.IsDir() {
			t.Errorf("the rules name %s, which isn't there", folder)
		}
	}
}

// Each saboteur is a file that breaks one rule; the checker must say so, and
// must be silent about the good tree that it is put into.
func TestSaboteurs(t *testing.T) {
	const doc = "// Package p is there for the test.\n"
	good := fstest.MapFS{
		"spec/a.go":              {Data: []byte(doc + "package spec\nimport \"time\"\ntype D = time.Duration\ntype M map[string]int\n")},
		"orchestrator/a.go":      {Data: []byte(doc + "package orchestrator\nimport (\"os\"; \"dunnage/orchestrator/plan\"; \"dunnage/spec\")\nvar _, _, _ = os.Args, plan.X, spec.D(0)\n")},
		"orchestrator/plan/a.go": {Data: []byte(doc + "package plan\nvar X int\n")},
		"engine/a.go":            {Data: []byte(doc + "package engine\nimport (\"dunnage/spec\"; \"github.com/containerd/containerd/v2/client\"; \"golang.org/x/sys/unix\")\nvar _, _, _ = spec.D(0), client.X, unix.X\n")},
		"engine/a_test.go":       {Data: []byte("package engine\nimport (\"dunnage/internal/testenv\"; \"go.uber.org/goleak\")\nvar _, _ = testenv.X, goleak.X\n")},
		"internal/testenv/a.go":  {Data: []byte(doc + "package testenv\nimport \"dunnage/engine\"\nvar X = engine.X\n")},
		"cmd/dunnage/a.go":       {Data: []byte(doc + "package main\nimport (\"dunnage/engine\"; \"dunnage/orchestrator\"; \"github.com/urfave/cli/v2\")\nvar _, _, _ = engine.X, orchestrator.X, cli.X\n")},
		"build/x/a.go":           {Data: []byte("package nobody\nimport \"example.org/whatever\"\n")},
		"other/go.mod":           {Data: []byte("module other\n")},
		"other/a.go":             {Data: []byte("package other\nimport \"k8s.io/whatever\"\n")},
	}
	if found, err := check(good, project); err != nil || len(found) > 0 {
		t.Fatalf("the good tree: %v, %v", found, err)
	}
	cases := []struct{ name, file, body, want string }{
		{"spec imports ours", "spec/b.go", "package spec\nimport _ \"dunnage/engine\"\n", "spec may see nothing of ours"},
		{"adapter imports adapter", "engine/b.go", "package engine\nimport _ \"dunnage/netns\"\n", "engine may see engine/logwriter, internal/fault, internal/keyed, internal/regular, internal/reread, spec"},
		{"adapter imports orchestrator", "store/b.go", doc + "package store\nimport _ \"dunnage/orchestrator\"\n", "store may see internal/fault, internal/regular, spec"},
		{"orchestrator imports an adapter", "orchestrator/b.go", "package orchestrator\nimport _ \"dunnage/engine\"\n", "orchestrator may see internal/fault, internal/keyed, spec"},
		{"orchestrator's part imports an adapter", "orchestrator/health/b.go", doc + "package health\nimport _ \"dunnage/netns\"\n", "orchestrator may see internal/fault, internal/keyed, spec"},
		{"api imports the orchestrator", "api/b.go", doc + "package api\nimport _ \"dunnage/orchestrator\"\n", "api may see internal/fault, spec"},
		{"manifest imports the planner", "manifest/b.go", doc + "package manifest\nimport _ \"dunnage/orchestrator/plan\"\n", "manifest may see spec"},
		{"the planner imports fault points", "orchestrator/plan/b.go", "package plan\nimport _ \"dunnage/internal/fault\"\n", "orchestrator/plan may see spec"},
		{"the planner imports the loop", "orchestrator/plan/b.go", "package plan\nimport _ \"dunnage/orchestrator/ipam\"\n", "orchestrator/plan may see spec"},
		{"a folder that nobody placed", "misc/b.go", doc + "package misc\nimport _ \"dunnage/spec\"\n", "isn't placed"},
		{"product imports test code", "engine/b.go", "package engine\nimport _ \"dunnage/internal/testenv\"\n", "only tests"},
		{"product imports the fake world", "cmd/dunnage/b.go", "package main\nimport _ \"dunnage/orchestrator/world\"\n", "only tests"},
		{"second importer of bbolt", "engine/b.go", "package engine\nimport _ \"go.etcd.io/bbolt\"\n", "only store may import it"},
		{"second importer of containerd", "cmd/dunnage/b.go", "package main\nimport _ \"github.com/containerd/errdefs\"\n", "only engine may import it"},
		{"second importer of netlink", "engine/b.go", "package engine\nimport _ \"github.com/vishvananda/netlink\"\n", "only netns may import it"},
		{"second importer of the command line", "api/b.go", doc + "package api\nimport _ \"github.com/urfave/cli/v2\"\n", "only cmd/dunnage may import it"},
		{"a test isn't free of it", "manifest/b_test.go", "package manifest\nimport _ \"github.com/containerd/errdefs\"\n", "only engine may import it"},
		{"unknown library", "engine/b.go", "package engine\nimport _ \"example.org/leftpad\"\n", "no folder is named"},
		{"library in the orchestrator", "orchestrator/b.go", "package orchestrator\nimport _ \"golang.org/x/sys/unix\"\n", "only the standard library"},
		{"no doc comment", "store/b.go", "package store\n", "no doc comment"},
		{"empty doc comment", "store/b.go", "// Package store.\npackage store\n", "no doc comment"},
		{"pure package imports os", "orchestrator/plan/b.go", "package plan\nimport _ \"os\"\n", "imports os: the package is pure"},
		{"pure package imports randomness", "netns/rules/b.go", doc + "package rules\nimport _ \"math/rand/v2\"\n", "the package is pure"},
		{"pure package dials", "spec/b.go", "package spec\nimport _ \"net\"\n", "imports net: the package is pure"},
		{"pure package reads the clock", "orchestrator/plan/b.go", "package plan\nimport clock \"time\"\nvar T = clock.Now()\n", "uses time.Now"},
		{"pure package starts a goroutine", "orchestrator/plan/b.go", "package plan\nfunc f() { go f() }\n", "starts a goroutine"},
		{"pure package ranges over a map", "orchestrator/plan/b.go", "package plan\nfunc f(m map[string]int) { for range m {} }\n", "ranges over a map"},
		{"over a named map type of another package", "orchestrator/plan/b.go", "package plan\nimport \"dunnage/spec\"\nfunc f(m spec.M) { for range m {} }\n", "ranges over a map"},
		{"over maps.Keys", "orchestrator/plan/b.go", "package plan\nimport \"maps\"\nfunc f(m map[string]int) { for range maps.Keys(m) {} }\n", "ranges over maps.Keys"},
		{"gathered and never sorted", "orchestrator/plan/b.go", "package plan\nfunc f(m map[string]int) (k []string) { for x := range m { k = append(k, x) }; return k }\n", "ranges over a map"},
		{"gathered, and something else sorted", "orchestrator/plan/b.go", "package plan\nimport \"slices\"\nfunc f(m map[string]int, o []string) (k []string) { for x := range m { k = append(k, x) }; slices.Sort(o); return k }\n", "ranges over a map"},
		{"marked without a reason", "orchestrator/plan/b.go", "package plan\nfunc f(m map[string]int) {\n//arch:unordered\nfor range m {} }\n", "ranges over a map"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bad := fstest.MapFS{c.file: {Data: []byte(c.body)}}
			for name, f := range good {
				bad[name] = f
			}
			found, err := check(bad, project)
			if err != nil {
				t.Fatal(err)
			}
			if all := strings.Join(found, "\n"); !strings.Contains(all, c.want) {
				t.Errorf("found %q, want %q in it", all, c.want)
			}
		})
	}
}

func TestPureCodeMay(t *testing.T) {
	tree := fstest.MapFS{"orchestrator/plan/a.go": {Data: []byte(`// Package plan is there for the test.
package plan

import ("maps"; "slices"; "time"; "net/netip")

func f(m map[string]int, at time.Time, a netip.Addr) (n int) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		n += m[k]
	}
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	//arch:unordered a sum is the same in any order
	for _, v := range m {
		n += v
	}
	if at.After(time.Unix(0, 0).Add(time.Second)) {
		return n
	}
	return 0
}
`)}}
	if found, err := check(tree, project); err != nil || len(found) > 0 {
		t.Errorf("%v, %v", found, err)
	}
}
