package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each case is a real module that the real go command tests.
func TestSummary(t *testing.T) {
	cases := []struct {
		name   string
		body   string // of a _test.go file, after the imports
		strict bool
		last   string
		says   []string
	}{
		{"all pass", `func TestA(t *testing.T) {}
			func TestB(t *testing.T) { t.Run("x", func(t *testing.T) {}); t.Run("y", func(t *testing.T) {}) }`,
			false, "3 passed, 0 failed", nil},
		{"a failure, with its output", `func TestA(t *testing.T) { t.Error("the reason") }
			func TestB(t *testing.T) {}`,
			false, "1 passed, 1 failed", []string{"TestA", "the reason"}},
		{"a subtest explains its parents", `func TestA(t *testing.T) { t.Run("x", func(t *testing.T) { t.Run("y", func(t *testing.T) { t.Error("deep") }) }) }`,
			false, "0 passed, 1 failed", []string{"TestA/x/y", "deep"}},
		{"a parent that fails by itself", `func TestA(t *testing.T) { t.Run("x", func(t *testing.T) {}); t.Error("mine") }`,
			false, "1 passed, 1 failed", []string{"mine"}},
		{"doesn't build", `func TestA(t *testing.T) { undefinedName() }`,
			false, "0 passed, 1 failed", []string{"doesn't build", "undefinedName"}},
		{"panics", `func TestA(t *testing.T) {}
			func TestB(t *testing.T) { panic("oh no") }`,
			false, "1 passed, 1 failed", []string{"TestB", "oh no"}},
		{"exits", `func TestA(t *testing.T) {}
			func TestMain(m *testing.M) { m.Run(); os.Exit(3) }`,
			false, "1 passed, 1 failed", []string{"failed outside of a test"}},
		{"is killed", `func TestA(t *testing.T) { p, _ := os.FindProcess(os.Getpid()); p.Kill(); select {} }`,
			false, "0 passed, 1 failed", []string{"TestA"}},
		{"skips", `func TestA(t *testing.T) {}
			func TestB(t *testing.T) { t.Skip("not root") }`,
			false, "1 passed, 0 failed", []string{"1 skipped"}},
		{"skips when everything was asked for", `func TestA(t *testing.T) {}
			func TestB(t *testing.T) { t.Skip("not root") }`,
			true, "1 passed, 1 failed", []string{"TestB (skipped", "not root"}},
		{"no test at all", `func helper(t *testing.T) {}`,
			false, "0 passed, 1 failed", []string{"no test ran"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			out, ok := summarise(t, c.strict, c.body)
			lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
			if got := lines[len(lines)-1]; got != c.last {
				t.Errorf("last line %q, want %q\n%s", got, c.last, out)
			}
			if want := strings.HasSuffix(c.last, " 0 failed"); ok != want {
				t.Errorf("ok = %v, want %v", ok, want)
			}
			for _, s := range c.says {
				if !strings.Contains(out, s) {
					t.Errorf("output lacks %q:\n%s", s, out)
				}
			}
		})
	}
}

func summarise(t *testing.T, strict bool, body string) (string, bool) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "go.mod", "module fixture\ngo 1.26\n")
	write(t, dir, "a_test.go", "package fixture\nimport (\"os\"; \"testing\")\nvar _ = os.Exit\n"+body+"\n")
	t.Setenv("GOFLAGS", "")
	s := newSummary(strict)
	if err := runTests(s, &bytes.Buffer{}, []string{"go", "-C", dir, "test", "-json", "-vet=off", "./..."}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	ok := s.print(&out)
	return out.String(), ok
}

func TestStreamCutShort(t *testing.T) {
	s := newSummary(false)
	in := `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA"}
`
	if err := s.read(strings.NewReader(in), &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	s.finish(nil)
	var out bytes.Buffer
	if s.print(&out) {
		t.Errorf("a package without a result passed:\n%s", out.String())
	}
}

func TestCheckThatFails(t *testing.T) {
	s := newSummary(false)
	s.check("vet", runCheck("echo what is wrong; exit 1"))
	s.passed = 1
	var out bytes.Buffer
	if s.print(&out) || !strings.Contains(out.String(), "what is wrong") || !strings.HasSuffix(out.String(), "1 passed, 1 failed\n") {
		t.Errorf("got:\n%s", out.String())
	}
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
