package manifest

import (
	"slices"
	"strings"
	"testing"
)

// What a profile leaves out is told by name: it may run from when it was active.
func TestInactiveServices(t *testing.T) {
	const file = `
name: shop
services:
  web: {image: web}
  trace: {image: trace, profiles: [debug, dev]}
  shell: {image: shell, profiles: [debug]}
`
	for active, want := range map[string]string{"": "shell trace", "dev": "shell", "debug": "", "*": ""} {
		o := Options{Files: []string{"-"}, Stdin: strings.NewReader(file), WorkingDir: t.TempDir(), Profiles: strings.Fields(active)}
		res, err := Load(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(res.Inactive, strings.Fields(want)) {
			t.Errorf("with %q: %q, want %q", active, res.Inactive, want)
		}
	}
}
