package spec

import "testing"

func TestNearest(t *testing.T) {
	known := []string{"shop", "web", "database"}
	for name, want := range map[string]string{
		"web": "web", "sho": "shop", "shpo": "shop", "databse": "database", "wbe": "web", "x": "", "": "", "websites": "",
	} {
		if got := Nearest(name, known); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
