package inside

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWithVariables(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	for _, c := range []struct {
		name, content string
		want          []string // nil = refused
	}{
		{"none", "", []string{"A=1", "B=2", "A=3"}},
		{"new ones", "C=x\x00D=\x00", []string{"A=1", "B=2", "A=3", "C=x", "D="}},
		{"of the same name", "A=new\x00", []string{"B=2", "A=new"}},
		{"a value with what could be taken for a border", "C=a=b\nD=c\n\x00", []string{"A=1", "B=2", "A=3", "C=a=b\nD=c\n"}},
		{"cut off", "C=x\x00D=canary", nil},
		{"no name", "=canary\x00", nil},
		{"no value", "canary\x00", nil},
		{"an empty entry", "\x00", nil},
	} {
		if err := os.WriteFile(file, []byte(c.content), 0o400); err != nil {
			t.Fatal(err)
		}
		got, err := withVariables([]string{"A=1", "B=2", "A=3"}, file)
		if (err == nil) != (c.want != nil) || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: the error tells: %v", c.name, err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := withVariables(nil, file); !os.IsNotExist(err) {
		t.Errorf("no file: %v", err)
	}
}
