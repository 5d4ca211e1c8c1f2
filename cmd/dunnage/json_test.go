package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

const jsonFile = "../../docs/json.md"

// jsonOutputs says what each verb prints with --json, in words of Go.
var jsonOutputs = []struct{ verbs, is string }{
	{"ps", "[]ReplicaStatus"},
	{"stats", "Stats"},
	{"deploy, scale, stop, start, restart, rollback, down", "Operation"},
	{"plan", "Preview"},
	{"history", "[]Release"},
	{"explain", "Explanation"},
	{"events", "Event"}, // one a line
	{"logs", "LogLine"}, // one a line; text is text
	{"config", "Project"},
	{"secret set, secret rollback", "[]SecretChange"},
	{"secret ls", "[]SecretStatus"},
	{"secret audit", "AuditEntry"}, // one a line
	{"image ls, image load, image pull", "[]Image"},
	{"df", "DiskReport"},
	{"gc", "Collection"},
	{"receipt", "Receipt"},
	{"receipt --all", "[]Receipt"},
	{"net ls", "[]NetworkStatus"},
	{"net rules", "RuleSet"},
	{"doctor", "[]Finding"},
}

// schema is package spec as its source has it: types, comments and values.
type schema struct {
	structs map[string]*ast.StructType
	texts   map[string]string   // doc comments of types
	values  map[string][]string // of types that are words, with their comments
}

func readSchema(t *testing.T) schema {
	t.Helper()
	s := schema{map[string]*ast.StructType{}, map[string]string{}, map[string][]string{}}
	files, err := filepath.Glob("../../spec/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources: %v", err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok {
				s.declare(g)
			}
		}
	}
	return s
}

func (s schema) declare(g *ast.GenDecl) {
	for _, one := range g.Specs {
		switch v := one.(type) {
		case *ast.TypeSpec:
			s.texts[v.Name.Name] = oneLine(g.Doc.Text())
			if st, ok := v.Type.(*ast.StructType); ok {
				s.structs[v.Name.Name] = st
			}
		case *ast.ValueSpec:
			kind, named := v.Type.(*ast.Ident)
			if !named || len(v.Values) != 1 {
				continue
			}
			word := v.Values[0].(*ast.BasicLit).Value
			s.values[kind.Name] = append(s.values[kind.Name], strings.TrimSpace("`"+word+"` "+oneLine(v.Comment.Text())))
		}
	}
}

func oneLine(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}

// property is a field as JSON has it.
type property struct {
	name     string
	is       ast.Expr
	optional bool
	text     string
}

// properties flattens embedded structs, as encoding/json does.
func (s schema) properties(name string) (out []property) {
	for _, f := range s.structs[name].Fields.List {
		if len(f.Names) == 0 {
			out = append(out, s.properties(f.Type.(*ast.Ident).Name)...)
			continue
		}
		tag := ""
		if f.Tag != nil {
			tag = reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json")
		}
		key, options, _ := strings.Cut(tag, ",")
		if key == "-" {
			continue
		}
		text := strings.TrimSpace(oneLine(f.Doc.Text()) + " " + oneLine(f.Comment.Text()))
		out = append(out, property{cmp.Or(key, f.Names[0].Name), f.Type, options != "", text})
	}
	return out
}

// words describes a type to people, and names the struct it leads to.
func (s schema) words(e ast.Expr) (text, leads string) {
	switch v := e.(type) {
	case *ast.StarExpr:
		return s.words(v.X)
	case *ast.ArrayType:
		if id, ok := v.Elt.(*ast.Ident); ok && id.Name == "byte" {
			return "base64", ""
		}
		text, leads = s.words(v.Elt)
		return "list of " + text, leads
	case *ast.MapType:
		text, leads = s.words(v.Value)
		return "object of " + text, leads
	case *ast.SelectorExpr:
		return map[string]string{"Time": "time (RFC 3339)", "Addr": "address", "AddrPort": "address:port", "Prefix": "CIDR"}[v.Sel.Name], ""
	}
	name := e.(*ast.Ident).Name
	switch {
	case s.structs[name] != nil:
		return "[" + name + "](#" + strings.ToLower(name) + ")", name
	case name == "Duration":
		return "duration (1m30s)", ""
	case name == "string", len(s.values[name]) > 0:
		return "text", ""
	case name == "bool":
		return "true or false", ""
	}
	return "number", ""
}

// render writes docs/json.md.
func (s schema) render() []byte {
	var b bytes.Buffer
	b.WriteString("# JSON\n\nGenerated from package spec: `go generate ./cmd/dunnage`. Fields are added, not renamed or removed. " +
		"Sizes are in bytes. A field marked ? is left out where it is empty.\n\n| verb with `--json` | prints |\n|---|---|\n")
	var queue []string
	for _, o := range jsonOutputs {
		name, list := strings.CutPrefix(o.is, "[]")
		text := "[" + name + "](#" + strings.ToLower(name) + ")"
		switch {
		case list:
			text = "list of " + text
		case o.verbs == "events", o.verbs == "secret audit":
			text += ", one a line"
		case o.verbs == "logs":
			text += ", one a line, whose text is text with what isn't UTF-8 replaced"
		}
		fmt.Fprintf(&b, "| %s | %s |\n", o.verbs, text)
		queue = append(queue, name)
	}
	b.WriteString("| version | client and agent, each with version, commit? and go?; agent is null where none answers |\n")
	for i := 0; i < len(queue); i++ {
		if slices.Contains(queue[:i], queue[i]) {
			continue
		}
		queue = append(queue, s.section(&b, queue[i])...)
	}
	return b.Bytes()
}

