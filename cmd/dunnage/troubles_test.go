package main

import (
	"testing"

	"dunnage/spec"
)

// A change ends beside what the agent knows to be wrong with the host or with
// the project, and not with others.
func TestTroubles(t *testing.T) {
	lost := []spec.ServiceStatus{{Name: "web", Unreachable: "port 8080: no answer"}}
	st := spec.Status{Projects: []spec.ProjectStatus{{Name: "shop", Services: lost}, {Name: "other", Services: lost}}}
	for _, tc := range []struct {
		problems []string
		project  string
		want     string
	}{
		{nil, "none", ""},
		{nil, "shop", "web: port 8080: no answer"},
		{[]string{"containerd hangs; do this", "b"}, "none", "containerd hangs, and 1 other problem"},
		{[]string{"containerd hangs; do this", "b"}, "shop", "containerd hangs, and 2 other problems"},
	} {
		st.Problems = tc.problems
		if got := troubles(st, tc.project); got != tc.want {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}
