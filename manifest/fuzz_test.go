package manifest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// FuzzLoad: whatever the bytes, Load ends, and either gives a project that
// `dunnage config` can print and Load reads back the same, or problems with
// places.
func FuzzLoad(f *testing.F) {
	cases, _ := filepath.Glob("testdata/*.txtar")
	for _, path := range cases {
		a, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range a.Files {
			if filepath.Ext(file.Name) == ".yaml" || file.Name == "config" {
				f.Add(file.Data)
			}
		}
	}
	corpus, _ := filepath.Glob("../../shared/corpus/compose/*/*")
	for _, path := range corpus {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		res, err := Load(t.Context(), Options{
			Files: []string{"-"}, Stdin: bytes.NewReader(data), WorkingDir: "/nowhere/project",
			Environment: []string{"HOME=/home/somebody", "TAG=1", "EMPTY="},
		})
		if err == nil {
			checkRoundTrip(t, res)
			return
		}
		var list Errors
		if !errors.As(err, &list) || len(list) == 0 {
			t.Fatalf("no places: %v", err)
		}
		for _, e := range list {
			if e.Line < 1 || e.Column < 1 || e.Reason == "" || e.Error() == "" {
				t.Fatalf("no place or no reason: %+v", e)
			}
		}
	})
}