func (s schema) section(b *bytes.Buffer, name string) (leads []string) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n| field | type | |\n|---|---|---|\n", name, s.texts[name])
	for _, p := range s.properties(name) {
		text, lead := s.words(p.is)
		if lead != "" {
			leads = append(leads, lead)
		}
		mark := ""
		if p.optional {
			mark = "?"
		}
		if id, ok := p.is.(*ast.Ident); ok && len(s.values[id.Name]) > 0 {
			p.text = strings.TrimPrefix(strings.TrimSpace(p.text)+"; one of ", "; ") + strings.Join(s.values[id.Name], ", ")
		}
		fmt.Fprintf(b, "| `%s`%s | %s | %s |\n", p.name, mark, text, p.text)
	}
	return leads
}

// TestJSONDocs holds docs/json.md to package spec.
func TestJSONDocs(t *testing.T) {
	want := readSchema(t).render()
	if *update {
		if err := os.WriteFile(jsonFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(jsonFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/json.md differs from package spec (go generate ./cmd/dunnage writes it):\n%s", diff)
	}
}

// check compares a value that was printed with the type it should be.
func (s schema) check(v any, e ast.Expr, path string) (problems []string) {
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	bad := []string{fmt.Sprintf("%s: %v is no %T", path, v, e)}
	switch x := e.(type) {
	case *ast.ArrayType:
		list, ok := v.([]any)
		if _, text := v.(string); text || v == nil {
			return nil // bytes; an image's own command
		}
		if !ok {
			return bad
		}
		for i, item := range list {
			problems = append(problems, s.check(item, x.Elt, fmt.Sprintf("%s[%d]", path, i))...)
		}
		return problems
	case *ast.MapType:
		m, ok := v.(map[string]any)
		if !ok {
			return bad
		}
		for k, item := range m {
			problems = append(problems, s.check(item, x.Value, path+"."+k)...)
		}
		return problems
	case *ast.SelectorExpr:
		if _, ok := v.(string); !ok {
			return bad
		}
		return nil
	}
	name := e.(*ast.Ident).Name
	if s.structs[name] != nil {
		return s.checkObject(v, name, path)
	}
	text, _ := s.words(e)
	_, isText := v.(string)
	_, isBool := v.(bool)
	_, isNumber := v.(float64)
	if isBool != (text == "true or false") || isNumber != (text == "number") || !isText && !isBool && !isNumber {
		return []string{fmt.Sprintf("%s: %v is no %s", path, v, text)}
	}
	return nil
}

func (s schema) checkObject(v any, name, path string) (problems []string) {
	m, ok := v.(map[string]any)
	if !ok {
		return []string{fmt.Sprintf("%s: %v is no %s", path, v, name)}
	}
	known := map[string]bool{}
	for _, p := range s.properties(name) {
		known[p.name] = true
		value, there := m[p.name]
		switch {
		case there:
			problems = append(problems, s.check(value, p.is, path+"."+p.name)...)
		case !p.optional:
			problems = append(problems, path+"."+p.name+" is missing")
		}
	}
	for k := range m {
		if !known[k] {
			problems = append(problems, path+"."+k+" isn't documented")
		}
	}
	return problems
}

// checkOutput checks what a verb printed with --json, one value or one a line.
func (s schema) checkOutput(output, is string) (problems []string) {
	dec := json.NewDecoder(strings.NewReader(output))
	for values := 0; ; values++ {
		var v any
		switch err := dec.Decode(&v); {
		case errors.Is(err, io.EOF) && values > 0:
			return problems
		case err != nil:
			return []string{err.Error()}
		}
		e, err := parser.ParseExpr(is)
		if err != nil {
			return []string{err.Error()}
		}
		problems = append(problems, s.check(v, e, is)...)
	}
}

// TestCheckOutput: the check finds what it is there for.
func TestCheckOutput(t *testing.T) {
	s := readSchema(t)
	for output, want := range map[string]string{
		`{"rendered": "", "kernel": ""}`:            "",
		`{"rendered": ""}`:                          "RuleSet.kernel is missing",
		`{"rendered": "", "kernel": 1}`:             "RuleSet.kernel: 1 is no text",
		`{"rendered": "", "kernel": "", "more": 1}`: "RuleSet.more isn't documented",
		`[]`: "RuleSet: [] is no RuleSet",
		``:   "EOF",
	} {
		if got := strings.Join(s.checkOutput(output, "RuleSet"), "; "); got != want {
			t.Errorf("%s: %q, want %q", output, got, want)
		}
	}
}
