package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"dunnage/spec"
)

// TestLoad runs testdata/*.txtar. A file's comment has lines "env KEY=VALUE",
// "files a.yaml b.yaml", "dir sub", "projectdir sub", "project NAME", "profiles a b"; what it
// expects stands under errors, warnings, notes and config, which -update writes anew.
func TestLoad(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			runCase(t, path)
		})
	}
}

// golden are the parts of a case that Load makes.
var golden = []string{"errors", "warnings", "notes", "config"}

func runCase(t *testing.T, path string) {
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "proj")
	want := map[string]string{}
	var inputs []txtar.File
	for _, f := range a.Files {
		if isGolden(f.Name) {
			want[f.Name] = string(f.Data)
			continue
		}
		inputs = append(inputs, f)
		writeInput(t, filepath.Join(dir, f.Name), f.Data)
	}
	got := outcome(t, dir, string(a.Comment))
	for name, text := range got {
		if strings.Contains(text, canaryValue) {
			t.Fatalf("%s have a secret's value", name)
		}
	}
	if *update {
		a.Files = inputs
		for _, name := range golden {
			if got[name] != "" {
				a.Files = append(a.Files, txtar.File{Name: name, Data: []byte(got[name])})
			}
		}
		if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if len(want) == 0 {
		t.Error("the case expects nothing")
	}
	for _, name := range golden {
		if got[name] != want[name] {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got[name], want[name])
		}
	}
}

func isGolden(name string) bool {
	for _, g := range golden {
		if name == g {
			return true
		}
	}
	return false
}

// writeInput lets a case hold what a text file can't: \t, \r\n and a BOM are
// written as TAB, CR and BOM in angle brackets.
func writeInput(t *testing.T, path string, data []byte) {
	t.Helper()
	for mark, text := range map[string]string{"<TAB>": "\t", "<CR>": "\r", "<BOM>": "\xef\xbb\xbf", "<NUL>": "\x00", "<xFF>": "\xff"} {
		data = bytes.ReplaceAll(data, []byte(mark), []byte(text))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func caseOptions(dir, comment string) Options {
	o := Options{WorkingDir: dir, Environment: []string{"HOME=/home/somebody"}}
	for line := range strings.Lines(comment) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "env":
			o.Environment = append(o.Environment, rest)
		case "files":
			o.Files = strings.Fields(rest)
		case "envfiles":
			o.EnvFiles = strings.Fields(rest)
		case "dir":
			o.WorkingDir = filepath.Join(dir, rest)
		case "projectdir":
			o.ProjectDir = filepath.Join(dir, rest)
		case "project":
			o.ProjectName = rest
		case "profiles":
			o.Profiles = strings.Fields(rest)
		}
	}
	return o
}

// canaryValue is in each secret's value in testdata.
const canaryValue = "CANARY"

// checkSilent: a secret's value stands in nothing but Result.Secrets, and not
// even that prints it.
func checkSilent(t *testing.T, r Result) {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{string(text), fmt.Sprintf("%+v %#v", r, r)} {
		if strings.Contains(s, canaryValue) {
			t.Error("the result prints a secret's value")
		}
	}
	for name, v := range r.Secrets {
		if d, ok := r.Project.Secret(name); !ok || d.Origin != spec.OriginManifest || !strings.Contains(string(v.Reveal()), canaryValue) {
			t.Errorf("the secret %s has a value, though none that the case gives it", name)
		}
	}
	for _, d := range r.Project.Secrets {
		if _, ok := r.Secrets[d.Name]; ok != (d.Origin == spec.OriginManifest) {
			t.Errorf("the secret %s of origin %q: has a value: %v", d.Name, d.Origin, ok)
		}
	}
	if err := r.Project.Validate(); err != nil {
		t.Errorf("what loads, an agent refuses: %v", err)
	}
}

// outcome is what Load says, with the directory of the test taken out.
func outcome(t *testing.T, dir, comment string) map[string]string {
	t.Helper()
	res, err := Load(t.Context(), caseOptions(dir, comment))
	clean := func(s string) string { return strings.ReplaceAll(s, dir, "/proj") }
	if err != nil {
		var list Errors
		if errors.As(err, &list) && !errors.Is(err, spec.ErrRefused) {
			t.Errorf("doesn't wrap ErrRefused: %v", err)
		}
		return map[string]string{"errors": clean(err.Error()) + "\n"}
	}
	checkRoundTrip(t, res)
	checkSilent(t, res)
	text, err := Encode(res.Project)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{"config": clean(string(text))}
	if len(res.Notes) > 0 {
		out["notes"] = clean(strings.Join(res.Notes, "\n")) + "\n"
	}
	if len(res.Warnings) > 0 {
		out["warnings"] = clean(strings.Join(res.Warnings, "\n")) + "\n"
	}
	return out
}
